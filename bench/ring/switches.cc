#include "bench/ring/switches.h"

#include <array>
#include <string_view>

#include "helios/base/assert.h"

namespace helios::bench {
namespace {

// Messages that fill several buffers of any size tried here.
constexpr uint32_t large_size = 32'768;

constexpr Switches single_shot{.receive = Receive::single_shot};

constexpr std::array bases = {
    Base{"default", "no switch turned", {}},
    Base{"single", "single-shot receives", single_shot},
    Base{"large", "the default with messages of 32 KiB", {}, large_size},
    Base{"lone", "the default with one connection", {}, 0, Place::one, 1},
    Base{"lone-two", "the same, the relay on a CPU of its own", {}, 0, Place::two, 1},
};

constexpr std::array variants = {
    Variant{1, "single-shot", "a receive for each message, buffer ring", "default", single_shot},
    Variant{1,
            "own-buffer",
            "a receive for each message, buffer of its own",
            "default",
            {.receive = Receive::own_buffer}},
    Variant{2, "coop", "COOP_TASKRUN without DEFER_TASKRUN", "default", {.defer_taskrun = false}},
    Variant{3, "send-at-once", "send(2) for each message", "default", {.send = Send::at_once}},
    Variant{3,
            "send-adaptive",
            "send(2) when one completion was in hand",
            "default",
            {.send = Send::adaptive}},
    Variant{4, "size-2k", "buffers of 2 KiB", "default", {.buffer_size = 2048}},
    Variant{4, "size-4k", "buffers of 4 KiB", "default", {.buffer_size = 4096}},
    Variant{4, "size-16k", "buffers of 16 KiB", "default", {.buffer_size = 16'384}},
    Variant{4, "large-2k", "buffers of 2 KiB, messages of 32 KiB", "large", {.buffer_size = 2048}},
    Variant{4, "large-4k", "buffers of 4 KiB, messages of 32 KiB", "large", {.buffer_size = 4096}},
    Variant{
        4, "large-16k", "buffers of 16 KiB, messages of 32 KiB", "large", {.buffer_size = 16'384}},
    Variant{4, "count-256", "256 buffers", "default", {.buffers_count = 256}},
    Variant{4, "count-512", "512 buffers", "default", {.buffers_count = 512}},
    Variant{4, "count-1024", "1024 buffers", "default", {.buffers_count = 1024}},
    Variant{4, "count-4096", "4096 buffers", "default", {.buffers_count = 4096}},
    Variant{
        5, "no-poll-first", "multishot armed without POLL_FIRST", "default", {.poll_first = false}},
    Variant{5,
            "single-no-poll-first",
            "single-shot armed without POLL_FIRST",
            "single",
            {.receive = Receive::single_shot, .poll_first = false}},
    Variant{6, "spin-10", "10 µs of spinning, CPU shared", "lone", {.spin_us = 10}},
    Variant{6, "spin-50", "50 µs of spinning, CPU shared", "lone", {.spin_us = 50}},
    Variant{6, "spin-10-two", "10 µs of spinning, CPU of its own", "lone-two", {.spin_us = 10}},
    Variant{6, "spin-50-two", "50 µs of spinning, CPU of its own", "lone-two", {.spin_us = 50}},
    Variant{7, "fixed-files", "sockets in a registered table", "default", {.fixed_files = true}},
    Variant{8, "iowait", "without NO_IOWAIT", "default", {.no_iowait = false}},
    Variant{10,
            "skip-success",
            "sends without a completion, of copied bytes",
            "default",
            {.send = Send::skip_success}},
    Variant{10, "sendmsg", "sendmsg instead of send, one part", "default", {.uses_sendmsg = true}},
    Variant{
        10, "dontwait", "MSG_DONTWAIT instead of MSG_WAITALL", "default", {.may_not_wait = true}},
};

}  // namespace

std::span<const Variant> all_variants() noexcept {
  return variants;
}

const Base& base_named(const char* name) noexcept {
  for (const Base& base : bases)
    if (std::string_view(base.name) == name) return base;
  UNREACHABLE("a variant without a base");
}

const char* title_of(int row) noexcept {
  constexpr std::array titles = {
      "Receives",
      "Task work",
      "Sends: by the ring or at once",
      "Buffers",
      "POLL_FIRST",
      "Spinning before sleep, one connection",
      "Fixed files",
      "NO_IOWAIT",
      "Waking another thread's ring",
      "Sends: kinds of op",
  };
  ASSERT(row >= 1);
  ASSERT(row <= rows_count);
  static_assert(titles.size() == rows_count);
  return titles[static_cast<size_t>(row) - 1];
}

}  // namespace helios::bench
