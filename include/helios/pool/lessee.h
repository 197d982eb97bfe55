// Who holds, or waits for, a backend: the pool's view of a session.
//
// The backend calls these from its own handlers, on the lessee's core. Unless noted otherwise a
// lessee may give the backend back, close it or end itself inside a call.
#pragma once

#include <string>
#include <string_view>

#include "helios/base/bytes.h"
#include "helios/pool/ledger.h"
#include "helios/pool/pool_error.h"
#include "helios/pool/slice.h"
#include "helios/runtime/io.h"
#include "helios/wire/backend_messages.h"
#include "helios/wire/error_response.h"

namespace helios {

class Backend;
class StateProbe;
struct PoolEntry;

// How a backend is lost.
enum class Loss : uint8_t {
  connection,  // Its connection broke, or the server has said that it ends.
  protocol,    // The server sent what cannot be: nobody knows what it has answered.
};

class Lessee : public Waiter {
 public:
  // The wait is over.
  virtual void on_leased(Backend& backend) noexcept = 0;
  // There will be no backend. The lessee has left the queue.
  virtual void on_wait_failed(const PoolError& error) noexcept = 0;

  // The wait goes on in the next generation of the pool, which is `next`; the caller queues it
  // there. May not end itself.
  virtual void on_pool_changed(PoolEntry& next) noexcept = 0;

  // Bytes of replies, in order, in pieces of any size; `at_boundary`: they end with a message. Must
  // not give the backend back.
  virtual void on_reply(ByteSpan bytes, BufferRef buffer, bool at_boundary) noexcept = 0;
  // The same for bytes that lie in no receive buffer.
  virtual void on_reply_copy(ByteSpan bytes, bool at_boundary) noexcept = 0;

  // What the replies say. Must not give the backend back.
  // A Parse ('P') or Close ('C') that pins (ledger_mark::pins) has succeeded.
  virtual void on_statement(uint8_t tag, uint64_t name) noexcept = 0;
  // The oldest change of names that it announced (ledger_mark::renames) has happened; or so many of
  // the oldest have not, and never will, because the server skips them.
  virtual void on_name_settled() noexcept = 0;
  virtual void on_names_undone(size_t count) noexcept = 0;
  // A command of the client has ended with this tag, e.g. "LOAD". Only of those that
  // may_change_session.
  virtual void on_command_complete(std::string_view tag) noexcept = 0;
  // The server has answered the client with an error, which does not end the session.
  virtual void on_error() noexcept {}
  // The ParameterStatus messages of the client's session are not among the bytes of on_reply: the
  // lessee tells its client itself what is to be told.
  [[nodiscard]] virtual bool tells_parameters() const noexcept { return false; }
  // A parameter of the client's session has changed. `tells`: what tells_parameters() said when the
  // message began.
  virtual void on_parameter(std::string_view name, std::string_view value, bool tells) noexcept = 0;
  // A notification, between two messages: it is not among the bytes of on_reply. Must not give the
  // backend back.
  virtual void on_notification(const Notification& notification) noexcept = 0;
  // ReadyForQuery; `skipped`: it ends a statement of the pooler's own. Comes before the message
  // itself goes to the client when the lessee asked for that (Backend::hold_ready). While a
  // transaction is open the lessee may close or recover the backend.
  virtual void on_ready(uint8_t status, bool skipped) noexcept = 0;

  // The answer to Backend::ask_state; the backend's parameters() are up to date with it. Comes
  // before the on_ready of that statement. Must not give the backend back.
  virtual void on_state(const StateProbe& probe) noexcept = 0;

  // A statement that the pooler sent for this lessee failed. May not go on with this backend: it
  // must be closed.
  virtual void on_skipped_error(const ErrorFields& fields) noexcept = 0;
  // All that has come from the server is processed. The backend may be given back now (if it
  // is_quiet) or closed.
  virtual void on_input_end() noexcept = 0;
  // The backend's outbox has room again, or is empty.
  virtual void on_backend_drained() noexcept = 0;
  // The last cancel request that was under way for the backend has been dealt with.
  virtual void on_cancel_ended() noexcept = 0;
  // The server's end is gone. The lease is over; the backend ends by itself, and may be asked until
  // then what it still owes. `error`: for the client; in the server's own words where it has said
  // FATAL, which is not relayed.
  virtual void on_backend_lost(const PoolError& error, Loss loss) noexcept = 0;

 protected:
  ~Lessee() = default;
};

// One that has no client: only statements of the pooler's own go to its backend, so that nothing of
// a client can come back.
class ClientlessLessee : public Lessee {
 public:
  void on_reply(ByteSpan, BufferRef, bool) noexcept final {}
  void on_reply_copy(ByteSpan, bool) noexcept final {}
  void on_statement(uint8_t, uint64_t) noexcept final {}
  void on_name_settled() noexcept final {}
  void on_names_undone(size_t) noexcept final {}
  void on_command_complete(std::string_view) noexcept final {}
  void on_parameter(std::string_view, std::string_view, bool) noexcept final {}
  void on_state(const StateProbe&) noexcept final {}
  void on_input_end() noexcept final {}
  void on_backend_drained() noexcept final {}
  void on_cancel_ended() noexcept final {}

 protected:
  ~ClientlessLessee() = default;
};

}  // namespace helios
