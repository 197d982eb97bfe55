// The seam between everything that does IO and the kernel.
//
// `Ring` (runtime/ring.h) implements it with one io_uring; `FakeIo` (tests/support/fake_io.h) with
// a script. One object per core, used by that core's thread only.
//
// Model: an IoTarget attaches and gets a TargetId. It starts ops; each op ends in exactly one event
// with `more == false` (a multishot op may deliver events with `more == true` before). Events are
// delivered from the core's loop, never from inside a start_ function. At most one op of each kind
// is in flight per target. Ops started in a turn go to the kernel together at the end of the turn.
//
// Starved receives: when a buffer group is empty the implementation keeps the receive and re-arms
// it by itself after buffers came back (first come, first served); the target never sees ENOBUFS.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "helios/base/bytes.h"
#include "helios/base/slab.h"
#include "helios/runtime/op.h"

namespace helios {

// Receives of clients and of backends draw from separate groups, so that clients can never starve
// replies.
enum class BufferGroup : uint8_t { client, backend };
constexpr int buffer_group_count = 2;

// When the owner wants to hear that a send has ended well. A failure is always told at once.
enum class SendNotice : uint8_t {
  prompt,  // It has something to do then.
  lazy,    // With the next event of any target: an answer is due, nothing has to happen before.
};

// Names a lent receive buffer.
struct BufferRef {
  uint16_t index = 0;
  BufferGroup group = BufferGroup::client;
};

struct IoEvent {
  OpKind kind = OpKind::none;
  // As the kernel gives it: >= 0, or a negative errno. accept: the new descriptor. recv: bytes, 0 =
  // end of file. send: bytes taken, possibly fewer than offered, or none. connect: 0. A cancelled
  // op ends with -ECANCELED.
  int res = 0;
  bool more = false;  // The op is still in flight (multishot).
  // recv with res > 0: the bytes, and the buffer they are in. The buffer goes back to the kernel
  // when the handler returns unless the handler kept it (keep_buffer).
  ByteSpan data;
  BufferRef buffer;
};

class IoTarget {
 public:
  virtual void on_io(const IoEvent& event) noexcept = 0;

 protected:
  ~IoTarget() = default;
};

using TargetId = SlabId;

class Io {
 public:
  virtual ~Io() = default;

  // Registers a target. Requires: fewer targets than the implementation's capacity (asserted).
  [[nodiscard]] virtual TargetId attach(IoTarget* target) noexcept = 0;
  // Requires: no op of the target is in flight.
  virtual void detach(TargetId id) noexcept = 0;

  // Multishot accept; sockets are non-blocking and close-on-exec.
  virtual void start_accept(TargetId id, int fd) noexcept = 0;
  // Multishot receive into buffers of `group`. `expect_idle`: nothing is expected soon, poll first.
  virtual void start_recv(TargetId id, int fd, BufferGroup group, bool expect_idle) noexcept = 0;
  // Sends the gathered bytes. The iovecs are copied; the bytes must stay until the event. Requires:
  // 1 <= parts.size() <= send_parts_max.
  virtual void start_send(TargetId id, int fd, std::span<const iovec> parts,
                          SendNotice notice) noexcept = 0;
  // The address is copied.
  virtual void start_connect(TargetId id, int fd, const sockaddr* address,
                             socklen_t size) noexcept = 0;
  // Multishot poll for POLLIN (event res = the poll mask).
  virtual void start_poll(TargetId id, int fd) noexcept = 0;
  // Polls, once, for the peer's hang-up: its end of file, or an error of the connection (event res
  // = the poll mask). Bytes that nobody reads do not hide it. In flight it is the target's poll op.
  virtual void start_hangup_poll(TargetId id, int fd) noexcept = 0;
  // Asks for the end of the op of this kind. Its terminal event comes as always, possibly with
  // data. Requires: it is in flight.
  virtual void start_cancel(TargetId id, OpKind kind) noexcept = 0;

  // Buffers. Each keep needs one release. Requires: the buffer is lent.
  virtual void keep_buffer(BufferRef buffer) noexcept = 0;
  virtual void release_buffer(BufferRef buffer) noexcept = 0;
  // Buffers of the group that are lent at this moment (in handlers' hands or kept), and the group's
  // size.
  [[nodiscard]] virtual uint32_t lent_count(BufferGroup group) const noexcept = 0;
  [[nodiscard]] virtual uint32_t buffers_count(BufferGroup group) const noexcept = 0;
  // Gives memory of buffers back that have not been used since the last call. Now and then.
  virtual void trim_buffers() noexcept = 0;

  // The few direct system calls. Results are negative errno on failure.
  // A stream socket, non-blocking and close-on-exec.
  [[nodiscard]] virtual int open_socket(int family) noexcept = 0;
  // As socket_options.h says. For sockets that connect; accepted ones inherit it.
  virtual void tune_socket(int fd, int family) noexcept = 0;
  // shutdown(2) of our direction. Errors are of no interest: the socket may be gone.
  virtual void shutdown_write(int fd) noexcept = 0;
  // Closes with what else is submitted at the end of the turn; the number is ours until then.
  // Requires: no op on it is in flight.
  virtual void close_fd(int fd) noexcept = 0;
};

constexpr size_t send_parts_max = 16;

}  // namespace helios
