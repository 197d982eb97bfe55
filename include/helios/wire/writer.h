// Builds protocol messages: for logins, errors and everything else that the proxy says itself.
//
// MessageWriter appends to a vector, its own or the caller's; several messages may follow each
// other. Not for the path of a query's bytes: those are forwarded as they came. Belongs to its
// caller; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/base/bytes.h"

namespace helios {

class MessageWriter {
 public:
  // Writes to a buffer of its own.
  MessageWriter() noexcept : target_(&own_) {}
  // Appends to `target`, which must outlive the writer.
  explicit MessageWriter(std::vector<uint8_t>& target) noexcept : target_(&target) {}
  MessageWriter(const MessageWriter&) = delete;
  MessageWriter& operator=(const MessageWriter&) = delete;

  // Starts a message; add_...() then builds its body; end() fills in the length. Requires: none is
  // open.
  void begin(uint8_t tag);
  // The same without a tag, as start-up packets are.
  void begin_untagged();

  void add_byte(uint8_t value);
  void add_int16(uint16_t value);
  void add_int32(uint32_t value);
  // The text and a NUL. Note: the text is cut at its first NUL, which cannot be sent.
  void add_text(std::string_view text);
  void add_bytes(ByteSpan bytes);

  // Requires: a message is open; its length fits 31 bits.
  void end();
  // The same for a message whose body goes on with `size` bytes, which the caller sends.
  void end_before(size_t size);
  // Whole messages that were built before. Requires: none is open.
  void add_messages(ByteSpan messages);

  // All that was written (with a caller's vector: all that it holds). Requires: no message is open.
  [[nodiscard]] ByteSpan bytes() const noexcept { return *target_; }
  [[nodiscard]] bool empty() const noexcept { return target_->empty(); }
  // Empties the buffer. Requires: no message is open.
  void clear() noexcept;

 private:
  static constexpr size_t none = ~size_t{0};

  std::vector<uint8_t> own_;
  std::vector<uint8_t>* target_;
  size_t length_offset_ = none;  // Of the open message's length field.
};

// A name and its value, as start-up packets and ParameterStatus carry them.
using TextPair = std::pair<std::string_view, std::string_view>;

// One of the messages that have no body, of a server or a client: ParseComplete, Sync...
void write_empty_message(MessageWriter& writer, uint8_t tag);

// What servers say.

// `status`: one of transaction_status.
void write_ready_for_query(MessageWriter& writer, uint8_t status);
void write_authentication_ok(MessageWriter& writer);
// Requires: `salt` has four bytes.
void write_authentication_md5(MessageWriter& writer, ByteSpan salt);
// AuthenticationSASL with the one mechanism SCRAM-SHA-256.
void write_authentication_sasl(MessageWriter& writer);
// AuthenticationSASLContinue and AuthenticationSASLFinal.
void write_authentication_sasl_continue(MessageWriter& writer, std::string_view data);
void write_authentication_sasl_final(MessageWriter& writer, std::string_view data);
void write_parameter_status(MessageWriter& writer, std::string_view name, std::string_view value);
void write_notification(MessageWriter& writer, uint32_t process_id, std::string_view channel,
                        std::string_view payload);
// Requires: a key of cancel_key_size_min to cancel_key_size_max bytes.
void write_backend_key_data(MessageWriter& writer, uint32_t pid, ByteSpan key);
// `newest_minor`: sent as 3.`newest_minor` in one number, as PostgreSQL does.
void write_negotiate_protocol_version(MessageWriter& writer, uint16_t newest_minor,
                                      std::span<const std::string_view> unknown_options);

// What clients say.

void write_query(MessageWriter& writer, std::string_view text);
void write_terminate(MessageWriter& writer);
void write_sync(MessageWriter& writer);
// PasswordMessage: a clear or an md5 password.
void write_password(MessageWriter& writer, std::string_view password);
void write_sasl_initial_response(MessageWriter& writer, std::string_view mechanism,
                                 std::string_view data);
void write_sasl_response(MessageWriter& writer, std::string_view data);
// `version`: as protocol_version() makes it. `parameters`: user, database and the others, none with
// an empty name.
void write_startup(MessageWriter& writer, uint32_t version, std::span<const TextPair> parameters);
// Requires: a key of cancel_key_size_min to cancel_key_size_max bytes.
void write_cancel_request(MessageWriter& writer, uint32_t pid, ByteSpan key);
void write_ssl_request(MessageWriter& writer);

}  // namespace helios
