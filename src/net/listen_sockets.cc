#include "helios/net/listen_sockets.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/clock.h"
#include "helios/base/log.h"
#include "helios/runtime/socket_options.h"

namespace helios {

namespace {

// A descriptor that is closed unless taken.
class Fd {
 public:
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] int take() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_stream_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void set_option(int fd, int level, int option) {
  int on = 1;
  static_cast<void>(setsockopt(fd, level, option, &on, sizeof(on)));
}

// What to do about a bind that failed.
std::string cure(int error, const SocketAddress& address) {
  switch (error) {
    case EADDRINUSE:
      return "; another process listens there (perhaps another HeliosProxy; ss -ltnp 'sport = :" +
             std::to_string(address.port()) +
             "' shows it): stop it, or choose another address in [proxy] listen";
    case EADDRNOTAVAIL:
      return "; no interface of this machine has this address";
    case EACCES:
      return "; a port below 1024 needs root or CAP_NET_BIND_SERVICE";
    case EAFNOSUPPORT:
      return "; this machine has no support for this kind of address";
    default:
      return "";
  }
}

// What every message about an address that somebody holds says.
constexpr std::string_view in_use_text = "another process";
constexpr useconds_t retry_interval_us = 20'000;

std::string listen_error(const ListenAddress& address, int error, const std::string& advice) {
  return "cannot listen on " + address.text + ": " + std::strerror(error) + advice;
}

// Returns 0 and the descriptor, or an errno.
int bind_tcp(const SocketAddress& address, bool reuse_port, Fd& fd) {
  if (fd.get() < 0) return errno;
  // So that connections of a former process that are still ending do not forbid the bind.
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR);
  if (reuse_port) set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT);
  // 0.0.0.0 and [::] may both be asked for: two sockets, one for each family.
  if (address.family() == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY);
  set_socket_options(fd.get(), address.family());
  if (bind(fd.get(), address.get(), address.size()) != 0) return errno;
  if (reuse_port && ::listen(fd.get(), listen_backlog) != 0) return errno;
  return 0;
}

SocketAddress bound_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  int error = getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size);
  ASSERT(error == 0);
  return SocketAddress(reinterpret_cast<const sockaddr*>(&storage), size);
}

// Whoever holds the lock on the directory looks whether a file is stale and replaces it: two
// processes that start at once must not both find it stale. Waits a little for the other one.
bool lock_directory(int directory) {
  constexpr int tries_max = 40;
  for (int i = 0; i < tries_max; ++i) {
    if (flock(directory, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK && errno != EINTR) return false;
    timespec pause{0, 50'000'000};
    nanosleep(&pause, nullptr);
  }
  return false;
}

// Removes the file of a socket on which nobody answers. Returns "" or why the path cannot be used.
std::string remove_stale(const SocketAddress& address) {
  std::string path = address.path();
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return "";
  if (!S_ISSOCK(status.st_mode)) return path + " exists and is not a socket; remove or rename it";
  Fd probe(open_stream_socket(AF_UNIX));
  if (probe.get() < 0) return std::strerror(errno);
  if (connect(probe.get(), address.get(), address.size()) == 0 || errno == EAGAIN)
    return "another process answers on " + path +
           "; stop it, or choose another directory or port in [proxy] listen";
  if (errno != ECONNREFUSED) return path + ": " + std::strerror(errno);
  if (unlink(path.c_str()) != 0)
    return "cannot remove the stale socket " + path + ": " + std::strerror(errno);
  return "";
}

}  // namespace

Result<ListenSockets> ListenSockets::listen(std::span<const ListenAddress> addresses,
                                            int cores_count, Nanoseconds patience) {
  ASSERT(cores_count > 0);
  MonotonicClock clock;
  const Nanoseconds give_up_at = clock.now() + patience;
  ListenSockets sockets;
  sockets.per_core_.resize(static_cast<size_t>(cores_count));
  for (const ListenAddress& address : addresses) {
    bool is_unix = address.address.family() == AF_UNIX;
    for (;;) {
      std::string error =
          is_unix ? sockets.listen_unix(address) : sockets.listen_tcp(address, cores_count);
      if (error.empty()) break;
      if (error.find(in_use_text) == std::string::npos || clock.now() >= give_up_at)
        return Error{error};
      usleep(retry_interval_us);
    }
  }
  return sockets;
}

ListenSockets::~ListenSockets() {
  remove_files();
  for (const auto& sockets : per_core_)
    for (const ListenSocket& socket : sockets) close(socket.fd);
}

std::vector<ListenSocket> ListenSockets::take(int core) {
  ASSERT(core >= 0);
  ASSERT(static_cast<size_t>(core) < per_core_.size());
  return std::exchange(per_core_[static_cast<size_t>(core)], {});
}

// Returns "" or the error.
std::string ListenSockets::listen_tcp(const ListenAddress& address, int cores_count) {
  SocketAddress bound = address.address;
  {
    Fd probe(open_stream_socket(bound.family()));
    int error = bind_tcp(bound, false, probe);
    bool no_such_family = error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
    if (address.optional && no_such_family) {
      LOG(info, "not listening on %s: %s", bound.text().c_str(), std::strerror(error));
      return "";
    }
    if (error != 0) return listen_error(address, error, cure(error, bound));
    bound = bound_address(probe.get());
  }
  for (int core = 0; core < cores_count; ++core) {
    Fd fd(open_stream_socket(bound.family()));
    int error = bind_tcp(bound, true, fd);
    if (error != 0) return listen_error(address, error, cure(error, bound));
    per_core_[static_cast<size_t>(core)].push_back({fd.take(), bound.family()});
  }
  addresses_.push_back(bound);
  return "";
}

std::string ListenSockets::listen_unix(const ListenAddress& address) {
  std::string path = address.address.path();
  std::string directory = path.substr(0, path.rfind('/') + 1);
  Fd lock(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.get() < 0) return listen_error(address, errno, "; the directory must exist");
  if (!lock_directory(lock.get()))
    return "cannot listen on " + address.text + ": the lock on " + directory +
           " is held by another process";
  return bind_unix(address);  // The lock ends with its descriptor.
}

std::string ListenSockets::bind_unix(const ListenAddress& address) {
  std::string path = address.address.path();
  std::string problem = remove_stale(address.address);
  if (!problem.empty()) return "cannot listen on " + address.text + ": " + problem;
  Fd fd(open_stream_socket(AF_UNIX));
  if (fd.get() < 0) return listen_error(address, errno, "");
  if (bind(fd.get(), address.address.get(), address.address.size()) != 0)
    return listen_error(address, errno,
                        errno == EACCES ? "; the directory is not writable for this user" : "");
  struct stat status {};
  bool opened = chmod(path.c_str(), 0777) == 0;
  if (lstat(path.c_str(), &status) == 0)
    files_.push_back({path, status.st_dev, status.st_ino, status.st_ctim});
  if (!opened || ::listen(fd.get(), listen_backlog) != 0) return listen_error(address, errno, "");
  per_core_[0].push_back({fd.take(), AF_UNIX});
  addresses_.push_back(address.address);
  return "";
}

void ListenSockets::remove_files() noexcept {
  for (const File& file : files_) {
    // Another process may have put its own there, when ours did not answer.
    struct stat status {};
    if (lstat(file.path.c_str(), &status) != 0) continue;
    bool same = status.st_dev == file.device && status.st_ino == file.inode &&
                status.st_ctim.tv_sec == file.changed_at.tv_sec &&
                status.st_ctim.tv_nsec == file.changed_at.tv_nsec;
    if (same) unlink(file.path.c_str());
  }
  files_.clear();
}

}  // namespace helios
