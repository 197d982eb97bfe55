#include "helios/pool/slice.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "helios/pool/limit.h"

namespace helios {
namespace {

struct TestBackend final : PooledBackend {};
struct TestWaiter final : Waiter {};

struct HandOver {
  PooledBackend* backend;
  Waiter* waiter;
};
struct Move {
  PooledBackend* backend;
  CoreId to;
};

// The key of a pool whose permits are dealt from core 0 on.
std::string key_of_core_0(CoreId cores_count) {
  std::string key = "pool";
  while (PoolCores(key, cores_count).core_at(0) != 0) key += '+';
  return key;
}

// One core with one slice: does nothing by itself, and keeps what the slice asked for.
class TestCore final : public SlicePort, public Postbox {
 public:
  TestCore(CoreId id, CoreId cores_count, uint32_t max)
      : TestCore(id, cores_count, limits_of(max), std::make_shared<PoolShared>(PoolLimits())) {}
  TestCore(CoreId id, CoreId cores_count, const PoolLimits& limits,
           std::shared_ptr<PoolShared> shared)
      : id_(id), cores_count_(cores_count) {
    auto* spec = new PoolSpec;
    spec->key = key_of_core_0(cores_count);
    spec->limits = limits;
    spec->shared = std::move(shared);
    slice_ = std::make_unique<Slice>(PoolSpecRef(spec), *this, *this);
  }
  ~TestCore() override {
    while (active.pop_front() != nullptr) {
    }
    for (const auto& [to, message] : outbox)
      if (message.kind != static_cast<uint16_t>(MessageKind::backend))
        static_cast<void>(PoolSpecRef::take_word(message.words[0]));
  }
  [[nodiscard]] static PoolLimits limits_of(uint32_t max) {
    PoolLimits limits;
    limits.max_connections = max;
    limits.min_connections = max / 2;
    return limits;
  }
  Slice& operator*() { return *slice_; }
  Slice* operator->() { return slice_.get(); }

  [[nodiscard]] CoreId core() const noexcept override { return id_; }
  [[nodiscard]] CoreId cores_count() const noexcept override { return cores_count_; }
  void send(CoreId to, const Message& message) noexcept override {
    outbox.emplace_back(to, message);
    outbox.back().second.from = id_;
  }
  bool connect(Slice&) noexcept override {
    if (has_room) ++connects;
    return has_room;
  }
  void withdraw(Slice&) noexcept override { ++withdrawals; }
  bool screen(Slice&, PooledBackend&) noexcept override { return true; }
  void hand_over(Slice& slice, PooledBackend& backend, Waiter& waiter) noexcept override {
    hand_overs.push_back({&backend, &waiter});
    ++depth;
    depth_max = std::max(depth_max, depth);
    if (gives_back_at_once) slice.release(backend, backend.idle_since);
    --depth;
  }
  void move(Slice&, PooledBackend& backend, CoreId to) noexcept override {
    moves.push_back({&backend, to});
  }
  void close(Slice&, PooledBackend& backend) noexcept override { closes.push_back(&backend); }
  void on_reserve_freed(Slice& slice) noexcept override {
    ++reserve_frees;
    slice.on_limit_freed();
  }
  void activate(Slice& slice) noexcept override {
    if (!static_cast<ListNode<ActiveSliceTag>&>(slice).is_linked()) active.push_back(slice);
  }

  // One turn's end: pumps the slice if it asked for it.
  Nanoseconds pump(Nanoseconds now) {
    Slice* slice = active.pop_front();
    return slice == nullptr ? never : slice->pump(now);
  }
  // Makes `backend` a backend of this slice that is leased.
  void own(TestBackend& backend, Nanoseconds now) {
    slice_->warm_up(now);
    slice_->on_connected(backend, now);
    CHECK(slice_->try_acquire() == &backend);
  }
  // Ends backends that nobody else refers to.
  void end(std::initializer_list<TestBackend*> backends) {
    for (TestBackend* backend : backends) {
      if (static_cast<ListNode<IdleTag>*>(backend)->is_linked()) slice_->take_idle(*backend);
      slice_->on_gone();
    }
  }

  bool has_room = true;             // Of a shared limit.
  bool gives_back_at_once = false;  // Waiters have nothing to do.
  uint32_t depth = 0;
  uint32_t depth_max = 0;
  uint32_t connects = 0;
  uint32_t withdrawals = 0;
  std::vector<HandOver> hand_overs;
  std::vector<Move> moves;
  std::vector<PooledBackend*> closes;
  uint32_t reserve_frees = 0;
  std::deque<std::pair<CoreId, Message>> outbox;
  IntrusiveList<Slice, ActiveSliceTag> active;

 private:
  CoreId id_;
  CoreId cores_count_;
  std::unique_ptr<Slice> slice_;
};

// Several cores whose mail the test delivers.
class TestCores {
 public:
  TestCores(CoreId count, uint32_t max) {
    for (CoreId id = 0; id < count; ++id)
      cores_.push_back(std::make_unique<TestCore>(id, count, max));
  }
  TestCores(CoreId count, const PoolLimits& limits) {
    const auto shared = std::make_shared<PoolShared>(limits);
    for (CoreId id = 0; id < count; ++id)
      cores_.push_back(std::make_unique<TestCore>(id, count, limits, shared));
  }
  TestCore& operator[](size_t id) { return *cores_[id]; }

  // Sends the backends on their way that are to move, and delivers every message, until there is
  // none; pumps whoever wants it.
  void settle(Nanoseconds now) {
    for (bool again = true; again;) {
      again = false;
      for (auto& core : cores_) {
        again |= !core->active.empty() || !core->moves.empty() || !core->outbox.empty();
        core->pump(now);
        depart(*core);
        while (!core->outbox.empty()) deliver(*core, now);
      }
    }
  }
  void depart(TestCore& core) {
    for (const Move& move : core.moves) {
      Message message;
      message.kind = static_cast<uint16_t>(MessageKind::backend);
      message.words[0] = reinterpret_cast<uint64_t>(move.backend);
      message.words[1] = core->on_moved(move.to);
      core.send(move.to, message);
    }
    core.moves.clear();
  }
  // The oldest message of `core`.
  MessageKind deliver(TestCore& core, Nanoseconds now) {
    const auto [id, message] = core.outbox.front();
    core.outbox.pop_front();
    TestCore& to = *cores_[id];
    const auto kind = static_cast<MessageKind>(message.kind);
    if (kind == MessageKind::backend) {
      to->on_arrived(message.from, static_cast<CoreId>(message.words[1]));
      auto* backend = reinterpret_cast<PooledBackend*>(message.words[0]);
      if (std::exchange(tests_next, false)) {
        in_test = backend;
      } else {
        to->release(*backend, now);
      }
      return kind;
    }
    static_cast<void>(PoolSpecRef::take_word(message.words[0]));
    if (kind == MessageKind::want)
      to->on_want(message.from, message.count, static_cast<Nanoseconds>(message.words[1]),
                  message.words[2]);
    if (kind == MessageKind::promise)
      to->on_promise(message.from, message.count, static_cast<uint32_t>(message.words[1]));
    if (kind == MessageKind::unpromise) to->on_unpromise(message.from);
    if (kind == MessageKind::use) to->on_use(message.from, message.count != 0);
    if (kind == MessageKind::permits)
      to->on_permits(message.from, message.count, static_cast<CoreId>(message.words[1]));
    return kind;
  }

  bool tests_next = false;  // The next backend that arrives is not released, but tested.
  PooledBackend* in_test = nullptr;

 private:
  std::vector<std::unique_ptr<TestCore>> cores_;
};

constexpr Nanoseconds start = seconds(5);

TEST_CASE("the idle backend that was used last is leased first") {
  TestCore core(0, 1, 2);
  TestBackend older;
  TestBackend newer;
  core.own(older, start);
  core.own(newer, start);
  core->release(older, start + 1);
  core->release(newer, start + 2);
  CHECK(newer.idle_since == start + 2);
  CHECK(core->least_recently_used() == &older);
  CHECK(core->next_idle(older) == &newer);
  CHECK(core->try_acquire() == &newer);
  CHECK(core->try_acquire() == &older);
  CHECK(core->try_acquire() == nullptr);
  core.end({&older, &newer});
  CHECK(core->is_pristine());
}

TEST_CASE("a core uses its own permits before it asks others") {
  TestCores cores(2, 4);
  TestWaiter waiter;
  cores[0]->enqueue(waiter, start);
  cores[0].pump(start);
  CHECK(cores[0].connects == 1);
  CHECK(cores[0].outbox.empty());
  CHECK(cores[0]->permits_free() == 1);
  CHECK(cores[0]->connecting_count() == 1);
  TestBackend backend;
  cores[0]->on_connected(backend, start);
  REQUIRE(cores[0].hand_overs.size() == 1);
  CHECK(cores[0].hand_overs[0].waiter == &waiter);
  CHECK(cores[0]->backends_count() == 1);
  cores[0].end({&backend});
}

TEST_CASE("one waiter makes one connect, however often the slice is pumped") {
  TestCore core(0, 1, 5);
  TestWaiter waiter;
  core->enqueue(waiter, start);
  core.pump(start);
  core->pump(start);
  core->pump(start);
  CHECK(core.connects == 1);
  core->remove(waiter);
  core->on_connect_failed(start);
}

TEST_CASE("waiters of one core are served in the order in which they came") {
  TestCore core(0, 1, 1);
  TestBackend backend;
  core.own(backend, start);
  TestWaiter waiters[3];
  for (TestWaiter& waiter : waiters) core->enqueue(waiter, start);
  core->remove(waiters[1]);  // It gave up.
  core->release(backend, start);
  core->release(backend, start);
  REQUIRE(core.hand_overs.size() == 2);
  CHECK(core.hand_overs[0].waiter == &waiters[0]);
  CHECK(core.hand_overs[1].waiter == &waiters[2]);
  CHECK(core->waiters_count() == 0);
  core.end({&backend});
}

TEST_CASE("waiters that give their backend back at once are served in order and do not nest") {
  TestCore core(0, 1, 1);
  TestBackend backend;
  core.own(backend, start);
  std::vector<TestWaiter> waiters(1'000);
  for (TestWaiter& waiter : waiters) core->enqueue(waiter, start);
  core.gives_back_at_once = true;
  core->release(backend, start);
  REQUIRE(core.hand_overs.size() == waiters.size());
  for (size_t i = 0; i < waiters.size(); ++i) CHECK(core.hand_overs[i].waiter == &waiters[i]);
  CHECK(core.depth_max == 1);
  CHECK(core->try_acquire() == &backend);
  core.end({&backend});
}

TEST_CASE("nobody gets a backend past those who wait") {
  TestCore core(0, 1, 1);
  TestBackend backend;
  core.own(backend, start);
  TestWaiter waiter;
  core->enqueue(waiter, start);
  CHECK(core->try_acquire() == nullptr);
  core->release(backend, start);
  CHECK(core->idle_count() == 0);
  CHECK(core.hand_overs.size() == 1);
  core.end({&backend});
}

TEST_CASE("the oldest waiter can be taken out to be told of a failure") {
  TestCore core(0, 1, 1);
  TestWaiter first;
  TestWaiter second;
  core->enqueue(first, start);
  core->enqueue(second, start);
  CHECK(core->take_oldest_waiter() == &first);
  CHECK(core->take_oldest_waiter() == &second);
  CHECK(core->take_oldest_waiter() == nullptr);
}

TEST_CASE(
    "a connect that fails gives its permit back and is tried again at the time that was set") {
  TestCore core(0, 1, 3);
  TestWaiter waiters[2];
  for (TestWaiter& waiter : waiters) core->enqueue(waiter, start);
  core.pump(start);
  CHECK(core.connects == 2);
  const Nanoseconds retry_at = start + milliseconds(50);
  core->on_connect_failed(retry_at);
  core->on_connect_failed(retry_at);
  CHECK(core->permits_free() == 3);
  CHECK(core.pump(start) == retry_at);
  CHECK(core.connects == 2);
  CHECK(core->pump(retry_at - 1) == retry_at);
  CHECK(core.connects == 2);
  // One attempt shows whether the node is back.
  CHECK(core->pump(retry_at) == never);
  CHECK(core.connects == 3);
  TestBackend backend;
  core->on_connected(backend, retry_at);
  core.pump(retry_at);
  CHECK(core.connects == 4);
  core->on_connect_failed(0);
  core->remove(waiters[1]);
  core.end({&backend});
}

TEST_CASE("nobody counts on a connect that is doubted, until it is trusted again") {
  TestCore core(0, 1, 2);
  TestWaiter waiters[2];
  core->enqueue(waiters[0], start);
  core.pump(start);
  CHECK(core.connects == 1);
  core->on_connect_doubted();
  core.pump(start);
  CHECK(core.connects == 2);
  core->enqueue(waiters[1], start);
  core.pump(start);
  CHECK(core.connects == 2);  // There is no permit.
  core->on_connect_trusted();
  core->on_connect_failed(0);
  CHECK(core->permits_free() == 1);
  core.pump(start);
  CHECK(core.connects == 3);
  TestBackend backends[2];
  for (TestBackend& backend : backends) core->on_connected(backend, start);
  CHECK(core.hand_overs.size() == 2);
  core.end({&backends[0], &backends[1]});
}

TEST_CASE("a full shared limit keeps the permit and is tried again when it was freed") {
  TestCore core(0, 1, 3);
  TestWaiter waiter;
  core.has_room = false;
  core->enqueue(waiter, start);
  CHECK(core.pump(start) == never);
  CHECK(core->permits_free() == 3);
  core.has_room = true;
  core->pump(start);
  CHECK(core.connects == 0);
  core->on_limit_freed();
  core.pump(start);
  CHECK(core.connects == 1);
  CHECK(core->permits_free() == 2);
  core->on_connect_failed(0);
  core->remove(waiter);
}

TEST_CASE("what a shared limit refused is withdrawn once, when nobody needs it any more") {
  TestCore core(0, 1, 3);
  TestWaiter first;
  TestWaiter second;
  core.has_room = false;
  core->enqueue(first, start);
  core->enqueue(second, start);
  core.pump(start);
  core->remove(first);
  core.pump(start);
  CHECK(core.withdrawals == 0);
  core->remove(second);
  core.pump(start);
  CHECK(core.withdrawals == 1);
  core->on_limit_freed();
  core.pump(start);
  CHECK(core.withdrawals == 1);
}

TEST_CASE("who comes over from an earlier generation gets what is idle, the oldest first") {
  TestCore core(0, 1, 3);
  TestBackend backend;
  TestWaiter older;
  TestWaiter younger;
  older.waiting_since = start;
  younger.waiting_since = start + milliseconds(1);
  core.own(backend, start);
  core->release(backend, start);
  core->take_over(younger);
  core->take_over(older);
  core.pump(start);
  CHECK(core.hand_overs.size() == 1);
  CHECK(core.hand_overs[0].waiter == &older);
  core->release(backend, start);
  CHECK(core.hand_overs.size() == 2);
  core->on_connect_failed(0);  // Begun for the younger one.
  core.end({&backend});
}

TEST_CASE("warm-up takes a free permit and no more, and leaves a failing node alone") {
  TestCore core(0, 1, 2);
  CHECK(core->minimum() == 1);
  core->warm_up(start);
  core->warm_up(start);
  core->warm_up(start);
  CHECK(core.connects == 2);
  core->on_connect_failed(start + seconds(1));
  core->warm_up(start);
  CHECK(core.connects == 2);
  // One at a time after a failure.
  CHECK_FALSE(core->warm_up(start + seconds(1)));
  CHECK(core.connects == 2);
  core->on_connect_failed(start + seconds(1));
  CHECK(core->warm_up(start + seconds(1)));
  CHECK_FALSE(core->warm_up(start + seconds(1)));
  CHECK(core.connects == 3);
  core->on_connect_failed(0);
  core.has_room = false;
  CHECK_FALSE(core->warm_up(start));
  CHECK(core->permits_free() == 2);
}

TEST_CASE("the permits of all cores together are the limit") {
  for (const CoreId count : {CoreId{1}, CoreId{2}, CoreId{3}, CoreId{8}}) {
    for (uint32_t max = 1; max <= 20; ++max) {
      TestCores cores(count, max);
      uint32_t permits = 0;
      uint32_t minimum = 0;
      for (CoreId id = 0; id < count; ++id) {
        permits += cores[id]->permits_free();
        minimum += cores[id]->minimum();
        CHECK(cores[id]->is_pristine());
      }
      CHECK(permits == max);
      CHECK(minimum == max / 2);
    }
  }
}

TEST_CASE("the minimum goes with the permits that were lent") {
  TestCores cores(2, 4);
  CHECK(cores[0]->minimum() == 1);
  CHECK(cores[1]->minimum() == 1);
  TestBackend backends[3];
  cores[0].own(backends[0], start);
  cores[0]->release(backends[0], start);
  cores[1].own(backends[1], start);
  cores[1].own(backends[2], start);
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  cores.settle(start);
  REQUIRE(cores[1].hand_overs.size() == 1);
  CHECK(cores[0]->minimum() == 0);
  CHECK(cores[1]->minimum() == 2);
  // A lent permit that is free counts where it is too, until it goes home.
  cores[1].end({&backends[0], &backends[1], &backends[2]});
  CHECK(cores[1]->minimum() == 2);
  cores[1]->give_back_loans();
  cores.settle(start);
  CHECK(cores[0]->minimum() == 1);
  CHECK(cores[1]->minimum() == 1);
}

TEST_CASE("cores tell each other that they have clients, and when they have none any more") {
  TestCores cores(3, 6);
  cores[1]->sessions_count = 1;
  cores[1].activate(*cores[1]);
  cores.settle(start);
  for (CoreId id = 0; id < 3; ++id) {
    CHECK(cores[id]->is_used());
    CHECK(cores[id]->lacks_backends());
    CHECK_FALSE(cores[id]->is_pristine());
  }
  // Once is enough.
  cores[1].activate(*cores[1]);
  cores[1].pump(start);
  CHECK(cores[1].outbox.empty());
  // The last one goes and another comes: nobody hears of it.
  cores[1]->sessions_count = 0;
  cores[1].activate(*cores[1]);
  cores[1].pump(start);
  CHECK(cores[1].outbox.empty());
  cores[1]->tell_use();
  CHECK(cores[1].outbox.size() == 2);
  cores.settle(start);
  for (CoreId id = 0; id < 3; ++id) {
    CHECK_FALSE(cores[id]->is_used());
    CHECK(cores[id]->is_pristine());
  }
}

TEST_CASE("a pool without a minimum tells nobody of its clients") {
  TestCores cores(2, 1);
  cores[0]->sessions_count = 1;
  cores[0].activate(*cores[0]);
  cores[0].pump(start);
  CHECK(cores[0].outbox.empty());
  CHECK(cores[0]->is_used());
  CHECK_FALSE(cores[0]->lacks_backends());
  cores[0]->sessions_count = 0;
}

TEST_CASE("a core that holds all permits asks nobody, until it has lent one") {
  TestCores cores(2, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter here;
  cores[0]->enqueue(here, start);
  cores[0].pump(start);
  CHECK(cores[0].outbox.empty());

  TestWaiter there;
  cores[1]->enqueue(there, start - 2 * Slice::fairness_bound);
  cores.settle(start);
  cores[0]->release(backend, start);
  cores.settle(start);
  REQUIRE(cores[1].hand_overs.size() == 1);
  CHECK(cores[1].hand_overs[0].waiter == &there);
  cores[1]->release(backend, start);
  cores.settle(start);
  REQUIRE(cores[0].hand_overs.size() == 1);
  CHECK(cores[0].hand_overs[0].waiter == &here);
  cores[0].end({&backend});
}

TEST_CASE("a core without permits is sent the idle backend of another") {
  TestCores cores(2, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  cores[0]->release(backend, start);
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  cores.settle(start);
  REQUIRE(cores[1].hand_overs.size() == 1);
  CHECK(cores[1].hand_overs[0].backend == &backend);
  CHECK(cores[0]->backends_count() == 0);
  CHECK(cores[1]->backends_count() == 1);
  CHECK(cores[1].connects == 0);
  cores[1].end({&backend});
}

TEST_CASE("who waits for a backend that is tested where it arrives is on record elsewhere, too") {
  TestCores cores(2, 4);
  TestBackend tested;
  TestBackend other;
  TestBackend busy[2];
  cores[0].own(tested, start);
  cores[0].own(other, start);
  for (TestBackend& backend : busy) cores[1].own(backend, start);
  cores[0]->release(tested, start);
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  cores[1].pump(start);
  CHECK(cores.deliver(cores[1], start) == MessageKind::want);
  // The promise is known, and the wish withdrawn, before the backend comes.
  CHECK(cores.deliver(cores[0], start) == MessageKind::promise);
  cores[1].pump(start);
  cores.tests_next = true;
  cores.settle(start);
  CHECK(cores[1].hand_overs.empty());
  REQUIRE(cores.in_test == &tested);
  // The test takes its time, or fails.
  cores[0]->release(other, start + 1);
  cores.settle(start + 1);
  REQUIRE(cores[1].hand_overs.size() == 1);
  CHECK(cores[1].hand_overs[0].backend == &other);
  cores[1].end({&tested, &other, &busy[0], &busy[1]});
}

TEST_CASE("a core without permits is sent a bare one when nothing is idle") {
  for (const CoreId count : {CoreId{2}, CoreId{8}}) {
    TestCores cores(count, 1);
    TestWaiter waiter;
    TestCore& last = cores[count - 1];
    last->enqueue(waiter, start);
    cores.settle(start);
    CHECK(last.connects == 1);
    CHECK(cores[0]->permits_free() == 0);
    TestBackend backend;
    last->on_connected(backend, start);
    CHECK(last.hand_overs.size() == 1);
    // Nobody else holds a wish of this core any more.
    cores.settle(start);
    for (CoreId id = 0; id < count; ++id) CHECK_FALSE(cores[id]->has_waiters());
    last.end({&backend});
    last->give_back_loans();
    cores.settle(start);
    for (CoreId id = 0; id < count; ++id) CHECK(cores[id]->is_pristine());
  }
}

TEST_CASE("while a shared limit is full no bare permit takes the place of a backend") {
  TestCores cores(2, 3);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter own;
  cores[0].has_room = cores[1].has_room = false;
  cores[0]->enqueue(own, start);
  cores[0].pump(start);
  cores[0]->remove(own);
  TestWaiter waiters[2];
  for (TestWaiter& waiter : waiters) cores[1]->enqueue(waiter, start);
  cores.settle(start);
  CHECK(cores[0]->permits_free() == 1);
  cores[0]->release(backend, start + 1);
  REQUIRE(cores[0].moves.size() == 1);
  cores.settle(start + 1);
  REQUIRE(cores[1].hand_overs.size() == 1);
  CHECK(cores[1].hand_overs[0].waiter == &waiters[0]);
  // With room again the permit is lent.
  cores[0].has_room = cores[1].has_room = true;
  cores[0]->on_limit_freed();
  TestWaiter third;
  cores[1]->enqueue(third, start + 2);
  cores[1]->on_limit_freed();
  cores.settle(start + 2);
  CHECK(cores[0]->permits_free() == 0);
  CHECK(cores[1].connects == 2);
  for (TestWaiter* waiter : {&waiters[1], &third}) cores[1]->remove(*waiter);
  for (int i = 0; i < 2; ++i) cores[1]->on_connect_failed(start + 2);
  cores[1].end({&backend});
}

TEST_CASE("a permit that older waiters do not need goes to a younger one elsewhere") {
  TestCores cores(2, 3);
  cores[0].has_room = cores[1].has_room = false;
  TestWaiter older;
  TestWaiter younger[2];
  cores[0]->enqueue(older, start);
  for (TestWaiter& waiter : younger) cores[1]->enqueue(waiter, start + 1);
  cores.settle(start + 1);
  cores[0].has_room = cores[1].has_room = true;
  cores[0]->on_limit_freed();
  cores[1]->on_limit_freed();
  cores.settle(start + 1);
  cores.settle(start + 1);
  CHECK(cores[0].connects == 1);
  CHECK(cores[1].connects == 2);
  cores[0]->remove(older);
  for (TestWaiter& waiter : younger) cores[1]->remove(waiter);
  cores[0]->on_connect_failed(start);
  for (int i = 0; i < 2; ++i) cores[1]->on_connect_failed(start);
}

TEST_CASE("a waiter on one core is served by a backend that is freed on another") {
  for (const CoreId count : {CoreId{2}, CoreId{8}}) {
    TestCores cores(count, 1);
    TestBackend backend;
    cores[0].own(backend, start);
    TestWaiter waiter;
    cores[1]->enqueue(waiter, start);
    cores.settle(start);
    CHECK(cores[0]->has_waiters());
    CHECK(cores[1].hand_overs.empty());
    cores[0]->release(backend, start + seconds(1));
    CHECK(cores[0]->idle_count() == 0);
    cores.settle(start + seconds(1));
    REQUIRE(cores[1].hand_overs.size() == 1);
    CHECK(cores[1].hand_overs[0].waiter == &waiter);
    cores[1].end({&backend});
  }
}

TEST_CASE("the permit of a backend that died goes to where somebody waits") {
  TestCores cores(8, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter waiter;
  cores[5]->enqueue(waiter, start);
  cores.settle(start);
  CHECK(cores[5].connects == 0);
  cores[0]->on_gone();
  cores.settle(start);
  CHECK(cores[5].connects == 1);
  cores[5]->on_connect_failed(0);
  cores[5]->remove(waiter);
}

TEST_CASE("a freed backend goes to the older waiter, here or on another core") {
  for (const bool is_remote_older : {true, false}) {
    TestCores cores(2, 1);
    TestBackend backend;
    cores[0].own(backend, start);
    TestWaiter local;
    TestWaiter remote;
    const Nanoseconds later = start + Slice::fairness_bound + 1;
    cores[0]->enqueue(local, is_remote_older ? later : start);
    cores[1]->enqueue(remote, is_remote_older ? start : later);
    cores.settle(later);
    cores[0]->release(backend, later);
    cores.settle(later);
    CHECK(cores[1].hand_overs.size() == (is_remote_older ? 1U : 0U));
    CHECK(cores[0].hand_overs.size() == (is_remote_older ? 0U : 1U));
    static_cast<void>(cores[0]->take_oldest_waiter());
    static_cast<void>(cores[1]->take_oldest_waiter());
    cores[is_remote_older ? 1 : 0].end({&backend});
  }
}

TEST_CASE("a waiter elsewhere that is older by the fairness bound only does not come first") {
  TestCores cores(2, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter local;
  TestWaiter remote;
  cores[1]->enqueue(remote, start);
  cores[0]->enqueue(local, start + Slice::fairness_bound);
  cores.settle(start);
  cores[0]->release(backend, start);
  CHECK(cores[0].hand_overs.size() == 1);
  cores[1]->remove(remote);
  cores[0].end({&backend});
}

TEST_CASE("of the waiters on several cores the oldest is served first") {
  TestCores cores(4, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter waiters[4];
  for (const size_t id : {size_t{2}, size_t{1}, size_t{3}}) {
    cores[id]->enqueue(waiters[id], start + milliseconds(static_cast<int64_t>(id) * 10));
    cores.settle(start);
  }
  size_t holder = 0;
  for (const size_t id : {size_t{1}, size_t{2}, size_t{3}}) {
    cores[holder]->release(backend, start + seconds(1));
    cores.settle(start + seconds(1));
    REQUIRE(cores[id].hand_overs.size() == 1);
    holder = id;
  }
  cores[3].end({&backend});
}

TEST_CASE("a wish that is withdrawn is served no more") {
  TestCores cores(3, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  cores.settle(start);
  CHECK(cores[0]->has_waiters());
  CHECK(cores[2]->has_waiters());
  cores[1]->remove(waiter);
  cores.settle(start);
  CHECK_FALSE(cores[0]->has_waiters());
  CHECK_FALSE(cores[2]->has_waiters());
  cores[0]->release(backend, start);
  CHECK(cores[0].moves.empty());
  CHECK(cores[0]->idle_count() == 1);
  cores[0].end({&backend});
}

TEST_CASE("a second waiter is told to the others although the first is on record") {
  TestCores cores(2, 3);
  TestBackend backends[3];
  cores[0].own(backends[0], start);
  cores[0].own(backends[1], start);
  cores[1].own(backends[2], start);
  TestWaiter waiters[2];
  for (TestWaiter& waiter : waiters) {
    cores[1]->enqueue(waiter, start);
    cores.settle(start);
  }
  TestWaiter local;
  cores[0]->enqueue(local, start + seconds(1));
  // The second comes back before the other core could say anything.
  cores[0]->release(backends[0], start + seconds(1));
  cores[0]->release(backends[1], start + seconds(1));
  CHECK(cores[0].hand_overs.empty());
  CHECK(cores[0].moves.size() == 2);
  cores[0]->remove(local);
  cores.settle(start + seconds(1));
  CHECK(cores[1].hand_overs.size() == 2);
  cores[1].end({&backends[0], &backends[1], &backends[2]});
}

TEST_CASE("a promised backend that dies before it leaves opens the wish again") {
  TestCores cores(2, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  cores[0]->release(backend, start);
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  cores[1].pump(start);
  CHECK(cores.deliver(cores[1], start) == MessageKind::want);
  REQUIRE(cores[0].moves.size() == 1);
  CHECK(cores.deliver(cores[0], start) == MessageKind::promise);
  cores[0].moves.clear();
  cores[0]->on_move_failed(1);
  cores[0]->on_gone();
  cores.settle(start);
  CHECK(cores[1].connects == 1);
  cores[1]->on_connect_failed(0);
  cores[1]->remove(waiter);
}

TEST_CASE("a move that fails after the wish was withdrawn leaves no wish behind") {
  TestCores cores(2, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  cores.settle(start);
  cores[0]->release(backend, start);
  REQUIRE(cores[0].moves.size() == 1);
  cores[0].moves.clear();
  cores[1]->remove(waiter);
  cores.settle(start);
  cores[0]->on_move_failed(1);
  cores.settle(start);
  CHECK_FALSE(cores[0]->has_waiters());
  cores[0]->on_gone();
  cores.settle(start);
  CHECK(cores[0]->is_pristine());
  CHECK(cores[1]->is_pristine());
}

TEST_CASE("a renewal that crosses a grant leaves no wish behind") {
  TestCores cores(2, 1);
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter waiters[2];
  cores[1]->enqueue(waiters[0], start);
  cores.settle(start);
  cores[1]->enqueue(waiters[1], start);
  cores[1].pump(start);  // Two, says the renewal, which is on its way.
  cores[0]->release(backend, start);
  cores.depart(cores[0]);
  CHECK(cores.deliver(cores[1], start) == MessageKind::want);
  CHECK(cores.deliver(cores[0], start) == MessageKind::backend);
  cores[1]->remove(waiters[1]);
  cores.settle(start);
  CHECK_FALSE(cores[0]->has_waiters());
  cores[1].end({&backend});
}

TEST_CASE("a loan that comes home while a wish is on its way leaves no wish behind") {
  TestCores cores(2, 1);
  TestWaiter borrower;
  cores[1]->enqueue(borrower, start);
  cores.settle(start);
  REQUIRE(cores[1]->connecting_count() == 1);
  cores[1]->remove(borrower);
  cores[1]->on_connect_failed(start);
  cores.settle(start);
  TestWaiter waiter;
  cores[0]->enqueue(waiter, start);
  cores[0].pump(start);
  REQUIRE(cores[0].outbox.size() == 1);
  cores[1]->give_back_loans();
  cores.deliver(cores[1], start);
  // It serves the waiter: nothing is wanted any more when the wish arrives.
  cores[0].pump(start);
  CHECK(cores[0].connects == 1);
  cores[0]->remove(waiter);
  cores.settle(start);
  cores[0]->on_connect_failed(start);
  cores.settle(start);
  CHECK(cores[0]->is_pristine());
  CHECK(cores[1]->is_pristine());
}

TEST_CASE("a waiter is pumped again when the backend it counted on goes to an older one") {
  TestCores cores(2, 2);
  TestBackend leased;
  cores[0].own(leased, start);
  cores[1].own(leased, start);
  CHECK(cores[1]->permits_free() == 0);
  cores[1]->on_gone();
  TestWaiter local;
  TestWaiter remote;
  const Nanoseconds later = start + seconds(1);
  cores[1]->enqueue(local, later);
  cores[1].pump(later);  // Connects.
  cores[0]->enqueue(remote, start);
  cores.settle(later);
  CHECK(cores[1]->connecting_count() == 1);
  TestBackend backend;
  cores[1]->on_connected(backend, later);
  REQUIRE(cores[1].moves.size() == 1);
  CHECK_FALSE(cores[1].active.empty());
  cores.settle(later);
  CHECK(cores[0].hand_overs.size() == 1);
  CHECK(cores[0]->has_waiters());  // It has been told of the local one.
  cores[1]->remove(local);
  cores.settle(later);
  cores[0].end({&leased, &backend});
}

TEST_CASE("who passes a backend on says first since when its own waiters wait") {
  TestCores cores(2, 4);
  TestBackend leased;
  cores[0].own(leased, start);
  cores[0].own(leased, start);
  const Nanoseconds middle = start + milliseconds(10);
  const Nanoseconds later = start + seconds(1);
  TestWaiter local[2];
  for (TestWaiter& waiter : local) cores[1]->enqueue(waiter, middle);
  cores[1].pump(middle);
  REQUIRE(cores[1]->connecting_count() == 2);
  TestWaiter oldest;
  TestWaiter youngest;
  cores[0]->enqueue(oldest, start);
  cores[0]->enqueue(youngest, later);
  cores.settle(later);
  // Core 1 knows of two waiters, and since when the first of them waits: both backends go there.
  TestBackend backends[2];
  for (TestBackend& backend : backends) {
    cores[1]->on_connected(backend, later);
    CHECK(cores[1].outbox.back().second.kind == static_cast<uint16_t>(MessageKind::want));
  }
  CHECK(cores[1].moves.size() == 2);
  cores.settle(later);
  // The second one comes back: the next waiter there is younger than ours.
  REQUIRE(cores[0].hand_overs.size() == 1);
  CHECK(cores[0].hand_overs[0].waiter == &oldest);
  REQUIRE(cores[1].hand_overs.size() == 1);
  CHECK(cores[1].hand_overs[0].waiter == &local[0]);
  static_cast<void>(cores[0]->take_oldest_waiter());
  static_cast<void>(cores[1]->take_oldest_waiter());
  cores.settle(later);
  cores[0].end({&leased, &leased, &backends[0]});
  cores[1].end({&backends[1]});
}

TEST_CASE("a backend granted to a wish that was withdrawn does not count as answer to the next") {
  for (const bool is_late : {false, true}) {
    CAPTURE(is_late);
    TestCores cores(2, 1);
    TestBackend backend;
    cores[0].own(backend, start);
    TestWaiter waiter;
    cores[1]->enqueue(waiter, start);
    cores.settle(start);
    cores[0]->release(backend, start);
    REQUIRE(cores[0].moves.size() == 1);
    if (!is_late) cores.depart(cores[0]);
    cores[1]->remove(waiter);
    cores[1].pump(start);
    cores[1]->enqueue(waiter, start);
    cores[1].pump(start);
    while (!cores[1].outbox.empty()) cores.deliver(cores[1], start);
    while (!cores[0].outbox.empty()) cores.deliver(cores[0], start);
    cores.settle(start);
    REQUIRE(cores[1].hand_overs.size() == 1);
    CHECK_FALSE(cores[0]->has_waiters());
    cores[1].end({&backend});
  }
}

TEST_CASE("a permit that is sent home beside a wish does not count as its answer") {
  TestCores cores(2, 1);
  TestWaiter waiter;
  // Core 1 borrows the permit and does not use it.
  cores[1]->enqueue(waiter, start);
  cores.settle(start);
  cores[1]->remove(waiter);
  cores[1]->on_connect_failed(0);
  cores.settle(start);
  CHECK(cores[1]->permits_free() == 1);
  // It sends it home while core 0 asks for it.
  cores[0]->enqueue(waiter, start);
  cores[0].pump(start);
  cores[1]->give_back_loans();
  cores.settle(start);
  CHECK(cores[0].connects == 1);
  cores[0]->remove(waiter);
  cores[0]->on_connect_failed(0);
  cores.settle(start);
  CHECK_FALSE(cores[1]->has_waiters());
  CHECK(cores[0]->is_pristine());
  CHECK(cores[1]->is_pristine());
}

TEST_CASE("permits that went round in a circle still get home") {
  TestCores cores(3, 1);
  TestWaiter waiter;
  for (const size_t id : {size_t{1}, size_t{2}, size_t{0}, size_t{2}, size_t{1}}) {
    cores[id]->enqueue(waiter, start);
    cores.settle(start);
    TestBackend backend;
    cores[id]->on_connected(backend, start);
    REQUIRE(cores[id].hand_overs.back().waiter == &waiter);
    cores[id].end({&backend});
    cores.settle(start);
    CHECK(cores[id]->permits_free() == 1);
  }
  for (size_t id = 0; id < 3; ++id) {
    cores[id]->give_back_loans();
    cores.settle(start);
  }
  for (size_t id = 0; id < 3; ++id) CHECK(cores[id]->is_pristine());
}

TEST_CASE("a slice with a loan, a wish or a backend is not pristine") {
  TestCores cores(2, 1);
  CHECK(cores[0]->is_pristine());
  cores[0]->sessions_count = 1;
  CHECK_FALSE(cores[0]->is_pristine());
  cores[0]->sessions_count = 0;
  TestBackend backend;
  cores[0].own(backend, start);
  CHECK_FALSE(cores[0]->is_pristine());
  TestWaiter waiter;
  cores[1]->enqueue(waiter, start);
  CHECK_FALSE(cores[1]->is_pristine());
  cores.settle(start);
  cores[0]->on_gone();
  CHECK_FALSE(cores[0]->is_pristine());
  cores.settle(start);
  CHECK_FALSE(cores[0]->is_pristine());  // Its permit is away.
  cores[1]->on_connect_failed(0);
  cores[1]->remove(waiter);
  cores.settle(start);
  CHECK_FALSE(cores[1]->is_pristine());
  cores[1]->give_back_loans();
  cores.settle(start);
  CHECK(cores[0]->is_pristine());
  CHECK(cores[1]->is_pristine());
}

// ---------------------------------------------------------------- the reserve

PoolLimits with_reserve(uint32_t max, uint32_t reserve) {
  PoolLimits limits = TestCore::limits_of(max);
  limits.reserve_connections = reserve;
  limits.reserve_after = seconds(2);
  return limits;
}

constexpr Nanoseconds reserve_opens = start + seconds(2);

TEST_CASE("the reserve opens when somebody has waited for reserve_after, and not before") {
  TestCores cores(1, with_reserve(1, 2));
  TestCore& core = cores[0];
  TestBackend backends[3];
  core.own(backends[0], start);
  TestWaiter waiters[4];
  core->enqueue(waiters[0], start);
  for (int i = 1; i < 4; ++i) core->enqueue(waiters[i], start + seconds(1));
  CHECK(core.pump(start) == reserve_opens);
  CHECK(core->pump(reserve_opens - 1) == reserve_opens);
  CHECK(core.connects == 1);
  // All who wait profit, but no more than the reserve has.
  CHECK(core->pump(reserve_opens) == never);
  CHECK(core.connects == 3);
  CHECK(core->reserve_held() == 2);
  CHECK(core->spec().shared->reserve.taken() == 2);
  core->on_connected(backends[1], reserve_opens);
  core->on_connected(backends[2], reserve_opens);
  REQUIRE(core.hand_overs.size() == 2);
  CHECK(core.hand_overs[0].waiter == &waiters[0]);
  core->remove(waiters[2]);
  core->remove(waiters[3]);
  core.end({&backends[0], &backends[1], &backends[2]});
  core.pump(reserve_opens);
  CHECK(core->spec().shared->reserve.taken() == 0);
  CHECK(core->is_pristine());
}

TEST_CASE("the reserve stays shut while a permit is free, or a backend is on its way") {
  TestCores cores(1, with_reserve(2, 2));
  TestCore& core = cores[0];
  TestWaiter waiters[2];
  for (TestWaiter& waiter : waiters) core->enqueue(waiter, start);
  core.pump(start);
  CHECK(core.connects == 2);
  core->pump(reserve_opens);
  CHECK(core.connects == 2);
  CHECK(core->reserve_held() == 0);
  for (TestWaiter& waiter : waiters) core->remove(waiter);
  core->on_connect_failed(0);
  core->on_connect_failed(0);
}

TEST_CASE("the reserve gets its permit back as soon as a backend is idle and nobody waits") {
  TestCores cores(1, with_reserve(1, 1));
  TestCore& core = cores[0];
  TestBackend backends[2];
  core.own(backends[0], start);
  TestWaiter waiters[2];
  for (TestWaiter& waiter : waiters) core->enqueue(waiter, start);
  core.pump(start);
  core->pump(reserve_opens);
  core->on_connected(backends[1], reserve_opens);
  core.pump(reserve_opens);
  // Somebody waits: it is handed on.
  core->release(backends[1], reserve_opens);
  CHECK(core.hand_overs.size() == 2);
  core.pump(reserve_opens);
  CHECK(core.closes.empty());
  // Whichever is idle first.
  core->release(backends[0], reserve_opens);
  core.pump(reserve_opens);
  CHECK(core.closes == std::vector<PooledBackend*>{&backends[0]});
  CHECK(core->reserve_held() == 1);
  // One is enough, though the server takes its time.
  core->release(backends[1], reserve_opens);
  core.pump(reserve_opens);
  CHECK(core.closes.size() == 1);
  CHECK(core->idle_count() == 1);
  core->on_gone();
  core.pump(reserve_opens);
  CHECK(core->reserve_held() == 0);
  CHECK(core->spec().shared->reserve.taken() == 0);
  CHECK(core->permits_free() == 0);
  core.end({&backends[1]});
  CHECK(core->is_pristine());
}

TEST_CASE("a permit of the reserve that waiters cannot use goes back, and is taken anew") {
  TestCores cores(1, with_reserve(1, 1));
  TestCore& core = cores[0];
  TestBackend backend;
  core.own(backend, start);
  TestWaiter waiter;
  core->enqueue(waiter, start);
  core.pump(start);
  SUBCASE("a shared limit is full") {
    core.has_room = false;
    CHECK(core->pump(reserve_opens) == never);
    CHECK(core->spec().shared->reserve.taken() == 0);
    core.has_room = true;
    core->on_limit_freed();
    core.pump(reserve_opens);
  }
  SUBCASE("the node fails") {
    core->pump(reserve_opens);
    const Nanoseconds retry_at = reserve_opens + milliseconds(50);
    core->on_connect_failed(retry_at);
    CHECK(core.pump(reserve_opens) == retry_at);
    CHECK(core->spec().shared->reserve.taken() == 0);
    core->pump(retry_at);
  }
  CHECK(core->spec().shared->reserve.taken() == 1);
  CHECK(core->connecting_count() == 1);
  core->remove(waiter);
  core->on_connect_failed(0);
  core.end({&backend});
}

TEST_CASE("a core that found the reserve empty is told when it has room again") {
  TestCores cores(2, with_reserve(2, 1));
  TestBackend backends[3];
  cores[0].own(backends[0], start);
  cores[1].own(backends[1], start);
  TestWaiter waiters[2];
  for (size_t id = 0; id < 2; ++id) cores[id]->enqueue(waiters[id], start);
  cores.settle(start);
  cores[0]->pump(reserve_opens);
  CHECK(cores[0]->reserve_held() == 1);
  CHECK(cores[1]->pump(reserve_opens) == never);
  CHECK(cores[1]->reserve_held() == 0);
  CHECK(cores[0].connects + cores[1].connects == 3);
  // It is lent, with the backend, to the other core.
  cores[0]->remove(waiters[0]);
  cores[0]->on_connected(backends[2], reserve_opens);
  cores.settle(reserve_opens);
  CHECK(cores[1].hand_overs.size() == 1);
  CHECK(cores[0]->reserve_held() == 0);
  CHECK(cores[1]->reserve_held() == 1);
  cores[1]->release(backends[2], reserve_opens);
  cores[1].pump(reserve_opens);
  CHECK(cores[1].closes.size() == 1);
  cores[1]->on_gone();
  cores[1].pump(reserve_opens);
  CHECK(cores[1].reserve_frees == 1);
  CHECK(cores[1]->spec().shared->reserve.taken() == 0);
  cores[0].end({&backends[0]});
  cores[1].end({&backends[1]});
}

TEST_CASE("a bare permit of the reserve is lent, and comes back from where it was lent to") {
  TestCores cores(2, with_reserve(1, 1));
  TestBackend backend;
  cores[0].own(backend, start);
  TestWaiter local;
  TestWaiter remote;
  cores[0]->enqueue(local, start);
  cores.settle(start);
  cores[0]->pump(reserve_opens);
  CHECK(cores[0]->reserve_held() == 1);
  cores[0]->remove(local);
  cores[1]->enqueue(remote, start);
  cores.settle(start);
  cores[0]->on_connect_failed(0);
  cores.settle(start);
  CHECK(cores[0]->reserve_held() == 0);
  CHECK(cores[1]->reserve_held() == 1);
  CHECK(cores[1].connects == 1);
  cores[1]->remove(remote);
  cores[1]->on_connect_failed(0);
  cores.settle(start);
  CHECK(cores[1]->spec().shared->reserve.taken() == 0);
  CHECK(cores[1]->is_pristine());
  cores[0].end({&backend});
  CHECK(cores[0]->is_pristine());
}

TEST_CASE("a limit without a maximum refuses nobody") {
  Limit limit(0);
  for (int i = 0; i < 1000; ++i) REQUIRE(limit.try_take());
  CHECK(limit.taken() == 1000);
  CHECK_FALSE(limit.give_back());
}

TEST_CASE("a limit that refused somebody says so once when there is room") {
  Limit limit(2);
  CHECK(limit.try_take());
  CHECK(limit.try_take());
  CHECK_FALSE(limit.try_take());
  CHECK_FALSE(limit.try_take());
  CHECK(limit.taken() == 2);
  CHECK(limit.give_back());
  CHECK_FALSE(limit.give_back());
  CHECK(limit.taken() == 0);
}

// Each thread waits, when it was refused, for somebody to say that there is room again. A notice
// that is lost leaves it waiting for ever.
TEST_CASE("two threads never exceed a limit and never miss that there is room again") {
  constexpr uint32_t max = 1;
  constexpr int rounds = 20'000;
  Limit limit(max);
  std::atomic<uint32_t> holders{0};
  std::atomic<uint64_t> notices{0};
  std::atomic<bool> is_exceeded{false};
  const auto work = [&] {
    for (int i = 0; i < rounds; ++i) {
      for (;;) {
        const uint64_t seen = notices.load();
        if (limit.try_take()) break;
        while (notices.load() == seen) std::this_thread::yield();
      }
      if (holders.fetch_add(1) >= max) is_exceeded = true;
      holders.fetch_sub(1);
      if (limit.give_back()) notices.fetch_add(1);
    }
  };
  std::thread other(work);
  work();
  other.join();
  CHECK_FALSE(is_exceeded.load());
  CHECK(limit.taken() == 0);
}

}  // namespace
}  // namespace helios
