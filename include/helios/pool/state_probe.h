// A question to a server about the state of its session: what was set in it, and what it holds that
// ends only with it.
//
// The pooler asks when a transaction is over in which a statement may have changed any of that:
// what the server answers is so whatever was rolled back, local to the transaction, or done by a
// function. One statement of the pooler's own, whose rows are read here. Belongs to one backend.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/pool/parameters.h"
#include "helios/pool/pins.h"

namespace helios {

class StateProbe {
 public:
  // --- What is asked ---

  // Parameters that the session has set. Without them nothing is asked but `asks_statements`.
  bool asks_settings = true;
  // The server does not list custom ones; those asked by name have a dot in it.
  std::vector<std::string> custom_names;
  // The role, and what it is without SET ROLE. (Among the settings only if they differ.)
  bool asks_role = false;
  // temporary, cursor, lock, listening, slot.
  bool asks_holdings = false;
  // What was prepared by PREPARE in SQL.
  bool asks_statements = false;
  // There was a RESET: custom parameters that are empty count as not set, as it leaves them so.
  bool has_reset = false;

  [[nodiscard]] std::string statement() const;

  // --- The answer ---

  // The body of a DataRow.
  void add_row(ByteSpan body);
  // The server has refused the question, or its answer cannot be read: nothing is known.
  void fail() noexcept { has_failed_ = true; }
  [[nodiscard]] bool has_failed() const noexcept { return has_failed_; }
  // Sorted, without those in `reported`.
  [[nodiscard]] ParameterList settings(const ParameterList& reported) const;
  // True when the session has set this one, reported or not.
  [[nodiscard]] bool is_set(std::string_view name) const noexcept {
    return find_parameter(found_, name) != nullptr;
  }
  // Of those that servers report and that are followed.
  [[nodiscard]] ReportedNames set_names() const noexcept {
    ReportedNames names = 0;
    for (const auto& [name, value] : found_) names |= reported_bit(name);
    return names;
  }
  [[nodiscard]] PinReasons holdings() const noexcept { return holdings_; }
  // Sorted by name; the contexts are not known here.
  [[nodiscard]] const SqlStatements& statements() const noexcept { return statements_; }
  // What the session listens to, in the client's encoding.
  [[nodiscard]] const std::vector<std::string>& channels() const noexcept { return channels_; }

 private:
  void add(char kind, std::string_view name, std::string value);

  ParameterList found_;
  ParameterList defined_;
  SqlStatements statements_;
  std::string role_;
  std::string base_role_;
  PinReasons holdings_ = 0;
  std::vector<std::string> channels_;
  bool has_failed_ = false;
};

}  // namespace helios
