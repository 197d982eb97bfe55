// The messages that the canned server sends again and again, built once at start.
//
// Constant after construction; shared by all cores. Rows of numbers are written on the spot, all
// other rows are cut from blocks of equal messages.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/wire/writer.h"
#include "load/backend_sql.h"

namespace helios::bench {

// Equal rows: `rows_count` messages of `row_size` bytes, one behind the other.
struct RowBlock {
  std::vector<uint8_t> bytes;
  size_t row_size = 0;
  uint64_t rows_count = 0;

  // Requires: 0 < count <= rows_count.
  [[nodiscard]] ByteSpan first(uint64_t count) const noexcept {
    return ByteSpan(bytes).first(row_size * count);
  }
};

// What a query answers with rows: how many, and from which block (none: a row of numbers).
struct RowSource {
  uint64_t rows_count = 0;
  const RowBlock* block = nullptr;
};

enum class CellFormat : uint8_t { text, binary };

class CannedAnswers {
 public:
  // `rows` and `row_size` as in BackendOptions.
  CannedAnswers(uint32_t rows, uint32_t row_size);

  // The RowDescription; empty for what has no rows, and for SHOW, whose column has the parameter's
  // name.
  [[nodiscard]] ByteSpan description(const Statement& statement, CellFormat format) const noexcept;
  // Rows of the statement; of COPY TO the CopyData messages.
  [[nodiscard]] RowSource rows(StatementKind kind) const noexcept;
  // Writes the row of a statement whose rows have no block to `to`; its size. Requires: room for
  // number_row_size_max bytes.
  [[nodiscard]] static size_t write_row(const Statement& statement, CellFormat format,
                                        uint8_t* to) noexcept;
  static constexpr size_t number_row_size_max = 64;

  // The CommandComplete of what always has the same; empty for others.
  [[nodiscard]] ByteSpan completion(StatementKind kind) const noexcept {
    return completions_[static_cast<size_t>(kind)];
  }

  std::vector<uint8_t> parse_complete;
  std::vector<uint8_t> bind_complete;
  std::vector<uint8_t> close_complete;
  std::vector<uint8_t> no_data;
  std::vector<uint8_t> portal_suspended;
  std::vector<uint8_t> empty_query;
  std::vector<uint8_t> copy_in;   // CopyInResponse: one text column.
  std::vector<uint8_t> copy_out;  // CopyOutResponse likewise.
  std::vector<uint8_t> copy_done;

  static constexpr uint32_t big_rows = 10'000;
  static constexpr uint32_t big_row_size = 94;

 private:
  static constexpr size_t kinds_count = static_cast<size_t>(StatementKind::division_by_zero) + 1;
  using Descriptions = std::array<std::vector<uint8_t>, 2>;  // By CellFormat.

  void build_descriptions();
  void build_completions();

  std::array<Descriptions, kinds_count> descriptions_;
  Descriptions wide_number_;  // number with is_wide.
  std::array<std::vector<uint8_t>, kinds_count> completions_;
  bool has_wide_rows_;
  uint64_t rows_count_;
  RowBlock row_block_;
  RowBlock big_block_;
  RowBlock sleep_block_;
  RowBlock partitions_block_;
  RowBlock version_block_;
  RowBlock copy_block_;
  uint64_t copy_rows_count_;
};

// A RowDescription.
struct Column {
  std::string_view name;
  uint32_t type;
  uint16_t type_size;
};
inline constexpr uint32_t type_int8 = 20;
inline constexpr uint32_t type_int4 = 23;
inline constexpr uint32_t type_text = 25;
void write_row_description(MessageWriter& writer, std::span<const Column> columns,
                           CellFormat format);

// A DataRow of one text.
void write_text_row(MessageWriter& writer, std::string_view value);

// A CommandComplete.
void write_completion(MessageWriter& writer, std::string_view tag);

}  // namespace helios::bench
