#include "helios/base/address.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <string>

using namespace helios;

TEST_CASE("hosts are told apart") {
  CHECK(host_kind("127.0.0.1") == HostKind::literal);
  CHECK(host_kind("::1") == HostKind::literal);
  CHECK(host_kind("/run/postgresql") == HostKind::directory);
  CHECK(host_kind("db-1.example") == HostKind::name);
  CHECK(host_kind("127.1") == HostKind::name);
}

TEST_CASE("each form of a host is accepted") {
  for (const char* text : {"127.0.0.1", "::1", "fe80::1", "localhost", "db_1", "db-1.example.org.",
                           "1a", "/run/postgresql", "/"}) {
    CAPTURE(text);
    CHECK(host_fault(text) == "");
  }
}

TEST_CASE("a host of another form is refused with what is wrong") {
  struct Case {
    const char* text;
    const char* reason;
  };
  const Case cases[] = {{"db:5432", "port has a key of its own"},
                        {"[::1]", "without brackets"},
                        {"::g", "no IPv6 address"},
                        {"unix:/run", "without \"unix:\""},
                        {"300.1.1.1", "no IPv4 address"},
                        {"1234", "no IPv4 address"},
                        {"a b", "no host name"},
                        {".a", "no host name"},
                        {"tcp//db", "no host name"}};
  for (const Case& one : cases) {
    CAPTURE(one.text);
    CHECK(host_fault(one.text).find(one.reason) != std::string::npos);
  }
}

TEST_CASE("host names and socket directories are accepted up to their longest and no further") {
  const std::string label(63, 'a');
  CHECK(host_fault(label) == "");
  CHECK(host_fault(label + "a") != "");
  const std::string name = label + "." + label + "." + label + "." + std::string(61, 'a');
  CHECK(host_fault(name) == "");
  CHECK(host_fault(name + "a") != "");
  // 108 bytes of sockaddr_un hold the directory, "/.s.PGSQL.65535" and a zero.
  const std::string path = "/" + std::string(91, 'a');
  CHECK(host_fault(path) == "");
  CHECK(host_fault(path + "a").find("longer than the 107 bytes") != std::string::npos);
}

TEST_CASE("literal node addresses become socket addresses") {
  SocketAddress v4 = literal_address("10.1.2.3", 5432).value();
  CHECK(v4.family() == AF_INET);
  CHECK(v4.size() == sizeof(sockaddr_in));
  CHECK(v4.port() == 5432);
  CHECK(v4.text() == "10.1.2.3:5432");
  CHECK(v4.path() == "");
  SocketAddress v6 = literal_address("2001:db8::1", 5433).value();
  CHECK(v6.family() == AF_INET6);
  CHECK(v6.port() == 5433);
  CHECK(v6.text() == "[2001:db8::1]:5433");
  SocketAddress path = literal_address("/run/postgresql", 5432).value();
  CHECK(path.family() == AF_UNIX);
  CHECK(path.path() == "/run/postgresql/.s.PGSQL.5432");
  CHECK(path.port() == 0);
  CHECK(!literal_address("/" + std::string(120, 'd'), 5432).ok());
}

TEST_CASE("socket addresses compare by value") {
  CHECK(literal_address("10.1.2.3", 1).value() == literal_address("10.1.2.3", 1).value());
  CHECK(!(literal_address("10.1.2.3", 1).value() == literal_address("10.1.2.3", 2).value()));
  CHECK(!(literal_address("10.1.2.3", 1).value() == literal_address("::1", 1).value()));
  CHECK(SocketAddress().text() == "no address");
}

TEST_CASE("the longest unix path fits and one byte more does not") {
  size_t file_size = std::string("/.s.PGSQL.5432").size();
  std::string directory = "/" + std::string(106 - file_size, 'd');
  auto longest = unix_socket_address(directory, 5432);
  REQUIRE(longest.ok());
  CHECK(longest.value().path().size() == 107);
  CHECK(longest.value().size() == sizeof(sockaddr_un));
  CHECK(!unix_socket_address(directory + "d", 5432).ok());
}
