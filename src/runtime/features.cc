#include "helios/runtime/features.h"

#include <sys/utsname.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "helios/runtime/uring_abi.h"

namespace helios {
namespace {

constexpr std::array<Feature, features_count> all_features = {
    Feature::registered_ring, Feature::no_iowait, Feature::msg_ring_wake, Feature::long_wait,
    Feature::silent_send};

// MSG_RING is there since 5.18, but before 6.11 it reaches a DEFER_TASKRUN ring slowly (commit
// 780f1e5e03b5) and on 6.1 a wake-up could be missed (liburing issue 839). No bit tells, so the
// version has to.
constexpr KernelVersion msg_ring_kernel = {6, 11};
// Before 6.8 a wait that ended by its timeout could leave ready work behind, which then waited for
// the next enter. Bounded waits hide it. It is a defect, so no bit tells either.
constexpr KernelVersion long_wait_kernel = {6, 8};
// SETUP_DEFER_TASKRUN and SINGLE_ISSUER, multishot receive.
constexpr KernelVersion oldest_kernel = {6, 1};

bool has_opcode(io_uring& ring, int opcode) noexcept {
  io_uring_probe* probe = io_uring_get_probe_ring(&ring);
  if (probe == nullptr) return false;
  const bool is_there = io_uring_opcode_supported(probe, opcode) != 0;
  io_uring_free_probe(probe);
  return is_there;
}

// The sysctl exists since kernel 6.6; -1 without it.
int read_uring_disabled() noexcept {
  int value = -1;
  std::FILE* file = std::fopen("/proc/sys/kernel/io_uring_disabled", "re");
  if (file == nullptr) return -1;
  if (std::fscanf(file, "%d", &value) != 1) value = -1;
  (void)std::fclose(file);
  return value;
}

std::string text_of(KernelVersion version) {
  return std::to_string(version.major) + "." + std::to_string(version.minor);
}

std::string kernel_cause(KernelVersion kernel) {
  std::string text =
      "  - The kernel is too old: 6.1 or newer is needed, this is " + text_of(kernel);
  text += kernel < oldest_kernel ? ", so this is the cause.\n"
                                 : " (new enough, unless its vendor left parts of io_uring out).\n";
  return text + "    Remedy: boot a kernel of 6.1 or newer with CONFIG_IO_URING=y.\n";
}

std::string sysctl_cause(int uring_disabled) {
  std::string text = "  - io_uring is switched off by the sysctl kernel.io_uring_disabled: ";
  if (uring_disabled < 0) {
    text += "this kernel does not show it.\n";
  } else {
    text += "it is " + std::to_string(uring_disabled) + " here";
    text +=
        uring_disabled == 0 ? ", so this is not the cause.\n" : ", so this is the likely cause.\n";
  }
  return text +
         "    Remedy: sysctl -w kernel.io_uring_disabled=0 (1 admits only the group of "
         "kernel.io_uring_group).\n";
}

std::string seccomp_cause() {
  return "  - A seccomp filter refuses it, as the default profiles of Docker, containerd and "
         "Podman do.\n"
         "    Remedy: run outside the container, or with a profile that allows io_uring_setup, "
         "io_uring_enter and io_uring_register (--security-opt seccomp=FILE).\n";
}

std::string memory_cause() {
  return "  - The memory that may be locked is used up (RLIMIT_MEMLOCK; kernels of some vendors "
         "charge rings "
         "to it).\n"
         "    Remedy: ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit.\n"
         "  - The machine or the control group is out of memory.\n"
         "    Remedy: give it more memory, or use fewer cores (proxy.cores).\n";
}

std::string descriptors_cause() {
  return "  - The limit of open files is reached.\n"
         "    Remedy: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit.\n";
}

}  // namespace

FeatureMask mask_of_kernel_6_1() noexcept {
  return FeatureMask{}.add(Feature::no_iowait).add(Feature::msg_ring_wake).add(Feature::long_wait);
}

Result<FeatureMask> parse_feature_mask(std::string_view text) {
  FeatureMask mask;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view name = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    bool is_known = name == "kernel_6_1";
    if (is_known) mask.bits |= mask_of_kernel_6_1().bits;
    for (const Feature feature : all_features) {
      if (name != name_of(feature)) continue;
      mask.add(feature);
      is_known = true;
    }
    if (!is_known) return Error{"unknown io feature \"" + std::string(name) + "\""};
  }
  return mask;
}

const char* name_of(Feature feature) noexcept {
  switch (feature) {
    case Feature::registered_ring:
      return "registered_ring";
    case Feature::no_iowait:
      return "no_iowait";
    case Feature::msg_ring_wake:
      return "msg_ring_wake";
    case Feature::long_wait:
      return "long_wait";
    case Feature::silent_send:
      return "silent_send";
  }
  UNREACHABLE("feature");
}

KernelVersion parse_kernel_version(std::string_view release) noexcept {
  KernelVersion version;
  const char* end = release.data() + release.size();
  const auto major = std::from_chars(release.data(), end, version.major);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return {};
  const auto minor = std::from_chars(major.ptr + 1, end, version.minor);
  if (minor.ec != std::errc()) return {};
  return version;
}

KernelVersion running_kernel() noexcept {
  utsname names{};
  if (uname(&names) != 0) return {};
  return parse_kernel_version(names.release);
}

FeatureSet probe_features(io_uring& ring, uint32_t params_features, FeatureMask hidden) noexcept {
  FeatureSet on;
  if ((params_features & IORING_FEAT_NO_IOWAIT) != 0) on.add(Feature::no_iowait);
  if (running_kernel() >= msg_ring_kernel && has_opcode(ring, IORING_OP_MSG_RING))
    on.add(Feature::msg_ring_wake);
  if (running_kernel() >= long_wait_kernel) on.add(Feature::long_wait);
  return on.without(hidden);
}

std::string describe(FeatureSet on, FeatureMask hidden) {
  std::string text = "io_uring on kernel " + text_of(running_kernel()) + ":";
  for (const Feature feature : all_features) {
    text += std::string(" ") + name_of(feature);
    text += on.has(feature) ? " on," : hidden.has(feature) ? " hidden," : " off,";
  }
  text.back() = ';';
  text += on.has(Feature::msg_ring_wake) ? " cores wake each other by MSG_RING"
                                         : " cores wake each other by eventfd";
  return text;
}

std::string explain_refusal(const char* call, int error) {
  return explain_refusal(call, error, running_kernel(), read_uring_disabled());
}

std::string explain_refusal(const char* call, int error, KernelVersion kernel, int uring_disabled) {
  const char* name = strerrorname_np(error);
  std::string text = std::string("io_uring is not available: ") + call + " failed with " +
                     (name != nullptr ? name : std::to_string(error).c_str());
  const char* description = strerrordesc_np(error);
  if (description != nullptr) text += std::string(" (") + description + ")";
  text += ".\nLikely causes:\n";
  if (error == ENOMEM) return text + memory_cause();
  if (error == EMFILE || error == ENFILE) return text + descriptors_cause();
  return text + kernel_cause(kernel) + sysctl_cause(uring_disabled) + seccomp_cause();
}

}  // namespace helios
