#include "bench/ring/run.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <string>

#include "bench/ring/peers.h"
#include "bench/ring/relay.h"
#include "helios/base/assert.h"
#include "helios/runtime/cpu_set.h"

namespace helios::bench {
namespace {

constexpr size_t processes_count = 3;
// More than any run needs for its connections and its end.
constexpr unsigned time_limit_s = 60;

using Work = std::function<Result<bool>()>;

struct Process {
  const char* name;
  pid_t pid = -1;
};

// Memory that parent and children share.
class SharedMemory {
 public:
  SharedMemory() noexcept
      : memory_(mmap(nullptr, sizeof(SharedPage), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    ASSERT(memory_ != MAP_FAILED);
    page_ = new (memory_) SharedPage;
  }
  ~SharedMemory() { munmap(memory_, sizeof(SharedPage)); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  [[nodiscard]] SharedPage& page() noexcept { return *page_; }

 private:
  void* memory_;
  SharedPage* page_;
};

// The rest of a child's life.
[[noreturn]] void live(const RunOptions& options, int cpu, SharedPage& page, const Work& work) {
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  alarm(time_limit_s + static_cast<unsigned>((options.warm_up + options.span) / seconds(1)));
  Result<bool> done = settle_on(cpu, options.batch_policy)
                          ? work()
                          : Result<bool>(Error{"may not run on CPU " + std::to_string(cpu)});
  if (done.ok()) _exit(0);
  const std::string& text = done.error();
  std::memcpy(page.error.data(), text.data(), std::min(text.size(), page.error.size() - 1));
  _exit(1);
}

pid_t start(const RunOptions& options, int cpu, SharedPage& page, const Work& work) {
  const pid_t pid = fork();
  if (pid == 0) live(options, cpu, page, work);
  return pid;
}

void kill_all(const std::array<Process, processes_count>& processes) noexcept {
  for (const Process& process : processes)
    if (process.pid > 0) kill(process.pid, SIGKILL);
}

// How a process ended; empty when well.
std::string problem_of(const Process& process, int status, const SharedPage& page) {
  const std::string text = std::string("the ") + process.name;
  if (WIFSIGNALED(status)) return text + " was ended by " + strsignal(WTERMSIG(status));
  if (WEXITSTATUS(status) != 0) return text + ": " + page.error.data();
  return "";
}

// Waits for all. When one fails the others are of no use any more. Returns what went wrong first.
std::string join(std::array<Process, processes_count>& processes, const SharedPage& page) {
  std::string problem;
  for (const Process& process : processes)
    if (process.pid < 0) problem = "fork: too many processes or too little memory";
  if (!problem.empty()) kill_all(processes);
  int status = 0;
  for (pid_t pid = wait(&status); pid > 0; pid = wait(&status)) {
    for (Process& process : processes) {
      if (process.pid != pid) continue;
      process.pid = -1;
      if (!problem.empty()) continue;
      problem = problem_of(process, status, page);
      if (!problem.empty()) kill_all(processes);
    }
  }
  return problem;
}

// A row must show what it says.
const char* missing_effect(const Switches& switches, const SharedPage& page) noexcept {
  if (page.result.round_trips == 0) return "no message came back in the counted time";
  if (switches.send == Send::at_once && page.relay.direct_sends == 0) return "send(2) was not used";
  if (switches.send == Send::skip_success && page.relay.skipped_sends == 0)
    return "no send went without a completion";
  return nullptr;
}

}  // namespace

bool settle_on(int cpu, bool batch_policy) noexcept {
  if (!pin_current_thread(cpu)) return false;
  const sched_param none{};
  return !batch_policy || sched_setscheduler(0, SCHED_BATCH, &none) == 0;
}

Result<RunResult> run_once(const RunOptions& options) {
  Result<ListenSocket> relay_at = listen_anywhere(options.family);
  if (!relay_at.ok()) return Error{relay_at.error()};
  Result<ListenSocket> echo_at = listen_anywhere(options.family);
  if (!echo_at.ok()) return Error{echo_at.error()};
  SharedMemory memory;
  SharedPage& page = memory.page();

  std::array<Process, processes_count> processes = {Process{"echo server"}, Process{"relay"},
                                                    Process{"load"}};
  processes[0].pid = start(options, options.other_cpu, page,
                           [&] { return run_echo(options, echo_at.value().fd); });
  processes[1].pid = start(options, options.relay_cpu, page, [&] {
    return run_relay(options, relay_at.value().fd, echo_at.value().address, page.relay);
  });
  processes[2].pid = start(options, options.other_cpu, page, [&] {
    return run_load(options, relay_at.value().address, processes[1].pid, page);
  });
  close(relay_at.value().fd);
  close(echo_at.value().fd);
  const std::string problem = join(processes, page);
  if (!problem.empty()) return Error{problem};
  const char* missing = missing_effect(options.switches, page);
  if (missing != nullptr) return Error{missing};
  return page.result;
}

}  // namespace helios::bench
