#include "helios/wire/backend_messages.h"

#include "helios/base/assert.h"
#include "helios/wire/body_reader.h"
#include "helios/wire/message.h"

namespace helios {

namespace {

constexpr size_t md5_salt_size = 4;

AuthenticationKind kind_of(uint32_t code) noexcept {
  switch (code) {
    case authentication_code::ok:
      return AuthenticationKind::ok;
    case authentication_code::cleartext_password:
      return AuthenticationKind::cleartext_password;
    case authentication_code::md5_password:
      return AuthenticationKind::md5_password;
    case authentication_code::sasl:
      return AuthenticationKind::sasl;
    case authentication_code::sasl_continue:
      return AuthenticationKind::sasl_continue;
    case authentication_code::sasl_final:
      return AuthenticationKind::sasl_final;
    default:
      return AuthenticationKind::other;
  }
}

// Texts, none of them empty, and an empty one exactly at the end.
bool is_mechanism_list(ByteSpan data) noexcept {
  BodyReader reader(data);
  std::string_view name;
  while (reader.read_text(name)) {
    if (name.empty()) return reader.at_end();
  }
  return false;
}

bool has_legal_data(const AuthenticationRequest& request) noexcept {
  switch (request.kind) {
    case AuthenticationKind::ok:
    case AuthenticationKind::cleartext_password:
      return request.data.empty();
    case AuthenticationKind::md5_password:
      return request.data.size() == md5_salt_size;
    case AuthenticationKind::sasl:
      return is_mechanism_list(request.data);
    case AuthenticationKind::sasl_continue:
    case AuthenticationKind::sasl_final:
    case AuthenticationKind::other:
      return true;
  }
  UNREACHABLE("authentication kind");
}

}  // namespace

bool AuthenticationRequest::has_mechanism(std::string_view name) const noexcept {
  ASSERT(kind == AuthenticationKind::sasl);
  BodyReader reader(data);
  std::string_view offered;
  while (reader.read_text(offered) && !offered.empty()) {
    if (offered == name) return true;
  }
  return false;
}

std::optional<AuthenticationRequest> read_authentication(ByteSpan body) noexcept {
  BodyReader reader(body);
  AuthenticationRequest request;
  if (!reader.read_int32(request.code)) return std::nullopt;
  request.kind = kind_of(request.code);
  request.data = reader.left();
  if (!has_legal_data(request)) return std::nullopt;
  return request;
}

std::optional<ParameterStatus> read_parameter_status(ByteSpan body) noexcept {
  BodyReader reader(body);
  ParameterStatus status;
  if (!reader.read_text(status.name) || !reader.read_text(status.value)) return std::nullopt;
  if (!reader.at_end() || status.name.empty()) return std::nullopt;
  return status;
}

std::optional<BackendKeyData> read_backend_key_data(ByteSpan body) noexcept {
  BodyReader reader(body);
  BackendKeyData data;
  if (!reader.read_int32(data.pid)) return std::nullopt;
  data.key = reader.left();
  if (data.key.size() < cancel_key_size_min || data.key.size() > cancel_key_size_max) {
    return std::nullopt;
  }
  return data;
}

std::optional<std::string_view> read_command_complete(ByteSpan body) noexcept {
  BodyReader reader(body);
  std::string_view command;
  if (!reader.read_text(command) || !reader.at_end()) return std::nullopt;
  return command;
}

std::optional<uint8_t> read_ready_for_query(ByteSpan body) noexcept {
  if (body.size() != 1) return std::nullopt;
  const uint8_t status = body[0];
  const bool is_known = status == transaction_status::idle ||
                        status == transaction_status::in_transaction ||
                        status == transaction_status::failed;
  return is_known ? std::optional<uint8_t>(status) : std::nullopt;
}

std::optional<Notification> read_notification(ByteSpan body) noexcept {
  BodyReader reader(body);
  Notification notification;
  if (!reader.read_int32(notification.process_id) || !reader.read_text(notification.channel) ||
      !reader.read_text(notification.payload) || !reader.at_end())
    return std::nullopt;
  return notification;
}

std::optional<NegotiateProtocolVersion> read_negotiate_protocol_version(ByteSpan body) noexcept {
  BodyReader reader(body);
  uint32_t version = 0;
  NegotiateProtocolVersion answer;
  if (!reader.read_int32(version) || version >> 16 != protocol_major) return std::nullopt;
  answer.newest_minor = static_cast<uint16_t>(version);
  if (!reader.read_int32(answer.unknown_options_count)) return std::nullopt;
  // Bounded by the body: each option takes a byte at least, whatever the count claims.
  for (uint32_t i = 0; i < answer.unknown_options_count; ++i) {
    std::string_view option;
    if (!reader.read_text(option)) return std::nullopt;
  }
  if (!reader.at_end()) return std::nullopt;
  return answer;
}

}  // namespace helios
