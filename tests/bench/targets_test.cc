#include "load/targets.h"

#include <doctest/doctest.h>

#include <netinet/in.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "load/idle.h"

namespace helios::bench {
namespace {

std::string text_of(const std::string& text) {
  const std::vector<std::string> texts{text};
  const Result<std::vector<Target>> targets = find_targets(texts);
  return targets.ok() ? targets.value().front().address.text() : targets.error();
}

}  // namespace

TEST_CASE("each kind of address is understood") {
  CHECK(text_of("127.0.0.1:6432") == "127.0.0.1:6432");
  CHECK(text_of("[::1]:6432") == "[::1]:6432");
  CHECK(text_of("unix:/run/postgresql:5432") == "unix:/run/postgresql/.s.PGSQL.5432");
  CHECK(text_of("localhost:6432").find(":6432") != std::string::npos);
}

TEST_CASE("what is no address is explained") {
  for (const char* text : {"", "127.0.0.1", ":6432", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000",
                           "127.0.0.1:x", "unix:/tmp", "unix:tmp:5"})
    CHECK_MESSAGE(text_of(text).find("is no address") != std::string::npos, text);
}

TEST_CASE("only 127.x.y.z is taken for loopback, on which we have more addresses") {
  const std::vector<std::string> texts{"127.0.0.1:1", "[::1]:1", "192.0.2.1:1", "unix:/tmp:1"};
  const Result<std::vector<Target>> targets = find_targets(texts);
  REQUIRE(targets.ok());
  CHECK(targets.value()[0].is_loopback);
  for (size_t i = 1; i < texts.size(); ++i) CHECK_FALSE(targets.value()[i].is_loopback);
}

TEST_CASE("a socket is bound to the loopback address of its number") {
  const std::vector<std::string> texts{"127.0.0.1:1"};
  const Result<std::vector<Target>> targets = find_targets(texts);
  REQUIRE(targets.ok());
  for (const uint32_t index : {0U, 1U, 7U}) {
    const int fd = open_socket_for(targets.value()[0], index);
    REQUIRE(fd >= 0);
    sockaddr_in local{};
    socklen_t size = sizeof(local);
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0);
    CHECK(ntohl(local.sin_addr.s_addr) == (index == 0 ? INADDR_ANY : INADDR_LOOPBACK + index));
    CHECK(local.sin_port == 0);
    close(fd);
  }
}

TEST_CASE("the kernel's range of ports leaves room for thousands of clients") {
  CHECK(local_ports_count() > 1000);
  CHECK(clients_per_address(28'232) < 28'232);
  CHECK(clients_per_address(28'232) > 20'000);
}

TEST_CASE("the memory of TCP buffers is read from the kernel's text") {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  CHECK(tcp_memory_of("sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 8 mem 3\n"
                      "UDP: inuse 1 mem 9\n") == 3 * page);
  CHECK(tcp_memory_of("") == 0);
}

}  // namespace helios::bench
