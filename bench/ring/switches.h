// The switches of the relay under test, and which of them each experiment turns.
//
// Plain data. The defaults are the base of the experiments, not what the proxy does: its sends make
// no completion (Send::skip_success), and its buffers are fewer and larger.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace helios::bench {

enum class Receive : uint8_t {
  multishot,    // Armed once; each completion names a buffer of the ring of buffers.
  single_shot,  // Armed for each message, with a buffer of the ring of buffers.
  own_buffer,   // Armed for each message, into a buffer of the socket's own.
};

enum class Send : uint8_t {
  ring,      // An op of the ring.
  at_once,   // send(2) at once; the ring only for what the socket did not take.
  adaptive,  // send(2) when the turn had one completion in hand, else the ring.
  // The bytes are copied to a buffer of the socket's own and sent by an op that makes no completion
  // when all went well (IOSQE_CQE_SKIP_SUCCESS). MSG_DONTWAIT | MSG_WAITALL makes that sound: the
  // op ends in the enter that submits it, and anything short of all bytes is a failure, which does
  // make a completion. (Bytes in a receive buffer could not go this way: nothing would say when the
  // buffer is free.)
  skip_success,
};

struct Switches {
  Receive receive = Receive::multishot;
  Send send = Send::ring;
  bool uses_sendmsg = false;  // The op sendmsg with one part, instead of send.
  bool may_not_wait = false;  // MSG_DONTWAIT instead of MSG_WAITALL; again without it on -EAGAIN.
  bool defer_taskrun = true;  // Off: COOP_TASKRUN alone.
  bool poll_first = true;     // When arming: do not try to receive first.
  bool fixed_files = false;   // Sockets by index in a registered table.
  bool no_iowait = true;      // ENTER_NO_IOWAIT, where the kernel has it.
  uint32_t spin_us = 0;       // Look for completions so long before sleeping.
  uint32_t buffer_size = 8192;
  uint32_t buffers_count = 2048;  // Two for each of a thousand connections.
};

enum class Place : uint8_t {
  one,  // Relay, load and echo server share one CPU.
  two,  // The relay has a CPU of its own; the others share another one.
};

// What variants are compared with.
struct Base {
  const char* name;
  const char* what;
  Switches switches;
  uint32_t message_size = 0;        // 0: as asked on the command line.
  std::optional<Place> place = {};  // None: as asked.
  uint32_t connections = 0;         // 0: as asked.
};

// A base with one switch turned. Everything but the switches is the base's.
struct Variant {
  int row;  // The experiment's number.
  const char* name;
  const char* what;
  const char* base;
  Switches switches;
};

[[nodiscard]] std::span<const Variant> all_variants() noexcept;
// Requires: `name` is a variant's base.
[[nodiscard]] const Base& base_named(const char* name) noexcept;
// Experiments are numbered from 1 to this.
constexpr int rows_count = 10;
// The title of an experiment.
[[nodiscard]] const char* title_of(int row) noexcept;
// The experiment that needs no relay (wake.h).
constexpr int wake_row = 9;

}  // namespace helios::bench
