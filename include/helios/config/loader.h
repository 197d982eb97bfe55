// Reads the configuration file (TOML) into a Config and says everything that is wrong with it.
//
// Called at start and on reload, on one thread; blocks on the file. Every error of the file is
// collected, not only the first one; only a TOML syntax error hides what stands behind it. Each
// error and warning is one line `file:line:column: key: sentence`, in the order of the file; what
// concerns the file as a whole (it cannot be read, everybody may read its passwords) is `file:
// sentence`.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "helios/config/config.h"
#include "helios/config/environment.h"

namespace helios {

struct LoadResult {
  // Invariant: set exactly when there are no errors.
  std::optional<Config> config;
  std::vector<std::string> errors;
  // Where the keys of [proxy] stand, as `file:line:column`; "" is the section itself. Those that
  // are not written are not here.
  std::map<std::string, std::string> proxy_places;
  // To be shown at start; the configuration is usable all the same.
  std::vector<std::string> warnings;
};

// Reads the file at `path` with the environment of the process.
[[nodiscard]] LoadResult load_config_file(const std::string& path);

// The same with the file's text. `name` is what the messages call the file.
[[nodiscard]] LoadResult load_config_text(std::string_view text, std::string_view name,
                                          const EnvironmentLookup& lookup);

}  // namespace helios
