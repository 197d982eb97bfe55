// The extended protocol's messages: Parse, Bind, Describe, Execute, Close.
#include <charconv>
#include <limits>
#include <utility>

#include "helios/wire/error_response.h"
#include "helios/wire/message.h"
#include "load/conversation.h"

namespace helios::bench {
namespace {

using Kind = StatementKind;

constexpr std::string_view invalid_cursor_name = "34000";
constexpr std::string_view duplicate_cursor = "42P03";
constexpr std::string_view invalid_text_representation = "22P02";
constexpr std::string_view invalid_binary_representation = "22P03";
constexpr std::string_view numeric_value_out_of_range = "22003";
constexpr std::string_view null_value_not_allowed = "22004";

constexpr uint32_t type_int2 = 21;
constexpr uint32_t null_size = UINT32_MAX;

bool read_int16(BodyReader& reader, uint16_t& value) noexcept {
  uint8_t high = 0;
  uint8_t low = 0;
  if (!reader.read_byte(high) || !reader.read_byte(low)) return false;
  value = static_cast<uint16_t>(high << 8 | low);
  return true;
}

// A list of 16-bit numbers behind their count, as the formats of Bind are.
struct Formats {
  uint16_t count = 0;
  uint16_t first = 0;
  ByteSpan values;
  bool is_mixed = false;

  // One format stands for all, none for text.
  [[nodiscard]] bool is_binary(uint16_t index) const noexcept {
    if (count <= 1) return first == 1;
    return index < count && load_be16(values.data() + size_t{index} * 2) == 1;
  }
};

bool read_formats(BodyReader& reader, Formats& formats) noexcept {
  if (!read_int16(reader, formats.count)) return false;
  formats.values = reader.left();
  for (uint16_t i = 0; i < formats.count; ++i) {
    uint16_t format = 0;
    if (!read_int16(reader, format)) return false;
    if (i == 0) formats.first = format;
    formats.is_mixed = formats.is_mixed || format != formats.first;
  }
  return true;
}

bool skip_bytes(BodyReader& reader, uint32_t size, ByteSpan& bytes) noexcept {
  if (reader.left().size() < size) return false;
  bytes = reader.left().first(size);
  reader = BodyReader(reader.left().subspan(size));
  return true;
}

bool read_binary_integer(ByteSpan bytes, int64_t& value) noexcept {
  switch (bytes.size()) {
    case 2:
      value = static_cast<int16_t>(load_be16(bytes.data()));
      return true;
    case 4:
      value = static_cast<int32_t>(load_be32(bytes.data()));
      return true;
    case 8:
      value = static_cast<int64_t>(uint64_t{load_be32(bytes.data())} << 32 |
                                   load_be32(bytes.data() + 4));
      return true;
    default:
      return false;
  }
}

bool read_text_integer(std::string_view text, int64_t& value) noexcept {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

// Kinds whose answer depends on more than what `recognise` finds.
bool needs_text(Kind kind) noexcept {
  return kind == Kind::set || kind == Kind::reset || kind == Kind::show ||
         kind == Kind::deallocate || kind == Kind::command;
}

std::string quoted(std::string_view name) {
  return "\"" + std::string(name) + "\"";
}

}  // namespace

bool Conversation::take_extended(uint8_t tag, ByteSpan body) {
  Outcome outcome = Outcome::done;
  switch (tag) {
    case frontend_tag::parse:
      outcome = on_parse(BodyReader(body));
      break;
    case frontend_tag::bind:
      outcome = on_bind(BodyReader(body));
      break;
    case frontend_tag::describe:
      outcome = on_describe(BodyReader(body));
      break;
    case frontend_tag::execute:
      outcome = on_execute(BodyReader(body));
      break;
    case frontend_tag::close:
      outcome = on_close(BodyReader(body));
      break;
    default:
      return false;
  }
  if (outcome == Outcome::failed) is_skipping_ = true;
  return true;
}

Conversation::Outcome Conversation::malformed() {
  return fail(sqlstate::protocol_violation, "invalid message format");
}

// ---------------------------------------------------------------- Parse

Conversation::Outcome Conversation::on_parse(BodyReader body) {
  std::string_view name;
  std::string_view text;
  uint16_t types_count = 0;
  if (!body.read_text(name) || !body.read_text(text) || !read_int16(body, types_count) ||
      body.left().size() != size_t{types_count} * 4)
    return malformed();
  std::string_view rest = text;
  const Statement statement = recognise(next_statement(rest));
  if (!next_statement(rest).empty())
    return fail(sqlstate::syntax_error,
                "cannot insert multiple commands into a prepared statement");
  if (status_ == transaction_status::failed && !leaves_failed_block(statement.kind))
    return fail(sqlstate::in_failed_sql_transaction,
                "current transaction is aborted, commands ignored until end of transaction block");
  if (!name.empty() && statements_.find(name) != statements_.end())
    return fail(sqlstate::duplicate_prepared_statement,
                "prepared statement " + quoted(name) + " already exists");
  has_unnamed_statement_ = has_unnamed_statement_ || name.empty();
  PreparedStatement& prepared = name.empty() ? unnamed_statement_ : statements_[std::string(name)];
  prepared.text = text;
  prepared.statement = statement;
  prepared.types.clear();
  for (uint16_t i = 0; i < types_count; ++i) {
    uint32_t type = 0;
    (void)body.read_int32(type);  // The size was checked.
    prepared.types.push_back(type);
    const bool is_value = i + 1 == statement.parameter;
    if (is_value && (type == type_int4 || type == type_int2)) prepared.statement.is_wide = false;
  }
  buffer_.add(context_.answers.parse_complete);
  return Outcome::done;
}

Conversation::PreparedStatement* Conversation::find_statement(std::string_view name) {
  if (name.empty()) return has_unnamed_statement_ ? &unnamed_statement_ : nullptr;
  const auto found = statements_.find(name);
  return found == statements_.end() ? nullptr : &found->second;
}

// ---------------------------------------------------------------- Bind

Conversation::Outcome Conversation::on_bind(BodyReader body) {
  std::string_view portal_name;
  std::string_view name;
  if (!body.read_text(portal_name) || !body.read_text(name)) return malformed();
  const PreparedStatement* prepared = find_statement(name);
  if (prepared == nullptr)
    return fail(sqlstate::invalid_sql_statement_name,
                name.empty() ? "unnamed prepared statement does not exist"
                             : "prepared statement " + quoted(name) + " does not exist");
  if (status_ == transaction_status::failed && !leaves_failed_block(prepared->statement.kind))
    return fail(sqlstate::in_failed_sql_transaction,
                "current transaction is aborted, commands ignored until end of transaction block");
  if (!portal_name.empty() && portals_.find(portal_name) != portals_.end())
    return fail(duplicate_cursor, "cursor " + quoted(portal_name) + " already exists");
  const Outcome outcome = fill_portal(make_portal(portal_name), *prepared, body);
  if (outcome == Outcome::done) {
    buffer_.add(context_.answers.bind_complete);
  } else {
    drop_portal(portal_name);
  }
  return outcome;
}

Conversation::Outcome Conversation::fill_portal(Portal& portal, const PreparedStatement& prepared,
                                                BodyReader& body) {
  portal.statement = prepared.statement;
  portal.rows_done = 0;
  if (needs_text(portal.statement.kind)) portal.text = prepared.text;
  if (const Outcome outcome = bind_values(body, portal); outcome != Outcome::done) return outcome;
  Formats formats;
  if (!read_formats(body, formats) || !body.at_end()) return malformed();
  if (formats.is_mixed)
    return fail(sqlstate::feature_not_supported,
                "the columns of a result have one format together");
  portal.format = formats.first == 1 ? CellFormat::binary : CellFormat::text;
  return Outcome::done;
}

Conversation::Outcome Conversation::bind_values(BodyReader& body, Portal& portal) {
  Formats formats;
  uint16_t count = 0;
  if (!read_formats(body, formats) || !read_int16(body, count)) return malformed();
  const uint16_t wanted = portal.statement.parameter;
  if (count < wanted)
    return fail(sqlstate::protocol_violation,
                "bind message supplies " + std::to_string(count) +
                    " parameters, but the prepared statement requires " + std::to_string(wanted));
  for (uint16_t i = 0; i < count; ++i) {
    uint32_t size = 0;
    ByteSpan value;
    if (!body.read_int32(size)) return malformed();
    const bool is_null = size == null_size;
    if (!is_null && !skip_bytes(body, size, value)) return malformed();
    if (i + 1 != wanted) continue;
    if (is_null) return fail(null_value_not_allowed, "the number must not be null");
    const Outcome outcome = bind_value(value, formats.is_binary(i), portal);
    if (outcome != Outcome::done) return outcome;
  }
  return Outcome::done;
}

Conversation::Outcome Conversation::bind_value(ByteSpan value, bool is_binary, Portal& portal) {
  int64_t& number = portal.statement.value;
  if (is_binary && !read_binary_integer(value, number))
    return fail(invalid_binary_representation,
                "incorrect binary data format: an integer has 2, 4 or 8 bytes");
  if (!is_binary && !read_text_integer(as_text(value), number))
    return fail(invalid_text_representation,
                "invalid input syntax for type integer: " + quoted(as_text(value)));
  const bool fits = number >= std::numeric_limits<int32_t>::min() &&
                    number <= std::numeric_limits<int32_t>::max();
  if (!fits && !portal.statement.is_wide)
    return fail(numeric_value_out_of_range,
                "value \"" + std::to_string(number) + "\" is out of range for type integer");
  return Outcome::done;
}

Conversation::Portal& Conversation::make_portal(std::string_view name) {
  if (!name.empty()) return portals_[std::string(name)];
  has_unnamed_portal_ = true;
  return unnamed_portal_;
}

Conversation::Portal* Conversation::find_portal(std::string_view name) {
  if (name.empty()) return has_unnamed_portal_ ? &unnamed_portal_ : nullptr;
  const auto found = portals_.find(name);
  return found == portals_.end() ? nullptr : &found->second;
}

void Conversation::drop_portal(std::string_view name) {
  if (name.empty()) {
    has_unnamed_portal_ = false;
  } else if (const auto found = portals_.find(name); found != portals_.end()) {
    portals_.erase(found);
  }
}

// ---------------------------------------------------------------- Describe

Conversation::Outcome Conversation::on_describe(BodyReader body) {
  uint8_t what = 0;
  std::string_view name;
  if (!body.read_byte(what) || !body.read_text(name)) return malformed();
  if (what == 'S') {
    const PreparedStatement* prepared = find_statement(name);
    if (prepared == nullptr)
      return fail(sqlstate::invalid_sql_statement_name,
                  "prepared statement " + quoted(name) + " does not exist");
    describe_parameters(*prepared);
    describe_rows(prepared->statement, prepared->text, CellFormat::text);
    return Outcome::done;
  }
  if (what != 'P') return malformed();
  const Portal* portal = find_portal(name);
  if (portal == nullptr)
    return fail(invalid_cursor_name, "portal " + quoted(name) + " does not exist");
  describe_rows(portal->statement, portal->text, portal->format);
  return Outcome::done;
}

void Conversation::describe_rows(const Statement& statement, std::string_view text,
                                 CellFormat format) {
  if (statement.kind == Kind::show) {
    const Column column{read_setting(text).name, type_text, 0xffff};
    write_row_description(buffer_.writer(), {&column, 1}, format);
    return buffer_.add_written();
  }
  const ByteSpan canned = context_.answers.description(statement, format);
  buffer_.add(canned.empty() ? ByteSpan(context_.answers.no_data) : canned);
}

// The types that Parse gave; for the others the one that the value has, or text.
void Conversation::describe_parameters(const PreparedStatement& prepared) {
  const uint8_t count = parameters_count(prepared.text);
  MessageWriter& writer = buffer_.writer();
  writer.begin(backend_tag::parameter_description);
  writer.add_int16(count);
  for (uint8_t i = 0; i < count; ++i) {
    uint32_t type = i < prepared.types.size() ? prepared.types[i] : 0;
    const bool is_value = i + 1 == prepared.statement.parameter;
    if (type == 0 && is_value) type = prepared.statement.is_wide ? type_int8 : type_int4;
    writer.add_int32(type == 0 ? type_text : type);
  }
  writer.end();
  buffer_.add_written();
}

// ---------------------------------------------------------------- Execute and Close

Conversation::Outcome Conversation::on_execute(BodyReader body) {
  std::string_view name;
  uint32_t rows_max = 0;
  if (!body.read_text(name) || !body.read_int32(rows_max)) return malformed();
  Portal* portal = find_portal(name);
  if (portal == nullptr)
    return fail(invalid_cursor_name, "portal " + quoted(name) + " does not exist");
  return run({portal->statement, portal->text, portal->format, portal, rows_max});
}

Conversation::Outcome Conversation::on_close(BodyReader body) {
  uint8_t what = 0;
  std::string_view name;
  if (!body.read_byte(what) || !body.read_text(name)) return malformed();
  if (what == 'S' && name.empty()) {
    has_unnamed_statement_ = false;
  } else if (what == 'S') {
    if (const auto found = statements_.find(name); found != statements_.end())
      statements_.erase(found);
  } else if (what == 'P') {
    drop_portal(name);
  } else {
    return malformed();
  }
  buffer_.add(context_.answers.close_complete);
  return Outcome::done;
}

}  // namespace helios::bench
