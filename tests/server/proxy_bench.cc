#include "server/proxy_bench.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "helios/base/assert.h"
#include "helios/wire/message.h"
#include "server/server.h"

namespace helios::test {
namespace {

constexpr int patience_seconds = 30;

int connect_to(uint16_t port) noexcept {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT(fd >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  ::close(fd);
  return -1;
}

int connect_patiently(uint16_t port) {
  const int fd = connect_to(port);
  REQUIRE(fd >= 0);
  const int on = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const timeval patience{patience_seconds, 0};
  (void)::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return fd;
}

uint16_t find_free_port() {
  const Socket socket(listen_on_free_port());
  return port_of(socket.fd());
}

Config make_config(PoolMode mode, uint32_t backends_count, uint16_t node_port, uint16_t port) {
  Config config;
  config.proxy.listen = {"127.0.0.1:" + std::to_string(port)};
  config.proxy.cores = 1;
  config.proxy.max_clients = 400;
  config.pool.mode = mode;
  config.pool.min_connections = 0;
  config.pool.max_connections = backends_count;
  NodeConfig& node = config.nodes.emplace_back();
  node.name = "main";
  node.host = "127.0.0.1";
  node.port = node_port;
  DatabaseConfig& database = config.databases.emplace_back();
  database.name = "app";
  database.node = "main";
  UserConfig& user = config.users.emplace_back();
  user.name = "app";
  user.auth = ClientAuth::trust;
  return config;
}

}  // namespace

Client::Client(uint16_t port, const std::vector<TextPair>& parameters)
    : socket_(connect_patiently(port)), messages_(4U << 20U), room_(256 * 1024) {
  std::vector<TextPair> all{{"user", "app"}, {"database", "app"}};
  all.insert(all.end(), parameters.begin(), parameters.end());
  MessageWriter startup;
  write_startup(startup, protocol_version(3, 0), all);
  write(startup);
  CHECK(read().tags == "RSKZ");
}

Client::~Client() {
  MessageWriter goodbye;
  write_terminate(goodbye);
  (void)socket_.send(goodbye.bytes());
}

void Client::write(const MessageWriter& messages) {
  REQUIRE(socket_.send(messages.bytes()));
}

void Client::write_query(std::string_view text) {
  MessageWriter query;
  helios::write_query(query, text);
  write(query);
}

Answers Client::read(size_t count) {
  return read_to(backend_tag::ready_for_query, count);
}

Answers Client::read_to(uint8_t tag, size_t count) {
  Answers answers;
  while (count > 0) {
    ByteSpan input = socket_.receive(room_);
    REQUIRE(!input.empty());  // The connection ended, or nothing came for a long time.
    answers.size += input.size();
    while (messages_.feed(input) == FrameStatus::message) {
      const char shown = static_cast<char>(messages_.tag());
      if (answers.tags.empty() || answers.tags.back() != shown) answers.tags += shown;
      if (messages_.tag() == backend_tag::data_row) answers.row = as_text(messages_.body());
      if (messages_.tag() == tag) --count;
    }
  }
  return answers;
}

ProxyBench::ProxyBench(PoolMode mode, uint32_t backends_count) : port_(find_free_port()) {
  config_ = make_config(mode, backends_count, server_.port(), port_);
  set_log_level(LogLevel::warning);
  thread_ = std::thread([this] {
    const Result<bool> result = run_server(config_, {}, {});
    if (!result.ok()) failure_ = result.error();
    has_ended_.store(true);
  });
  wait_until_ready();
}

ProxyBench::~ProxyBench() {
  if (!has_ended_.load()) ::kill(::getpid(), SIGTERM);
  thread_.join();
  CHECK(failure_ == "");
}

void ProxyBench::wait_until_ready() {
  for (int i = 0; i < patience_seconds * 100 && !has_ended_.load(); ++i) {
    if (const int fd = connect_to(port_); fd >= 0) {
      ::close(fd);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace helios::test
