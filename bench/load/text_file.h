// Reads a whole file: scripts, and what the kernel tells in /proc.
#pragma once

#include <string>

#include "helios/base/result.h"

namespace helios::bench {

// The error is the kernel's reason. Note: a file of /proc may fail after it was opened, when its
// process ends.
[[nodiscard]] Result<std::string> read_text_file(const std::string& path);

}  // namespace helios::bench
