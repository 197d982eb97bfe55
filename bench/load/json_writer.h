// Writes one JSON object: keys in the order of the calls, objects and lists within.
//
// Keys are ours and need no escapes; texts are escaped. Belongs to its caller.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace helios::bench {

class JsonWriter {
 public:
  JsonWriter() { text_ = "{"; }

  void number(std::string_view key, uint64_t value);
  void real(std::string_view key, double value);
  void boolean(std::string_view key, bool value);
  void text(std::string_view key, std::string_view value);
  // Each begin needs an end().
  void begin_object(std::string_view key);
  void begin_list(std::string_view key);
  // In a list: an object, and a number.
  void begin_item();
  void item(uint64_t value);
  void end();
  // The object, closed. Requires: every begin has its end.
  [[nodiscard]] std::string finish();

 private:
  void add_key(std::string_view key);
  void add_text(std::string_view value);
  void separate();

  std::string text_;
  std::string closers_;  // Of what is open, the innermost last.
};

}  // namespace helios::bench
