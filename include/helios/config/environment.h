// ${NAME} in the strings of the configuration.
//
//   ${NAME}           the variable's value; an error when it is not set
//   ${NAME:-default}  the default when the variable is not set or is empty (as in a shell)
//   $$                a dollar
// Any other dollar stands for itself, so a SCRAM verifier can be pasted as it is. What comes out of
// the environment, and a default, is not expanded again. Pure but for the lookup.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "helios/base/result.h"

namespace helios {

// The value of an environment variable; nothing when it is not set.
using EnvironmentLookup = std::function<std::optional<std::string>(std::string_view name)>;

// getenv(3).
[[nodiscard]] std::optional<std::string> process_environment(std::string_view name);

struct Expanded {
  std::string text;
  // At least one variable took part: what the text says does not stand in the file.
  bool has_variable = false;
  // The whole text was one ${...}: only then may it stand for a number or a truth value.
  bool is_one_variable = false;
};

// The error is a sentence that names the variable or shows the faulty place.
[[nodiscard]] Result<Expanded> expand_environment(std::string_view text,
                                                  const EnvironmentLookup& lookup);

}  // namespace helios
