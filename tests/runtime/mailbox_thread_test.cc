// The mailboxes between real threads that really sleep. Meant for the thread sanitizer.
#include <doctest/doctest.h>
#include <poll.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "helios/runtime/core.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/ring_waker.h"

namespace helios {
namespace {

// Far beyond any scheduling delay: a thread that sleeps so long was forgotten.
constexpr int forgotten_ms = 60'000;

// A thread that sends numbered messages to all others in bursts, takes what comes and sleeps in
// between.
class Correspondent final : public MessageHandler {
 public:
  Correspondent(MailboxSystem& system, WakeTable& wakes, CoreId id, uint64_t messages_per_peer)
      : wakes_(wakes),
        waker_(wakes),
        mailbox_(system, id, waker_),
        id_(id),
        messages_per_peer_(messages_per_peer),
        sent_(system.cores_count(), 0),
        received_(system.cores_count() + size_t{1}, 0) {}

  void on_message(const Message& message) noexcept override {
    if (message.words[0] != received_[message.from]) ++errors_count;
    if (message.words[1] != ~message.words[0] || message.words[2] != message.words[0] * id_)
      ++errors_count;
    ++received_[message.from];
    ++received_count_;
  }

  // `expected_count`: how many messages come from all others together.
  void run(uint64_t expected_count) {
    std::mt19937 random(id_ + 1U);
    while (received_count_ < expected_count || !has_sent_all() || mailbox_.has_unsent()) {
      const bool drained_any = mailbox_.drain(*this) > 0;
      // Mostly one message or few, now and then more than a ring holds.
      if (!has_sent_all()) send_burst(random() % 64 == 0 ? 400 : 1 + random() % 4);
      mailbox_.flush();
      if (drained_any) continue;
      // A thread that has everything to say said sleeps until it is written to.
      if (received_count_ < expected_count && (has_sent_all() || random() % 2 == 0)) sleep();
    }
  }

  uint64_t errors_count = 0;
  uint64_t sleeps_count = 0;
  [[nodiscard]] uint64_t received_count() const { return received_count_; }
  [[nodiscard]] const MailboxCounters& counters() const { return mailbox_.counters(); }

 private:
  [[nodiscard]] bool has_sent_all() const {
    for (CoreId to = 0; to < mailbox_.cores_count(); ++to)
      if (to != id_ && sent_[to] < messages_per_peer_) return false;
    return true;
  }

  void send_burst(uint64_t count) {
    for (CoreId to = 0; to < mailbox_.cores_count(); ++to) {
      for (uint64_t i = 0; i < count && to != id_ && sent_[to] < messages_per_peer_; ++i) {
        Message message;
        message.words[0] = sent_[to]++;
        message.words[1] = ~message.words[0];
        message.words[2] = message.words[0] * to;
        mailbox_.send(to, message);
      }
    }
  }

  void sleep() {
    if (!mailbox_.prepare_sleep()) return;
    ++sleeps_count;
    // While others still owe us mail and nothing of ours waits, only a wake-up ends this. With
    // messages of our own unsent, or still to be made, a short sleep.
    const bool must_return = mailbox_.has_unsent() || !has_sent_all();
    pollfd entry{wakes_.event_fd(id_), POLLIN, 0};
    const int count = poll(&entry, 1, must_return ? 1 : forgotten_ms);
    if (count == 0 && !must_return) ++errors_count;
    uint64_t wakes = 0;
    if (count > 0 && read(entry.fd, &wakes, sizeof(wakes)) < 0) ++errors_count;
    mailbox_.awake();
  }

  WakeTable& wakes_;
  EventWaker waker_;
  Mailbox mailbox_;
  CoreId id_;
  uint64_t messages_per_peer_;
  std::vector<uint64_t> sent_;
  std::vector<uint64_t> received_;
  uint64_t received_count_ = 0;
};

void correspond(CoreId threads_count, uint64_t messages_per_peer, uint64_t messages_of_main) {
  MailboxSystem system(threads_count);
  WakeTable wakes(threads_count);
  REQUIRE(wakes.ok());
  std::vector<std::unique_ptr<Correspondent>> correspondents;
  for (CoreId id = 0; id < threads_count; ++id)
    correspondents.push_back(std::make_unique<Correspondent>(system, wakes, id, messages_per_peer));
  const uint64_t expected = messages_per_peer * (threads_count - 1U) + messages_of_main;
  std::vector<std::thread> threads;
  for (auto& correspondent : correspondents)
    threads.emplace_back([&correspondent, expected] { correspondent->run(expected); });

  EventWaker waker(wakes);
  Mailbox main(system, system.main_id(), waker);
  for (uint64_t i = 0; i < messages_of_main; ++i) {
    for (CoreId to = 0; to < threads_count; ++to) {
      Message message;
      message.words[0] = i;
      message.words[1] = ~i;
      message.words[2] = i * to;
      main.send(to, message);
    }
    main.flush();
    std::this_thread::yield();
  }
  while (main.has_unsent()) {
    main.flush();
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t sleeps_count = 0;
  uint64_t wakes_count = 0;
  for (auto& correspondent : correspondents) {
    CHECK(correspondent->errors_count == 0);
    CHECK(correspondent->received_count() == expected);
    sleeps_count += correspondent->sleeps_count;
    wakes_count += correspondent->counters().wakes;
  }
  MESSAGE(sleeps_count << " sleeps, " << wakes_count << " wake-ups");
}

// Each message waits for the answer to the one before, so both threads sleep for each of them.
struct PingPong final : MessageHandler {
  PingPong(MailboxSystem& system, WakeTable& its_wakes, CoreId its_id)
      : wakes(its_wakes), waker(its_wakes), mailbox(system, its_id, waker), id(its_id) {}
  void on_message(const Message& message) noexcept override {
    if (message.words[0] != next) ++errors_count;
    next = message.words[0] + 2;
    Message answer;
    answer.words[0] = message.words[0] + 1;
    if (answer.words[0] <= last) mailbox.send(id == 0 ? 1 : 0, answer);
  }
  void run() {
    next = id == 0 ? 2 : 1;
    if (id == 0) {
      Message first;
      first.words[0] = 1;
      mailbox.send(1, first);
    }
    while (next <= last && errors_count == 0) {
      mailbox.flush();
      if (mailbox.drain(*this) > 0 || !mailbox.prepare_sleep()) continue;
      pollfd entry{wakes.event_fd(id), POLLIN, 0};
      if (poll(&entry, 1, forgotten_ms) != 1) ++errors_count;
      uint64_t count = 0;
      if (read(entry.fd, &count, sizeof(count)) < 0) ++errors_count;
      mailbox.awake();
    }
    mailbox.flush();
  }
  static constexpr uint64_t last = 40'000;
  WakeTable& wakes;
  EventWaker waker;
  Mailbox mailbox;
  CoreId id;
  uint64_t next = 0;
  uint64_t errors_count = 0;
};

}  // namespace

TEST_CASE(
    "a million messages between two threads arrive once, in order, and no sleeper is forgotten") {
  correspond(2, 500'000, 0);
}

TEST_CASE("a million messages between four threads and the main thread arrive once and in order") {
  correspond(4, 83'334, 2'000);
}

TEST_CASE("two threads that answer each other and sleep in between never both sleep") {
  MailboxSystem system(2);
  WakeTable wakes(2);
  REQUIRE(wakes.ok());
  PingPong zero(system, wakes, 0);
  PingPong one(system, wakes, 1);
  std::thread thread([&] { one.run(); });
  zero.run();
  thread.join();
  CHECK(zero.errors_count == 0);
  CHECK(one.errors_count == 0);
  CHECK(zero.next > PingPong::last);
  CHECK(one.next > PingPong::last);
}

}  // namespace helios
