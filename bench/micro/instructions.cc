#include "bench/micro/instructions.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "helios/base/assert.h"

namespace helios::bench {

InstructionCounter::InstructionCounter() noexcept {
  perf_event_attr attributes{};
  attributes.size = sizeof(attributes);
  attributes.type = PERF_TYPE_HARDWARE;
  attributes.config = PERF_COUNT_HW_INSTRUCTIONS;
  attributes.exclude_kernel = 1;  // Allowed to everybody up to kernel.perf_event_paranoid = 2.
  attributes.exclude_hv = 1;
  fd_ =
      static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
  if (fd_ < 0) error_ = errno;
}

InstructionCounter::~InstructionCounter() {
  if (fd_ >= 0) close(fd_);
}

uint64_t InstructionCounter::count() const noexcept {
  uint64_t value = 0;
  const ssize_t size = read(fd_, &value, sizeof(value));
  ASSERT(size == sizeof(value));
  return value;
}

std::string InstructionCounter::refusal() const {
  std::string text = "not counted: perf_event_open: ";
  text += std::strerror(error_);
  if (error_ == EACCES || error_ == EPERM)
    return text + " (remedy: sysctl -w kernel.perf_event_paranoid=2)";
  if (error_ == ENOENT || error_ == EOPNOTSUPP)
    return text + " (this CPU or virtual machine has no such counter)";
  return text;
}

}  // namespace helios::bench
