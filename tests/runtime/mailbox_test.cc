#include "helios/runtime/mailbox.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

namespace helios {
namespace {

struct RecordingWaker final : Waker {
  void wake(CoreId peer) noexcept override { woken.push_back(peer); }
  std::vector<CoreId> woken;
};

struct RecordingHandler final : MessageHandler {
  void on_message(const Message& message) noexcept override {
    messages.push_back(message);
    if (then) then(message);
  }
  std::vector<Message> messages;
  std::function<void(const Message&)> then;
};

// Three cores and the main thread in one thread.
struct Office {
  Office() {
    for (CoreId core = 0; core <= system.main_id(); ++core)
      boxes.push_back(std::make_unique<Mailbox>(system, core, waker));
  }
  Mailbox& box(CoreId core) { return *boxes[core]; }
  MailboxSystem system{3};
  RecordingWaker waker;
  RecordingHandler handler;
  std::vector<std::unique_ptr<Mailbox>> boxes;
};

Message message_of(uint64_t number) {
  Message message;
  message.kind = 5;
  message.count = 6;
  message.words[0] = number;
  return message;
}

}  // namespace

TEST_CASE("a message arrives after the flush, whole and with its sender") {
  Office office;
  office.box(0).send(2, message_of(11));
  CHECK(office.box(2).drain(office.handler) == 0);
  office.box(0).flush();
  CHECK(office.box(1).drain(office.handler) == 0);
  REQUIRE(office.box(2).drain(office.handler) == 1);
  const Message& message = office.handler.messages[0];
  CHECK(message.from == 0);
  CHECK(message.kind == 5);
  CHECK(message.count == 6);
  CHECK(message.words[0] == 11);
  CHECK(office.box(2).drain(office.handler) == 0);
}

TEST_CASE("the main thread sends under an id of its own") {
  Office office;
  Mailbox& main = office.box(office.system.main_id());
  main.send(1, message_of(1));
  main.flush();
  CHECK(office.box(1).drain(office.handler) == 1);
  CHECK(office.handler.messages[0].from == 3);
  CHECK(main.cores_count() == 3);
}

TEST_CASE("a full ring delays messages and keeps their order") {
  Office office;
  constexpr uint64_t count = 3 * mailbox_ring_capacity + 7;
  for (uint64_t i = 0; i < count; ++i) office.box(0).send(1, message_of(i));
  office.box(0).flush();
  CHECK(office.box(0).has_unsent());
  CHECK(office.box(0).counters().overflowed == count - mailbox_ring_capacity);
  CHECK(office.box(0).counters().overflow_max == count - mailbox_ring_capacity);
  uint64_t next = count;
  while (office.box(1).drain(office.handler) > 0) {
    // What is sent while others wait goes behind them.
    if (next < count + 100) office.box(0).send(1, message_of(next++));
    office.box(0).flush();
  }
  CHECK_FALSE(office.box(0).has_unsent());
  REQUIRE(office.handler.messages.size() == next);
  for (uint64_t i = 0; i < next; ++i) REQUIRE(office.handler.messages[i].words[0] == i);
  CHECK(office.box(0).counters().sent == next);
  CHECK(office.box(1).counters().received == next);
}

TEST_CASE("a full ring to one core does not hold up messages to another") {
  Office office;
  for (uint64_t i = 0; i < 2 * mailbox_ring_capacity; ++i) office.box(0).send(1, message_of(i));
  office.box(0).send(2, message_of(1));
  office.box(0).flush();
  CHECK(office.box(2).drain(office.handler) == 1);
}

TEST_CASE("a drain takes no more than its bound and begins with another peer each time") {
  Office office;
  for (uint64_t i = 0; i < 200; ++i)
    for (const CoreId from : {CoreId{0}, CoreId{1}, CoreId{3}})
      office.box(from).send(2, message_of(i));
  for (const CoreId from : {CoreId{0}, CoreId{1}, CoreId{3}}) office.box(from).flush();
  std::vector<CoreId> first_senders;
  for (int turn = 0; turn < 4; ++turn) {
    office.handler.messages.clear();
    REQUIRE(office.box(2).drain(office.handler) == Mailbox::drain_max);
    first_senders.push_back(office.handler.messages.front().from);
  }
  for (const CoreId from : {CoreId{0}, CoreId{1}, CoreId{3}})
    CHECK(std::count(first_senders.begin(), first_senders.end(), from) >= 1);
  CHECK(office.box(2).drain(office.handler, 5) == 5);
}

TEST_CASE("a handler may answer while the mailbox is drained") {
  Office office;
  office.handler.then = [&](const Message& message) {
    office.box(1).send(message.from, message_of(message.words[0] + 1));
  };
  office.box(0).send(1, message_of(1));
  office.box(0).flush();
  CHECK(office.box(1).drain(office.handler) == 1);
  office.handler.then = nullptr;
  office.box(1).flush();
  CHECK(office.box(0).drain(office.handler) == 1);
  CHECK(office.handler.messages.back().words[0] == 2);
}

TEST_CASE("a core that is awake is not woken") {
  Office office;
  office.box(0).send(1, message_of(1));
  office.box(0).flush();
  CHECK(office.waker.woken.empty());
}

TEST_CASE("a core that sleeps is woken once, by the first who publishes") {
  Office office;
  REQUIRE(office.box(1).prepare_sleep());
  office.box(0).send(1, message_of(1));
  CHECK(office.waker.woken.empty());
  office.box(0).flush();
  office.box(0).flush();
  office.box(2).send(1, message_of(2));
  office.box(2).flush();
  CHECK(office.waker.woken == std::vector<CoreId>{1});
  CHECK(office.box(0).counters().wakes == 1);
  CHECK(office.box(2).counters().wakes == 0);
  office.box(1).awake();
  CHECK(office.box(1).drain(office.handler) == 2);
  office.box(0).send(1, message_of(3));
  office.box(0).flush();
  CHECK(office.waker.woken.size() == 1);
}

TEST_CASE("a core with mail does not go to sleep, whoever sent it") {
  for (const CoreId from : {CoreId{0}, CoreId{2}, CoreId{3}}) {
    CAPTURE(from);
    Office office;
    office.box(from).send(1, message_of(1));
    CHECK(office.box(1).prepare_sleep());
    office.box(1).awake();
    office.box(from).flush();
    CHECK_FALSE(office.box(1).prepare_sleep());
    CHECK(office.box(1).counters().refused_sleeps == 1);
    // The refusal takes the announcement back.
    office.box(0).send(1, message_of(2));
    office.box(0).flush();
    CHECK(office.waker.woken.empty());
    office.box(1).drain(office.handler);
    CHECK(office.box(1).prepare_sleep());
    office.box(1).awake();
  }
}

TEST_CASE("a system of one core can be told things by the main thread") {
  MailboxSystem system(1);
  RecordingWaker waker;
  RecordingHandler handler;
  Mailbox core(system, 0, waker);
  Mailbox main(system, system.main_id(), waker);
  REQUIRE(core.prepare_sleep());
  main.send(0, message_of(1));
  main.flush();
  CHECK(waker.woken == std::vector<CoreId>{0});
  CHECK(core.drain(handler) == 1);
}

}  // namespace helios
