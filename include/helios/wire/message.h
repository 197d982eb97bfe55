// The message tags of the PostgreSQL protocol 3.x, and which of them a client may send.
//
// Plain constants, not an enum: several letters mean one thing from a client and another from a
// server, and a tag that a peer sends may be any byte. Source: PostgreSQL manual, "Message
// Formats".
#pragma once

#include <cstdint>

namespace helios {

// What a client sends.
namespace frontend_tag {
inline constexpr uint8_t bind = 'B';
inline constexpr uint8_t close = 'C';
inline constexpr uint8_t copy_data = 'd';
inline constexpr uint8_t copy_done = 'c';
inline constexpr uint8_t copy_fail = 'f';
inline constexpr uint8_t describe = 'D';
inline constexpr uint8_t execute = 'E';
inline constexpr uint8_t flush = 'H';
inline constexpr uint8_t function_call = 'F';
inline constexpr uint8_t parse = 'P';
// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share one tag; only in a
// login.
inline constexpr uint8_t password = 'p';
inline constexpr uint8_t query = 'Q';
inline constexpr uint8_t sync = 'S';
inline constexpr uint8_t terminate = 'X';
}  // namespace frontend_tag

// What a server sends.
namespace backend_tag {
inline constexpr uint8_t authentication = 'R';
inline constexpr uint8_t backend_key_data = 'K';
inline constexpr uint8_t bind_complete = '2';
inline constexpr uint8_t close_complete = '3';
inline constexpr uint8_t command_complete = 'C';
inline constexpr uint8_t copy_both_response = 'W';
inline constexpr uint8_t copy_data = 'd';
inline constexpr uint8_t copy_done = 'c';
inline constexpr uint8_t copy_in_response = 'G';
inline constexpr uint8_t copy_out_response = 'H';
inline constexpr uint8_t data_row = 'D';
inline constexpr uint8_t empty_query_response = 'I';
inline constexpr uint8_t error_response = 'E';
inline constexpr uint8_t function_call_response = 'V';
inline constexpr uint8_t negotiate_protocol_version = 'v';
inline constexpr uint8_t no_data = 'n';
inline constexpr uint8_t notice_response = 'N';
inline constexpr uint8_t notification_response = 'A';
inline constexpr uint8_t parameter_description = 't';
inline constexpr uint8_t parameter_status = 'S';
inline constexpr uint8_t parse_complete = '1';
inline constexpr uint8_t portal_suspended = 's';
inline constexpr uint8_t ready_for_query = 'Z';
inline constexpr uint8_t row_description = 'T';
}  // namespace backend_tag

// The status byte of ReadyForQuery.
namespace transaction_status {
inline constexpr uint8_t idle = 'I';
inline constexpr uint8_t in_transaction = 'T';
inline constexpr uint8_t failed = 'E';
}  // namespace transaction_status

// The code of an AuthenticationRequest (the first four bytes of a message with tag 'R').
namespace authentication_code {
inline constexpr uint32_t ok = 0;
inline constexpr uint32_t cleartext_password = 3;
inline constexpr uint32_t md5_password = 5;
inline constexpr uint32_t sasl = 10;
inline constexpr uint32_t sasl_continue = 11;
inline constexpr uint32_t sasl_final = 12;
}  // namespace authentication_code

// The protocol versions that we speak: 3.0 and 3.2. There is no 3.1.
inline constexpr uint16_t protocol_major = 3;
inline constexpr uint16_t protocol_minor_max = 2;

// The version number as a start-up packet carries it.
[[nodiscard]] constexpr uint32_t protocol_version(uint16_t major, uint16_t minor) noexcept {
  return (uint32_t{major} << 16) | minor;
}

// The key of BackendKeyData and CancelRequest: 4 bytes in 3.0, up to 256 in 3.2.
inline constexpr uint32_t cancel_key_size_min = 4;
inline constexpr uint32_t cancel_key_size_max = 256;

// True for the tags that a client may send once its login is done. CopyData, CopyDone and CopyFail
// are among them at any time: PostgreSQL ignores them outside COPY.
[[nodiscard]] constexpr bool is_client_tag(uint8_t tag) noexcept {
  switch (tag) {
    case frontend_tag::bind:
    case frontend_tag::close:
    case frontend_tag::copy_data:
    case frontend_tag::copy_done:
    case frontend_tag::copy_fail:
    case frontend_tag::describe:
    case frontend_tag::execute:
    case frontend_tag::flush:
    case frontend_tag::function_call:
    case frontend_tag::parse:
    case frontend_tag::query:
    case frontend_tag::sync:
    case frontend_tag::terminate:
      return true;
    default:
      return false;
  }
}

// True for the tags that a server may send once its login is done.
[[nodiscard]] constexpr bool is_server_tag(uint8_t tag) noexcept {
  switch (tag) {
    case backend_tag::bind_complete:
    case backend_tag::close_complete:
    case backend_tag::command_complete:
    case backend_tag::copy_both_response:
    case backend_tag::copy_data:
    case backend_tag::copy_done:
    case backend_tag::copy_in_response:
    case backend_tag::copy_out_response:
    case backend_tag::data_row:
    case backend_tag::empty_query_response:
    case backend_tag::error_response:
    case backend_tag::function_call_response:
    case backend_tag::no_data:
    case backend_tag::notice_response:
    case backend_tag::notification_response:
    case backend_tag::parameter_description:
    case backend_tag::parameter_status:
    case backend_tag::parse_complete:
    case backend_tag::portal_suspended:
    case backend_tag::ready_for_query:
    case backend_tag::row_description:
      return true;
    default:
      return false;
  }
}

}  // namespace helios
