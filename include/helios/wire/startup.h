// The packets without a tag that open a client's connection.
//
// StartupAssembler collects one packet from any segmentation; decode_startup() tells what it is.
// Neither knows the dialogue: that bytes behind an SSLRequest end the connection, that a second
// SSLRequest is an error, and that a first byte of tls_handshake_byte means TLS without a request,
// is for the owner to see. Both belong to the session; used by its core only. Source: PostgreSQL
// manual, "Start-up" and "Message Formats"; sentences and SQLSTATEs as PostgreSQL 18 words them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/writer.h"

namespace helios {

// Bytes of a packet without its length field. PostgreSQL's own limit.
inline constexpr uint32_t startup_body_size_max = 10'000;
// Settings, and protocol options, in one packet. PostgreSQL knows no bound but the packet's size;
// ours keeps the search for names that stand twice short.
inline constexpr size_t startup_settings_max = 256;
// The first byte of a TLS handshake; no start-up packet begins with it.
inline constexpr uint8_t tls_handshake_byte = 0x16;

class StartupAssembler {
 public:
  // Takes bytes from the front of `input` up to the end of the packet and drops them from it.
  // message: body() is the packet without its length. malformed: a length below 8 or above the
  // limit (answer: bad_startup_length()); stays malformed. After `message` the next feed() begins a
  // new packet. Note: allocates as bytes come.
  [[nodiscard]] FrameStatus feed(ByteSpan& input);

  // Valid until the next feed(). Requires: feed() has just answered `message`.
  [[nodiscard]] ByteSpan body() const noexcept { return ByteSpan(held_).subspan(4); }

  // No byte of an incomplete packet is held.
  [[nodiscard]] bool at_boundary() const noexcept { return is_complete_ || held_.empty(); }

 private:
  void take(ByteSpan& input, size_t held_size_wanted);

  std::vector<uint8_t> held_;  // The length field and what has come of the body.
  bool is_complete_ = false;
  bool is_malformed_ = false;
};

// A setting or protocol option by name.
struct StartupParameter {
  std::string name;
  std::string value;
};

struct SslRequest {};
struct GssencRequest {};

struct CancelRequest {
  uint32_t pid = 0;
  ByteSpan key;  // cancel_key_size_min to cancel_key_size_max bytes, in the packet's memory.
};

enum class ReplicationMode : uint8_t { none, physical, database };

struct StartupMessage {
  uint16_t minor = 0;  // Of protocol 3, as the client asked: any number.
  std::string user;    // Never empty.
  // The user's name where the client gave none; empty for physical replication.
  std::string database;
  ReplicationMode replication = ReplicationMode::none;
  // Settings: those of `options` first, then the parameters of the packet, as PostgreSQL applies
  // them. A name that differs only in case stands once, where it stood first, with the last value
  // and spelling. Names consist of letters, digits, '_', '$', '.' and bytes above 127, and are
  // none of the packet's own fields (user, database, options, replication); values are unchecked
  // text.
  std::vector<StartupParameter> settings;
  // The `_pq_.` options, with that prefix, in order. We know none of them.
  std::vector<StartupParameter> protocol_options;

  // The minor version that we speak with this client: 0 or 2.
  [[nodiscard]] uint16_t agreed_minor() const noexcept;
  // The client must be told (once, before the first AuthenticationRequest) what it does not get.
  [[nodiscard]] bool needs_negotiation() const noexcept;
  // The value of a setting by its name, whatever its case; nullptr if there is none.
  [[nodiscard]] const std::string* find_setting(std::string_view name) const noexcept;
};

// Why a packet is refused: to be sent as FATAL, then the connection is closed.
struct StartupError {
  std::string_view sqlstate;  // A constant of error_response.h.
  std::string message;
  std::string_view detail = {};  // Constants, too.
  std::string_view hint = {};
};

using StartupPacket =
    std::variant<SslRequest, GssencRequest, CancelRequest, StartupMessage, StartupError>;

// Decodes the body that StartupAssembler has collected.
// Note: after a CancelRequest the connection is closed without any answer. A malformed one is a
// StartupError like others.
[[nodiscard]] StartupPacket decode_startup(ByteSpan body);

// The error for a packet that StartupAssembler calls malformed.
[[nodiscard]] StartupError bad_startup_length();

// Writes NegotiateProtocolVersion for a message that needs_negotiation().
void write_negotiation(MessageWriter& writer, const StartupMessage& startup);

// Appends the settings that a value of `options` names (`-c name=value`, `-cname=value`,
// `--name=value`; white space separates, a backslash escapes, `--` ends them) to `settings`.
// Returns what is wrong with them, or nothing.
[[nodiscard]] std::optional<StartupError> read_startup_options(
    std::string_view options, std::vector<StartupParameter>& settings);

// The settings' names compare without regard to ASCII case.
[[nodiscard]] bool is_same_setting(std::string_view a, std::string_view b) noexcept;

}  // namespace helios
