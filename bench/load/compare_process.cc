#include "load/compare_process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "load/compare_row.h"

extern char** environ;

namespace helios::bench {
namespace {

volatile sig_atomic_t interrupted = 0;
constexpr Nanoseconds usual_patience = seconds(5);

Nanoseconds now() {
  return MonotonicClock().now();
}

void note_interrupt(int) {
  interrupted = 1;
}

// The child's side of starting a program. Only calls that are allowed between fork and exec, but
// for the lookup of groups, which has been done.
class Launch {
 public:
  explicit Launch(const ProcessOptions& options) : options_(options) {
    for (const std::string& word : options.command)
      words_.push_back(const_cast<char*>(word.c_str()));
    words_.push_back(nullptr);
  }

  // Returns errno when it could not.
  [[nodiscard]] int run() {
    redirect();
    limit_descriptors();
    if (!place()) return errno;
    // Opened while we may: the user may not be allowed to walk to it (a build under /root).
    const int program = open(words_.front(), O_PATH | O_CLOEXEC);
    if (options_.account && !become(*options_.account)) return errno;
    // A change of user clears this, so it comes last.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (!options_.directory.empty() && chdir(options_.directory.c_str()) != 0) return errno;
    execv(words_.front(), words_.data());
    if (errno == EACCES && program >= 0) fexecve(program, words_.data(), environ);
    return errno;
  }

 private:
  void redirect() const {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    int log = null;
    if (!options_.log_path.empty())
      log = open(options_.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    dup2(log >= 0 ? log : null, STDOUT_FILENO);
    dup2(log >= 0 ? log : null, STDERR_FILENO);
  }

  static void limit_descriptors() {
    rlimit limit = {};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }

  [[nodiscard]] bool place() const {
    if (!options_.cpus.empty()) {
      cpu_set_t set;
      CPU_ZERO(&set);
      for (const int cpu : options_.cpus) CPU_SET(static_cast<size_t>(cpu), &set);
      if (sched_setaffinity(0, sizeof(set), &set) != 0) return false;
    }
    if (!options_.batch_policy) return true;
    const sched_param none = {};
    return sched_setscheduler(0, SCHED_BATCH, &none) == 0;
  }

  [[nodiscard]] static bool become(const Account& account) {
    return setgroups(0, nullptr) == 0 && setgid(account.group) == 0 && setuid(account.user) == 0;
  }

  const ProcessOptions& options_;
  std::vector<char*> words_;
};

void restore_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Forks; the child is set up as every child of ours. -1 on failure.
pid_t fork_child() {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid > 0) setpgid(pid, pid);
  if (pid != 0) return pid;
  setpgid(0, 0);
  restore_signals();
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);
  return 0;
}

int status_of(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

// What a child could not do comes back through a pipe that a successful exec closes.
int read_failure(int fd) {
  int failure = 0;
  ssize_t size = 0;
  do {
    size = read(fd, &failure, sizeof(failure));
  } while (size < 0 && errno == EINTR);
  return size == sizeof(failure) ? failure : 0;
}

bool is_executable(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         access(path.c_str(), X_OK) == 0;
}

}  // namespace

Result<std::optional<Account>> account_for(const std::string& wanted) {
  if (geteuid() != 0) return std::optional<Account>();
  std::vector<std::string> names = {"postgres", "nobody"};
  if (!wanted.empty()) names = {wanted};
  for (const std::string& name : names) {
    if (const passwd* entry = getpwnam(name.c_str()); entry != nullptr)
      return std::optional<Account>(Account{entry->pw_uid, entry->pw_gid, name});
  }
  if (!wanted.empty()) return Error{"there is no user \"" + wanted + "\" on this machine"};
  return Error{
      "run by root, but there is neither a user postgres nor nobody to run poolers and PostgreSQL: "
      "make one of them, or run this as another user"};
}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  stop();
  pid_ = std::exchange(other.pid_, 0);
  exit_status_ = other.exit_status_;
  return *this;
}

Result<ChildProcess> ChildProcess::start(const ProcessOptions& options) {
  std::array<int, 2> pipe_fds{};
  if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0)
    return Error{std::string("no pipe: ") + std::strerror(errno)};
  Launch launch(options);
  const pid_t pid = fork_child();
  if (pid == 0) {
    const int failure = launch.run();
    const ssize_t written = write(pipe_fds[1], &failure, sizeof(failure));
    _exit(written == sizeof(failure) ? 127 : 126);
  }
  close(pipe_fds[1]);
  const int fork_failure = errno;
  const int failure = pid < 0 ? fork_failure : read_failure(pipe_fds[0]);
  close(pipe_fds[0]);
  ChildProcess child;
  if (pid > 0) child.pid_ = pid;
  if (pid < 0 || failure != 0)
    return Error{options.command.front() + " cannot be started" +
                 (options.account ? " as user " + options.account->name : "") + ": " +
                 std::strerror(failure)};
  return child;
}

Result<ChildProcess> ChildProcess::fork_off(const std::function<int()>& body) {
  const pid_t pid = fork_child();
  if (pid == 0) _exit(body());
  if (pid < 0) return Error{std::string("no process: ") + std::strerror(errno)};
  ChildProcess child;
  child.pid_ = pid;
  return child;
}

bool ChildProcess::is_running() noexcept {
  if (pid_ == 0) return false;
  int status = 0;
  const pid_t ended = waitpid(pid_, &status, WNOHANG);
  if (ended == 0 || (ended < 0 && errno == EINTR)) return true;
  if (ended == pid_) exit_status_ = status_of(status);
  // Its children, if any are left, are in its group.
  kill(-pid_, SIGKILL);
  pid_ = 0;
  return false;
}

bool ChildProcess::wait_until_ended(Nanoseconds patience) noexcept {
  const Nanoseconds deadline = now() + patience;
  while (is_running()) {
    if (now() >= deadline || !pause_for(milliseconds(5))) return false;
  }
  return true;
}

void ChildProcess::stop(std::span<const int> signals, Nanoseconds patience) noexcept {
  for (const int number : signals) {
    if (!is_running()) return;
    kill(pid_, number);
    const Nanoseconds deadline = now() + patience;
    // An impatient user does not make the children quicker: no look at interrupts here.
    while (is_running() && now() < deadline) poll(nullptr, 0, 5);
  }
  if (!is_running()) return;
  kill(-pid_, SIGKILL);
  while (is_running()) poll(nullptr, 0, 5);
}

void ChildProcess::stop() noexcept {
  // The second SIGTERM cuts what the first one lets finish.
  constexpr std::array<int, 2> signals = {SIGTERM, SIGTERM};
  stop(signals, usual_patience);
}

Result<std::string> run_program(const ProcessOptions& options, Nanoseconds patience) {
  std::error_code failure;
  std::string path = (std::filesystem::temp_directory_path(failure) / "helios-bench-XXXXXX");
  const int fd = failure ? -1 : mkstemp(path.data());
  if (fd < 0) return Error{std::string("no temporary file: ") + std::strerror(errno)};
  close(fd);
  ProcessOptions with_log = options;
  with_log.log_path = path;
  Result<ChildProcess> child = ChildProcess::start(with_log);
  const bool has_ended = child.ok() && child.value().wait_until_ended(patience);
  std::ifstream file(path);
  std::string output{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  unlink(path.c_str());
  if (!child.ok()) return Error{child.error()};
  if (!has_ended) return Error{options.command.front() + " did not end in time"};
  if (child.value().exit_status() != 0)
    return Error{options.command.front() + " failed with status " +
                 std::to_string(child.value().exit_status()) + ":\n" + output};
  return output;
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return is_executable(name) ? name : "";
  const char* path = getenv("PATH");
  std::vector<std::string> directories = split_list(path == nullptr ? "" : path, ':');
  // Servers live in sbin, which is not in everybody's PATH.
  directories.insert(directories.end(), {"/usr/local/sbin", "/usr/sbin"});
  for (const std::string& directory : directories) {
    std::string candidate = directory + "/" + name;
    if (is_executable(candidate)) return candidate;
  }
  return {};
}

std::string tail_of(const std::string& path) {
  constexpr size_t size_max = 2000;
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (text.size() > size_max) text.erase(0, text.size() - size_max);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

void watch_interrupts() noexcept {
  struct sigaction action = {};
  action.sa_handler = note_interrupt;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
  // A reader of our progress that went away must not leave the children behind.
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

bool is_interrupted() noexcept {
  return interrupted != 0;
}

bool pause_for(Nanoseconds time) noexcept {
  const Nanoseconds deadline = now() + time;
  for (Nanoseconds left = time; left > 0; left = deadline - now()) {
    if (is_interrupted()) return false;
    poll(nullptr, 0, static_cast<int>(std::clamp<Nanoseconds>(left / milliseconds(1), 1, 100)));
  }
  return !is_interrupted();
}

void end_orphans() noexcept {
  std::ifstream file("/proc/self/task/" + std::to_string(getpid()) + "/children");
  pid_t orphan = 0;
  while (file >> orphan) {
    kill(orphan, SIGKILL);
    waitpid(orphan, nullptr, 0);
  }
}

}  // namespace helios::bench
