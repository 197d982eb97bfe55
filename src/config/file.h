// Reads the configuration file. Blocks; start and reload only.
#pragma once

#include <string>

#include "helios/base/result.h"

namespace helios {

struct ConfigFile {
  std::string text;
  // A regular file that everybody may read.
  bool is_world_readable = false;
};

// The error is a sentence with the text of errno. At most 4 MiB.
[[nodiscard]] Result<ConfigFile> read_config_file(const std::string& path);

}  // namespace helios
