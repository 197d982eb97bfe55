#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <string>

#include "bench/ring/events.h"
#include "bench/ring/peers.h"

namespace helios::bench {
namespace {

// Holds one message at most: a client sends its next one only when the last is back.
struct Connection {
  int fd = -1;
  std::unique_ptr<uint8_t[]> message;
  uint32_t received_size = 0;
  uint32_t sent_size = 0;
};

// Requires of both: as long as the socket takes or gives something, there is a point in going on.
bool receive(Connection& connection, uint32_t message_size) noexcept {
  while (connection.received_size < message_size) {
    const ssize_t size = recv(connection.fd, connection.message.get() + connection.received_size,
                              message_size - connection.received_size, 0);
    if (size == 0) return false;
    if (size < 0) return errno == EAGAIN;
    connection.received_size += static_cast<uint32_t>(size);
  }
  return true;
}

bool send_back(Connection& connection, uint32_t message_size) noexcept {
  while (connection.sent_size < connection.received_size) {
    const ssize_t size = send(connection.fd, connection.message.get() + connection.sent_size,
                              connection.received_size - connection.sent_size, MSG_NOSIGNAL);
    if (size < 0) return errno == EAGAIN;
    connection.sent_size += static_cast<uint32_t>(size);
  }
  if (connection.sent_size == message_size) connection.received_size = connection.sent_size = 0;
  return true;
}

}  // namespace

Result<bool> run_echo(const RunOptions& options, int listener) {
  Result<std::vector<int>> fds = accept_many(listener, options.connections);
  if (!fds.ok()) return Error{fds.error()};
  Events events;
  std::vector<Connection> connections(options.connections);
  for (uint32_t i = 0; i < options.connections; ++i) {
    connections[i].fd = fds.value()[i];
    connections[i].message.reset(new uint8_t[options.message_size]);
    if (!events.add(connections[i].fd, i)) return Error{"epoll refuses a socket"};
  }
  for (uint32_t open_count = options.connections; open_count > 0;) {
    for (const epoll_event& event : events.wait(-1)) {
      Connection& connection = connections[event.data.u32];
      if (connection.fd < 0) continue;
      if (receive(connection, options.message_size) && send_back(connection, options.message_size))
        continue;
      close(connection.fd);
      connection.fd = -1;
      --open_count;
    }
  }
  return true;
}

}  // namespace helios::bench
