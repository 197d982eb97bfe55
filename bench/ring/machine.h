// The facts of the machine that a reader of figures needs.
#pragma once

#include <string>
#include <vector>

namespace helios::bench {

// One sentence or value each: date, kernel, CPU, what a system call costs, compiler, libraries.
[[nodiscard]] std::vector<std::string> machine_facts();
// The load averages of this moment, as text.
[[nodiscard]] std::string load_average();

}  // namespace helios::bench
