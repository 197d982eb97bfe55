// What the running kernel's io_uring offers, and what to say when it is refused.
//
// Decided by probing (feature bits, results of register calls, the opcode probe), not by comparing
// versions: distribution kernels port features back and cut others out. The one exception is named
// at its place. Pure data and functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "helios/base/result.h"

struct io_uring;

namespace helios {

// What we use when it is there. Each has a fallback, and the fallback is tested by hiding the
// feature.
enum class Feature : uint8_t {
  registered_ring,  // 5.18: enter by registered index, without looking up the descriptor.
  no_iowait,        // 6.15: an idle ring does not show as iowait.
  msg_ring_wake,    // 6.11: MSG_RING posts directly into a DEFER_TASKRUN ring. Else: an eventfd.
  long_wait,        // 6.8: a wait may be as long as we like. Else: a second at a time.
  silent_send,  // 5.19: a send that took everything at once makes no completion. Else: each does.
};
constexpr int features_count = 5;

// A set of features.
struct FeatureSet {
  uint32_t bits = 0;

  [[nodiscard]] constexpr bool has(Feature feature) const noexcept {
    return (bits >> static_cast<unsigned>(feature) & 1U) != 0;
  }
  constexpr FeatureSet& add(Feature feature) noexcept {
    bits |= 1U << static_cast<unsigned>(feature);
    return *this;
  }
  [[nodiscard]] constexpr FeatureSet without(FeatureSet other) const noexcept {
    return {bits & ~other.bits};
  }
  friend constexpr bool operator==(FeatureSet, FeatureSet) = default;
};

// Test-only: the features to hide.
using FeatureMask = FeatureSet;

// Hides everything that we use and that a plain 6.1 kernel (Debian 12's) lacks.
[[nodiscard]] FeatureMask mask_of_kernel_6_1() noexcept;
// Reads the value of the test-only option `io_features_off`: names separated by commas
// (`registered_ring`, `no_iowait`, `msg_ring_wake`, `long_wait`, `silent_send`) or `kernel_6_1`;
// empty hides nothing.
[[nodiscard]] Result<FeatureMask> parse_feature_mask(std::string_view text);
[[nodiscard]] const char* name_of(Feature feature) noexcept;

struct KernelVersion {
  int major = 0;
  int minor = 0;
  friend constexpr auto operator<=>(const KernelVersion&, const KernelVersion&) = default;
};
// "6.1.0-18-amd64" is 6.1; 0.0 when the text does not begin with two numbers.
[[nodiscard]] KernelVersion parse_kernel_version(std::string_view release) noexcept;
// Of uname(2).
[[nodiscard]] KernelVersion running_kernel() noexcept;

// What the ring offers that is not hidden. `registered_ring` and `silent_send` are not among it:
// the register call's own result and a trial (Ring) tell. `params_features` is
// io_uring_params.features of its set-up.
[[nodiscard]] FeatureSet probe_features(io_uring& ring, uint32_t params_features,
                                        FeatureMask hidden) noexcept;

// One line: what is on, and what is off and why it does not matter.
[[nodiscard]] std::string describe(FeatureSet on, FeatureMask hidden);

// A text for a person about a refused io_uring call: the call, the errno, the likely causes and the
// remedy of each. `error` is a positive errno.
[[nodiscard]] std::string explain_refusal(const char* call, int error);
// The same for a given kernel and value of the sysctl kernel.io_uring_disabled (-1: there is none).
[[nodiscard]] std::string explain_refusal(const char* call, int error, KernelVersion kernel,
                                          int uring_disabled);

}  // namespace helios
