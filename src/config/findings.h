// The errors and warnings of one file, as `file:line:column: key: sentence`, in the order of the
// file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/toml_tree.h"

namespace helios {

class Findings {
 public:
  explicit Findings(std::string_view file_name) : file_name_(file_name) {}

  // `subject` is the key with its section ("pool.mode"), or what else the sentence is about.
  void error(Place place, std::string_view subject, std::string_view sentence);
  void warning(Place place, std::string_view subject, std::string_view sentence);

  // `file:line:column`.
  [[nodiscard]] std::string text_of(Place place) const;

  [[nodiscard]] bool has_errors() const noexcept { return !errors_.empty(); }
  [[nodiscard]] std::vector<std::string> take_errors() { return take(errors_); }
  [[nodiscard]] std::vector<std::string> take_warnings() { return take(warnings_); }

 private:
  struct Finding {
    Place place;
    std::string text;
  };
  [[nodiscard]] Finding make(Place place, std::string_view subject,
                             std::string_view sentence) const;
  [[nodiscard]] static std::vector<std::string> take(std::vector<Finding>& findings);

  std::string file_name_;
  std::vector<Finding> errors_;
  std::vector<Finding> warnings_;
};

}  // namespace helios
