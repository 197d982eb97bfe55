#include "load/json_writer.h"

#include <array>
#include <cmath>
#include <cstdio>

#include "helios/base/assert.h"

namespace helios::bench {

void JsonWriter::number(std::string_view key, uint64_t value) {
  add_key(key);
  text_ += std::to_string(value);
}

void JsonWriter::real(std::string_view key, double value) {
  add_key(key);
  std::array<char, 40> digits{};
  std::snprintf(digits.data(), digits.size(), "%.6g", std::isfinite(value) ? value : 0.0);
  text_ += digits.data();
}

void JsonWriter::boolean(std::string_view key, bool value) {
  add_key(key);
  text_ += value ? "true" : "false";
}

void JsonWriter::text(std::string_view key, std::string_view value) {
  add_key(key);
  add_text(value);
}

void JsonWriter::begin_object(std::string_view key) {
  add_key(key);
  text_ += '{';
  closers_ += '}';
}

void JsonWriter::begin_list(std::string_view key) {
  add_key(key);
  text_ += '[';
  closers_ += ']';
}

void JsonWriter::begin_item() {
  separate();
  text_ += '{';
  closers_ += '}';
}

void JsonWriter::item(uint64_t value) {
  separate();
  text_ += std::to_string(value);
}

void JsonWriter::end() {
  ASSERT(!closers_.empty());
  text_ += closers_.back();
  closers_.pop_back();
}

std::string JsonWriter::finish() {
  ASSERT(closers_.empty());
  text_ += '}';
  return text_;
}

void JsonWriter::add_key(std::string_view key) {
  separate();
  text_.append("\"").append(key).append("\": ");
}

void JsonWriter::separate() {
  if (text_.back() != '{' && text_.back() != '[') text_ += ", ";
}

// Bytes that are no UTF-8 become '?': a server may send any.
void JsonWriter::add_text(std::string_view value) {
  text_ += '"';
  for (const char letter : value) {
    const auto byte = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      text_.append(1, '\\').append(1, letter);
    } else if (byte < 0x20) {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), "\\u%04x", byte);
      text_ += escape.data();
    } else {
      text_ += byte < 0x80 ? letter : '?';
    }
  }
  text_ += '"';
}

}  // namespace helios::bench
