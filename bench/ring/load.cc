#include <sys/socket.h>
#include <time.h>

#include <string>
#include <vector>

#include "bench/ring/events.h"
#include "bench/ring/peers.h"
#include "helios/base/histogram.h"

namespace helios::bench {
namespace {

// Far beyond any scheduling delay.
constexpr int silence_max_ms = 10'000;
constexpr Nanoseconds buffers_wait_max = milliseconds(500);
constexpr Nanoseconds first_answer_max = seconds(30);

// Every message differs from every other, in each of its words.
uint64_t word_of(uint32_t connection, uint64_t round, uint64_t index) noexcept {
  const uint64_t number = uint64_t{connection} << 40 ^ round << 16 ^ index;
  return number * 0x9E3779B97F4A7C15U;
}

struct Connection {
  int fd = -1;
  uint32_t number = 0;
  uint64_t round = 0;
  Nanoseconds started_at = 0;
  uint32_t sent_size = 0;
  uint32_t received_size = 0;
  std::vector<uint64_t> sent;
  std::vector<uint64_t> received;
};

class Load {
 public:
  Load(const RunOptions& options, SharedPage& page) noexcept : options_(options), page_(page) {}

  [[nodiscard]] Result<bool> connect_all(const Address& target, pid_t relay);
  [[nodiscard]] Result<bool> run();

 private:
  // Warming up, counting, and waiting for the last answers.
  enum class Phase : uint8_t { warm_up, counted, last_answers };

  [[nodiscard]] Nanoseconds now() noexcept { return clock_.now(); }
  [[nodiscard]] Nanoseconds relay_cpu_time() const noexcept;
  void begin_message(Connection& connection) noexcept;
  [[nodiscard]] bool send_rest(Connection& connection) noexcept;
  [[nodiscard]] bool receive(Connection& connection);
  [[nodiscard]] bool end_message(Connection& connection);
  void advance_phase() noexcept;
  void begin_span() noexcept;
  void end_span() noexcept;
  [[nodiscard]] Error failure(const Connection& connection) const;

  const RunOptions& options_;
  SharedPage& page_;
  MonotonicClock clock_;
  Events events_;
  std::vector<Connection> connections_;
  Histogram latencies_;  // Nanoseconds, of the counted span.
  clockid_t relay_clock_ = 0;
  Phase phase_ = Phase::warm_up;
  Nanoseconds phase_began_at_ = 0;
  uint32_t waiting_count_ = 0;  // Connections whose message is not back.
  uint64_t ended_count_ = 0;
  RunResult before_;
  const char* problem_ = "";
};

Result<bool> Load::connect_all(const Address& target, pid_t relay) {
  if (clock_getcpuclockid(relay, &relay_clock_) != 0) return Error{"the relay has no CPU clock"};
  connections_.resize(options_.connections);
  const size_t words_count = options_.message_size / sizeof(uint64_t);
  for (uint32_t i = 0; i < options_.connections; ++i) {
    Result<int> fd = connect_to(target);
    if (!fd.ok()) return Error{fd.error()};
    Connection& connection = connections_[i];
    connection.fd = fd.value();
    connection.number = i;
    connection.sent.resize(words_count);
    connection.received.resize(words_count);
    if (!events_.add(connection.fd, i)) return Error{"epoll refuses a socket"};
  }
  return true;
}

Result<bool> Load::run() {
  phase_began_at_ = now();
  for (Connection& connection : connections_) {
    begin_message(connection);
    if (!send_rest(connection)) return failure(connection);
  }
  while (waiting_count_ > 0) {
    const auto ready = events_.wait(silence_max_ms);
    if (ready.empty()) return Error{"no byte came for 10 s"};
    for (const epoll_event& event : ready) {
      Connection& connection = connections_[event.data.u32];
      if (!send_rest(connection) || !receive(connection)) return failure(connection);
    }
    advance_phase();
  }
  for (const Connection& connection : connections_) close(connection.fd);
  return true;
}

void Load::begin_message(Connection& connection) noexcept {
  ++connection.round;
  ++waiting_count_;
  connection.sent_size = 0;
  connection.received_size = 0;
  for (size_t i = 0; i < connection.sent.size(); ++i)
    connection.sent[i] = word_of(connection.number, connection.round, i);
  connection.started_at = now();
}

bool Load::send_rest(Connection& connection) noexcept {
  const auto* bytes = reinterpret_cast<const uint8_t*>(connection.sent.data());
  while (connection.sent_size < options_.message_size) {
    const ssize_t size = send(connection.fd, bytes + connection.sent_size,
                              options_.message_size - connection.sent_size, MSG_NOSIGNAL);
    if (size < 0) {
      problem_ = "send failed";
      return errno == EAGAIN;
    }
    connection.sent_size += static_cast<uint32_t>(size);
  }
  return true;
}

bool Load::receive(Connection& connection) {
  auto* bytes = reinterpret_cast<uint8_t*>(connection.received.data());
  while (connection.received_size < connection.sent_size) {
    const ssize_t size = recv(connection.fd, bytes + connection.received_size,
                              options_.message_size - connection.received_size, 0);
    if (size < 0) problem_ = "recv failed";
    if (size < 0) return errno == EAGAIN;
    if (size == 0) problem_ = "the relay has closed the connection";
    if (size == 0) return false;
    connection.received_size += static_cast<uint32_t>(size);
    if (connection.received_size == options_.message_size) return end_message(connection);
  }
  return true;
}

bool Load::end_message(Connection& connection) {
  const Nanoseconds ended_at = now();
  --waiting_count_;
  ++ended_count_;
  if (connection.received != connection.sent) {
    problem_ = "an answer is not what was sent";
    return false;
  }
  if (phase_ == Phase::counted)
    latencies_.record(static_cast<uint64_t>(ended_at - connection.started_at));
  if (phase_ == Phase::last_answers) return true;
  begin_message(connection);
  return send_rest(connection);
}

void Load::advance_phase() noexcept {
  const Nanoseconds elapsed = now() - phase_began_at_;
  // Not before every receive buffer was used, if that is not for ever: the kernel makes their pages
  // when they are touched first. A message passes the relay twice.
  const uint32_t buffer_size = options_.switches.buffer_size;
  const uint64_t buffers_per_message =
      2 * uint64_t{(options_.message_size + buffer_size - 1) / buffer_size};
  const bool has_used_buffers =
      ended_count_ * buffers_per_message >= options_.switches.buffers_count ||
      elapsed >= options_.warm_up + buffers_wait_max;
  const bool is_warm = elapsed >= options_.warm_up && has_used_buffers;
  if (phase_ == Phase::warm_up && is_warm) return begin_span();
  // On a machine that is busy with other things a short span may see no message come back.
  const bool has_counted = latencies_.count() > 0 || elapsed >= options_.span + first_answer_max;
  if (phase_ == Phase::counted && elapsed >= options_.span && has_counted) return end_span();
}

void Load::begin_span() noexcept {
  phase_ = Phase::counted;
  phase_began_at_ = now();
  before_.relay_cpu = relay_cpu_time();
  before_.enters = page_.relay.enters.load(std::memory_order_relaxed);
  before_.starved = page_.relay.starved.load(std::memory_order_relaxed);
}

void Load::end_span() noexcept {
  phase_ = Phase::last_answers;
  RunResult& result = page_.result;
  result.span = now() - phase_began_at_;
  result.relay_cpu = relay_cpu_time() - before_.relay_cpu;
  result.enters = page_.relay.enters.load(std::memory_order_relaxed) - before_.enters;
  result.starved = page_.relay.starved.load(std::memory_order_relaxed) - before_.starved;
  result.round_trips = latencies_.count();
  result.p50 = static_cast<Nanoseconds>(latencies_.percentile(50));
  result.p99 = static_cast<Nanoseconds>(latencies_.percentile(99));
}

Nanoseconds Load::relay_cpu_time() const noexcept {
  timespec time{};
  (void)clock_gettime(relay_clock_, &time);
  return seconds(time.tv_sec) + time.tv_nsec;
}

Error Load::failure(const Connection& connection) const {
  return Error{std::string(problem_) + " (connection " + std::to_string(connection.number) +
               ", message " + std::to_string(connection.round) + ")"};
}

}  // namespace

Result<bool> run_load(const RunOptions& options, const Address& target, pid_t relay,
                      SharedPage& page) {
  Load load(options, page);
  Result<bool> done = load.connect_all(target, relay);
  if (done.ok()) done = load.run();
  return done;
}

}  // namespace helios::bench
