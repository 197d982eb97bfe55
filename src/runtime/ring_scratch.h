// What the parts of the ring (ring.cc, ring_sends.cc) share beside their header.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include "helios/runtime/op.h"
#include "helios/runtime/ring.h"

namespace helios {

// What an SQE points to, kept until it is submitted (FEAT_SUBMIT_STABLE). One for each SQE.
struct Ring::Scratch {
  msghdr message;
  union {
    iovec parts[send_parts_max];
    sockaddr_storage address;
    __kernel_timespec time;
  };
};

[[nodiscard]] inline uint64_t ticket_of(TargetId id, OpKind kind) noexcept {
  return pack({id.generation, id.index & 0xFFFFFFU, static_cast<uint8_t>(kind)});
}

}  // namespace helios
