#include "bench/ring/wake.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <latch>
#include <memory>
#include <string>
#include <thread>

#include "bench/ring/bench_ring.h"
#include "bench/ring/run.h"

namespace helios::bench {
namespace {

constexpr uint64_t poll_ticket = 1;    // The poll on our eventfd.
constexpr uint64_t mail_ticket = 2;    // A MSG_RING of the other thread.
constexpr uint64_t sender_ticket = 3;  // A MSG_RING of ours that failed.
constexpr uint32_t stop_number = UINT32_MAX;
constexpr uint32_t clock_interval = 16;

// One of the two threads. Made by the parent; everything but `number` is used by its thread only
// once that runs.
struct Sleeper {
  Sleeper() noexcept : event_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~Sleeper() {
    if (event_fd >= 0) close(event_fd);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  void set_up(int cpu, bool batch_policy);
  void start_poll() noexcept;
  void wake(Sleeper& other, uint32_t value) noexcept;
  [[nodiscard]] uint32_t wait_for_mail() noexcept;
  void on_cqe(const io_uring_cqe& cqe) noexcept;

  WakeKind kind = WakeKind::event_fd;
  int event_fd;
  std::unique_ptr<BenchRing> ring;
  Sleeper* other_side = nullptr;
  bool is_awake = false;
  std::string problem;
  // What the other thread says; release and acquire, so that it is there when the wake-up is.
  std::atomic<uint32_t> number{0};
};

void Sleeper::set_up(int cpu, bool batch_policy) {
  if (!settle_on(cpu, batch_policy)) {
    problem = "may not run on CPU " + std::to_string(cpu);
    return;
  }
  auto made = BenchRing::create({});
  if (!made.ok()) {
    problem = made.error();
    return;
  }
  ring = std::move(made).value();
  start_poll();
}

void Sleeper::start_poll() noexcept {
  io_uring_sqe* sqe = ring->next_sqe();
  io_uring_prep_poll_multishot(sqe, event_fd, POLLIN);
  sqe->user_data = poll_ticket;
}

void write_event(int fd) noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t size = write(fd, &one, sizeof(one));
}

void Sleeper::wake(Sleeper& other, uint32_t value) noexcept {
  other.number.store(value, std::memory_order_release);
  if (kind == WakeKind::event_fd) return write_event(other.event_fd);
  io_uring_sqe* sqe = ring->next_sqe();
  io_uring_prep_msg_ring(sqe, other.ring->fd(), 0, mail_ticket, 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = sender_ticket;
}

uint32_t Sleeper::wait_for_mail() noexcept {
  for (is_awake = false; !is_awake;) {
    ring->wait();
    ring->for_each_cqe([this](const io_uring_cqe& cqe) noexcept { on_cqe(cqe); });
  }
  return number.load(std::memory_order_acquire);
}

void Sleeper::on_cqe(const io_uring_cqe& cqe) noexcept {
  if (cqe.user_data == sender_ticket) {  // The other one would sleep for ever.
    problem = std::string("MSG_RING: ") + std::strerror(-cqe.res);
    number.store(stop_number, std::memory_order_release);
    other_side->number.store(stop_number, std::memory_order_release);
    write_event(other_side->event_fd);
  }
  if (cqe.user_data == poll_ticket) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t size = read(event_fd, &count, sizeof(count));
    if ((cqe.flags & IORING_CQE_F_MORE) == 0) start_poll();
  }
  is_awake = true;
}

// Answers until it is told to stop.
void answer(Sleeper& self, Sleeper& other) noexcept {
  for (;;) {
    const uint32_t number = self.wait_for_mail();
    if (number == stop_number) return;
    self.wake(other, number);
  }
}

// Asks for so long; returns nanoseconds for one round trip.
double ask(Sleeper& self, Sleeper& other, Nanoseconds span) {
  MonotonicClock clock;
  const Nanoseconds started_at = clock.now();
  Nanoseconds elapsed = 0;
  uint32_t count = 0;
  while (elapsed < span && self.problem.empty()) {
    self.wake(other, ++count);
    const uint32_t answered = self.wait_for_mail();
    if (answered != count && self.problem.empty()) self.problem = "a wake-up without its number";
    if (count % clock_interval == 0) elapsed = clock.now() - started_at;
  }
  return static_cast<double>(elapsed) / count;
}

// Tells the other thread to stop; by eventfd, which needs no further turn of ours.
void stop(Sleeper& other) noexcept {
  other.number.store(stop_number, std::memory_order_release);
  write_event(other.event_fd);
}

}  // namespace

Result<double> measure_wake(const WakeOptions& options) {
  Sleeper first;
  Sleeper second;
  if (first.event_fd < 0 || second.event_fd < 0) return Error{"eventfd: too many open files"};
  first.kind = second.kind = options.kind;
  first.other_side = &second;
  second.other_side = &first;
  std::latch are_set_up(2);
  std::latch have_ended(2);  // Neither ring goes while the other thread may use it.
  double result = 0;
  const auto work = [&](Sleeper& self, int cpu, auto converse) {
    self.set_up(cpu, options.batch_policy);
    are_set_up.arrive_and_wait();
    if (first.problem.empty() && second.problem.empty()) converse();
    have_ended.arrive_and_wait();
    self.ring.reset();
  };
  std::thread asker([&] {
    work(first, options.first_cpu, [&] {
      (void)ask(first, second, options.span / 10);  // Warms up.
      result = ask(first, second, options.span);
      stop(second);
    });
  });
  std::thread answerer([&] { work(second, options.second_cpu, [&] { answer(second, first); }); });
  asker.join();
  answerer.join();
  for (const Sleeper* sleeper : {&first, &second})
    if (!sleeper->problem.empty()) return Error{sleeper->problem};
  return result;
}

}  // namespace helios::bench
