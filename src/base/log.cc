#include "helios/base/log.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <string_view>
#include <vector>

#include "base/bounded_write.h"
#include "base/log_format.h"
#include "helios/base/assert.h"
#include "helios/base/clock.h"

namespace helios {
namespace {

constexpr uint64_t ring_size = 64 * 1024;
static_assert((ring_size & (ring_size - 1)) == 0);
constexpr size_t padding = 128;

// Whole lines of one thread, on their way to the writer. What is published always ends at the end
// of a line.
struct LogRing {
  // Written by the thread, seq_cst: partner of `writer_sleeping` (see publish and
  // sleep_until_lines).
  alignas(padding) std::atomic<uint64_t> tail{0};
  uint64_t dropped_count = 0;  // Lines since the last one that fitted. The thread's own.
  // Set by the thread at its end (release); the writer (acquire) frees the ring when it is drained.
  std::atomic<bool> abandoned{false};
  // Written by the writer (release: the bytes may be overwritten), read by the thread (acquire).
  alignas(padding) std::atomic<uint64_t> head{0};
  char bytes[ring_size];
};

// Lives as long as the process: threads may log until its very end.
struct LogState {
  std::atomic<LogLevel> level{LogLevel::info};  // Relaxed: a filter, nothing hangs on it.
  std::atomic<bool> running{false};        // Release by start and stop, acquire by the threads.
  std::atomic<uint64_t> dropped_total{0};  // Relaxed: a statistic.
  // 1: the writer sleeps or is about to. Seq_cst, with LogRing::tail.
  std::atomic<uint32_t> writer_sleeping{0};
  std::atomic<bool> stopping{false};     // Stored before the wake-up, loaded after it: seq_cst.
  std::atomic<uint32_t> writer_done{0};  // Release by the writer, acquire by stop_log.
  std::mutex mutex;                      // Guards `rings`; never held over a system call.
  std::vector<LogRing*> rings;
  pthread_t writer{};
};

LogState& state() noexcept {
  static LogState* const instance = new LogState;
  return *instance;
}

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  static_assert(sizeof(word) == sizeof(uint32_t));
  return syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, timeout, nullptr, 0);
}

void wake_writer(LogState& log) noexcept {
  if (log.writer_sleeping.load(std::memory_order_seq_cst) == 0) return;
  if (log.writer_sleeping.exchange(0, std::memory_order_seq_cst) == 0) return;
  futex(log.writer_sleeping, FUTEX_WAKE, 1, nullptr);
}

// ---- The thread that logs.

struct RingOwner {
  LogRing* ring = nullptr;
  ~RingOwner() {
    if (ring != nullptr) ring->abandoned.store(true, std::memory_order_release);
    ring = nullptr;
  }
};
thread_local RingOwner ring_owner;

LogRing* ring_of_this_thread(LogState& log) noexcept {
  if (ring_owner.ring != nullptr) return ring_owner.ring;
  LogRing* ring = new (std::nothrow) LogRing;
  if (ring == nullptr) return nullptr;
  const std::lock_guard<std::mutex> lock(log.mutex);
  log.rings.push_back(ring);
  ring_owner.ring = ring;
  return ring;
}

// Copies a line into the ring, without publishing it. False when there is no room.
bool push(LogRing& ring, uint64_t& tail, std::string_view line) noexcept {
  const uint64_t used = tail - ring.head.load(std::memory_order_acquire);
  if (used + line.size() > ring_size) return false;
  const uint64_t offset = tail & (ring_size - 1);
  const size_t first = std::min(line.size(), static_cast<size_t>(ring_size - offset));
  memcpy(ring.bytes + offset, line.data(), first);
  memcpy(ring.bytes, line.data() + first, line.size() - first);
  tail += line.size();
  return true;
}

size_t write_line_now(char (&buffer)[log_line_size_max], LogLevel level,
                      std::string_view text) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const LogLineHead head{now.tv_sec, static_cast<uint32_t>(now.tv_nsec / 1'000'000), level,
                         current_core()};
  return write_log_line(buffer, head, text);
}

bool push_dropped_note(LogRing& ring, uint64_t& tail) noexcept {
  char text[64];
  snprintf(text, sizeof(text), "%llu log lines dropped",
           static_cast<unsigned long long>(ring.dropped_count));
  char note[log_line_size_max];
  return push(ring, tail, {note, write_line_now(note, LogLevel::warning, text)});
}

void queue_line(LogState& log, std::string_view line) noexcept {
  LogRing* ring = ring_of_this_thread(log);
  bool queued = false;
  if (ring != nullptr) {
    uint64_t tail = ring->tail.load(std::memory_order_relaxed);  // Our own.
    queued =
        (ring->dropped_count == 0 || push_dropped_note(*ring, tail)) && push(*ring, tail, line);
    if (queued) {
      ring->dropped_count = 0;
      ring->tail.store(tail, std::memory_order_seq_cst);
    } else {
      ++ring->dropped_count;
    }
  }
  if (!queued) log.dropped_total.fetch_add(1, std::memory_order_relaxed);
  wake_writer(log);
}

// ---- The writer.

// How long the writer goes on when the log is stopped while nobody reads standard error.
constexpr Nanoseconds stop_wait_max = seconds(1);

struct Writer {
  LogState& log;
  std::vector<LogRing*> rings;
  Nanoseconds give_up = never;  // A deadline from the moment that the log is stopped.

  void run() noexcept;
  void copy_list() noexcept;
  bool has_lines() noexcept;
  void sleep_until_lines() noexcept;
  void drain(LogRing& ring) noexcept;
  void write_out(std::string_view text) noexcept;
  void free_abandoned() noexcept;
};

// The lock is not held while we write: a thread that registers must not wait for whoever reads
// standard error.
void Writer::copy_list() noexcept {
  const std::lock_guard<std::mutex> lock(log.mutex);
  rings.assign(log.rings.begin(), log.rings.end());
}

bool Writer::has_lines() noexcept {
  for (LogRing* ring : rings) {
    if (ring->tail.load(std::memory_order_seq_cst) != ring->head.load(std::memory_order_relaxed))
      return true;
  }
  return false;
}

// Announces the sleep, then looks again: a thread publishes first and looks at the announcement
// then, so at least one of the two sees the other.
void Writer::sleep_until_lines() noexcept {
  log.writer_sleeping.store(1, std::memory_order_seq_cst);
  copy_list();
  if (!has_lines() && !log.stopping.load(std::memory_order_seq_cst))
    futex(log.writer_sleeping, FUTEX_WAIT, 1, nullptr);
  log.writer_sleeping.store(0, std::memory_order_seq_cst);
}

void Writer::write_out(std::string_view text) noexcept {
  MonotonicClock clock;
  while (!text.empty()) {
    if (give_up == never && log.stopping.load(std::memory_order_seq_cst))
      give_up = clock.now() + stop_wait_max;
    if (clock.now() >= give_up) return;
    // In short waits, so that a stop is noticed.
    if (write_bounded(STDERR_FILENO, text, milliseconds(50)) == WriteOutcome::failed) return;
  }
}

void Writer::drain(LogRing& ring) noexcept {
  uint64_t head = ring.head.load(std::memory_order_relaxed);  // Our own.
  const uint64_t tail = ring.tail.load(std::memory_order_acquire);
  while (head != tail) {
    const uint64_t offset = head & (ring_size - 1);
    const uint64_t size = std::min({tail - head, ring_size - offset, uint64_t{write_piece_max}});
    write_out({ring.bytes + offset, size});
    head += size;
    ring.head.store(head, std::memory_order_release);
  }
}

void Writer::free_abandoned() noexcept {
  const std::lock_guard<std::mutex> lock(log.mutex);
  std::erase_if(log.rings, [](LogRing* ring) {
    // The thread's end is loaded before its tail: what it published last is seen.
    if (!ring->abandoned.load(std::memory_order_acquire)) return false;
    if (ring->tail.load(std::memory_order_acquire) != ring->head.load(std::memory_order_relaxed))
      return false;
    delete ring;
    return true;
  });
}

void Writer::run() noexcept {
  bool last_pass = false;
  while (!last_pass) {
    last_pass = log.stopping.load(std::memory_order_seq_cst);
    copy_list();
    for (LogRing* ring : rings) drain(*ring);
    free_abandoned();
    if (!last_pass) sleep_until_lines();
  }
  log.writer_done.store(1, std::memory_order_release);
  futex(log.writer_done, FUTEX_WAKE, 1, nullptr);
}

void* run_writer(void* context) noexcept {
  pthread_setname_np(pthread_self(), "helios-log");
  Writer{*static_cast<LogState*>(context), {}}.run();
  return nullptr;
}

bool start_writer(LogState& log) noexcept {
  // Signals are for the main thread.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&log.writer, nullptr, run_writer, &log);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error == 0;
}

bool wait_for_writer(LogState& log) noexcept {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + 2 * stop_wait_max;
  while (log.writer_done.load(std::memory_order_acquire) == 0) {
    const Nanoseconds left = deadline - clock.now();
    if (left <= 0) return false;
    const timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
    futex(log.writer_done, FUTEX_WAIT, 0, &timeout);
  }
  return true;
}

}  // namespace

void start_log(LogLevel level) noexcept {
  LogState& log = state();
  ASSERT(!log.running.load(std::memory_order_acquire));
  set_log_level(level);
  log.stopping.store(false, std::memory_order_seq_cst);
  log.writer_done.store(0, std::memory_order_release);
  // Without a writer thread lines are written directly: late is better than not at all.
  if (start_writer(log)) log.running.store(true, std::memory_order_release);
}

void stop_log() noexcept {
  LogState& log = state();
  if (!log.running.load(std::memory_order_acquire)) return;
  log.running.store(false, std::memory_order_release);
  log.stopping.store(true, std::memory_order_seq_cst);
  wake_writer(log);
  // The writer gives up by itself. Should it hang in a write all the same, it is left alone: the
  // process ends.
  if (wait_for_writer(log))
    pthread_join(log.writer, nullptr);
  else
    pthread_detach(log.writer);
}

void set_log_level(LogLevel level) noexcept {
  state().level.store(level, std::memory_order_relaxed);
}

bool is_logged(LogLevel level) noexcept {
  return level <= state().level.load(std::memory_order_relaxed);
}

uint64_t log_lines_dropped() noexcept {
  return state().dropped_total.load(std::memory_order_relaxed);
}

void log_line(LogLevel level, const char* format, ...) noexcept {
  char text[log_line_size_max];
  va_list arguments;
  va_start(arguments, format);
  const int size = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (size < 0) return;
  char buffer[log_line_size_max];
  const size_t text_size = std::min(static_cast<size_t>(size), sizeof(text) - 1);
  std::string_view line(buffer, write_line_now(buffer, level, {text, text_size}));
  LogState& log = state();
  if (log.running.load(std::memory_order_acquire)) {
    queue_line(log, line);
  } else if (write_bounded(STDERR_FILENO, line, milliseconds(100)) != WriteOutcome::done) {
    log.dropped_total.fetch_add(1, std::memory_order_relaxed);
  }
}

bool log_allowed(LogLimit& limit, uint32_t burst) noexcept {
  MonotonicClock clock;
  const auto second = static_cast<uint64_t>(clock.now() / seconds(1));
  if (second != limit.second) {
    limit.second = second;
    limit.count = 0;
  }
  if (limit.count >= burst) {
    ++limit.dropped;
    return false;
  }
  ++limit.count;
  if (limit.dropped > 0)
    log_line(LogLevel::info, "%u lines like the next one held back", limit.dropped);
  limit.dropped = 0;
  return true;
}

}  // namespace helios
