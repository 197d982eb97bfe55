// What an op's user_data carries: who asked, in which life, and for what.
//
// The kernel gets a ticket, not a pointer: the object may be gone when the completion comes.
#pragma once

#include <bit>
#include <cstdint>

namespace helios {

// The kinds of op that can be in flight for a target: at most one of each at a time.
enum class OpKind : uint8_t { none, accept, recv, send, connect, poll };

struct OpTicket {
  uint32_t generation;
  uint32_t slot : 24;
  uint32_t kind : 8;
};
static_assert(sizeof(OpTicket) == sizeof(uint64_t));

[[nodiscard]] inline uint64_t pack(OpTicket ticket) noexcept {
  return std::bit_cast<uint64_t>(ticket);
}
[[nodiscard]] inline OpTicket unpack_ticket(uint64_t user_data) noexcept {
  return std::bit_cast<OpTicket>(user_data);
}

}  // namespace helios
