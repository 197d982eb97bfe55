// Messages between cores: one single-producer single-consumer ring for each ordered pair of cores.
//
// Producers stage messages during a turn and publish them once at its end (flush); consumers drain at most
// `drain_max` per turn, starting at a rotating peer. A full ring never blocks: messages wait, in order, in a local overflow queue
// of the sender and go out at a later flush.
//
// Threads: each core uses its own Mailbox object; the rings and `sleeping` words between them are the shared part.
// Invariant: messages of one pair of cores arrive in the order in which they were sent, each exactly once.
#pragma once

#include <cstdint>
#include <memory>

namespace helios {

using CoreId = uint16_t;

// 32 bytes, plain. The meaning of the words belongs to the kind; pointers in them move their object's ownership.
struct Message {
  uint16_t kind = 0;
  CoreId from = 0;
  uint32_t count = 0;
  uint64_t words[3] = {0, 0, 0};
};
static_assert(sizeof(Message) == 32);

class MessageHandler {
 public:
  virtual void on_message(const Message& message) noexcept = 0;

 protected:
  ~MessageHandler() = default;
};

// What a pool, session or listener needs to talk to other cores. `Mailbox` implements it; the simulator has its own.
class Postbox {
 public:
  virtual ~Postbox() = default;
  [[nodiscard]] virtual CoreId core() const noexcept = 0;
  [[nodiscard]] virtual CoreId cores_count() const noexcept = 0;
  // Stages a message to another core; `from` is filled in. Never fails. Requires: to != core().
  virtual void send(CoreId to, const Message& message) noexcept = 0;
};

}  // namespace helios
