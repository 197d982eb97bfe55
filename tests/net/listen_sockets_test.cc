#include "helios/net/listen_sockets.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

#include "helios/net/descriptor_limit.h"
#include "helios/net/listener.h"

using namespace helios;

namespace {

// A directory that goes with the test.
struct TemporaryDirectory {
  TemporaryDirectory() {
    char name[] = "/tmp/helios-net-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~TemporaryDirectory() { rmdir(path.c_str()); }
  std::string path;
};

std::vector<ListenAddress> parse(const std::vector<std::string>& texts) {
  auto result = parse_listen_addresses(texts);
  REQUIRE(result.ok());
  return result.value();
}

// A connected descriptor, or -errno.
int try_connect(const SocketAddress& address) {
  int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  if (connect(fd, address.get(), address.size()) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

// Waits until one of the sockets has a client, and accepts it.
int accept_any(const std::vector<ListenSocket>& sockets) {
  for (;;)
    for (const ListenSocket& socket : sockets) {
      int fd = accept_now(socket.fd);
      if (fd >= 0) return fd;
      REQUIRE(fd == -EAGAIN);
    }
}

int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  REQUIRE(getsockopt(fd, level, name, &value, &size) == 0);
  return value;
}

bool exists(const std::string& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0;
}

}  // namespace

TEST_CASE("every core gets a socket on the same port and clients reach one of them") {
  auto result = ListenSockets::listen(parse({"127.0.0.1:0"}), 3);
  REQUIRE(result.ok());
  ListenSockets sockets = std::move(result).value();
  REQUIRE(sockets.addresses().size() == 1);
  SocketAddress address = sockets.addresses()[0];
  CHECK(address.port() != 0);
  std::vector<ListenSocket> all;
  for (int core = 0; core < 3; ++core) {
    auto some = sockets.take(core);
    REQUIRE(some.size() == 1);
    CHECK(some[0].family == AF_INET);
    CHECK((fcntl(some[0].fd, F_GETFL) & O_NONBLOCK) != 0);
    all.push_back(some[0]);
  }
  CHECK(sockets.take(0).empty());
  int client = try_connect(address);
  REQUIRE(client >= 0);
  int accepted = accept_any(all);
  CHECK((fcntl(accepted, F_GETFD) & FD_CLOEXEC) != 0);
  // Inherited: nobody sets them for each client.
  CHECK(option_of(accepted, IPPROTO_TCP, TCP_NODELAY) != 0);
  CHECK(option_of(accepted, SOL_SOCKET, SO_KEEPALIVE) != 0);
  CHECK(option_of(accepted, IPPROTO_TCP, TCP_KEEPIDLE) == 60);
  close(accepted);
  close(client);
  for (const ListenSocket& socket : all) close(socket.fd);
}

TEST_CASE("a second instance on the same address is refused with the address and the cure") {
  auto first = ListenSockets::listen(parse({"127.0.0.1:0"}), 2);
  REQUIRE(first.ok());
  std::string text = first.value().addresses()[0].text();
  auto second = ListenSockets::listen(parse({text}), 2);
  REQUIRE(!second.ok());
  CHECK(second.error().find(text) != std::string::npos);
  CHECK(second.error().find("Address already in use") != std::string::npos);
  CHECK(second.error().find("choose another address") != std::string::npos);
}

TEST_CASE("an address that nobody has is refused with a reason") {
  auto result = ListenSockets::listen(parse({"192.0.2.1:0"}), 1);
  REQUIRE(!result.ok());
  CHECK(result.error().find("no interface of this machine") != std::string::npos);
}

TEST_CASE("when one address cannot be bound the others are given back") {
  auto first = ListenSockets::listen(parse({"127.0.0.1:0"}), 1);
  REQUIRE(first.ok());
  std::string taken = first.value().addresses()[0].text();
  TemporaryDirectory directory;
  auto second = ListenSockets::listen(parse({"unix:" + directory.path, taken}), 1);
  CHECK(!second.ok());
  // The unix file is gone: the directory can be removed.
  CHECK(
      !exists(directory.path + "/.s.PGSQL." + std::to_string(first.value().addresses()[0].port())));
}

TEST_CASE(
    "a unix socket is open to everybody, belongs to core 0, and its file is removed at the end") {
  TemporaryDirectory directory;
  std::string path = directory.path + "/.s.PGSQL.6433";
  {
    auto result = ListenSockets::listen(parse({"unix:" + directory.path + ":6433"}), 2);
    REQUIRE(result.ok());
    ListenSockets sockets = std::move(result).value();
    struct stat status {};
    REQUIRE(lstat(path.c_str(), &status) == 0);
    CHECK(S_ISSOCK(status.st_mode));
    CHECK((status.st_mode & 0777) == 0777);
    auto mine = sockets.take(0);
    REQUIRE(mine.size() == 1);
    CHECK(sockets.take(1).empty());
    int client = try_connect(sockets.addresses()[0]);
    REQUIRE(client >= 0);
    close(accept_any(mine));
    close(client);
    sockets.remove_files();
    CHECK(!exists(path));
    close(mine[0].fd);
  }
  CHECK(!exists(path));
}

TEST_CASE("a unix socket on which somebody answers is left alone") {
  TemporaryDirectory directory;
  auto first = ListenSockets::listen(parse({"unix:" + directory.path}), 1);
  REQUIRE(first.ok());
  auto second = ListenSockets::listen(parse({"unix:" + directory.path}), 1);
  REQUIRE(!second.ok());
  CHECK(second.error().find("another process answers") != std::string::npos);
  int client = try_connect(first.value().addresses()[0]);
  CHECK(client >= 0);
  close(client);
}

TEST_CASE("a stale unix socket is replaced, and whoever left it does not remove ours") {
  TemporaryDirectory directory;
  std::string path = directory.path + "/.s.PGSQL.6432";
  {
    auto stale = ListenSockets::listen(parse({"unix:" + directory.path}), 1);
    REQUIRE(stale.ok());
    for (const ListenSocket& socket : stale.value().take(0)) close(socket.fd);
    CHECK(exists(path));
    // A second name keeps the inode's number from being used again.
    std::string other_name = directory.path + "/kept";
    REQUIRE(link(path.c_str(), other_name.c_str()) == 0);
    {
      auto fresh = ListenSockets::listen(parse({"unix:" + directory.path}), 1);
      REQUIRE(fresh.ok());
      stale.value().remove_files();
      int client = try_connect(fresh.value().addresses()[0]);
      CHECK(client >= 0);
      close(client);
    }
    CHECK(!exists(path));
    unlink(other_name.c_str());
  }
}

TEST_CASE("a file that is no socket is never removed") {
  TemporaryDirectory directory;
  std::string path = directory.path + "/.s.PGSQL.6432";
  int fd = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  close(fd);
  auto result = ListenSockets::listen(parse({"unix:" + directory.path}), 1);
  REQUIRE(!result.ok());
  CHECK(result.error().find("is not a socket") != std::string::npos);
  CHECK(exists(path));
  unlink(path.c_str());
}

TEST_CASE("a directory that does not exist is named") {
  auto result = ListenSockets::listen(parse({"unix:/nonexistent/helios"}), 1);
  REQUIRE(!result.ok());
  CHECK(result.error().find("the directory must exist") != std::string::npos);
}

TEST_CASE("the descriptor limit is raised as far as the hard limit and no further") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit low = before;
  low.rlim_cur = 64;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  auto enough = raise_descriptor_limit(32);
  CHECK(enough.ok());
  CHECK(enough.value() == 64);
  auto raised = raise_descriptor_limit(100);
  REQUIRE(raised.ok());
  CHECK(raised.value() == 100);
  rlimit now{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &now) == 0);
  CHECK(now.rlim_cur == 100);
  if (before.rlim_max != RLIM_INFINITY) {
    uint64_t needed = before.rlim_max + 1;
    auto refused = raise_descriptor_limit(needed);
    REQUIRE(!refused.ok());
    CHECK(refused.error().find(std::to_string(needed)) != std::string::npos);
    CHECK(refused.error().find("LimitNOFILE=") != std::string::npos);
  }
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
}
