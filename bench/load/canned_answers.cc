#include "load/canned_answers.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "helios/base/assert.h"
#include "helios/wire/message.h"

namespace helios::bench {
namespace {

using Kind = StatementKind;

// Rows are handed on in blocks of about this size.
constexpr size_t block_size = 16 * 1024;
constexpr uint32_t type_char = 18;
constexpr uint32_t type_void = 2278;
constexpr uint16_t any_size = 0xffff;
// As long as a real one begins: pgpool-II reads the number in it.
constexpr const char* version_text = "PostgreSQL 15.14 (canned by helios-bench)";

size_t index_of(Kind kind) noexcept {
  return static_cast<size_t>(kind);
}
size_t index_of(CellFormat format) noexcept {
  return static_cast<size_t>(format);
}

std::vector<uint8_t> bare_message(uint8_t tag) {
  std::vector<uint8_t> bytes;
  MessageWriter writer(bytes);
  writer.begin(tag);
  writer.end();
  return bytes;
}

std::vector<uint8_t> copy_response(uint8_t tag) {
  std::vector<uint8_t> bytes;
  MessageWriter writer(bytes);
  writer.begin(tag);
  writer.add_byte(0);
  writer.add_int16(1);
  writer.add_int16(0);
  writer.end();
  return bytes;
}

RowBlock block_of(const std::vector<uint8_t>& row, uint64_t rows_count) {
  RowBlock block;
  block.row_size = row.size();
  block.rows_count =
      std::clamp<uint64_t>(rows_count, 1, std::max<uint64_t>(block_size / row.size(), 1));
  for (uint64_t i = 0; i < block.rows_count; ++i)
    block.bytes.insert(block.bytes.end(), row.begin(), row.end());
  return block;
}

RowBlock text_block(std::string_view value, uint64_t rows_count) {
  std::vector<uint8_t> row;
  MessageWriter writer(row);
  write_text_row(writer, value);
  return block_of(row, rows_count);
}

RowBlock copy_block(uint32_t row_size, uint64_t rows_count) {
  std::vector<uint8_t> row;
  MessageWriter writer(row);
  writer.begin(backend_tag::copy_data);
  writer.add_bytes(as_bytes(std::string(row_size, 'x') + '\n'));
  writer.end();
  return block_of(row, rows_count);
}

// One table without partitions: its place in the search path, no strategy, no partitions.
RowBlock partitions_block() {
  std::vector<uint8_t> row;
  MessageWriter writer(row);
  writer.begin(backend_tag::data_row);
  writer.add_int16(3);
  writer.add_int32(1);
  writer.add_byte('1');
  writer.add_int32(UINT32_MAX);  // NULL.
  writer.add_int32(1);
  writer.add_byte('0');
  writer.end();
  return block_of(row, 1);
}

size_t write_text_cell(int64_t value, uint8_t* to) noexcept {
  char* digits = reinterpret_cast<char*>(to + 4);
  const size_t size = static_cast<size_t>(std::to_chars(digits, digits + 20, value).ptr - digits);
  store_be32(to, static_cast<uint32_t>(size));
  return 4 + size;
}

size_t write_binary_cell(int64_t value, bool is_wide, uint8_t* to) noexcept {
  const auto bits = static_cast<uint64_t>(value);
  store_be32(to, is_wide ? 8 : 4);
  to += 4;
  if (is_wide) store_be32(to, static_cast<uint32_t>(bits >> 32));
  store_be32(to + (is_wide ? 4 : 0), static_cast<uint32_t>(bits));
  return is_wide ? 12 : 8;
}

}  // namespace

CannedAnswers::CannedAnswers(uint32_t rows, uint32_t row_size)
    : parse_complete(bare_message(backend_tag::parse_complete)),
      bind_complete(bare_message(backend_tag::bind_complete)),
      close_complete(bare_message(backend_tag::close_complete)),
      no_data(bare_message(backend_tag::no_data)),
      portal_suspended(bare_message(backend_tag::portal_suspended)),
      empty_query(bare_message(backend_tag::empty_query_response)),
      copy_in(copy_response(backend_tag::copy_in_response)),
      copy_out(copy_response(backend_tag::copy_out_response)),
      copy_done(bare_message(backend_tag::copy_done)),
      has_wide_rows_(rows > 0 || row_size > 0),
      rows_count_(std::max(rows, 1U)),
      row_block_(text_block(std::string(std::max(row_size, 1U), 'x'), rows_count_)),
      big_block_(text_block(std::string(big_row_size, 'x'), big_rows)),
      sleep_block_(text_block("", 1)),
      partitions_block_(bench::partitions_block()),
      version_block_(text_block(version_text, 1)),
      copy_rows_count_(rows > 0 ? rows : big_rows) {
  copy_block_ = bench::copy_block(row_size > 0 ? row_size : big_row_size, copy_rows_count_);
  build_descriptions();
  build_completions();
}

void CannedAnswers::build_descriptions() {
  const auto describe = [](Descriptions& to, std::initializer_list<Column> columns) {
    for (const CellFormat format : {CellFormat::text, CellFormat::binary}) {
      MessageWriter writer(to[index_of(format)]);
      write_row_description(writer, {columns.begin(), columns.size()}, format);
    }
  };
  const auto of = [this](Kind kind) -> Descriptions& { return descriptions_[index_of(kind)]; };
  constexpr Column abalance{"abalance", type_int4, 4};
  constexpr Column aid{"aid", type_int4, 4};
  describe(of(Kind::number), {{"?column?", type_int4, 4}});
  describe(wide_number_, {{"?column?", type_int8, 8}});
  describe(of(Kind::lookup), {abalance});
  describe(of(Kind::lookup_pair), {abalance, aid});
  describe(of(Kind::count), {{"count", type_int8, 8}});
  describe(of(Kind::partitions),
           {{"n", type_int8, 8}, {"partstrat", type_char, 1}, {"count", type_int8, 8}});
  describe(of(Kind::version), {{"version", type_text, any_size}});
  describe(of(Kind::big), {{"data", type_text, any_size}});
  describe(of(Kind::sleep), {{"pg_sleep", type_void, 4}});
  if (has_wide_rows_) {
    describe(of(Kind::row), {{"data", type_text, any_size}});
  } else {
    describe(of(Kind::row), {{"?column?", type_int4, 4}});
  }
}

void CannedAnswers::build_completions() {
  const auto complete = [this](Kind kind, std::string_view tag) {
    MessageWriter writer(completions_[index_of(kind)]);
    write_completion(writer, tag);
  };
  for (const Kind kind : {Kind::number, Kind::lookup, Kind::lookup_pair, Kind::count,
                          Kind::partitions, Kind::version, Kind::sleep})
    complete(kind, "SELECT 1");
  if (rows_count_ == 1) complete(Kind::row, "SELECT 1");
  complete(Kind::big, "SELECT 10000");
  static_assert(big_rows == 10'000);
  complete(Kind::begin, "BEGIN");
  complete(Kind::start, "START TRANSACTION");
  complete(Kind::commit, "COMMIT");
  complete(Kind::rollback, "ROLLBACK");
  complete(Kind::rollback_to, "ROLLBACK");
  complete(Kind::set, "SET");
  complete(Kind::reset, "RESET");
  complete(Kind::show, "SHOW");
  complete(Kind::discard_all, "DISCARD ALL");
  complete(Kind::insert, "INSERT 0 1");
  complete(Kind::update, "UPDATE 1");
  complete(Kind::delete_rows, "DELETE 1");
}

ByteSpan CannedAnswers::description(const Statement& statement, CellFormat format) const noexcept {
  const bool is_wide = statement.kind == Kind::number && statement.is_wide;
  const Descriptions& all = is_wide ? wide_number_ : descriptions_[index_of(statement.kind)];
  return all[index_of(format)];
}

RowSource CannedAnswers::rows(StatementKind kind) const noexcept {
  switch (kind) {
    case Kind::number:
    case Kind::lookup:
    case Kind::lookup_pair:
    case Kind::count:
      return {1, nullptr};
    case Kind::row:
      return {rows_count_, has_wide_rows_ ? &row_block_ : nullptr};
    case Kind::big:
      return {big_rows, &big_block_};
    case Kind::sleep:
      return {1, &sleep_block_};
    case Kind::partitions:
      return {1, &partitions_block_};
    case Kind::version:
      return {1, &version_block_};
    case Kind::copy_out:
      return {copy_rows_count_, &copy_block_};
    case Kind::empty:
    case Kind::begin:
    case Kind::start:
    case Kind::commit:
    case Kind::rollback:
    case Kind::rollback_to:
    case Kind::set:
    case Kind::reset:
    case Kind::show:
    case Kind::discard_all:
    case Kind::deallocate:
    case Kind::insert:
    case Kind::update:
    case Kind::delete_rows:
    case Kind::copy_in:
    case Kind::command:
    case Kind::division_by_zero:
      return {};
  }
  UNREACHABLE("a kind of statement that does not exist");
}

size_t CannedAnswers::write_row(const Statement& statement, CellFormat format,
                                uint8_t* to) noexcept {
  const bool is_pair = statement.kind == Kind::lookup_pair;
  const bool is_count = statement.kind == Kind::count;
  const bool is_wide = is_count || statement.is_wide;
  const int64_t value = is_count ? 1 : statement.value;
  size_t size = 5;
  store_be16(to + size, is_pair ? 2 : 1);
  size += 2;
  for (int cells = is_pair ? 2 : 1; cells > 0; --cells)
    size += format == CellFormat::text ? write_text_cell(value, to + size)
                                       : write_binary_cell(value, is_wide, to + size);
  to[0] = backend_tag::data_row;
  store_be32(to + 1, static_cast<uint32_t>(size - 1));
  return size;
}

void write_row_description(MessageWriter& writer, std::span<const Column> columns,
                           CellFormat format) {
  writer.begin(backend_tag::row_description);
  writer.add_int16(static_cast<uint16_t>(columns.size()));
  for (const Column& column : columns) {
    writer.add_text(column.name);
    writer.add_int32(0);  // Of no table.
    writer.add_int16(0);
    writer.add_int32(column.type);
    writer.add_int16(column.type_size);
    writer.add_int32(UINT32_MAX);  // No type modifier.
    writer.add_int16(format == CellFormat::binary ? 1 : 0);
  }
  writer.end();
}

void write_text_row(MessageWriter& writer, std::string_view value) {
  writer.begin(backend_tag::data_row);
  writer.add_int16(1);
  writer.add_int32(static_cast<uint32_t>(value.size()));
  writer.add_bytes(as_bytes(value));
  writer.end();
}

void write_completion(MessageWriter& writer, std::string_view tag) {
  writer.begin(backend_tag::command_complete);
  writer.add_text(tag);
  writer.end();
}

}  // namespace helios::bench
