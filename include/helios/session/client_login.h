// The dialogue with a client from its decoded StartupMessage to AuthenticationOk, without I/O.
//
// The owner (a session) feeds what the client sends, sends what was written to `out`, and does what
// the step says. Offers trust, SCRAM-SHA-256, and md5 where only an md5 hash is stored; never a
// clear password, and no channel binding. Each message is legal in exactly one state; anything
// else, a second StartupMessage included, ends the login. One core's data; used once per client.
//
// State         | message                    | next
// start         | start()                    | key, initial, md5, accepted (trust)
// key           | on_key()                   | initial
// initial       | SASLInitialResponse        | final_response, refused
// final_response| SASLResponse               | accepted, refused
// md5           | PasswordMessage            | accepted, refused
// accepted, refused: none.
//
// An unknown user and a wrong password look the same: the same messages in the same order, salt and
// rounds that never change for a name, one error. (An md5 hash shows in the method that is asked
// for, as with PostgreSQL.) Source: PostgreSQL manual, "Start-up" and "SASL Authentication".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "helios/base/bytes.h"
#include "helios/wire/crypto.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/md5_auth.h"
#include "helios/wire/scram.h"
#include "helios/wire/startup.h"
#include "helios/wire/writer.h"

namespace helios {

// What the configuration knows about the user that the client names. Filled by the owner.
struct UserSecret {
  enum class Kind : uint8_t {
    unknown_user,    // Asked for a password like everybody, and refused.
    trust,           // Accepted without a question.
    plain_password,  // `text` is the password.
    scram_verifier,  // `verifier`.
    md5_hash,        // `text` is "md5" and 32 digits. Requires: is_md5_hash(text).
  };
  Kind kind = Kind::unknown_user;
  SecretBytes text;
  ScramVerifier verifier;
};

enum class ClientLoginStep : uint8_t {
  more,      // Send what was written, if anything, and feed what the client sends next.
  need_key,  // Derive the key for password(), salt() and rounds(), then call on_key(). Feed nothing
             // before: the client has not been asked yet.
  accepted,  // AuthenticationOk was written. What follows (ParameterStatus, BackendKeyData,
             // ReadyForQuery, or an error) is the owner's.
  refused,   // The FATAL error was written: send it and close. reason() is for the log.
};

class ClientLogin {
 public:
  static constexpr uint32_t message_size_max = 64 * 1024;  // Body of one message.

  // `login_secret`: random, one for the process; salts shown to unknown users and to users with a
  // plain password are made of it. `random` must outlive the login.
  ClientLogin(const Sha256Digest& login_secret, Random& random) noexcept;

  // Begins. Writes NegotiateProtocolVersion, if the client needs it, and the first request.
  // Requires: first call. `startup` is not needed after it.
  [[nodiscard]] ClientLoginStep start(const StartupMessage& startup, UserSecret secret,
                                      MessageWriter& out);

  // Bytes of the client in any segmentation. Takes them from the front of `input` as far as the
  // login needs them: what is left over after `accepted` belongs to the session. Requires: the last
  // step was `more`.
  [[nodiscard]] ClientLoginStep on_input(ByteSpan& input, MessageWriter& out);

  // The same for an owner that assembles messages itself: one whole message. Any step may have come
  // before; a message that is not due is refused. Requires: start() was called and has neither
  // accepted nor refused.
  [[nodiscard]] ClientLoginStep on_message(uint8_t tag, ByteSpan body, MessageWriter& out);

  // The key that need_key asked for. Requires: the last step was `need_key`.
  [[nodiscard]] ClientLoginStep on_key(const Sha256Digest& salted_password, MessageWriter& out);

  // After need_key. The password is in the form that SCRAM hashes; the salt is raw bytes. The same
  // for each login of a user, so that KeyDerivation's cache has the key from the second one on.
  [[nodiscard]] ByteSpan password() const noexcept { return password_.bytes(); }
  [[nodiscard]] std::string_view salt() const noexcept { return verifier_.salt; }
  [[nodiscard]] uint32_t rounds() const noexcept { return verifier_.rounds; }

  // After on_key(): may be given as UserSecret::scram_verifier at this user's next login, which
  // then needs no key.
  [[nodiscard]] const ScramVerifier& verifier() const noexcept { return verifier_; }

  // Why it was refused, for the log: says what the client may not know. Empty unless refused.
  [[nodiscard]] std::string_view reason() const noexcept { return reason_; }

 private:
  enum class State : uint8_t {
    start,           // start() was not called.
    key,             // Waiting for the owner's on_key().
    initial,         // AuthenticationSASL written; SASLInitialResponse must come.
    final_response,  // AuthenticationSASLContinue written; SASLResponse must come.
    md5,             // AuthenticationMD5Password written; PasswordMessage must come.
    accepted,
    refused,
  };

  [[nodiscard]] bool is_waiting_for_client() const noexcept;
  [[nodiscard]] static bool is_legal(State from, State to) noexcept;
  void set_state(State next) noexcept;
  ClientLoginStep begin_mock(MessageWriter& out);
  ClientLoginStep begin_plain(std::string_view password);
  ClientLoginStep begin_scram(ScramUser user, MessageWriter& out);
  ClientLoginStep begin_md5(MessageWriter& out);
  ClientLoginStep on_initial_response(ByteSpan body, MessageWriter& out);
  ClientLoginStep on_final_response(ByteSpan body, MessageWriter& out);
  ClientLoginStep on_md5_password(ByteSpan body, MessageWriter& out);
  ClientLoginStep accept(MessageWriter& out);
  ClientLoginStep refuse_scram(ScramStep step, MessageWriter& out);
  ClientLoginStep refuse_password(std::string_view reason, MessageWriter& out);
  ClientLoginStep refuse_tag(uint8_t tag, MessageWriter& out);
  ClientLoginStep refuse_protocol(std::string_view message, std::string_view detail,
                                  MessageWriter& out);

  const Sha256Digest login_secret_;
  Random& random_;
  State state_ = State::start;
  ScramUser scram_user_ = ScramUser::mock;
  std::string user_;
  SecretBytes password_;  // As SCRAM hashes it, until on_key().
  SecretBytes md5_hash_;
  ScramVerifier verifier_;
  Md5Salt md5_salt_{};
  std::optional<ScramServer> scram_;
  MessageAssembler assembler_{message_size_max};
  std::string reason_;
};

}  // namespace helios
