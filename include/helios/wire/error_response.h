// ErrorResponse and NoticeResponse: written for clients, read from servers.
//
// Pure functions; any thread. Source: PostgreSQL manual, "Error and Notice Message Fields" and
// "PostgreSQL Error Codes" (Appendix A).
#pragma once

#include <cstdint>
#include <string_view>

#include "helios/base/bytes.h"
#include "helios/wire/writer.h"

namespace helios {

// The conditions that the proxy itself reports or looks for.
namespace sqlstate {
inline constexpr std::string_view successful_completion = "00000";
inline constexpr std::string_view warning = "01000";
inline constexpr std::string_view connection_failure = "08006";
inline constexpr std::string_view connection_exception = "08000";
inline constexpr std::string_view connection_refused = "08004";
inline constexpr std::string_view protocol_violation = "08P01";
inline constexpr std::string_view feature_not_supported = "0A000";
inline constexpr std::string_view invalid_parameter_value = "22023";
inline constexpr std::string_view active_sql_transaction = "25001";
inline constexpr std::string_view in_failed_sql_transaction = "25P02";
inline constexpr std::string_view idle_in_transaction_timeout = "25P03";
inline constexpr std::string_view transaction_timeout = "25P04";
inline constexpr std::string_view invalid_sql_statement_name = "26000";
inline constexpr std::string_view invalid_authorization = "28000";
inline constexpr std::string_view invalid_password = "28P01";
inline constexpr std::string_view invalid_catalog_name = "3D000";
inline constexpr std::string_view syntax_error = "42601";
inline constexpr std::string_view invalid_name = "42602";
inline constexpr std::string_view undefined_object = "42704";
inline constexpr std::string_view duplicate_prepared_statement = "42P05";
inline constexpr std::string_view too_many_connections = "53300";
inline constexpr std::string_view out_of_memory = "53200";
inline constexpr std::string_view configuration_limit_exceeded = "53400";
inline constexpr std::string_view query_canceled = "57014";
inline constexpr std::string_view admin_shutdown = "57P01";
inline constexpr std::string_view crash_shutdown = "57P02";
inline constexpr std::string_view cannot_connect_now = "57P03";
inline constexpr std::string_view database_dropped = "57P04";
inline constexpr std::string_view idle_session_timeout = "57P05";
inline constexpr std::string_view internal_error = "XX000";
}  // namespace sqlstate

enum class Severity : uint8_t {
  error,    // The session goes on.
  fatal,    // The connection ends behind it.
  panic,    // Servers only.
  warning,  // Notices only, from here on.
  notice,
  debug,
  info,
  log,
};

// The word of fields S and V, e.g. "FATAL".
[[nodiscard]] std::string_view severity_name(Severity severity) noexcept;

// Appends an ErrorResponse with the fields S, V, C, M, and D and H unless they are empty.
// Requires: `sqlstate` has five characters; `severity` is error, fatal or panic.
void write_error(MessageWriter& writer, Severity severity, std::string_view sqlstate,
                 std::string_view message, std::string_view detail = {},
                 std::string_view hint = {});

// Appends a NoticeResponse in the same way. Requires: `severity` is warning or below.
void write_notice(MessageWriter& writer, Severity severity, std::string_view sqlstate,
                  std::string_view message, std::string_view detail = {},
                  std::string_view hint = {});

// The fields of an ErrorResponse or NoticeResponse as views into its body; empty where a field is
// missing.
struct ErrorFields {
  std::string_view
      severity;  // V, which is never translated; S where a server sends no V (before 9.6).
  std::string_view sqlstate;  // Five characters, or empty.
  std::string_view message;
  std::string_view detail;
  std::string_view hint;

  // FATAL or PANIC: the server closes the connection behind it.
  [[nodiscard]] bool is_fatal() const noexcept {
    return severity == "FATAL" || severity == "PANIC";
  }
};

// Reads what can be read and ignores the rest: any bytes are accepted, missing fields stay empty.
[[nodiscard]] ErrorFields read_error(ByteSpan body) noexcept;

}  // namespace helios
