#include "load/query_writer.h"

#include <array>
#include <charconv>

#include "helios/wire/message.h"

namespace helios::bench {
namespace {

// The decimal digits of a number.
class Digits {
 public:
  explicit Digits(int64_t number) noexcept {
    const auto result = std::to_chars(text_.data(), text_.data() + text_.size(), number);
    size_ = static_cast<size_t>(result.ptr - text_.data());
  }
  [[nodiscard]] ByteSpan bytes() const noexcept { return as_bytes({text_.data(), size_}); }

 private:
  std::array<char, 24> text_;
  size_t size_;
};

}  // namespace

ByteSpan QueryWriter::write(const ScriptStatement& statement, std::span<const int64_t> variables,
                            bool parses) {
  writer_.clear();
  if (mode_ == QueryMode::simple || statement.copies_in) {
    write_simple(statement, variables);
    return writer_.bytes();
  }
  const bool is_prepared = mode_ == QueryMode::prepared;
  const std::string_view name = is_prepared ? statement.prepared_name : std::string_view();
  if (!is_prepared || parses) write_parse(statement, name);
  write_bind(statement, name, variables);
  if (!is_prepared) {
    writer_.begin(frontend_tag::describe);
    writer_.add_byte('P');
    writer_.add_text("");
    writer_.end();
  }
  write_execute();
  write_sync(writer_);
  return writer_.bytes();
}

void QueryWriter::write_simple(const ScriptStatement& statement,
                               std::span<const int64_t> variables) {
  writer_.begin(frontend_tag::query);
  for (size_t i = 0; i < statement.texts.size(); ++i) {
    if (i > 0) writer_.add_bytes(Digits(variables[statement.slots[i - 1]]).bytes());
    writer_.add_bytes(as_bytes(statement.texts[i]));
  }
  writer_.add_byte(0);
  writer_.end();
}

void QueryWriter::write_parse(const ScriptStatement& statement, std::string_view name) {
  writer_.begin(frontend_tag::parse);
  writer_.add_text(name);
  writer_.add_text(statement.parameter_text);
  writer_.add_int16(0);  // The server finds the types.
  writer_.end();
}

void QueryWriter::write_bind(const ScriptStatement& statement, std::string_view name,
                             std::span<const int64_t> variables) {
  writer_.begin(frontend_tag::bind);
  writer_.add_text("");
  writer_.add_text(name);
  writer_.add_int16(0);  // All parameters are text.
  writer_.add_int16(static_cast<uint16_t>(statement.slots.size()));
  for (const uint32_t slot : statement.slots) {
    const Digits digits(variables[slot]);
    writer_.add_int32(static_cast<uint32_t>(digits.bytes().size()));
    writer_.add_bytes(digits.bytes());
  }
  writer_.add_int16(0);  // All results as well.
  writer_.end();
}

void QueryWriter::write_execute() {
  writer_.begin(frontend_tag::execute);
  writer_.add_text("");
  writer_.add_int32(0);  // All rows.
  writer_.end();
}

}  // namespace helios::bench
