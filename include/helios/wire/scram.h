// SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, both sides, without I/O.
//
// The texts are the SASL payloads, without PostgreSQL's message framing (that is the caller's).
// Nobody here derives keys: a client says which salt and rounds it needs and gets the salted
// password back (key_derivation.h). No channel binding: SCRAM-SHA-256-PLUS is never offered and
// never chosen. Everything a peer sends is bounded and checked; a message that is out of turn is an
// error. One core's data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "helios/base/bytes.h"
#include "helios/wire/crypto.h"

namespace helios {

constexpr std::string_view scram_mechanism = "SCRAM-SHA-256";
constexpr std::string_view scram_plus_mechanism = "SCRAM-SHA-256-PLUS";
constexpr size_t scram_message_size_max = 8 * 1024;
constexpr size_t scram_nonce_size_max = 1024;    // Both parts together, as text.
constexpr size_t scram_salt_size_max = 1024;     // Decoded.
constexpr size_t scram_salt_size = 16;           // Of the salts that we make; PostgreSQL's size.
constexpr uint32_t scram_rounds_default = 4096;  // PostgreSQL's default.
constexpr uint32_t scram_rounds_max_default = 100'000;
constexpr size_t scram_nonce_bytes = 18;  // Random bytes in a nonce; 24 characters in base64.

// What a server stores instead of a password.
struct ScramVerifier {
  uint32_t rounds = 0;
  std::string salt;  // Raw bytes.
  Sha256Digest stored_key{};
  Sha256Digest server_key{};
  friend bool operator==(const ScramVerifier&, const ScramVerifier&) = default;
};

// True for a text that claims to be a verifier ("SCRAM-SHA-256$..."), well-formed or not.
[[nodiscard]] bool is_scram_verifier(std::string_view stored) noexcept;
// Reads PostgreSQL's form "SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key>"; nothing when
// malformed.
[[nodiscard]] std::optional<ScramVerifier> parse_scram_verifier(std::string_view stored);
[[nodiscard]] std::string print_scram_verifier(const ScramVerifier& verifier);
// The verifier of a password whose PBKDF2 with this salt and these rounds is `salted_password`.
[[nodiscard]] ScramVerifier verifier_from(const Sha256Digest& salted_password, ByteSpan salt,
                                          uint32_t rounds);
// A stand-in for a user that does not exist: the salt depends on the user and on `secret` (random,
// one for the process) only, so that asking twice tells nothing. No proof satisfies it when used
// with ScramUser::mock.
[[nodiscard]] ScramVerifier mock_verifier(const Sha256Digest& secret, std::string_view user,
                                          uint32_t rounds = scram_rounds_default);

enum class ScramStep : uint8_t {
  more,      // Send what `output` holds and wait for the peer's next message.
  need_key,  // Client only: derive the key for salt() and rounds(), then call on_key.
  done,  // Server: the proof is right; send `output` (server-final). Client: the server is who it
         // should be.
  malformed,  // The peer broke the protocol; error() says how. SQLSTATE 08P01.
  refused,  // Server: wrong password or mock user. Client: wrong server signature. SQLSTATE 28P01.
};

// Whether the verifier belongs to a user that exists.
enum class ScramUser : uint8_t { real, mock };

// The side that checks a password.
class ScramServer {
 public:
  // `verifier` is copied. For ScramUser::mock the exchange looks the same and always ends in
  // `refused`.
  ScramServer(const ScramVerifier& verifier, ScramUser user);

  // The initial response of SASLInitialResponse. `more`: `output` is server-first (SASLContinue).
  [[nodiscard]] ScramStep on_client_first(std::string_view message, Random& random,
                                          std::string& output);
  // The body of SASLResponse. `done`: `output` is server-final (SASLFinal).
  [[nodiscard]] ScramStep on_client_final(std::string_view message, std::string& output);

  // Why the last step was `malformed` or `refused`, for the log and, when malformed, for the
  // client. A literal.
  [[nodiscard]] const char* error() const noexcept { return error_; }

  // For tests with published vectors: the server's part of the nonce instead of a random one.
  void set_nonce(std::string_view nonce) { own_nonce_ = nonce; }

 private:
  enum class State : uint8_t { client_first, client_final, finished };

  ScramStep fail(ScramStep step, const char* why) noexcept;
  [[nodiscard]] bool proof_is_right(const Sha256Digest& proof,
                                    std::string_view without_proof) const;

  ScramVerifier verifier_;
  ScramUser user_;
  State state_ = State::client_first;
  std::string own_nonce_;
  std::string nonce_;            // Client's and server's part.
  std::string channel_binding_;  // What c= must say, in base64.
  std::string client_first_bare_;
  std::string server_first_;
  const char* error_ = "";
};

// The side that has the password.
class ScramClient {
 public:
  // The server may ask for 1 to `rounds_max` rounds.
  explicit ScramClient(uint32_t rounds_max = scram_rounds_max_default) noexcept;

  // `output` is client-first. Always `more`. Requires: first call.
  [[nodiscard]] ScramStep start(Random& random, std::string& output);
  // Server-first: `need_key`, or an error.
  [[nodiscard]] ScramStep on_server_first(std::string_view message);
  // What `need_key` asks for. The salt is raw bytes.
  [[nodiscard]] std::string_view salt() const noexcept { return salt_; }
  [[nodiscard]] uint32_t rounds() const noexcept { return rounds_; }
  // `output` is client-final. Always `more`. Requires: the last step was `need_key`.
  [[nodiscard]] ScramStep on_key(const Sha256Digest& salted_password, std::string& output);
  // Server-final: `done` only when its signature proves that the server knows the verifier.
  [[nodiscard]] ScramStep on_server_final(std::string_view message);

  [[nodiscard]] bool is_done() const noexcept { return state_ == State::verified; }
  [[nodiscard]] const char* error() const noexcept { return error_; }
  void set_nonce(std::string_view nonce) { own_nonce_ = nonce; }
  // For tests with published vectors, which carry a name; PostgreSQL wants it empty and ignores it.
  void set_user(std::string_view user) { user_ = user; }

 private:
  enum class State : uint8_t { start, server_first, key, server_final, verified, failed };

  ScramStep fail(ScramStep step, const char* why) noexcept;

  uint32_t rounds_max_;
  uint32_t rounds_ = 0;
  State state_ = State::start;
  std::string user_;
  std::string own_nonce_;
  std::string nonce_;
  std::string salt_;
  std::string client_first_bare_;
  std::string server_first_;
  Sha256Digest server_signature_{};  // What the server must answer.
  const char* error_ = "";
};

}  // namespace helios
