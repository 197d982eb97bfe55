// The dialogue with a PostgreSQL server from the StartupMessage to the first ReadyForQuery, without
// I/O.
//
// The owner (a backend that has just connected) sends what output() holds, feeds whole messages and
// does what the step says. Knows trust, cleartext, md5 and SCRAM-SHA-256. Each message is legal in
// exactly one state; anything else ends the login with an error, so a hostile or broken server can
// neither skip its proof nor take memory without bound. One core's data; used once per server
// connection.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/pool/pool_error.h"
#include "helios/wire/backend_messages.h"
#include "helios/wire/crypto.h"
#include "helios/wire/scram.h"

namespace helios {

using NamedValue = std::pair<std::string, std::string>;

// Who logs in, and how. Belongs to the pool; must outlive the login.
struct BackendLoginOptions {
  std::string user;
  std::string database;
  // A plain password, a stored md5 hash ("md5..."; serves servers that ask for md5 only), a SCRAM
  // verifier
  // ("SCRAM-SHA-256$..."; serves none) or empty. Told apart by their form when `password_is_plain`
  // is false.
  std::string password;
  // True: `password` is what the user types, whatever it looks like.
  bool password_is_plain = false;
  // Further parameters of the StartupMessage: client_encoding, application_name...
  std::vector<NamedValue> parameters;
  // What a server may ask of us; more ends the login.
  uint32_t scram_rounds_max = scram_rounds_max_default;

  friend bool operator==(const BackendLoginOptions&, const BackendLoginOptions&) = default;
};

enum class LoginStep : uint8_t {
  more,      // Send output(), if any, and feed the next message.
  need_key,  // Derive the key for password(), salt() and rounds(), then call on_key(). Feed nothing
             // before.
  done,      // Logged in; parameters() and cancel_key() are there.
  failed,    // error() says why. Close the connection.
};

class BackendLogin {
 public:
  static constexpr size_t message_size_max = 64 * 1024;  // Body of one message.
  static constexpr size_t parameters_max = 256;
  static constexpr size_t parameters_size_max = 64 * 1024;  // Names and values together.
  static constexpr size_t error_size_max = 16 * 1024;  // Of each text of error(); the rest is cut.
  static constexpr size_t messages_max =
      1024;  // In one login: bounds a server that sends notices for ever.

  // Both must outlive the login.
  BackendLogin(const BackendLoginOptions& options, Random& random) noexcept;

  // Puts the StartupMessage (protocol 3.0) into output(). `more`, or `failed` when a name or value
  // holds a zero byte. Requires: first call.
  [[nodiscard]] LoginStep start();

  // One message of the server: its type byte and its body (without type and length).
  // While the key is being derived only an error or a notice is legal; `more` then means: go on
  // waiting for the key. Requires: start() was called; not `done` and not `failed`.
  [[nodiscard]] LoginStep on_message(uint8_t tag, ByteSpan body);

  // The key that need_key asked for (see KeyClient::on_key).
  [[nodiscard]] LoginStep on_key(const Sha256Digest& salted_password);

  // Bytes to send to the server. They may hold a password: take them, send them, wipe them.
  [[nodiscard]] std::string take_output();
  [[nodiscard]] bool has_output() const noexcept { return !output_.empty(); }

  // After `need_key`. The password is in the form that SCRAM hashes; the salt is raw bytes.
  [[nodiscard]] ByteSpan password() const noexcept { return scram_password_.bytes(); }
  [[nodiscard]] std::string_view salt() const noexcept { return scram_.salt(); }
  [[nodiscard]] uint32_t rounds() const noexcept { return scram_.rounds(); }

  // After `done`. The server's ParameterStatus, in the order they came; a name that came twice has
  // its last value.
  [[nodiscard]] const std::vector<NamedValue>& parameters() const noexcept { return parameters_; }
  [[nodiscard]] uint32_t process_id() const noexcept { return process_id_; }
  // 4 to 256 bytes (4 in protocol 3.0); empty when the server sent none (some poolers do not).
  [[nodiscard]] std::string_view cancel_key() const noexcept { return cancel_key_; }
  // After `failed`: the server's own words, or ours.
  [[nodiscard]] const PoolError& error() const noexcept { return error_; }
  // True when the server itself refused with an ErrorResponse.
  [[nodiscard]] bool server_refused() const noexcept { return server_refused_; }

 private:
  enum class State : uint8_t {
    start,           // Nothing sent.
    authentication,  // StartupMessage sent; the server chooses.
    password,        // Password or md5 answer sent; the server says ok or error.
    scram_first,     // client-first sent.
    scram_key,       // Waiting for our own key.
    scram_final,     // client-final sent.
    scram_ok,        // The server has proved itself; AuthenticationOk must follow.
    settings,        // Logged in: ParameterStatus, BackendKeyData, ReadyForQuery.
    done,
    failed,
  };
  enum class PasswordKind : uint8_t { none, plain, md5, verifier };

  LoginStep fail(std::string_view sqlstate, std::string_view message);
  LoginStep fail_protocol(std::string_view what);
  LoginStep fail_password(std::string_view method);
  [[nodiscard]] PasswordKind password_kind() const noexcept;

  [[nodiscard]] bool can_authenticate(AuthenticationKind kind) const noexcept;
  LoginStep on_authentication(ByteSpan body);
  LoginStep on_authentication_ok();
  LoginStep on_cleartext();
  LoginStep on_md5(ByteSpan salt);
  LoginStep on_sasl(const AuthenticationRequest& request);
  LoginStep on_sasl_continue(std::string_view message);
  LoginStep on_sasl_final(std::string_view message);
  LoginStep fail_scram(ScramStep step);
  LoginStep on_parameter_status(ByteSpan body);
  LoginStep on_backend_key_data(ByteSpan body);
  LoginStep on_ready_for_query(ByteSpan body);
  LoginStep on_negotiate_version(ByteSpan body);
  LoginStep on_error(ByteSpan body);

  const BackendLoginOptions& options_;
  Random& random_;
  State state_ = State::start;
  ScramClient scram_;
  SecretBytes scram_password_;
  std::vector<uint8_t> output_;
  std::vector<NamedValue> parameters_;
  size_t parameters_size_ = 0;
  size_t messages_count_ = 0;
  bool has_key_data_ = false;
  bool has_negotiated_ = false;
  bool server_refused_ = false;
  uint32_t process_id_ = 0;
  std::string cancel_key_;
  PoolError error_;
};

}  // namespace helios
