#include "tests/support/fake_io.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "helios/base/assert.h"

namespace helios {

namespace {

std::string address_key(const sockaddr* address, socklen_t size) {
  if (address->sa_family == AF_INET) {
    sockaddr_in inet{};
    ASSERT(size >= sizeof(inet));
    std::memcpy(&inet, address, sizeof(inet));
    return "4:" + std::to_string(inet.sin_addr.s_addr) + ":" + std::to_string(inet.sin_port);
  }
  return std::string(reinterpret_cast<const char*>(address), size);
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

std::string loopback_key(uint16_t port) {
  const sockaddr_in address = loopback(port);
  return address_key(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

size_t index_of(BufferGroup group) {
  return static_cast<size_t>(group);
}

size_t size_of(std::span<const iovec> parts) {
  size_t size = 0;
  for (const iovec& part : parts) size += part.iov_len;
  return size;
}

}  // namespace

uint64_t SimRandom::next() noexcept {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// ---------------------------------------------------------------- SimNetwork: scripted peers

bool SimNetwork::is_open(int fd) const noexcept {
  const int index = fd - FakeIo::first_fd;
  return index >= 0 && static_cast<size_t>(index) < sockets_.size() &&
         sockets_[static_cast<size_t>(index)].is_open;
}

SimNetwork::Socket& SimNetwork::at(int fd) {
  ASSERT(is_open(fd));  // Used after close, or never opened.
  return sockets_[static_cast<size_t>(fd - FakeIo::first_fd)];
}

const SimNetwork::Socket& SimNetwork::at(int fd) const {
  return const_cast<SimNetwork*>(this)->at(fd);
}

// The lowest free number, as the kernel does: a descriptor used after close soon meets another
// socket.
int SimNetwork::make_fd(int family) {
  size_t index = 0;
  while (index < sockets_.size() && sockets_[index].is_open) ++index;
  if (index == sockets_.size()) sockets_.emplace_back();
  sockets_[index].is_open = true;
  sockets_[index].family = family;
  ++open_count_;
  return FakeIo::first_fd + static_cast<int>(index);
}

int SimNetwork::listen(const sockaddr* address, socklen_t size) {
  int fd = make_fd(address->sa_family);
  at(fd).listening = true;
  at(fd).address = address_key(address, size);
  return fd;
}

int SimNetwork::listen_tcp(uint16_t port) {
  sockaddr_in address = loopback(port);
  return listen(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

int SimNetwork::connect(const sockaddr* address, socklen_t size) {
  int fd = make_fd(address->sa_family);
  int error = connect_to(fd, address_key(address, size));
  if (error == 0) return fd;
  forget(fd);
  return -error;
}

int SimNetwork::connect_tcp(uint16_t port) {
  sockaddr_in address = loopback(port);
  return connect(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

int SimNetwork::connect_to(int fd, const std::string& address) {
  std::vector<int> listeners;
  for (size_t i = 0; i < sockets_.size(); ++i)
    if (sockets_[i].listening && sockets_[i].address == address)
      listeners.push_back(FakeIo::first_fd + static_cast<int>(i));
  if (listeners.empty()) return ECONNREFUSED;
  int listener = listeners[random_.below(listeners.size())];
  int other = make_fd(at(fd).family);
  at(fd).peer = other;
  at(fd).connected = true;
  at(fd).address = address;
  at(other).peer = fd;
  at(other).connected = true;
  at(listener).accept_queue.push_back(other);
  return 0;
}

int SimNetwork::accept(int listen_fd) {
  Socket& listener = at(listen_fd);
  ASSERT(listener.listening);
  if (listener.accept_queue.empty()) return -EAGAIN;
  int fd = listener.accept_queue.front();
  listener.accept_queue.erase(listener.accept_queue.begin());
  return fd;
}

std::pair<int, int> SimNetwork::make_pair(int family) {
  int first = make_fd(family);
  int second = make_fd(family);
  at(first).peer = second;
  at(second).peer = first;
  at(first).connected = at(second).connected = true;
  return {first, second};
}

int SimNetwork::write(int fd, std::string_view bytes) {
  Socket& socket = at(fd);
  if (socket.error != 0) return -socket.error;
  if (socket.shut_write || socket.peer < 0) return -EPIPE;
  Socket& peer = at(socket.peer);
  peer.inbox.append(bytes);
  return static_cast<int>(bytes.size());
}

std::string SimNetwork::read(int fd) {
  std::string bytes;
  bytes.swap(at(fd).inbox);
  return bytes;
}

bool SimNetwork::is_at_end(int fd) const {
  const Socket& socket = at(fd);
  return socket.inbox.empty() && (socket.inbox_ended || socket.error != 0);
}

void SimNetwork::end_inbox_of(int fd) {
  if (is_open(fd)) at(fd).inbox_ended = true;
}

void SimNetwork::shutdown_write(int fd) {
  Socket& socket = at(fd);
  socket.shut_write = true;
  end_inbox_of(socket.peer);
}

void SimNetwork::close(int fd) {
  Socket& socket = at(fd);
  for (FakeIo* core : cores_)
    for (const FakeIo::Op& op : core->ops_) ASSERT(op.fd != fd);  // Closed with an op in flight.
  release(fd);
  const std::vector<int> queue = socket.accept_queue;
  for (int waiting : queue) {  // Connections that nobody accepted are reset.
    reset(waiting);
    close(waiting);
  }
  // A close with unread bytes resets the connection.
  if (socket.peer >= 0 && !socket.inbox.empty()) at(socket.peer).error = ECONNRESET;
  if (socket.peer >= 0) {
    end_inbox_of(socket.peer);
    at(socket.peer).peer = -1;
  }
  forget(fd);
}

void SimNetwork::forget(int fd) {
  at(fd) = Socket();
  --open_count_;
}

void SimNetwork::release(int fd) {
  Socket& socket = at(fd);
  if (!std::exchange(socket.is_held_back, false) || socket.peer < 0) return;
  const Socket& peer = at(socket.peer);
  if (!peer.inbox.empty() || peer.inbox_ended || peer.error != 0) ++effects_.delayed_receives;
}

void SimNetwork::reset(int fd) {
  Socket& socket = at(fd);
  socket.error = ECONNRESET;
  socket.was_reset = true;
  if (socket.peer < 0) return;
  at(socket.peer).error = ECONNRESET;
  at(socket.peer).was_reset = true;
}

void SimNetwork::set_answering(uint16_t port, bool is_answering) {
  const std::string key = loopback_key(port);
  const auto found = std::find(silent_addresses_.begin(), silent_addresses_.end(), key);
  if (found != silent_addresses_.end()) silent_addresses_.erase(found);
  if (is_answering) return;
  silent_addresses_.push_back(key);
  for (FakeIo* core : cores_)
    for (FakeIo::Op& op : core->ops_)
      if (op.kind == OpKind::connect && op.address == key) op.met_silence = true;
}

void SimNetwork::lose_connects(uint16_t port) {
  const std::string key = loopback_key(port);
  for (FakeIo* core : cores_)
    for (FakeIo::Op& op : core->ops_)
      if (op.kind == OpKind::connect && op.address == key) op.is_lost = true;
}

bool SimNetwork::is_silent(const std::string& address) const {
  return std::find(silent_addresses_.begin(), silent_addresses_.end(), address) !=
         silent_addresses_.end();
}

// ---------------------------------------------------------------- SimNetwork: steps

FakeIo* SimNetwork::step() {
  size_t total = 0;
  for (FakeIo* core : cores_) total += core->ops_.size();
  if (total == 0) return nullptr;
  size_t start = random_.below(total);
  for (size_t i = 0; i < total; ++i) {
    size_t index = (start + i) % total;
    FakeIo* io = nullptr;
    for (FakeIo* core : cores_) {
      io = core;
      if (index < core->ops_.size()) break;
      index -= core->ops_.size();
    }
    if (try_op(*io, index)) return io;
  }
  return nullptr;
}

bool SimNetwork::step(FakeIo& io) {
  const size_t count = io.ops_.size();
  if (count == 0) return false;
  const size_t start = random_.below(count);
  for (size_t i = 0; i < count; ++i)
    if (try_op(io, (start + i) % count)) return true;
  return false;
}

bool SimNetwork::is_ready(const FakeIo& io) const {
  for (size_t i = 0; i < io.ops_.size(); ++i)
    if (can_op(io, i)) return true;
  return false;
}

// What try_op would say, less the faults that it may cause.
bool SimNetwork::can_op(const FakeIo& io, size_t op_index) const {
  const FakeIo::Op& op = io.ops_[op_index];
  if (op.cancelling) return true;
  if (op.ended_size > 0) return false;
  const Socket& socket = at(op.fd);
  switch (op.kind) {
    case OpKind::accept:
      return !socket.accept_queue.empty();
    case OpKind::recv:
      if (is_delayed(socket)) return false;
      if (socket.inbox.empty()) return socket.error != 0 || socket.inbox_ended;
      // A starved receive wakes the core, and it gets to know which sends have ended.
      return io.has_free_buffer(op.group) || io.has_untold_sends();
    case OpKind::send:
      return socket.error != 0 || socket.shut_write || socket.peer < 0 ||
             at(socket.peer).inbox.size() < options_.socket_buffer_size;
    case OpKind::connect:
      return !op.is_lost && !is_silent(op.address);
    case OpKind::poll:
      if (!op.is_hangup_poll) return socket.poll_ready;
      return (socket.inbox_ended || socket.error != 0) && !is_delayed(socket);
    case OpKind::none:
      break;
  }
  UNREACHABLE("an op without a kind");
}

// Delivers an event of this op if one can happen now.
bool SimNetwork::try_op(FakeIo& io, size_t op_index) {
  const FakeIo::Op op = io.ops_[op_index];
  if (op.ended_size > 0) {
    if (op.cancelling) io.tell_ended_sends();
    return op.cancelling;
  }
  Socket& socket = at(op.fd);
  if (op.cancelling && random_.percent(50)) {
    end_cancelled(io, op_index);
    return true;
  }
  bool done = false;
  switch (op.kind) {
    case OpKind::accept:
      done = try_accept(io, op_index, socket);
      break;
    case OpKind::recv:
      done = try_recv(io, op_index, socket);
      break;
    case OpKind::send:
      done = try_send(io, op_index, socket);
      break;
    case OpKind::connect:
      done = try_connect(io, op_index);
      break;
    case OpKind::poll:
      done = try_poll(io, op_index, socket);
      break;
    case OpKind::none:
      UNREACHABLE("an op without a kind");
  }
  if (done || !op.cancelling) return done;
  end_cancelled(io, op_index);
  return true;
}

void SimNetwork::end_cancelled(FakeIo& io, size_t op_index) {
  const FakeIo::Op& op = io.ops_[op_index];
  if (op.kind == OpKind::connect && (op.is_lost || is_silent(op.address))) ++effects_.lost_connects;
  io.deliver(op_index, -ECANCELED, More::no);
}

void SimNetwork::end_reset(FakeIo& io, size_t op_index, const Socket& socket) {
  ++(socket.address.empty() ? effects_.accepted_resets : effects_.connected_resets);
  io.deliver(op_index, -socket.error, More::no);
}

bool SimNetwork::try_interrupt(FakeIo& io, size_t op_index) {
  if (options_.interrupt_per_mille == 0 || random_.below(1000) >= options_.interrupt_per_mille)
    return false;
  ++effects_.interrupts;
  io.deliver(op_index, -EINTR, More::no);
  return true;
}

More SimNetwork::random_more() {
  if (!random_.percent(options_.multishot_end_percent)) return More::yes;
  ++effects_.ended_multishots;
  return More::no;
}

bool SimNetwork::try_connect(FakeIo& io, size_t op_index) {
  const FakeIo::Op& op = io.ops_[op_index];
  if (op.is_lost || is_silent(op.address)) return false;
  const bool is_refused = random_.percent(options_.connect_refused_percent);
  const int error = is_refused ? ECONNREFUSED : connect_to(op.fd, op.address);
  effects_.refused_connects += error == ECONNREFUSED ? 1 : 0;
  effects_.late_connects += op.met_silence ? 1 : 0;
  io.deliver(op_index, -error, More::no);
  return true;
}

bool SimNetwork::try_accept(FakeIo& io, size_t op_index, Socket& socket) {
  if (socket.accept_queue.empty()) return false;
  int fd = socket.accept_queue.front();
  socket.accept_queue.erase(socket.accept_queue.begin());
  io.deliver(op_index, fd, random_more());
  return true;
}

bool SimNetwork::try_recv(FakeIo& io, size_t op_index, Socket& socket) {
  if (is_delayed(socket)) return false;
  if (options_.reset_per_mille != 0 && socket.connected &&
      random_.below(1000) < options_.reset_per_mille)
    reset(io.ops_[op_index].fd);
  if (socket.inbox.empty()) {
    if (socket.error != 0) {
      end_reset(io, op_index, socket);
    } else if (socket.inbox_ended) {
      io.deliver(op_index, 0, More::no);
    } else {
      return false;
    }
    return true;
  }
  FakeIo::Op& op = io.ops_[op_index];
  if (!io.can_receive(op)) {
    if (op.starved_at != 0) return false;
    op.starved_at = ++io.starved_count_;
    ++effects_.starved_receives;
    return false;
  }
  if (try_interrupt(io, op_index)) return true;
  const size_t size_max = std::min<size_t>(socket.inbox.size(), FakeIo::buffer_size);
  size_t size = size_max;
  if (random_.percent(options_.short_recv_percent)) size = 1 + random_.below(size);
  effects_.short_receives += size < size_max ? 1 : 0;
  std::string bytes = socket.inbox.substr(0, size);
  socket.inbox.erase(0, size);
  io.deliver_bytes(op_index, bytes, random_more());
  return true;
}

bool SimNetwork::try_poll(FakeIo& io, size_t op_index, Socket& socket) {
  if (io.ops_[op_index].is_hangup_poll) {
    if ((!socket.inbox_ended && socket.error == 0) || is_delayed(socket)) return false;
    io.deliver(op_index, socket.error != 0 ? POLLRDHUP | POLLHUP | POLLERR : POLLRDHUP, More::no);
    return true;
  }
  if (!std::exchange(socket.poll_ready, false)) return false;
  io.deliver(op_index, POLLIN, random_more());
  return true;
}

bool SimNetwork::try_send(FakeIo& io, size_t op_index, Socket& socket) {
  if (options_.reset_per_mille != 0 && random_.below(1000) < options_.reset_per_mille)
    reset(io.ops_[op_index].fd);
  if (socket.error != 0) {
    end_reset(io, op_index, socket);
    return true;
  }
  if (socket.shut_write || socket.peer < 0) {
    io.deliver(op_index, -EPIPE, More::no);
    return true;
  }
  Socket& peer = at(socket.peer);
  if (peer.inbox.size() >= options_.socket_buffer_size) {
    effects_.blocked_sends += std::exchange(io.ops_[op_index].is_blocked, true) ? 0 : 1;
    return false;
  }
  if (try_interrupt(io, op_index)) return true;
  const size_t room = options_.socket_buffer_size - peer.inbox.size();
  const size_t offered = size_of(io.ops_[op_index].parts);
  size_t size = std::min(offered, room);
  if (random_.percent(options_.short_send_percent)) size = 1 + random_.below(size);
  effects_.short_sends += size < offered ? 1 : 0;
  std::string bytes = FakeIo::take_parts(io.ops_[op_index], size);
  peer.inbox.append(bytes);
  const FakeIo::Op& op = io.ops_[op_index];
  if (op.notice == SendNotice::lazy && size == size_of(op.parts)) {
    io.end_untold(op_index, size);
  } else {
    io.deliver(op_index, static_cast<int>(size), More::no);
  }
  return true;
}

// ---------------------------------------------------------------- FakeIo: the Io interface

FakeIo::FakeIo(uint32_t buffers_count, SimNetwork* network)
    : own_network_(network == nullptr ? std::make_unique<SimNetwork>() : nullptr),
      network_(network == nullptr ? *own_network_ : *network),
      buffers_count_(buffers_count) {
  for (auto& group : buffers_) {
    group.resize(buffers_count);
    for (Buffer& buffer : group) buffer.bytes.assign(buffer_size, 0xdb);
  }
  network_.cores_.push_back(this);
}

FakeIo::~FakeIo() {
  ASSERT(targets_count_ == 0);
  ASSERT(ops_.empty());
  for (uint32_t lent : lent_) ASSERT(lent == 0);
  auto& cores = network_.cores_;
  cores.erase(std::find(cores.begin(), cores.end(), this));
}

TargetId FakeIo::attach(IoTarget* target) noexcept {
  ASSERT(target != nullptr);
  ++targets_count_;
  for (uint32_t i = 0; i < targets_.size(); ++i) {
    if (targets_[i].target != nullptr) continue;
    targets_[i].target = target;
    return {i, targets_[i].generation};
  }
  targets_.push_back({target, 1});
  return {static_cast<uint32_t>(targets_.size() - 1), 1};
}

bool FakeIo::is_attached(TargetId id) const {
  return id.index < targets_.size() && targets_[id.index].target != nullptr &&
         targets_[id.index].generation == id.generation;
}

void FakeIo::detach(TargetId id) noexcept {
  ASSERT(is_attached(id));
  for (const Op& op : ops_) ASSERT(!(op.target == id));  // Detached with an op in flight.
  targets_[id.index].target = nullptr;
  ++targets_[id.index].generation;
  --targets_count_;
}

FakeIo::Op& FakeIo::add_op(TargetId id, OpKind kind, int fd) {
  ASSERT(is_attached(id));
  ASSERT(network_.is_open(fd));
  ASSERT(find_op(id, kind) == none);    // At most one op of a kind in flight per target.
  for (FakeIo* core : network_.cores_)  // Nor per descriptor, whatever the core.
    ASSERT(core->find_by_fd(fd, kind) == none);
  Op& op = ops_.emplace_back();
  op.target = id;
  op.kind = kind;
  op.fd = fd;
  return op;
}

void FakeIo::start_accept(TargetId id, int fd) noexcept {
  static_cast<void>(add_op(id, OpKind::accept, fd));
}

void FakeIo::start_recv(TargetId id, int fd, BufferGroup group, bool expect_idle) noexcept {
  Op& op = add_op(id, OpKind::recv, fd);
  op.group = group;
  op.expect_idle = expect_idle;
  ++recv_starts_count_;
}

void FakeIo::start_send(TargetId id, int fd, std::span<const iovec> parts,
                        SendNotice notice) noexcept {
  last_notice_ = notice;
  ASSERT(!parts.empty());
  ASSERT(parts.size() <= send_parts_max);
  for (const iovec& part : parts) ASSERT(part.iov_len > 0);
  Op& op = add_op(id, OpKind::send, fd);
  op.parts.assign(parts.begin(), parts.end());
  op.notice = notice;
}

void FakeIo::start_connect(TargetId id, int fd, const sockaddr* address, socklen_t size) noexcept {
  Op& op = add_op(id, OpKind::connect, fd);
  ASSERT(network_.at(fd).family == address->sa_family);
  op.address = address_key(address, size);
  op.met_silence = network_.is_silent(op.address);
}

void FakeIo::start_poll(TargetId id, int fd) noexcept {
  static_cast<void>(add_op(id, OpKind::poll, fd));
}

void FakeIo::start_hangup_poll(TargetId id, int fd) noexcept {
  add_op(id, OpKind::poll, fd).is_hangup_poll = true;
}

void FakeIo::start_cancel(TargetId id, OpKind kind) noexcept {
  ASSERT(is_attached(id));
  size_t index = find_op(id, kind);
  ASSERT(index != none);  // Cancelled although not in flight.
  ops_[index].cancelling = true;
}

FakeIo::Buffer& FakeIo::buffer_at(BufferRef ref) {
  ASSERT(ref.index < buffers_count_);
  return buffers_[index_of(ref.group)][ref.index];
}

void FakeIo::keep_buffer(BufferRef ref) noexcept {
  Buffer& buffer = buffer_at(ref);
  ASSERT(buffer.lent_times > 0);
  ++buffer.lent_times;
}

void FakeIo::release_buffer(BufferRef ref) noexcept {
  Buffer& buffer = buffer_at(ref);
  ASSERT(buffer.lent_times > 0);
  if (--buffer.lent_times > 0) return;
  // Whoever still reads it shall see that it is gone.
  std::fill(buffer.bytes.begin(), buffer.bytes.end(), uint8_t{0xdb});
  --lent_[index_of(ref.group)];
}

uint32_t FakeIo::lent_count(BufferGroup group) const noexcept {
  return lent_[index_of(group)];
}

int FakeIo::open_socket(int family) noexcept {
  if (next_open_error_ != 0) return -std::exchange(next_open_error_, 0);
  return network_.make_fd(family);
}

void FakeIo::tune_socket(int fd, int family) noexcept {
  ASSERT(network_.at(fd).family == family);
  ++tuned_count_;
}

void FakeIo::shutdown_write(int fd) noexcept {
  network_.shutdown_write(fd);
}

void FakeIo::close_fd(int fd) noexcept {
  network_.close(fd);
}

// ---------------------------------------------------------------- FakeIo: events

size_t FakeIo::find_op(TargetId id, OpKind kind) const {
  for (size_t i = 0; i < ops_.size(); ++i)
    if (ops_[i].target == id && ops_[i].kind == kind) return i;
  return none;
}

size_t FakeIo::find_by_fd(int fd, OpKind kind) const {
  for (size_t i = 0; i < ops_.size(); ++i)
    if (ops_[i].fd == fd && ops_[i].kind == kind) return i;
  return none;
}

size_t FakeIo::required(int fd, OpKind kind) const {
  size_t index = find_by_fd(fd, kind);
  ASSERT(index != none);  // The test ends an op that is not in flight.
  return index;
}

bool FakeIo::is_cancelling(int fd, OpKind kind) const {
  size_t index = find_by_fd(fd, kind);
  return index != none && ops_[index].cancelling;
}

bool FakeIo::is_recv_expected_idle(int fd) const {
  return ops_[required(fd, OpKind::recv)].expect_idle;
}

std::string FakeIo::take_parts(const Op& op, size_t count) {
  std::string bytes;
  for (const iovec& part : op.parts) {
    size_t size = std::min(part.iov_len, count - bytes.size());
    bytes.append(static_cast<const char*>(part.iov_base), size);
  }
  return bytes;
}

std::string FakeIo::offered(int fd) const {
  size_t index = find_by_fd(fd, OpKind::send);
  return index == none ? std::string() : take_parts(ops_[index], SIZE_MAX);
}

// The op leaves the list before its handler runs: the handler may start the next one.
void FakeIo::deliver(size_t op_index, int res, More more) {
  Op op = ops_[op_index];
  tell_ended_sends();
  op_index = find_op(op.target, op.kind);
  ASSERT(is_attached(op.target));
  IoEvent event;
  event.kind = op.kind;
  event.res = res;
  event.more = more == More::yes;
  if (!event.more) ops_.erase(ops_.begin() + static_cast<ptrdiff_t>(op_index));
  targets_[op.target.index].target->on_io(event);
}

bool FakeIo::has_untold_sends() const {
  return std::any_of(ops_.begin(), ops_.end(), [](const Op& op) { return op.ended_size > 0; });
}

FakeIo::Op* FakeIo::first_starved(BufferGroup group) {
  Op* first = nullptr;
  for (Op& op : ops_) {
    if (op.starved_at == 0 || op.group != group) continue;
    if (first == nullptr || op.starved_at < first->starved_at) first = &op;
  }
  return first;
}

void FakeIo::begin_turn() {
  for (const BufferGroup group : {BufferGroup::client, BufferGroup::backend}) {
    const uint32_t available = buffers_count_ - lent_count(group);
    turn_buffers_[index_of(group)] = available;
    for (uint32_t i = 0; i < available; ++i) {
      Op* starved = first_starved(group);
      if (starved == nullptr) break;
      starved->starved_at = 0;
    }
  }
}

void FakeIo::tell_ended_sends() {
  const auto has_ended = [](const Op& op) { return op.ended_size > 0; };
  while (true) {
    const auto found = std::find_if(ops_.begin(), ops_.end(), has_ended);
    if (found == ops_.end()) break;
    const Op op = *found;
    ops_.erase(found);
    IoEvent event;
    event.kind = OpKind::send;
    event.res = static_cast<int>(op.ended_size);
    targets_[op.target.index].target->on_io(event);
  }
  // What the kernel has not taken whole when the core went to sleep has a completion of its own.
  for (Op& op : ops_) op.notice = SendNotice::prompt;
}

void FakeIo::deliver_bytes(size_t op_index, std::string_view bytes, More more) {
  Op op = ops_[op_index];
  tell_ended_sends();
  op_index = find_op(op.target, op.kind);
  ASSERT(is_attached(op.target));
  ASSERT(!bytes.empty());
  ASSERT(bytes.size() <= buffer_size);
  ASSERT(has_free_buffer(op.group));  // Scripts must not starve: use a SimNetwork for that.
  auto& group = buffers_[index_of(op.group)];
  while (group[next_buffer_ % buffers_count_].lent_times > 0) ++next_buffer_;
  BufferRef ref;
  ref.index = static_cast<uint16_t>(next_buffer_++ % buffers_count_);
  ref.group = op.group;
  Buffer& buffer = buffer_at(ref);
  buffer.lent_times = 1;
  ++lent_[index_of(op.group)];
  --turn_buffers_[index_of(op.group)];
  std::memcpy(buffer.bytes.data(), bytes.data(), bytes.size());

  IoEvent event;
  event.kind = OpKind::recv;
  event.res = static_cast<int>(bytes.size());
  event.more = more == More::yes;
  event.data = {buffer.bytes.data(), bytes.size()};
  event.buffer = ref;
  if (!event.more) ops_.erase(ops_.begin() + static_cast<ptrdiff_t>(op_index));
  targets_[op.target.index].target->on_io(event);
  release_buffer(ref);
}

// ---------------------------------------------------------------- FakeIo: scripts

void FakeIo::complete_recv(int fd, std::string_view bytes, More more) {
  while (bytes.size() > buffer_size) {
    deliver_bytes(required(fd, OpKind::recv), bytes.substr(0, buffer_size), More::yes);
    bytes.remove_prefix(buffer_size);
  }
  deliver_bytes(required(fd, OpKind::recv), bytes, more);
}

void FakeIo::end_of_file(int fd) {
  deliver(required(fd, OpKind::recv), 0, More::no);
}

void FakeIo::complete_send(int fd, size_t count) {
  size_t index = required(fd, OpKind::send);
  count = std::min(count, size_of(ops_[index].parts));
  ASSERT(count > 0);
  network_.at(fd).sent += take_parts(ops_[index], count);
  deliver(index, static_cast<int>(count), More::no);
}

void FakeIo::complete_connect(int fd) {
  network_.at(fd).connected = true;
  deliver(required(fd, OpKind::connect), 0, More::no);
}

int FakeIo::accept(int listen_fd, More more) {
  int fd = network_.make_fd(network_.at(listen_fd).family);
  deliver(required(listen_fd, OpKind::accept), fd, more);
  return fd;
}

void FakeIo::complete_poll(int fd, int mask, More more) {
  deliver(required(fd, OpKind::poll), mask, more);
}

void FakeIo::fail(int fd, OpKind kind, int error) {
  ASSERT(error > 0);
  deliver(required(fd, kind), -error, More::no);
}

void FakeIo::complete_cancel(int fd, OpKind kind) {
  ASSERT(is_cancelling(fd, kind));
  deliver(required(fd, kind), -ECANCELED, More::no);
}

}  // namespace helios
