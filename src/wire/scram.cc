#include "helios/wire/scram.h"

#include <algorithm>
#include <charconv>

#include "helios/base/assert.h"

namespace helios {

namespace {

constexpr std::string_view verifier_prefix = "SCRAM-SHA-256$";
constexpr std::string_view client_key_label = "Client Key";
constexpr std::string_view server_key_label = "Server Key";
constexpr uint32_t stored_rounds_max = 0x7fffffff;  // PostgreSQL keeps the rounds in an int.

// A text of attributes "a=value,b=value...", read from the left.
class AttributeReader {
 public:
  explicit AttributeReader(std::string_view text) noexcept : rest_(text) {}

  // The next attribute must be `name`. Its value, which may be empty; nothing when another one or
  // none follows.
  std::optional<std::string_view> take(char name) noexcept {
    if (at_end_ || rest_.size() < 2 || rest_[0] != name || rest_[1] != '=') return std::nullopt;
    const size_t comma = rest_.find(',');
    const std::string_view value = rest_.substr(0, comma).substr(2);
    at_end_ = comma == std::string_view::npos;
    rest_ = at_end_ ? std::string_view{} : rest_.substr(comma + 1);
    return value;
  }
  // Skips attributes of any name but `end`: extensions, which RFC 5802 lets a reader ignore. False
  // when one of them is none. Stops at `end` or behind the last attribute.
  bool skip_until(char end) noexcept {
    while (!at_end_ && !is_next(end)) {
      if (rest_.empty() || !is_letter(rest_[0]) || !take(rest_[0])) return false;
    }
    return true;
  }
  bool skip_rest() noexcept { return skip_until('\0') && at_end_; }
  [[nodiscard]] bool is_next(char name) const noexcept {
    return !at_end_ && !rest_.empty() && rest_[0] == name;
  }
  [[nodiscard]] bool at_end() const noexcept { return at_end_; }
  // What was not read.
  [[nodiscard]] std::string_view rest() const noexcept { return rest_; }

 private:
  static bool is_letter(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }

  std::string_view rest_;
  bool at_end_ = false;  // The last attribute was read; a comma behind it would start another one.
};

// RFC 5802: printable ASCII without the comma, at least one.
bool is_nonce(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](char c) { return c >= 0x21 && c <= 0x7e && c != ','; });
}

std::string make_nonce(Random& random) {
  std::array<uint8_t, scram_nonce_bytes> bytes;
  random.fill(bytes);
  return base64_encode(bytes);
}

// A decimal number without sign or leading zero, 1 to `value_max`.
std::optional<uint32_t> parse_rounds(std::string_view text, uint32_t value_max) noexcept {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (text[0] == '0' || value > value_max) return std::nullopt;
  return value;
}

std::optional<Sha256Digest> parse_digest(std::string_view text) {
  const std::optional<std::string> bytes = base64_decode(text);
  Sha256Digest digest;
  if (!bytes || bytes->size() != digest.size()) return std::nullopt;
  std::memcpy(digest.data(), bytes->data(), digest.size());
  return digest;
}

std::optional<std::string> parse_salt(std::string_view text) {
  std::optional<std::string> salt = base64_decode(text);
  if (!salt || salt->empty() || salt->size() > scram_salt_size_max) return std::nullopt;
  return salt;
}

Sha256Digest operator^(const Sha256Digest& left, const Sha256Digest& right) noexcept {
  Sha256Digest result;
  for (size_t i = 0; i < result.size(); ++i) result[i] = left[i] ^ right[i];
  return result;
}

// HMAC of RFC 5802's AuthMessage.
Sha256Digest sign(const Sha256Digest& key, std::string_view client_first_bare,
                  std::string_view server_first, std::string_view client_final) noexcept {
  return hmac_sha256(key, {as_bytes(client_first_bare), as_bytes(","), as_bytes(server_first),
                           as_bytes(","), as_bytes(client_final)});
}

}  // namespace

bool is_scram_verifier(std::string_view stored) noexcept {
  return stored.starts_with(verifier_prefix);
}

std::optional<ScramVerifier> parse_scram_verifier(std::string_view stored) {
  if (!is_scram_verifier(stored) || stored.size() > scram_message_size_max) return std::nullopt;
  stored.remove_prefix(verifier_prefix.size());
  const size_t colon = stored.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const size_t dollar = stored.find('$', colon);
  if (dollar == std::string_view::npos) return std::nullopt;
  const size_t second_colon = stored.find(':', dollar);
  if (second_colon == std::string_view::npos) return std::nullopt;

  const auto rounds = parse_rounds(stored.substr(0, colon), stored_rounds_max);
  const auto salt = parse_salt(stored.substr(colon + 1, dollar - colon - 1));
  const auto stored_key = parse_digest(stored.substr(dollar + 1, second_colon - dollar - 1));
  const auto server_key = parse_digest(stored.substr(second_colon + 1));
  if (!rounds || !salt || !stored_key || !server_key) return std::nullopt;
  return ScramVerifier{*rounds, *salt, *stored_key, *server_key};
}

std::string print_scram_verifier(const ScramVerifier& verifier) {
  return std::string(verifier_prefix) + std::to_string(verifier.rounds) + ":" +
         base64_encode(as_bytes(verifier.salt)) + "$" + base64_encode(verifier.stored_key) + ":" +
         base64_encode(verifier.server_key);
}

ScramVerifier verifier_from(const Sha256Digest& salted_password, ByteSpan salt, uint32_t rounds) {
  Sha256Digest client_key = hmac_sha256(salted_password, as_bytes(client_key_label));
  ScramVerifier verifier{rounds, std::string(as_text(salt)), sha256(client_key),
                         hmac_sha256(salted_password, as_bytes(server_key_label))};
  wipe(client_key);
  return verifier;
}

ScramVerifier mock_verifier(const Sha256Digest& secret, std::string_view user, uint32_t rounds) {
  const Sha256Digest salt = hmac_sha256(secret, {as_bytes("salt"), as_bytes(user)});
  const Sha256Digest key = hmac_sha256(secret, {as_bytes("keys"), as_bytes(user)});
  return verifier_from(key, ByteSpan(salt).first(scram_salt_size), rounds);
}

ScramServer::ScramServer(const ScramVerifier& verifier, ScramUser user)
    : verifier_(verifier), user_(user) {}

ScramStep ScramServer::fail(ScramStep step, const char* why) noexcept {
  ASSERT(step == ScramStep::malformed || step == ScramStep::refused);
  state_ = State::finished;
  error_ = why;
  return step;
}

ScramStep ScramServer::on_client_first(std::string_view message, Random& random,
                                       std::string& output) {
  constexpr ScramStep malformed = ScramStep::malformed;
  if (state_ != State::client_first) return fail(malformed, "SCRAM client-first out of turn");
  if (message.size() > scram_message_size_max) return fail(malformed, "SCRAM message too long");

  // gs2-header: the binding flag, then an authorization identity, which must be absent.
  if (message.empty()) return fail(malformed, "empty SCRAM message");
  if (message[0] == 'p')
    return fail(malformed, "SCRAM channel binding requested, but it was not offered");
  if (message[0] != 'n' && message[0] != 'y')
    return fail(malformed, "unexpected SCRAM channel-binding flag");
  if (message.size() < 2 || message[1] != ',')
    return fail(malformed, "comma expected after the SCRAM channel-binding flag");
  if (message.size() >= 3 && message[2] == 'a')
    return fail(malformed, "SCRAM authorization identities are not supported");
  if (message.size() < 3 || message[2] != ',')
    return fail(malformed, "comma expected after the SCRAM authorization identity");
  channel_binding_ = base64_encode(as_bytes(message.substr(0, 3)));

  const std::string_view bare = message.substr(3);
  AttributeReader reader(bare);
  if (reader.is_next('m')) return fail(malformed, "SCRAM extension not supported");
  // The name is not looked at: PostgreSQL's clients send it empty, the startup message counts.
  if (!reader.take('n')) return fail(malformed, "SCRAM user name missing");
  const auto client_nonce = reader.take('r');
  if (!client_nonce) return fail(malformed, "SCRAM nonce missing");
  if (!is_nonce(*client_nonce)) return fail(malformed, "SCRAM nonce with unprintable characters");
  if (!reader.skip_rest()) return fail(malformed, "malformed SCRAM attribute");
  if (own_nonce_.empty()) own_nonce_ = make_nonce(random);
  if (client_nonce->size() + own_nonce_.size() > scram_nonce_size_max)
    return fail(malformed, "SCRAM nonce too long");

  nonce_ = std::string(*client_nonce) + own_nonce_;
  client_first_bare_ = bare;
  server_first_ = "r=" + nonce_ + ",s=" + base64_encode(as_bytes(verifier_.salt)) +
                  ",i=" + std::to_string(verifier_.rounds);
  output = server_first_;
  state_ = State::client_final;
  return ScramStep::more;
}

ScramStep ScramServer::on_client_final(std::string_view message, std::string& output) {
  constexpr ScramStep malformed = ScramStep::malformed;
  if (state_ != State::client_final) return fail(malformed, "SCRAM client-final out of turn");
  if (message.size() > scram_message_size_max) return fail(malformed, "SCRAM message too long");

  AttributeReader reader(message);
  const auto binding = reader.take('c');
  if (!binding) return fail(malformed, "SCRAM channel binding missing");
  if (*binding != channel_binding_)
    return fail(malformed, "SCRAM channel binding is not that of the first message");
  const auto nonce = reader.take('r');
  if (!nonce) return fail(malformed, "SCRAM nonce missing");
  if (!constant_time_equal(as_bytes(*nonce), as_bytes(nonce_)))
    return fail(malformed, "SCRAM nonce is not that of the first message");
  if (!reader.skip_until('p')) return fail(malformed, "malformed SCRAM attribute");
  // The proof is the last attribute; all before its comma is signed.
  const size_t proof_size = reader.rest().size();
  const auto proof = reader.take('p');
  if (!proof) return fail(malformed, "SCRAM proof missing");
  if (!reader.at_end()) return fail(malformed, "garbage behind the SCRAM proof");
  const auto proof_digest = parse_digest(*proof);
  if (!proof_digest) return fail(malformed, "malformed SCRAM proof");

  const std::string_view without_proof = message.substr(0, message.size() - proof_size - 1);
  if (!proof_is_right(*proof_digest, without_proof) || user_ == ScramUser::mock)
    return fail(ScramStep::refused, "wrong password");
  output = "v=" + base64_encode(
                      sign(verifier_.server_key, client_first_bare_, server_first_, without_proof));
  state_ = State::finished;
  return ScramStep::done;
}

bool ScramServer::proof_is_right(const Sha256Digest& proof, std::string_view without_proof) const {
  const Sha256Digest signature =
      sign(verifier_.stored_key, client_first_bare_, server_first_, without_proof);
  return constant_time_equal(sha256(proof ^ signature), verifier_.stored_key);
}

ScramClient::ScramClient(uint32_t rounds_max) noexcept : rounds_max_(rounds_max) {
  ASSERT(rounds_max > 0);
}

ScramStep ScramClient::fail(ScramStep step, const char* why) noexcept {
  ASSERT(step == ScramStep::malformed || step == ScramStep::refused);
  state_ = State::failed;
  error_ = why;
  return step;
}

ScramStep ScramClient::start(Random& random, std::string& output) {
  ASSERT(state_ == State::start);
  if (own_nonce_.empty()) own_nonce_ = make_nonce(random);
  client_first_bare_ = "n=" + user_ + ",r=" + own_nonce_;
  output = "n,," + client_first_bare_;
  state_ = State::server_first;
  return ScramStep::more;
}

ScramStep ScramClient::on_server_first(std::string_view message) {
  constexpr ScramStep malformed = ScramStep::malformed;
  if (state_ != State::server_first) return fail(malformed, "SCRAM server-first out of turn");
  if (message.size() > scram_message_size_max) return fail(malformed, "SCRAM message too long");

  AttributeReader reader(message);
  if (reader.is_next('m')) return fail(malformed, "SCRAM extension not supported");
  const auto nonce = reader.take('r');
  if (!nonce || !is_nonce(*nonce)) return fail(malformed, "SCRAM nonce missing or malformed");
  if (nonce->size() > scram_nonce_size_max) return fail(malformed, "SCRAM nonce too long");
  if (!nonce->starts_with(own_nonce_) || nonce->size() == own_nonce_.size())
    return fail(malformed, "SCRAM nonce does not continue ours");
  const auto salt_text = reader.take('s');
  if (!salt_text) return fail(malformed, "SCRAM salt missing");
  auto salt = parse_salt(*salt_text);
  if (!salt) return fail(malformed, "SCRAM salt malformed or too long");
  const auto rounds_text = reader.take('i');
  if (!rounds_text) return fail(malformed, "SCRAM rounds missing");
  const auto rounds = parse_rounds(*rounds_text, rounds_max_);
  if (!rounds) return fail(malformed, "SCRAM rounds malformed or above the limit");
  if (!reader.skip_rest()) return fail(malformed, "malformed SCRAM attribute");

  nonce_ = *nonce;
  salt_ = std::move(*salt);
  rounds_ = *rounds;
  server_first_ = message;
  state_ = State::key;
  return ScramStep::need_key;
}

ScramStep ScramClient::on_key(const Sha256Digest& salted_password, std::string& output) {
  ASSERT(state_ == State::key);
  const std::string without_proof = "c=biws,r=" + nonce_;  // biws: "n,,".
  Sha256Digest client_key = hmac_sha256(salted_password, as_bytes(client_key_label));
  Sha256Digest server_key = hmac_sha256(salted_password, as_bytes(server_key_label));
  const Sha256Digest signature =
      sign(sha256(client_key), client_first_bare_, server_first_, without_proof);
  server_signature_ = sign(server_key, client_first_bare_, server_first_, without_proof);
  output = without_proof + ",p=" + base64_encode(client_key ^ signature);
  wipe(client_key);
  wipe(server_key);
  state_ = State::server_final;
  return ScramStep::more;
}

ScramStep ScramClient::on_server_final(std::string_view message) {
  constexpr ScramStep malformed = ScramStep::malformed;
  if (state_ != State::server_final) return fail(malformed, "SCRAM server-final out of turn");
  if (message.size() > scram_message_size_max) return fail(malformed, "SCRAM message too long");

  AttributeReader reader(message);
  if (reader.is_next('e')) return fail(ScramStep::refused, "the server reports a SCRAM error");
  const auto text = reader.take('v');
  if (!text) return fail(malformed, "SCRAM server signature missing");
  if (!reader.skip_rest()) return fail(malformed, "malformed SCRAM attribute");
  const auto signature = parse_digest(*text);
  if (!signature) return fail(malformed, "malformed SCRAM server signature");
  if (!constant_time_equal(*signature, server_signature_))
    return fail(ScramStep::refused, "the server does not know the password");
  state_ = State::verified;
  return ScramStep::done;
}

}  // namespace helios
