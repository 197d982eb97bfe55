#include "helios/net/address.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <string>
#include <vector>

using namespace helios;

namespace {

// The addresses as text, "?" behind an optional one; or the error.
std::vector<std::string> listen_texts(const std::vector<std::string>& texts) {
  auto result = parse_listen_addresses(texts);
  if (!result.ok()) return {"error: " + result.error()};
  std::vector<std::string> out;
  for (const ListenAddress& address : result.value())
    out.push_back(address.address.text() + (address.optional ? "?" : ""));
  return out;
}

using Texts = std::vector<std::string>;

bool is_refused(const std::string& text) {
  auto result = parse_listen_addresses(Texts{text});
  if (result.ok()) return false;
  CHECK(result.error().find("\"" + text + "\"") != std::string::npos);
  return true;
}

}  // namespace

TEST_CASE("listen addresses of every form are understood") {
  CHECK(listen_texts({"127.0.0.1:6432"}) == Texts{"127.0.0.1:6432"});
  CHECK(listen_texts({"[::1]:6432"}) == Texts{"[::1]:6432"});
  CHECK(listen_texts({"*:6432"}) == Texts{"0.0.0.0:6432", "[::]:6432?"});
  CHECK(listen_texts({"localhost:7"}) == Texts{"127.0.0.1:7", "[::1]:7?"});
  CHECK(listen_texts({"127.0.0.1:0", "127.0.0.1:0"}) == Texts{"127.0.0.1:0", "127.0.0.1:0"});
  CHECK(listen_texts({}) == Texts{});
}

TEST_CASE("a unix listen address takes its port from itself, the first TCP address, or 6432") {
  CHECK(listen_texts({"unix:/run/pg"}) == Texts{"unix:/run/pg/.s.PGSQL.6432"});
  CHECK(listen_texts({"unix:/run/pg:6433", "127.0.0.1:7000"}) ==
        Texts{"unix:/run/pg/.s.PGSQL.6433", "127.0.0.1:7000"});
  CHECK(listen_texts({"unix:/run/pg/", "[::1]:7000", "127.0.0.1:7001"}) ==
        Texts{"unix:/run/pg/.s.PGSQL.7000", "[::1]:7000", "127.0.0.1:7001"});
  CHECK(listen_texts({"unix:/"}) == Texts{"unix:/.s.PGSQL.6432"});
}

TEST_CASE("a listen address that cannot be is refused and quoted") {
  for (const char* text : {"",
                           ":",
                           "6432",
                           "127.0.0.1",
                           "127.0.0.1:",
                           "127.0.0.1:65536",
                           "127.0.0.1:-1",
                           "127.0.0.1:6432x",
                           "127.0.0.1: 6432",
                           "127.0.0.300:6432",
                           "::1:6432",
                           "[::1]",
                           "[::1]6432",
                           "[::g]:1",
                           "[127.0.0.1]:1",
                           "[*]:1",
                           "db.example:6432",
                           "unix:",
                           "unix:relative",
                           "unix:/dir:0",
                           "unix:/dir:port",
                           "unix:/dir:"}) {
    CAPTURE(text);
    CHECK(is_refused(text));
  }
  CHECK(is_refused("unix:/" + std::string(200, 'd')));
}

TEST_CASE("an address that is listed twice is refused") {
  CHECK(listen_texts({"127.0.0.1:6432", "localhost:6432"})[0].find("twice") != std::string::npos);
  CHECK(listen_texts({"unix:/a", "unix:/a/"})[0].find("twice") != std::string::npos);
}

TEST_CASE("hosts are told apart") {
  CHECK(host_kind("127.0.0.1") == HostKind::literal);
  CHECK(host_kind("::1") == HostKind::literal);
  CHECK(host_kind("/run/postgresql") == HostKind::directory);
  CHECK(host_kind("db-1.example") == HostKind::name);
  CHECK(host_kind("127.1") == HostKind::name);
}

TEST_CASE("a host that cannot be has a problem") {
  CHECK(host_problem("db_1.example.com") == "");
  CHECK(host_problem("10.0.0.1") == "");
  CHECK(host_problem("2001:db8::1") == "");
  CHECK(host_problem("/run/postgresql") == "");
  CHECK(host_problem("") != "");
  CHECK(host_problem("db:5432") != "");
  CHECK(host_problem("a b") != "");
  CHECK(host_problem(std::string(254, 'a')) != "");
  CHECK(host_problem("/" + std::string(107, 'd')) != "");
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
