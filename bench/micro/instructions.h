// Instructions that the calling thread has executed in user space, counted by the CPU.
//
// Steadier than time. Virtual machines often have no such counter, and the sysctl
// kernel.perf_event_paranoid may forbid it; then there is none and `refusal` says why.
#pragma once

#include <cstdint>
#include <string>

namespace helios::bench {

// Used by the thread that made it.
class InstructionCounter {
 public:
  InstructionCounter() noexcept;
  ~InstructionCounter();
  InstructionCounter(const InstructionCounter&) = delete;
  InstructionCounter& operator=(const InstructionCounter&) = delete;

  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  // Since it was made. Requires: is_open().
  [[nodiscard]] uint64_t count() const noexcept;
  // Why there is none, in one line. Requires: not is_open().
  [[nodiscard]] std::string refusal() const;

 private:
  int fd_;
  int error_ = 0;
};

}  // namespace helios::bench
