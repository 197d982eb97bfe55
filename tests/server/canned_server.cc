#include "server/canned_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "helios/base/assert.h"

namespace helios::test {
namespace {

constexpr uint32_t clients_max = 100;

// One connection, in its own thread.
class Connection final : public bench::AnswerSink {
 public:
  Connection(const bench::CannedAnswers& answers, std::atomic<uint32_t>& clients_count,
             const Socket& socket)
      : buffer_(std::make_unique<bench::AnswerBuffer>()),
        context_{answers, *buffer_, 0, clients_count, clients_max},
        conversation_(context_),
        socket_(socket) {}

  void run() noexcept {
    std::vector<uint8_t> room(64 * 1024);
    while (conversation_.state() != bench::Conversation::State::ended) {
      ByteSpan input = socket_.receive(room);
      if (input.empty()) return;
      buffer_->begin(*this);
      conversation_.feed(input);
      buffer_->flush();
    }
  }

  void send(ByteSpan bytes) noexcept override { (void)socket_.send(bytes); }
  // Sends wait for the reader.
  bool has_room() noexcept override { return true; }

 private:
  std::unique_ptr<bench::AnswerBuffer> buffer_;
  bench::ConversationContext context_;
  bench::Conversation conversation_;
  const Socket& socket_;
};

}  // namespace

Socket::~Socket() {
  ::close(fd_);
}

bool Socket::send(ByteSpan bytes) const noexcept {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return true;
}

ByteSpan Socket::receive(std::vector<uint8_t>& room) const noexcept {
  const ssize_t size = ::recv(fd_, room.data(), room.size(), 0);
  return {room.data(), size > 0 ? static_cast<size_t>(size) : 0};
}

void Socket::shut_down() const noexcept {
  (void)::shutdown(fd_, SHUT_RDWR);
}

int listen_on_free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT(fd >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  ASSERT(bound == 0);
  const int listening = ::listen(fd, 128);
  ASSERT(listening == 0);
  return fd;
}

uint16_t port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  const int found = ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ASSERT(found == 0);
  return ntohs(address.sin_port);
}

CannedServer::CannedServer()
    : answers_(0, 0), listener_(listen_on_free_port()), acceptor_([this] { accept_all(); }) {}

CannedServer::~CannedServer() {
  listener_.shut_down();
  acceptor_.join();
  for (const auto& socket : sockets_) socket->shut_down();
  for (std::thread& thread : threads_) thread.join();
}

void CannedServer::accept_all() {
  for (;;) {
    const int fd = ::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    ++connections_count_;
    const int on = 1;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    sockets_.push_back(std::make_unique<Socket>(fd));
    threads_.emplace_back([this, &socket = *sockets_.back()] {
      Connection(answers_, clients_count_, socket).run();
      // The other side waits for our end of file; the descriptor is closed with the server.
      socket.shut_down();
    });
  }
}

}  // namespace helios::test
