// The options that `load` and `idle` have in common: where and as whom to connect, and what to
// watch.
#pragma once

#include <string>

#include "load/command_line.h"
#include "load/load.h"

namespace helios::bench {

// Adds them to the table. PGPASSWORD gives the password when --password does not.
void add_connection_flags(CommandLine& line, LoadOptions& options);
// "name" or "name=weight", as --script takes it: an empty text, or what is wrong.
[[nodiscard]] std::string read_script_choice(std::string_view text,
                                             std::vector<ScriptChoice>& scripts);

}  // namespace helios::bench
