// What each query passes in the pool: the ledger of what a server owes, and getting a backend.
#include <benchmark/benchmark.h>

#include <string_view>
#include <utility>

#include "bench/micro/meter.h"
#include "helios/pool/ledger.h"
#include "helios/pool/slice.h"
#include "helios/runtime/core.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/ring_waker.h"

namespace helios::bench {
namespace {

// Messages of a client and the replies to them; an op is one such round.
void ledger_rounds(benchmark::State& state, std::string_view requests, std::string_view replies) {
  Ledger ledger;
  bool is_good = true;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      for (const char tag : requests) {
        ledger.on_sent(static_cast<uint8_t>(tag), LedgerAction::forward);
        is_good &= !ledger.has_due_fake();
      }
      for (const char tag : replies) {
        is_good &= ledger.on_reply(static_cast<uint8_t>(tag)).verdict == ReplyVerdict::forward;
        is_good &= !ledger.has_due_fake();
      }
    }
  }
  if (!is_good || !ledger.empty()) fail(state, "the ledger is wrong");
}

// Query; a row and its end.
void ledger_simple(benchmark::State& state) {
  ledger_rounds(state, "Q", "TDCZ");
}
BENCHMARK(ledger_simple);

// Parse, Bind, Describe, Execute, Sync, each answered.
void ledger_extended(benchmark::State& state) {
  ledger_rounds(state, "PBDES", "12TDCZ");
}
BENCHMARK(ledger_extended);

struct FakeBackend final : PooledBackend {};
struct FakeWaiter final : Waiter {};

// A core that is alone and connects at once: it does nothing by itself.
class FakeCore final : public SlicePort, public Postbox {
 public:
  FakeCore() {
    auto* spec = new PoolSpec;
    spec->limits.max_connections = backends_count;
    spec_ = PoolSpecRef(spec);
  }
  [[nodiscard]] const PoolSpecRef& spec() const noexcept { return spec_; }

  [[nodiscard]] CoreId core() const noexcept override { return 0; }
  [[nodiscard]] CoreId cores_count() const noexcept override { return 1; }
  void send(CoreId, const Message&) noexcept override {}
  bool connect(Slice&) noexcept override { return true; }
  void withdraw(Slice&) noexcept override {}
  bool screen(Slice&, PooledBackend&) noexcept override { return true; }
  void hand_over(Slice&, PooledBackend&, Waiter&) noexcept override {}
  void move(Slice&, PooledBackend&, CoreId) noexcept override {}
  void close(Slice&, PooledBackend&) noexcept override {}
  void on_reserve_freed(Slice&) noexcept override {}
  void activate(Slice&) noexcept override {}

  static constexpr uint32_t backends_count = 20;

 private:
  PoolSpecRef spec_;
};

// A backend for each transaction and back again. The bar: under 100 ns, no atomic
// read-modify-write and no allocation (which fails the benchmark).
void pool_acquire_release(benchmark::State& state) {
  FakeCore core;
  Slice slice(core.spec(), core, core);
  FakeBackend backends[FakeCore::backends_count];
  for (FakeBackend& backend : backends) {
    slice.warm_up(0);
    slice.on_connected(backend, 0);
  }
  bool is_good = true;
  {
    Meter meter(state, 1, Allocations::forbidden);
    Nanoseconds now = 0;
    for (auto _ : state) {
      PooledBackend* backend = slice.try_acquire();
      is_good &= backend != nullptr;
      slice.release(*backend, ++now);
    }
  }
  if (!is_good || slice.idle_count() != FakeCore::backends_count) fail(state, "a backend is gone");
  for (FakeBackend& backend : backends) {
    slice.take_idle(backend);
    slice.on_gone();
  }
}
BENCHMARK(pool_acquire_release);

// One of two cores that share a pool of one backend, with its real mailbox. Both on this thread.
class BorrowCore final : public SlicePort, public MessageHandler {
 public:
  BorrowCore(MailboxSystem& system, CoreId core, Waker& waker, const PoolSpecRef& spec)
      : mailbox_(system, core, waker), slice_(spec, *this, mailbox_) {}

  // A waiter comes; true when it has a backend after so many turns of both cores.
  [[nodiscard]] bool borrow_from(BorrowCore& lender, Nanoseconds now) noexcept {
    constexpr int turns_max = 8;
    lease_ = nullptr;
    (void)slice_.enqueue(waiter_, now);
    for (int i = 0; i < turns_max && lease_ == nullptr; ++i) {
      turn(now);
      lender.turn(now);
    }
    if (lease_ == nullptr) return false;
    slice_.release(*lease_, now);
    return true;
  }
  // As a core does: mail, the pump, what is to move, and the mailbox's flush.
  void turn(Nanoseconds now) noexcept {
    now_ = now;
    mailbox_.drain(*this);
    if (std::exchange(is_active_, false)) (void)slice_.pump(now);
    if (leaving_ != nullptr) send_backend();
    mailbox_.flush();
  }
  [[nodiscard]] Slice& slice() noexcept { return slice_; }

  bool connect(Slice&) noexcept override { return true; }
  void withdraw(Slice&) noexcept override {}
  bool screen(Slice&, PooledBackend&) noexcept override { return true; }
  void hand_over(Slice&, PooledBackend& backend, Waiter&) noexcept override { lease_ = &backend; }
  void move(Slice&, PooledBackend& backend, CoreId to) noexcept override {
    leaving_ = &backend;
    leaving_to_ = to;
  }
  void close(Slice&, PooledBackend&) noexcept override {}
  void on_reserve_freed(Slice&) noexcept override {}
  void activate(Slice&) noexcept override { is_active_ = true; }

 private:
  void on_message(const Message& message) noexcept override {
    const auto kind = static_cast<MessageKind>(message.kind);
    if (kind == MessageKind::backend) {
      slice_.on_arrived(message.from, static_cast<CoreId>(message.words[1]));
      slice_.release(*reinterpret_cast<PooledBackend*>(message.words[0]), now_);
      return;
    }
    (void)PoolSpecRef::take_word(message.words[0]);
    if (kind == MessageKind::want)
      slice_.on_want(message.from, message.count, static_cast<Nanoseconds>(message.words[1]),
                     message.words[2]);
    if (kind == MessageKind::promise)
      slice_.on_promise(message.from, message.count, static_cast<uint32_t>(message.words[1]));
  }
  void send_backend() noexcept {
    Message message;
    message.kind = static_cast<uint16_t>(MessageKind::backend);
    message.words[0] = reinterpret_cast<uint64_t>(std::exchange(leaving_, nullptr));
    message.words[1] = slice_.on_moved(leaving_to_);
    mailbox_.send(leaving_to_, message);
  }

  Mailbox mailbox_;
  Slice slice_;
  FakeWaiter waiter_;
  PooledBackend* lease_ = nullptr;
  PooledBackend* leaving_ = nullptr;
  CoreId leaving_to_ = 0;
  Nanoseconds now_ = 0;
  bool is_active_ = false;
};

// A waiter of one core gets the idle backend of the other: wish, promise and the backend itself are
// messages. (The socket's own move, in the kernel, is not in it.) Then the other way round.
void pool_borrow(benchmark::State& state) {
  auto* spec = new PoolSpec;
  spec->limits.max_connections = 1;
  const PoolSpecRef ref(spec);
  MailboxSystem system(2);
  WakeTable wakes(2);
  EventWaker waker(wakes);
  BorrowCore here(system, 0, waker, ref);
  BorrowCore there(system, 1, waker, ref);
  FakeBackend backend;
  (void)here.slice().warm_up(0);
  here.slice().on_connected(backend, 0);
  bool is_good = true;
  BorrowCore* asker = &there;
  BorrowCore* lender = &here;
  {
    Meter meter(state, 1, Allocations::forbidden);
    Nanoseconds now = 0;
    for (auto _ : state) {
      is_good &= asker->borrow_from(*lender, now += microseconds(1));
      std::swap(asker, lender);
    }
  }
  if (!is_good || lender->slice().idle_count() != 1) fail(state, "the backend is gone");
  // What they still tell each other holds references.
  for (int i = 0; i < 4; ++i) {
    here.turn(0);
    there.turn(0);
  }
  lender->slice().take_idle(backend);
  lender->slice().on_gone();
}
BENCHMARK(pool_borrow);

}  // namespace
}  // namespace helios::bench
