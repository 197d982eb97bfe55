// The listening sockets of the process: bound once at start, before the cores run, by the main
// thread.
//
// TCP: each address is bound once without SO_REUSEPORT as a probe (otherwise a second instance
// would silently get half of the clients), then one SO_REUSEPORT socket per core. Unix: one socket
// per address, for core 0; a stale file is removed only when nobody answers on it; the file is open
// to everybody (mode 0777, as PostgreSQL's) and removed at the end.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <span>
#include <string>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/listen_address.h"
#include "helios/base/result.h"

namespace helios {

constexpr int listen_backlog = 4096;  // The kernel limits it to net.core.somaxconn.

struct ListenSocket {
  int fd = -1;
  int family = 0;
};

class ListenSockets {
 public:
  // Binds and listens on every address. Errors: a sentence that names the address and the cure.
  // `patience`: how long to try while an address is in use. The kernel takes a killed process's
  // io_uring apart in the background, and the sockets in it live on for a moment: a restart must
  // outlast that.
  [[nodiscard]] static Result<ListenSockets> listen(std::span<const ListenAddress> addresses,
                                                    int cores_count, Nanoseconds patience = 0);

  ListenSockets(ListenSockets&& other) noexcept = default;
  ListenSockets& operator=(ListenSockets&& other) = delete;
  ~ListenSockets();  // Closes what was not taken and removes the unix files.

  // The sockets of one core, which then belong to the caller (usually to a Listener each). Once per
  // core.
  [[nodiscard]] std::vector<ListenSocket> take(int core);
  // What was bound, with the real ports, one for each address.
  [[nodiscard]] const std::vector<SocketAddress>& addresses() const noexcept { return addresses_; }
  // Removes the unix socket files, so that new clients are refused at once. Call it when draining
  // begins. Idempotent.
  void remove_files() noexcept;

 private:
  struct File {
    std::string path;
    dev_t device;
    ino_t inode;
    timespec changed_at;  // Inode numbers are used again at once.
  };
  ListenSockets() = default;
  [[nodiscard]] std::string listen_tcp(const ListenAddress& address, int cores_count);
  [[nodiscard]] std::string listen_unix(const ListenAddress& address);
  [[nodiscard]] std::string bind_unix(const ListenAddress& address);

  std::vector<std::vector<ListenSocket>> per_core_;
  std::vector<SocketAddress> addresses_;
  std::vector<File> files_;
};

}  // namespace helios
