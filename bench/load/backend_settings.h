// The parameters that a server reports to its client (ParameterStatus), of one connection.
//
// Those that a client may set have a value of the login, to which RESET goes back, and the current
// one. A block that is rolled back takes its changes back. SET LOCAL is not followed. One core's
// data.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "helios/wire/startup.h"
#include "helios/wire/writer.h"

namespace helios::bench {

class BackendSettings {
 public:
  // Takes the user and the client's values. Once.
  void log_in(const StartupMessage& startup);

  // Names in any case; unknown ones are accepted and change nothing. `in_block`: a rollback will
  // take it back.
  void set(std::string_view name, std::string_view value, bool in_block);
  void reset(std::string_view name, bool in_block);
  void reset_all(bool in_block);
  // The end of a transaction block.
  void keep_changes() noexcept { before_block_.reset(); }
  void undo_changes();

  // Nothing when there is no such parameter.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const noexcept;

  // All of them, at the login.
  void write_all(MessageWriter& writer) const;
  // False: write_changes would write nothing.
  [[nodiscard]] bool has_changes() const noexcept { return changed_ != 0; }
  // Those whose value is another than the client was told last.
  void write_changes(MessageWriter& writer);

  static constexpr size_t settable_count = 7;

 private:
  using Values = std::array<std::string, settable_count>;

  void change(size_t index, std::string_view value, bool in_block);

  std::string user_;
  Values at_login_;
  Values current_;
  Values reported_;
  std::unique_ptr<Values> before_block_;  // Only when the block changed something.
  uint32_t changed_ = 0;                  // One bit for each of `current_` that was set since.
};

}  // namespace helios::bench
