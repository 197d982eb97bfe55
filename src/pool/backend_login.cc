#include "helios/pool/backend_login.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/wire/error_response.h"
#include "helios/wire/md5_auth.h"
#include "helios/wire/message.h"
#include "helios/wire/saslprep.h"
#include "helios/wire/writer.h"

namespace helios {

namespace {

constexpr std::string_view keys_hint = "; set node_user and node_password";

// A name or value that a start-up packet can carry.
bool is_sendable(std::string_view text) noexcept {
  return text.find('\0') == std::string_view::npos;
}

// At most `size_max` bytes of a text, not ending within a UTF-8 character.
std::string_view cut(std::string_view text, size_t size_max) noexcept {
  if (text.size() <= size_max) return text;
  size_t size = size_max;
  while (size > size_max - 4 && (static_cast<uint8_t>(text[size]) & 0xc0) == 0x80) --size;
  return text.substr(0, size);
}

// A server reads the start-up parameters behind the authentication, as it looks whether there is
// room, whether the database is there, and whether the server is up. These it says of a parameter
// (its name, its value, the right to set it, a library that it names) or of the right to connect.
bool may_be_of_parameters(std::string_view sqlstate) noexcept {
  const std::string_view kind = sqlstate.substr(0, 2);
  return kind == "0A" || kind == "22" || kind == "25" || kind == "42" || sqlstate == "55P02" ||
         sqlstate == "58P01";
}

}  // namespace

BackendLogin::BackendLogin(const BackendLoginOptions& options, Random& random) noexcept
    : options_(options), random_(random), scram_(std::max(options.scram_rounds_max, 1U)) {}

LoginStep BackendLogin::fail(std::string_view sqlstate, std::string_view message) {
  state_ = State::failed;
  error_.sqlstate = sqlstate;
  error_.message = message;
  wipe(MutableByteSpan(output_));
  output_.clear();
  scram_password_.clear();
  return LoginStep::failed;
}

LoginStep BackendLogin::fail_protocol(std::string_view what) {
  return fail(sqlstate::protocol_violation,
              "the server broke the protocol at login: " + std::string(what));
}

// The server wants a password by `method` and we have none that serves.
LoginStep BackendLogin::fail_password(std::string_view method) {
  std::string text = "the server asks for a password (" + std::string(method) + "), but ";
  switch (password_kind()) {
    case PasswordKind::none:
      text += "there is none for this user";
      break;
    case PasswordKind::md5:
      text += "only an md5 hash is known for this user, which serves md5 only";
      break;
    case PasswordKind::verifier:
      text += "only a SCRAM verifier is known for this user";
      break;
    case PasswordKind::plain:
      UNREACHABLE("a plain password serves every method");
  }
  return fail(sqlstate::invalid_password, text.append(keys_hint));
}

std::string BackendLogin::take_output() {
  std::string output(as_text(output_));
  wipe(MutableByteSpan(output_));
  output_.clear();
  return output;
}

BackendLogin::PasswordKind BackendLogin::password_kind() const noexcept {
  if (options_.password.empty()) return PasswordKind::none;
  if (options_.password_is_plain) return PasswordKind::plain;
  if (is_md5_hash(options_.password)) return PasswordKind::md5;
  if (is_scram_verifier(options_.password)) return PasswordKind::verifier;
  return PasswordKind::plain;
}

LoginStep BackendLogin::start() {
  ASSERT(state_ == State::start);
  std::vector<TextPair> pairs{{"user", options_.user}, {"database", options_.database}};
  for (const auto& [name, value] : options_.parameters) pairs.emplace_back(name, value);
  for (const auto& [name, value] : pairs) {
    if (name.empty() || !is_sendable(name) || !is_sendable(value))
      return fail(sqlstate::invalid_parameter_value,
                  "a start-up parameter cannot be sent: it has no name or holds a zero byte");
  }
  MessageWriter writer(output_);
  write_startup(writer, protocol_version(protocol_major, 0), pairs);
  state_ = State::authentication;
  return LoginStep::more;
}

LoginStep BackendLogin::on_message(uint8_t tag, ByteSpan body) {
  ASSERT(state_ != State::start);
  ASSERT(state_ != State::done);
  ASSERT(state_ != State::failed);
  if (body.size() > message_size_max) return fail_protocol("a message is too long");
  if (++messages_count_ > messages_max) return fail_protocol("too many messages");
  switch (tag) {
    case backend_tag::error_response:
      return on_error(body);
    case backend_tag::notice_response:
      return LoginStep::more;
    case backend_tag::authentication:
      return on_authentication(body);
    case backend_tag::negotiate_protocol_version:
      return on_negotiate_version(body);
    case backend_tag::parameter_status:
      return on_parameter_status(body);
    case backend_tag::backend_key_data:
      return on_backend_key_data(body);
    case backend_tag::ready_for_query:
      return on_ready_for_query(body);
    default:
      return fail_protocol("a message of an unexpected type");
  }
}

// The one state in which each request is legal; AuthenticationOk has three ways to get there.
bool BackendLogin::can_authenticate(AuthenticationKind kind) const noexcept {
  switch (kind) {
    case AuthenticationKind::ok:
      return state_ == State::authentication || state_ == State::password ||
             state_ == State::scram_ok;
    case AuthenticationKind::cleartext_password:
    case AuthenticationKind::md5_password:
    case AuthenticationKind::sasl:
    case AuthenticationKind::other:
      return state_ == State::authentication;
    case AuthenticationKind::sasl_continue:
      return state_ == State::scram_first;
    case AuthenticationKind::sasl_final:
      return state_ == State::scram_final;
  }
  return false;
}

LoginStep BackendLogin::on_authentication(ByteSpan body) {
  const std::optional<AuthenticationRequest> request = read_authentication(body);
  if (!request) return fail_protocol("a malformed authentication request");
  if (!can_authenticate(request->kind))
    return fail_protocol("an authentication request out of turn");
  switch (request->kind) {
    case AuthenticationKind::ok:
      return on_authentication_ok();
    case AuthenticationKind::cleartext_password:
      return on_cleartext();
    case AuthenticationKind::md5_password:
      return on_md5(request->data);
    case AuthenticationKind::sasl:
      return on_sasl(*request);
    case AuthenticationKind::sasl_continue:
      return on_sasl_continue(as_text(request->data));
    case AuthenticationKind::sasl_final:
      return on_sasl_final(as_text(request->data));
    case AuthenticationKind::other:
      break;
  }
  return fail(sqlstate::feature_not_supported,
              "the server asks for authentication method " + std::to_string(request->code) +
                  ", which is not supported; trust, password, md5 and scram-sha-256 are");
}

LoginStep BackendLogin::on_authentication_ok() {
  ASSERT(state_ != State::scram_ok || scram_.is_done());
  state_ = State::settings;
  return LoginStep::more;
}

LoginStep BackendLogin::on_cleartext() {
  if (password_kind() != PasswordKind::plain) return fail_password("cleartext");
  if (!is_sendable(options_.password))
    return fail(sqlstate::invalid_password, "the password holds a zero byte");
  MessageWriter writer(output_);
  write_password(writer, options_.password);
  state_ = State::password;
  return LoginStep::more;
}

LoginStep BackendLogin::on_md5(ByteSpan salt) {
  const PasswordKind kind = password_kind();
  if (kind != PasswordKind::plain && kind != PasswordKind::md5) return fail_password("md5");
  Md5Salt salt_bytes;
  ASSERT(salt.size() == salt_bytes.size());  // read_authentication has checked it.
  std::copy(salt.begin(), salt.end(), salt_bytes.begin());
  const std::string stored =
      kind == PasswordKind::md5 ? options_.password : md5_hash(options_.password, options_.user);
  MessageWriter writer(output_);
  write_password(writer, md5_response(stored, salt_bytes));
  state_ = State::password;
  return LoginStep::more;
}

LoginStep BackendLogin::on_sasl(const AuthenticationRequest& request) {
  if (!request.has_mechanism(scram_mechanism)) {
    if (request.has_mechanism(scram_plus_mechanism))
      return fail(
          sqlstate::feature_not_supported,
          "the server offers SCRAM-SHA-256-PLUS only, but channel binding is not supported");
    return fail(sqlstate::feature_not_supported,
                "the server offers no SASL mechanism that is supported; SCRAM-SHA-256 is");
  }
  if (password_kind() != PasswordKind::plain) return fail_password(scram_mechanism);
  std::string client_first;
  const ScramStep step = scram_.start(random_, client_first);
  ASSERT(step == ScramStep::more);
  MessageWriter writer(output_);
  write_sasl_initial_response(writer, scram_mechanism, client_first);
  state_ = State::scram_first;
  return LoginStep::more;
}

LoginStep BackendLogin::on_sasl_continue(std::string_view message) {
  const ScramStep step = scram_.on_server_first(message);
  if (step != ScramStep::need_key) return fail_scram(step);
  scram_password_ = scram_password(options_.password);
  state_ = State::scram_key;
  return LoginStep::need_key;
}

LoginStep BackendLogin::on_key(const Sha256Digest& salted_password) {
  ASSERT(state_ == State::scram_key);
  scram_password_.clear();
  std::string client_final;
  const ScramStep step = scram_.on_key(salted_password, client_final);
  ASSERT(step == ScramStep::more);
  MessageWriter writer(output_);
  write_sasl_response(writer, client_final);
  state_ = State::scram_final;
  return LoginStep::more;
}

LoginStep BackendLogin::on_sasl_final(std::string_view message) {
  const ScramStep step = scram_.on_server_final(message);
  if (step != ScramStep::done) return fail_scram(step);
  ASSERT(scram_.is_done());
  state_ = State::scram_ok;
  return LoginStep::more;
}

LoginStep BackendLogin::fail_scram(ScramStep step) {
  ASSERT(step == ScramStep::malformed || step == ScramStep::refused);
  if (step == ScramStep::malformed) return fail_protocol(scram_.error());
  return fail(sqlstate::invalid_password, scram_.error());
}

LoginStep BackendLogin::on_parameter_status(ByteSpan body) {
  if (state_ != State::settings) return fail_protocol("ParameterStatus out of turn");
  const std::optional<ParameterStatus> status = read_parameter_status(body);
  if (!status) return fail_protocol("a malformed ParameterStatus");

  auto known = std::find_if(parameters_.begin(), parameters_.end(),
                            [&](const NamedValue& entry) { return entry.first == status->name; });
  if (known == parameters_.end()) {
    if (parameters_.size() == parameters_max) return fail_protocol("too many parameters");
    parameters_size_ += status->name.size();
    known = parameters_.emplace(parameters_.end(), status->name, std::string());
  }
  parameters_size_ += status->value.size();
  parameters_size_ -= known->second.size();
  if (parameters_size_ > parameters_size_max) return fail_protocol("parameters too long");
  known->second = status->value;
  return LoginStep::more;
}

LoginStep BackendLogin::on_backend_key_data(ByteSpan body) {
  if (state_ != State::settings || has_key_data_)
    return fail_protocol("BackendKeyData out of turn");
  const std::optional<BackendKeyData> data = read_backend_key_data(body);
  if (!data) return fail_protocol("a malformed BackendKeyData");
  has_key_data_ = true;
  process_id_ = data->pid;
  cancel_key_ = as_text(data->key);
  return LoginStep::more;
}

LoginStep BackendLogin::on_ready_for_query(ByteSpan body) {
  if (state_ != State::settings) return fail_protocol("ReadyForQuery out of turn");
  if (read_ready_for_query(body) != transaction_status::idle)
    return fail_protocol("ReadyForQuery malformed or not idle");
  state_ = State::done;
  return LoginStep::done;
}

LoginStep BackendLogin::on_negotiate_version(ByteSpan body) {
  if (state_ != State::authentication || has_negotiated_)
    return fail_protocol("NegotiateProtocolVersion out of turn");
  if (!read_negotiate_protocol_version(body))
    return fail_protocol("a malformed NegotiateProtocolVersion");
  has_negotiated_ = true;  // We ask for 3.0, which every server speaks: nothing changes.
  return LoginStep::more;
}

LoginStep BackendLogin::on_error(ByteSpan body) {
  const ErrorFields fields = read_error(body);
  server_refused_ = true;
  error_.is_of_parameters = state_ == State::settings && !options_.parameters.empty() &&
                            may_be_of_parameters(fields.sqlstate);
  error_.detail = cut(fields.detail, error_size_max);
  error_.hint = cut(fields.hint, error_size_max);
  return fail(fields.sqlstate.empty() ? sqlstate::connection_exception : fields.sqlstate,
              fields.message.empty() ? "the server refused the login without a reason"
                                     : cut(fields.message, error_size_max));
}

}  // namespace helios
