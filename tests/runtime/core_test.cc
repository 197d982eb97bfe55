// Cores with real rings and threads. Meant for the thread sanitizer too.
#include "helios/runtime/core.h"

#include <doctest/doctest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "helios/base/assert.h"
#include "helios/runtime/cpu_set.h"
#include "support/fake_clock.h"

namespace helios {
namespace {

constexpr uint16_t stop_kind = 1;
constexpr uint16_t number_kind = 2;

RingOptions small_ring() {
  RingOptions options;
  options.sq_entries = 64;
  options.targets_max = 64;
  options.client_buffers = {8, 4096};
  options.backend_buffers = {8, 4096};
  return options;
}

// What an application leaves behind for the test, which reads it after the join.
struct Findings {
  uint64_t received_count = 0;
  uint64_t errors_count = 0;
  uint64_t timers_fired_count = 0;
  uint64_t turn_ends_count = 0;
  uint64_t events_count = 0;
  int core_seen = -1;
  bool started = false;
  bool destroyed = false;
  CoreCounters counters;
};

class TestApplication : public CoreApplication {
 public:
  TestApplication(CoreContext& context, Findings& findings)
      : context_(context), findings_(findings) {}
  ~TestApplication() override {
    findings_.counters = context_.counters;
    findings_.destroyed = true;
  }
  void on_start() noexcept override {
    findings_.started = true;
    findings_.core_seen = current_core();
  }
  void on_message(const Message& message) noexcept override {
    if (message.kind == stop_kind) is_stopped_ = true;
  }
  bool on_turn_end(Nanoseconds now) noexcept override {
    ++findings_.turn_ends_count;
    if (now != context_.clock.now()) ++findings_.errors_count;
    return false;
  }
  bool is_finished() noexcept override { return is_stopped_; }

 protected:
  CoreContext& context_;
  Findings& findings_;
  bool is_stopped_ = false;
};

// The cores of a test and the main thread's end of their mailboxes.
struct Cluster {
  explicit Cluster(CoreId count)
      : findings(count), system(count), wakes(count), waker(wakes), main(system, count, waker) {
    REQUIRE(wakes.ok());
  }
  template <typename Application>
  void start(const RingOptions& ring = small_ring()) {
    for (CoreId id = 0; id < system.cores_count(); ++id) {
      CoreOptions options;
      options.id = id;
      options.ring = ring;
      auto core = Core::start(options, {system, wakes}, [&, id](CoreContext& context) {
        return Result<std::unique_ptr<CoreApplication>>(
            std::make_unique<Application>(context, findings[id]));
      });
      if (!core.ok()) FAIL(core.error());
      cores.push_back(std::move(core).value());
    }
  }
  void tell(CoreId to, uint16_t kind, uint64_t word = 0) {
    Message message;
    message.kind = kind;
    message.words[0] = word;
    main.send(to, message);
    main.flush();
  }
  void join() {
    for (auto& core : cores) core->join();
  }
  void stop() {
    for (auto& core : cores) tell(core->id(), stop_kind);
    join();
  }
  std::vector<Findings> findings;
  MailboxSystem system;
  WakeTable wakes;
  EventWaker waker;
  Mailbox main;
  std::vector<std::unique_ptr<Core>> cores;
};

// Two cores count up in turns; both stop at the end of the count.
class Counting final : public TestApplication {
 public:
  using TestApplication::TestApplication;
  static constexpr uint64_t last = 20'000;
  void on_message(const Message& message) noexcept override {
    ++findings_.received_count;
    const uint64_t number = message.words[0];
    if (number < next_) ++findings_.errors_count;
    next_ = number + 1;
    if (number < last) say(number + 1);
    if (number + 1 >= last) is_stopped_ = true;
  }

 private:
  void say(uint64_t number) {
    Message message;
    message.kind = number_kind;
    message.words[0] = number;
    context_.mailbox.send(context_.id == 0 ? 1 : 0, message);
  }
  uint64_t next_ = 0;
};

// Floods the other core with more than a ring holds and stops when it has been flooded itself.
class Flooding final : public TestApplication {
 public:
  using TestApplication::TestApplication;
  static constexpr uint64_t count = 5'000;
  void on_start() noexcept override {
    for (uint64_t i = 0; i < count; ++i) {
      Message message;
      message.kind = number_kind;
      message.words[0] = i;
      context_.mailbox.send(context_.id == 0 ? 1 : 0, message);
    }
  }
  void on_message(const Message& message) noexcept override {
    if (message.words[0] != findings_.received_count) ++findings_.errors_count;
    ++findings_.received_count;
  }
  bool is_finished() noexcept override {
    return findings_.received_count == count && !context_.mailbox.has_unsent();
  }
};

// A timer that fires again and again until it has three times.
class Ticking final : public TestApplication {
 public:
  Ticking(CoreContext& context, Findings& findings)
      : TestApplication(context, findings), timer_(on_timer, this) {}
  void on_start() noexcept override { schedule(); }

 private:
  static void on_timer(void* self) noexcept { static_cast<Ticking*>(self)->tick(); }
  void schedule() noexcept {
    context_.timers.schedule(timer_, context_.clock.now() + milliseconds(20));
  }
  void tick() noexcept {
    if (context_.clock.now() < timer_.deadline()) ++findings_.errors_count;
    if (++findings_.timers_fired_count < 3) return schedule();
    is_stopped_ = true;
  }
  Timer timer_;
};

// Has more to do for the first hundred turns.
class Busy final : public TestApplication {
 public:
  using TestApplication::TestApplication;
  bool on_turn_end(Nanoseconds) noexcept override { return ++findings_.turn_ends_count < 100; }
  bool is_finished() noexcept override { return findings_.turn_ends_count >= 100; }
};

// Polls a pipe into which it writes itself; the event's time must not be from before the write.
class Polling final : public TestApplication, public IoTarget {
 public:
  Polling(CoreContext& context, Findings& findings) : TestApplication(context, findings) {
    REQUIRE(pipe(ends_) == 0);
    target_ = context.ring.attach(this);
  }
  ~Polling() override {
    context_.ring.detach(target_);
    close(ends_[0]);
    close(ends_[1]);
  }
  void on_start() noexcept override { context_.ring.start_poll(target_, ends_[0]); }
  void on_message(const Message& message) noexcept override {
    if (message.kind != number_kind) return;
    MonotonicClock clock;
    written_at_ = clock.now();
    if (write(ends_[1], "x", 1) != 1) ++findings_.errors_count;
  }
  void on_io(const IoEvent& event) noexcept override {
    ++findings_.events_count;
    MonotonicClock clock;
    const Nanoseconds now = context_.clock.now();
    if (now < written_at_ || now > clock.now()) ++findings_.errors_count;
    if (event.more) return context_.ring.start_cancel(target_, OpKind::poll);
    is_stopped_ = true;
  }

 private:
  int ends_[2] = {-1, -1};
  TargetId target_;
  Nanoseconds written_at_ = 0;
};

// Receives from a socket whose data and end are there before the receive. A deadline gives up.
class Receiving final : public TestApplication, public IoTarget {
 public:
  Receiving(CoreContext& context, Findings& findings)
      : TestApplication(context, findings), deadline_(on_deadline, this) {
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_) == 0);
    target_ = context.ring.attach(this);
  }
  ~Receiving() override {
    context_.ring.detach(target_);
    close(ends_[0]);
  }
  void on_start() noexcept override {
    if (write(ends_[1], "x", 1) != 1) ++findings_.errors_count;
    close(ends_[1]);
    context_.ring.start_recv(target_, ends_[0], BufferGroup::client, true);
    context_.timers.schedule(deadline_, context_.clock.now() + seconds(60));
  }
  void on_io(const IoEvent& event) noexcept override {
    if (event.res > 0) ++findings_.received_count;
    if (event.more) return;
    if (event.res != 0) ++findings_.errors_count;
    ++findings_.events_count;
    context_.timers.cancel(deadline_);
    is_stopped_ = true;
  }

 private:
  static void on_deadline(void* self) noexcept { static_cast<Receiving*>(self)->give_up(); }
  void give_up() noexcept {
    ++findings_.errors_count;
    context_.ring.start_cancel(target_, OpKind::recv);
  }
  int ends_[2] = {-1, -1};
  TargetId target_;
  Timer deadline_;
};

}  // namespace

TEST_CASE(
    "a turn's clock stands still until the turn is over and then shows the time of the first "
    "question") {
  FakeClock source(seconds(1));
  TurnClock clock(source);
  CHECK(clock.now() == seconds(1));
  source.advance(seconds(5));
  CHECK(clock.now() == seconds(1));
  clock.expire();
  source.advance(seconds(5));
  CHECK(clock.now() == seconds(11));
}

TEST_CASE("a core sees the end of a connection that came together with data") {
  Cluster cluster(1);
  cluster.start<Receiving>();
  cluster.join();
  CHECK(cluster.findings[0].received_count == 1);
  CHECK(cluster.findings[0].events_count == 1);
  CHECK(cluster.findings[0].errors_count == 0);
}

TEST_CASE("a core starts its application in its own thread and ends when told") {
  Cluster cluster(1);
  cluster.start<TestApplication>();
  CHECK_FALSE(cluster.cores[0]->has_ended());
  cluster.stop();
  CHECK(cluster.cores[0]->has_ended());
  CHECK(cluster.findings[0].started);
  CHECK(cluster.findings[0].destroyed);
  CHECK(cluster.findings[0].core_seen == 0);
  CHECK(current_core() == -1);
}

TEST_CASE("two cores that answer each other through their rings count to the end") {
  for (const FeatureMask hidden : {FeatureMask{}, mask_of_kernel_6_1()}) {
    CAPTURE(hidden.bits);
    Cluster cluster(2);
    RingOptions ring = small_ring();
    ring.features_off = hidden;
    cluster.start<Counting>(ring);
    cluster.tell(0, number_kind, 1);
    cluster.join();
    CHECK(cluster.findings[0].errors_count == 0);
    CHECK(cluster.findings[1].errors_count == 0);
    CHECK(cluster.findings[0].received_count + cluster.findings[1].received_count ==
          Counting::last);
  }
}

TEST_CASE("cores that flood each other at their start lose nothing and keep the order") {
  Cluster cluster(2);
  cluster.start<Flooding>();
  cluster.join();
  for (const Findings& findings : cluster.findings) {
    CHECK(findings.received_count == Flooding::count);
    CHECK(findings.errors_count == 0);
  }
}

TEST_CASE("a sleeping core wakes for its timers, not early and not much more often than for them") {
  Cluster cluster(1);
  cluster.start<Ticking>();
  cluster.join();
  CHECK(cluster.findings[0].timers_fired_count == 3);
  CHECK(cluster.findings[0].errors_count == 0);
  // Each timer may take a wake-up that came a little early. A core that spins takes thousands of
  // turns in 60 ms.
  CHECK(cluster.findings[0].counters.turns < 50);
}

TEST_CASE("a core whose application has more to do does not sleep") {
  Cluster cluster(1);
  cluster.start<Busy>();
  cluster.join();
  CHECK(cluster.findings[0].turn_ends_count == 100);
  CHECK(cluster.findings[0].counters.sleeps == 0);
}

TEST_CASE("an event of the ring ends the sleep and reaches its target") {
  Cluster cluster(1);
  cluster.start<Polling>();
  cluster.tell(0, number_kind);
  cluster.join();
  CHECK(cluster.findings[0].events_count >= 2);
  CHECK(cluster.findings[0].errors_count == 0);
}

TEST_CASE("a ring that cannot be made is told as a sentence that names the core") {
  Cluster cluster(2);
  CoreOptions options;
  options.id = 1;
  options.ring = small_ring();
  bool is_factory_called = false;
  // Without a descriptor to be had io_uring_setup fails.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{0, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  const auto core = Core::start(options, {cluster.system, cluster.wakes}, [&](CoreContext&) {
    is_factory_called = true;
    return Result<std::unique_ptr<CoreApplication>>(Error{"not reached"});
  });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE_FALSE(core.ok());
  CHECK(core.error().find("core 1: ") == 0);
  CHECK(core.error().find("io_uring") != std::string::npos);
  CHECK_FALSE(is_factory_called);
}

TEST_CASE("an application that cannot be made is told, and the core can be started again") {
  Cluster cluster(1);
  CoreOptions options;
  options.ring = small_ring();
  const auto core = Core::start(options, {cluster.system, cluster.wakes}, [](CoreContext&) {
    return Result<std::unique_ptr<CoreApplication>>(Error{"the port is taken"});
  });
  REQUIRE_FALSE(core.ok());
  CHECK(core.error() == "core 0: the port is taken");
  cluster.start<TestApplication>();
  cluster.stop();
  CHECK(cluster.findings[0].destroyed);
}

TEST_CASE("a core runs on the CPU that it was given") {
  class OnCpu final : public TestApplication {
   public:
    using TestApplication::TestApplication;
    void on_start() noexcept override { findings_.core_seen = sched_getcpu(); }
  };
  Cluster cluster(1);
  CoreOptions options;
  options.cpu = usable_cpus().back();
  options.ring = small_ring();
  auto core = Core::start(options, {cluster.system, cluster.wakes}, [&](CoreContext& context) {
    return Result<std::unique_ptr<CoreApplication>>(
        std::make_unique<OnCpu>(context, cluster.findings[0]));
  });
  REQUIRE(core.ok());
  cluster.tell(0, stop_kind);
  core.value()->join();
  CHECK(cluster.findings[0].core_seen == options.cpu);
}

}  // namespace helios
