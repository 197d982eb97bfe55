// Decodes what servers send, as far as the proxy needs it.
//
// Each function takes the body of one message and answers nothing when it is malformed. Results are
// views into the body. Pure functions; any thread. Source: PostgreSQL manual, "Message Formats".
// ErrorResponse and NoticeResponse: read_error() in error_response.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "helios/base/bytes.h"

namespace helios {

enum class AuthenticationKind : uint8_t {
  ok,
  cleartext_password,
  md5_password,   // `data` is the salt, four bytes.
  sasl,           // `data` is the list of mechanisms, checked: see has_mechanism().
  sasl_continue,  // `data` is the mechanism's message; for SCRAM the server-first-message.
  sasl_final,     // `data` likewise; the server-final-message.
  other,          // Kerberos, GSSAPI, SSPI and what is to come: see `code`.
};

struct AuthenticationRequest {
  AuthenticationKind kind = AuthenticationKind::other;
  uint32_t code = 0;  // As sent.
  ByteSpan data;

  // Requires: kind == sasl.
  [[nodiscard]] bool has_mechanism(std::string_view name) const noexcept;
};

// Tag 'R'.
[[nodiscard]] std::optional<AuthenticationRequest> read_authentication(ByteSpan body) noexcept;

struct ParameterStatus {
  std::string_view name;  // Never empty.
  std::string_view value;
};

// Tag 'S'.
[[nodiscard]] std::optional<ParameterStatus> read_parameter_status(ByteSpan body) noexcept;

struct BackendKeyData {
  uint32_t pid = 0;
  ByteSpan key;  // cancel_key_size_min to cancel_key_size_max bytes.
};

// Tag 'K'.
[[nodiscard]] std::optional<BackendKeyData> read_backend_key_data(ByteSpan body) noexcept;

// Tag 'C': the command tag, e.g. "SELECT 1".
[[nodiscard]] std::optional<std::string_view> read_command_complete(ByteSpan body) noexcept;

// By the first letter of its tag: the command may be one that a pooler has to know of (DISCARD,
// DEALLOCATE, LOAD).
[[nodiscard]] constexpr bool may_change_session(uint8_t first) noexcept {
  return first == 'D' || first == 'L';
}

// A command with this tag has dropped all prepared statements of its session.
[[nodiscard]] constexpr bool drops_statements(std::string_view command_tag) noexcept {
  return command_tag == "DEALLOCATE ALL" || command_tag == "DISCARD ALL";
}

// Tag 'Z': one of transaction_status.
[[nodiscard]] std::optional<uint8_t> read_ready_for_query(ByteSpan body) noexcept;

// NotificationResponse.
struct Notification {
  uint32_t process_id = 0;  // Of the server process that has sent it.
  std::string_view channel;
  std::string_view payload;
};

// Tag 'A'.
[[nodiscard]] std::optional<Notification> read_notification(ByteSpan body) noexcept;

struct NegotiateProtocolVersion {
  uint16_t newest_minor = 0;
  uint32_t unknown_options_count = 0;
};

// Tag 'v'. Nothing for another major version than 3.
[[nodiscard]] std::optional<NegotiateProtocolVersion> read_negotiate_protocol_version(
    ByteSpan body) noexcept;

}  // namespace helios
