#include "helios/runtime/features.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstddef>

#include "ring_support.h"

namespace helios {
namespace {

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("the mask of kernel 6.1 hides exactly what is newer") {
  const FeatureMask mask = mask_of_kernel_6_1();
  CHECK(mask.has(Feature::no_iowait));
  CHECK(mask.has(Feature::msg_ring_wake));
  CHECK(mask.has(Feature::long_wait));
  CHECK_FALSE(mask.has(Feature::registered_ring));
}

TEST_CASE("a feature mask is read from names, and an unknown name is an error that quotes it") {
  CHECK(parse_feature_mask("").value() == FeatureMask{});
  CHECK(parse_feature_mask("kernel_6_1").value() == mask_of_kernel_6_1());
  CHECK(parse_feature_mask("no_iowait,registered_ring").value() ==
        FeatureMask{}.add(Feature::no_iowait).add(Feature::registered_ring));
  CHECK(contains(parse_feature_mask("no_iowait,warp").error(), "\"warp\""));
}

TEST_CASE("kernel versions are read from releases of distributions and ordered as numbers") {
  CHECK(parse_kernel_version("6.1.0-18-amd64") == KernelVersion{6, 1});
  CHECK(parse_kernel_version("5.15.0") == KernelVersion{5, 15});
  CHECK(parse_kernel_version("7.0") == KernelVersion{7, 0});
  CHECK(parse_kernel_version("") == KernelVersion{});
  CHECK(parse_kernel_version("6") == KernelVersion{});
  CHECK(parse_kernel_version("six.one") == KernelVersion{});
  CHECK(KernelVersion{6, 9} < KernelVersion{6, 11});
  CHECK(KernelVersion{5, 19} < KernelVersion{6, 1});
}

TEST_CASE("the line at start names every feature and says whether it is on, off or hidden") {
  const FeatureSet on = FeatureSet{}.add(Feature::registered_ring);
  const std::string text = describe(on, FeatureMask{}.add(Feature::no_iowait));
  CHECK(contains(text, "registered_ring on"));
  CHECK(contains(text, "no_iowait hidden"));
  CHECK(contains(text, "msg_ring_wake off"));
  CHECK(contains(text, "eventfd"));
  CHECK(text.find('\n') == std::string::npos);
}

TEST_CASE("a refusal names the call, the errno, each likely cause and its remedy") {
  const std::string text = explain_refusal("io_uring_setup", EPERM, {6, 8}, 2);
  for (const char* part : {"io_uring_setup", "EPERM", "6.8", "6.1 or newer", "io_uring_disabled",
                           "it is 2", "sysctl -w", "seccomp", "Docker"}) {
    CAPTURE(part);
    CHECK(contains(text, part));
  }
  CHECK(contains(explain_refusal("io_uring_setup", EPERM, {6, 8}, 0), "so this is not the cause"));
}

TEST_CASE("a refusal on an old kernel says that this is the cause") {
  CHECK(contains(explain_refusal("io_uring_setup", EINVAL, {5, 15}, -1),
                 "5.15, so this is the cause"));
  CHECK_FALSE(contains(explain_refusal("io_uring_setup", EINVAL, {6, 1}, -1), "6.1, so this is"));
}

TEST_CASE("a refusal for want of memory or descriptors names the limit") {
  CHECK(contains(explain_refusal("io_uring_setup", ENOMEM, {6, 1}, 0), "RLIMIT_MEMLOCK"));
  CHECK(contains(explain_refusal("io_uring_setup", ENOMEM, {6, 1}, 0), "LimitMEMLOCK"));
  CHECK(contains(explain_refusal("io_uring_setup", EMFILE, {6, 1}, 0), "LimitNOFILE"));
}

// Makes every later call of this number fail with EPERM in this process, as container profiles do.
bool refuse_system_call(uint32_t number) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{4, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Makes a ring in a child process that may not call `number` and returns the error; empty when it
// was made all the same.
std::string error_without(uint32_t number) {
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::string text = "no filter";
    if (refuse_system_call(number)) {
      auto ring = Ring::create({});
      text = ring.ok() ? "" : ring.error();
    }
    const ssize_t written = write(fds[1], text.data(), text.size());
    _exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(fds[1]);
  std::string text;
  char part[512];
  for (ssize_t got; (got = read(fds[0], part, sizeof(part))) > 0;)
    text.append(part, static_cast<size_t>(got));
  close(fds[0]);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  return text;
}

TEST_CASE("a ring that seccomp refuses ends in a text that names the call and seccomp") {
  const std::string text = error_without(__NR_io_uring_setup);
  CHECK(contains(text, "io_uring_setup failed with EPERM"));
  CHECK(contains(text, "seccomp"));
}

TEST_CASE("a ring whose registrations seccomp refuses ends in a text that names them") {
  const std::string text = error_without(__NR_io_uring_register);
  CHECK(contains(text, "io_uring_register(PBUF_RING) failed with EPERM"));
  CHECK(contains(text, "seccomp"));
}

}  // namespace
}  // namespace helios
