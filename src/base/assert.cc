#include "helios/base/assert.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/bounded_write.h"

namespace helios {
namespace {

thread_local int current_core_number = -1;

}  // namespace

void assertion_failed(const char* expression, const char* file, int line,
                      const char* function) noexcept {
  // Written directly: the log's writer thread may not live long enough, and nothing is allocated
  // here.
  char text[1024];
  const int size = snprintf(text, sizeof(text), "%s:%d: %s: assertion failed: %s (core %d)\n", file,
                            line, function, expression, current_core_number);
  if (size > 0) {
    std::string_view report(text, std::min(static_cast<size_t>(size), sizeof(text) - 1));
    write_bounded(STDERR_FILENO, report, seconds(1));
  }
  abort();
}

void set_current_core(int core) noexcept {
  current_core_number = core;
}
int current_core() noexcept {
  return current_core_number;
}

}  // namespace helios
