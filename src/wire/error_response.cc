#include "helios/wire/error_response.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/wire/body_reader.h"
#include "helios/wire/message.h"

namespace helios {

namespace {

void add_field(MessageWriter& writer, char type, std::string_view text) {
  writer.add_byte(static_cast<uint8_t>(type));
  writer.add_text(text);
}

void add_fields(MessageWriter& writer, Severity severity, std::string_view sqlstate,
                std::string_view message) {
  ASSERT(sqlstate.size() == 5);
  add_field(writer, 'S', severity_name(severity));
  add_field(writer, 'V', severity_name(severity));
  add_field(writer, 'C', sqlstate);
  add_field(writer, 'M', message);
}

void end_fields(MessageWriter& writer, std::string_view detail, std::string_view hint) {
  if (!detail.empty()) add_field(writer, 'D', detail);
  if (!hint.empty()) add_field(writer, 'H', hint);
  writer.add_byte(0);
  writer.end();
}

bool is_sqlstate(std::string_view text) noexcept {
  const auto is_digit_or_upper = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
  };
  return text.size() == 5 && std::all_of(text.begin(), text.end(), is_digit_or_upper);
}

}  // namespace

std::string_view severity_name(Severity severity) noexcept {
  switch (severity) {
    case Severity::error:
      return "ERROR";
    case Severity::fatal:
      return "FATAL";
    case Severity::panic:
      return "PANIC";
    case Severity::warning:
      return "WARNING";
    case Severity::notice:
      return "NOTICE";
    case Severity::debug:
      return "DEBUG";
    case Severity::info:
      return "INFO";
    case Severity::log:
      return "LOG";
  }
  UNREACHABLE("severity");
}

void write_error(MessageWriter& writer, Severity severity, std::string_view sqlstate,
                 std::string_view message, std::string_view detail, std::string_view hint) {
  ASSERT(severity <= Severity::panic);
  writer.begin(backend_tag::error_response);
  add_fields(writer, severity, sqlstate, message);
  end_fields(writer, detail, hint);
}

void write_notice(MessageWriter& writer, Severity severity, std::string_view sqlstate,
                  std::string_view message, std::string_view detail, std::string_view hint) {
  ASSERT(severity >= Severity::warning);
  writer.begin(backend_tag::notice_response);
  add_fields(writer, severity, sqlstate, message);
  end_fields(writer, detail, hint);
}

ErrorFields read_error(ByteSpan body) noexcept {
  ErrorFields fields;
  std::string_view translated_severity;
  BodyReader reader(body);
  uint8_t type = 0;
  std::string_view text;
  // Ends at the closing zero byte, and as well where the body ends without one.
  while (reader.read_byte(type) && type != 0 && reader.read_text(text)) {
    switch (type) {
      case 'S':
        translated_severity = text;
        break;
      case 'V':
        fields.severity = text;
        break;
      case 'C':
        fields.sqlstate = is_sqlstate(text) ? text : std::string_view{};
        break;
      case 'M':
        fields.message = text;
        break;
      case 'D':
        fields.detail = text;
        break;
      case 'H':
        fields.hint = text;
        break;
      default:
        break;  // Position, file, line and what is to come.
    }
  }
  if (fields.severity.empty()) fields.severity = translated_severity;
  return fields;
}

}  // namespace helios
