// The kinds of message that cores send each other (Message::kind).
#pragma once

#include <cstdint>

#include "helios/runtime/mailbox.h"

namespace helios {

enum class MessageKind : uint16_t {
  none,
  // Pool. words[0] of each is a PoolSpec reference (PoolSpecRef::to_word).
  want,  // I have `count` waiters (0: none any more), the oldest since words[1]. words[2]:
         // want_flags.
  // Answer to want: `count` grants are on their way to you. words[1]: so many more backends were
  // granted to an earlier wish and have not left yet.
  promise,
  unpromise,  // One promised grant will not come.
  permits,    // `count` bare permits are yours now; they were dealt to core words[1], or are
              // the reserve's (reserve_home).
  use,        // I have clients of this pool (`count` 1), or none any more (0).
  // words[0] = BackendTransfer*: a live connection is yours now, and its permit.
  backend,
  // words[0] = WelcomeNews*: what a pool's server reports at login.
  welcome,
  // A shared limit is full: close an idle backend that holds a permit of it. words[0] =
  // SharedLimit*, [1] = the pool that wants one, [2] = the number of the request.
  make_room,
  // A shared limit has room again: try to connect. No words.
  limit_freed,
  // Words[0] = Node*: it does not answer (an attempt has failed), or answers again; then [1] = when
  // the attempt began that it has answered in words (0: it has not).
  node_failed,
  node_returned,
  // words[0] = Node*: a place at its gate is yours.
  place,
  // Send me a copy of your statistics. words[0]: to be sent back.
  statistics_wanted,
  // Answer. words[0]: as in the question; words[1] = Statistics*.
  statistics,
  // Session. words[0] = CancelRequest*, words[1] = session.
  cancel,
  cancel_done,
  // words[0] = SessionTransfer*: a client that has logged in is yours now.
  session,
  // Listener. words[0] = descriptor, words[1] = address family: an accepted client is yours.
  client_socket,
  // Life.
  drain,    // Finish transactions, then stop.
  stop,     // Stop at once.
  settled,  // Another core has nothing left; look whether all have.
  // Main thread. words[0] = ConfigNews*: there is a new configuration.
  reload,
  // Main thread. Write the statistics of all cores to the log. No words.
  log_statistics,
};

// Without words.
[[nodiscard]] inline Message make_message(MessageKind kind) noexcept {
  Message message;
  message.kind = static_cast<uint16_t>(kind);
  return message;
}

namespace want_flags {
constexpr uint64_t answer = 1;         // Answer me by `promise`.
constexpr uint64_t takes_permits = 2;  // I have no permit of my own: one would help, too.
}  // namespace want_flags

}  // namespace helios
