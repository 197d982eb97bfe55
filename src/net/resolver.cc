#include "helios/net/resolver.h"

#include <netdb.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

#include "helios/base/assert.h"

namespace helios {

namespace {

// The condition variable needs a time of its own; it only paces the helper thread.
using SteadyTime = std::chrono::steady_clock::time_point;

std::chrono::nanoseconds to_chrono(Nanoseconds duration) {
  return std::chrono::nanoseconds(duration);
}

std::shared_ptr<const Resolution> make_resolution(std::vector<SocketAddress> addresses,
                                                  std::string error) {
  auto resolution = std::make_shared<Resolution>();
  resolution->addresses = std::move(addresses);
  resolution->error = std::move(error);
  return resolution;
}

}  // namespace

struct Resolver::State {
  struct Entry {
    std::string host;
    uint16_t port = 0;
    bool is_name = false;
    bool answered = false;   // At least one lookup has ended.
    bool requested = false;  // refresh_soon was called since the last lookup.
    SteadyTime looked_up_at;
    std::shared_ptr<const Resolution> resolution;
  };

  // When this entry is to be looked up next.
  [[nodiscard]] SteadyTime due(const Entry& entry) const {
    if (!entry.answered) return SteadyTime::min();
    Nanoseconds interval = options.refresh_interval;
    if (entry.requested) interval = std::min(interval, options.request_interval);
    // A day stands for "never": the sum must not overflow.
    return entry.looked_up_at + to_chrono(std::min(interval, seconds(86'400)));
  }
  [[nodiscard]] bool all_answered() const {
    return std::all_of(entries.begin(), entries.end(),
                       [](const Entry& e) { return !e.is_name || e.answered; });
  }
  [[nodiscard]] bool has_name() const {
    return std::any_of(entries.begin(), entries.end(), [](const Entry& e) { return e.is_name; });
  }

  ResolverOptions options;
  std::mutex mutex;                // Guards everything below.
  std::condition_variable work;    // For the thread: something may be due, or stop.
  std::condition_variable answer;  // For start() and stop(): a lookup or the thread has ended.
  std::vector<Entry> entries;
  std::atomic<uint64_t> version{1};
  bool started = false;
  bool stopping = false;
  bool running = false;  // The thread has not ended.
};

Resolver::Resolver(ResolverOptions options) : state_(std::make_shared<State>()) {
  state_->options = std::move(options);
}

Resolver::~Resolver() {
  stop();
}

size_t Resolver::add(const std::string& host, uint16_t port) {
  std::lock_guard lock(state_->mutex);
  for (size_t i = 0; i < state_->entries.size(); ++i)
    if (state_->entries[i].host == host && state_->entries[i].port == port) return i;
  State::Entry entry;
  entry.host = host;
  entry.port = port;
  entry.is_name = host_kind(host) == HostKind::name;
  if (entry.is_name) {
    entry.resolution = make_resolution({}, "host \"" + host + "\" has not been resolved yet");
  } else {
    Result<SocketAddress> address = literal_address(host, port);
    entry.resolution = address.ok() ? make_resolution({address.value()}, "")
                                    : make_resolution({}, address.error());
  }
  bool is_name = entry.is_name;
  state_->entries.push_back(std::move(entry));
  if (is_name && state_->started && !state_->stopping) {
    if (!state_->running) start_thread();
    state_->work.notify_one();
  }
  return state_->entries.size() - 1;
}

void Resolver::await_answers() {
  std::unique_lock lock(state_->mutex);
  ASSERT(state_->started);
  state_->answer.wait_for(lock, to_chrono(state_->options.start_wait),
                          [this] { return state_->all_answered(); });
}

void Resolver::start() {
  std::unique_lock lock(state_->mutex);
  ASSERT(!state_->started);
  state_->started = true;
  if (!state_->has_name()) return;
  start_thread();
  state_->answer.wait_for(lock, to_chrono(state_->options.start_wait),
                          [this] { return state_->all_answered(); });
}

// Requires: the mutex is held. Signals stay with the threads that expect them.
void Resolver::start_thread() {
  state_->running = true;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([state = state_] { run(state); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Resolver::stop() {
  std::unique_lock lock(state_->mutex);
  if (state_->stopping) return;
  state_->stopping = true;
  state_->work.notify_one();
  state_->answer.wait_for(lock, to_chrono(state_->options.stop_wait),
                          [this] { return !state_->running; });
}

std::shared_ptr<const Resolution> Resolver::snapshot(size_t id) const {
  std::lock_guard lock(state_->mutex);
  ASSERT(id < state_->entries.size());
  return state_->entries[id].resolution;
}

uint64_t Resolver::version() const noexcept {
  return state_->version.load(std::memory_order_acquire);
}

void Resolver::refresh_soon(size_t id) {
  std::lock_guard lock(state_->mutex);
  ASSERT(id < state_->entries.size());
  State::Entry& entry = state_->entries[id];
  if (!entry.is_name || entry.requested) return;
  entry.requested = true;
  state_->work.notify_one();
}

void Resolver::run(const std::shared_ptr<State>& state) {
  pthread_setname_np(pthread_self(), "helios-resolver");
  std::unique_lock lock(state->mutex);
  while (!state->stopping) {
    size_t next = SIZE_MAX;
    for (size_t i = 0; i < state->entries.size(); ++i) {
      if (!state->entries[i].is_name) continue;
      if (next == SIZE_MAX || state->due(state->entries[i]) < state->due(state->entries[next]))
        next = i;
    }
    ASSERT(next != SIZE_MAX);
    SteadyTime due = state->due(state->entries[next]);
    if (due > std::chrono::steady_clock::now()) {
      state->work.wait_until(lock, due);
      continue;
    }
    std::string host = state->entries[next].host;
    uint16_t port = state->entries[next].port;
    state->entries[next].requested = false;
    lock.unlock();
    Result<std::vector<SocketAddress>> found = state->options.lookup(host, port);
    lock.lock();
    State::Entry& entry = state->entries[next];
    entry.answered = true;
    entry.looked_up_at = std::chrono::steady_clock::now();
    // A name that cannot be resolved for a while keeps its last addresses.
    entry.resolution = found.ok() ? make_resolution(found.value(), "")
                                  : make_resolution(entry.resolution->addresses, found.error());
    state->version.fetch_add(1, std::memory_order_release);
    state->answer.notify_all();
  }
  state->running = false;
  state->answer.notify_all();
}

Result<std::vector<SocketAddress>> lookup_by_getaddrinfo(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error != 0) {
    const char* why = error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error);
    return Error{"host \"" + host + "\" cannot be resolved: " + why};
  }
  std::vector<SocketAddress> addresses;
  for (const addrinfo* item = list; item != nullptr; item = item->ai_next) {
    SocketAddress address(item->ai_addr, item->ai_addrlen);
    bool known = std::find(addresses.begin(), addresses.end(), address) != addresses.end();
    if (!known) addresses.push_back(address);
  }
  freeaddrinfo(list);
  return addresses;
}

}  // namespace helios
