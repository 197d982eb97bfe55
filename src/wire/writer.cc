#include "helios/wire/writer.h"

#include "helios/base/assert.h"
#include "helios/wire/message.h"

namespace helios {

namespace {

constexpr uint32_t cancel_request_code = protocol_version(1234, 5678);
constexpr uint32_t ssl_request_code = protocol_version(1234, 5679);

void write_authentication(MessageWriter& writer, uint32_t code, ByteSpan data) {
  writer.begin(backend_tag::authentication);
  writer.add_int32(code);
  writer.add_bytes(data);
  writer.end();
}

void write_text_message(MessageWriter& writer, uint8_t tag, std::string_view text) {
  writer.begin(tag);
  writer.add_text(text);
  writer.end();
}

}  // namespace

void write_empty_message(MessageWriter& writer, uint8_t tag) {
  writer.begin(tag);
  writer.end();
}

[[gnu::hot]] void MessageWriter::begin(uint8_t tag) {
  ASSERT(length_offset_ == none);
  target_->push_back(tag);
  begin_untagged();
}

void MessageWriter::begin_untagged() {
  ASSERT(length_offset_ == none);
  length_offset_ = target_->size();
  target_->resize(length_offset_ + 4);
}

void MessageWriter::add_byte(uint8_t value) {
  ASSERT(length_offset_ != none);
  target_->push_back(value);
}

void MessageWriter::add_int16(uint16_t value) {
  uint8_t bytes[2];
  store_be16(bytes, value);
  add_bytes(bytes);
}

void MessageWriter::add_int32(uint32_t value) {
  uint8_t bytes[4];
  store_be32(bytes, value);
  add_bytes(bytes);
}

[[gnu::hot]] void MessageWriter::add_text(std::string_view text) {
  add_bytes(as_bytes(text.substr(0, text.find('\0'))));
  target_->push_back(0);
}

void MessageWriter::add_bytes(ByteSpan bytes) {
  ASSERT(length_offset_ != none);
  target_->insert(target_->end(), bytes.begin(), bytes.end());
}

void MessageWriter::end() {
  end_before(0);
}

void MessageWriter::end_before(size_t size) {
  ASSERT(length_offset_ != none);
  const size_t length = target_->size() - length_offset_ + size;
  ASSERT(length <= 0x7fffffff);
  store_be32(target_->data() + length_offset_, static_cast<uint32_t>(length));
  length_offset_ = none;
}

void MessageWriter::add_messages(ByteSpan messages) {
  ASSERT(length_offset_ == none);
  target_->insert(target_->end(), messages.begin(), messages.end());
}

void MessageWriter::clear() noexcept {
  ASSERT(length_offset_ == none);
  target_->clear();
}

void write_ready_for_query(MessageWriter& writer, uint8_t status) {
  writer.begin(backend_tag::ready_for_query);
  writer.add_byte(status);
  writer.end();
}

void write_authentication_ok(MessageWriter& writer) {
  write_authentication(writer, authentication_code::ok, {});
}

void write_authentication_md5(MessageWriter& writer, ByteSpan salt) {
  ASSERT(salt.size() == 4);
  write_authentication(writer, authentication_code::md5_password, salt);
}

void write_authentication_sasl(MessageWriter& writer) {
  writer.begin(backend_tag::authentication);
  writer.add_int32(authentication_code::sasl);
  writer.add_text("SCRAM-SHA-256");
  writer.add_byte(0);  // The list's end.
  writer.end();
}

void write_authentication_sasl_continue(MessageWriter& writer, std::string_view data) {
  write_authentication(writer, authentication_code::sasl_continue, as_bytes(data));
}

void write_authentication_sasl_final(MessageWriter& writer, std::string_view data) {
  write_authentication(writer, authentication_code::sasl_final, as_bytes(data));
}

void write_parameter_status(MessageWriter& writer, std::string_view name, std::string_view value) {
  writer.begin(backend_tag::parameter_status);
  writer.add_text(name);
  writer.add_text(value);
  writer.end();
}

void write_notification(MessageWriter& writer, uint32_t process_id, std::string_view channel,
                        std::string_view payload) {
  writer.begin(backend_tag::notification_response);
  writer.add_int32(process_id);
  writer.add_text(channel);
  writer.add_text(payload);
  writer.end();
}

void write_backend_key_data(MessageWriter& writer, uint32_t pid, ByteSpan key) {
  ASSERT(key.size() >= cancel_key_size_min);
  ASSERT(key.size() <= cancel_key_size_max);
  writer.begin(backend_tag::backend_key_data);
  writer.add_int32(pid);
  writer.add_bytes(key);
  writer.end();
}

void write_negotiate_protocol_version(MessageWriter& writer, uint16_t newest_minor,
                                      std::span<const std::string_view> unknown_options) {
  writer.begin(backend_tag::negotiate_protocol_version);
  writer.add_int32(protocol_version(protocol_major, newest_minor));
  writer.add_int32(static_cast<uint32_t>(unknown_options.size()));
  for (const std::string_view option : unknown_options) writer.add_text(option);
  writer.end();
}

void write_query(MessageWriter& writer, std::string_view text) {
  write_text_message(writer, frontend_tag::query, text);
}

void write_terminate(MessageWriter& writer) {
  write_empty_message(writer, frontend_tag::terminate);
}

void write_sync(MessageWriter& writer) {
  write_empty_message(writer, frontend_tag::sync);
}

void write_password(MessageWriter& writer, std::string_view password) {
  write_text_message(writer, frontend_tag::password, password);
}

void write_sasl_initial_response(MessageWriter& writer, std::string_view mechanism,
                                 std::string_view data) {
  writer.begin(frontend_tag::password);
  writer.add_text(mechanism);
  writer.add_int32(static_cast<uint32_t>(data.size()));
  writer.add_bytes(as_bytes(data));
  writer.end();
}

void write_sasl_response(MessageWriter& writer, std::string_view data) {
  writer.begin(frontend_tag::password);
  writer.add_bytes(as_bytes(data));
  writer.end();
}

void write_startup(MessageWriter& writer, uint32_t version, std::span<const TextPair> parameters) {
  writer.begin_untagged();
  writer.add_int32(version);
  for (const auto& [name, value] : parameters) {
    ASSERT(!name.empty());  // Would read as the packet's end.
    writer.add_text(name);
    writer.add_text(value);
  }
  writer.add_byte(0);
  writer.end();
}

void write_cancel_request(MessageWriter& writer, uint32_t pid, ByteSpan key) {
  ASSERT(key.size() >= cancel_key_size_min);
  ASSERT(key.size() <= cancel_key_size_max);
  writer.begin_untagged();
  writer.add_int32(cancel_request_code);
  writer.add_int32(pid);
  writer.add_bytes(key);
  writer.end();
}

void write_ssl_request(MessageWriter& writer) {
  writer.begin_untagged();
  writer.add_int32(ssl_request_code);
  writer.end();
}

}  // namespace helios
