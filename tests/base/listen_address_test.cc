#include "helios/base/listen_address.h"

#include <doctest/doctest.h>

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

// What is wrong with one text alone.
std::string fault_of(const std::string& text) {
  const std::vector<std::string> faults = listen_faults(Texts{text});
  REQUIRE(faults.size() == 1);
  return faults[0];
}

}  // namespace

TEST_CASE("listen addresses of every form are understood") {
  CHECK(listen_texts({"127.0.0.1:6432"}) == Texts{"127.0.0.1:6432"});
  CHECK(listen_texts({"[::1]:6432"}) == Texts{"[::1]:6432"});
  CHECK(listen_texts({"0.0.0.0:6432", "[::]:6432"}) == Texts{"0.0.0.0:6432", "[::]:6432"});
  CHECK(listen_texts({"[fe80::1:2]:65535"}) == Texts{"[fe80::1:2]:65535"});
  CHECK(listen_texts({"[fe80::1%lo]:1"}) == Texts{"[fe80::1%1]:1"});
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

TEST_CASE("the check and the start refuse the same listen addresses and say what is wrong") {
  struct Case {
    const char* text;
    const char* reason;
  };
  const Case cases[] = {{"", "has no port"},
                        {"6432", "has no port"},
                        {"127.0.0.1", "has no port"},
                        {":", "to 65535"},
                        {"127.0.0.1:", "to 65535"},
                        {"127.0.0.1:65536", "to 65535"},
                        {"127.0.0.1:99999999999999999999", "to 65535"},
                        {"127.0.0.1:-1", "to 65535"},
                        {"127.0.0.1:6432x", "to 65535"},
                        {"127.0.0.1: 6432", "to 65535"},
                        {"[::1]", "to 65535"},
                        {"[::1]6432", "to 65535"},
                        {":6432", "0.0.0.0"},
                        {"*:6432", "0.0.0.0"},
                        {"::1:6432", "in brackets"},
                        {"[::g]:1", "no IPv6 address"},
                        {"[127.0.0.1]:1", "no IPv6 address"},
                        {"[*]:1", "no IPv6 address"},
                        {"[]:1", "no IPv6 address"},
                        {"[fe80::1%nosuch0]:1", "no IPv6 address"},
                        {"127.0.0.300:6432", "no IPv4 address"},
                        {"127.1:6432", "no IPv4 address"},
                        {"db-1.example.org:6432", "no name but localhost"},
                        {"a b:6432", "no name but localhost"},
                        {"unix:", "no absolute path"},
                        {"unix:relative", "no absolute path"},
                        {"unix:/dir:0", "port from 1 to 65535"},
                        {"unix:/dir:port", "port from 1 to 65535"},
                        {"unix:/dir:", "port from 1 to 65535"}};
  for (const Case& one : cases) {
    CAPTURE(one.text);
    const std::string fault = fault_of(one.text);
    CHECK(fault.starts_with("\"" + std::string(one.text) + "\""));
    CHECK(fault.find(one.reason) != std::string::npos);
    const std::string error = listen_texts({one.text})[0];
    CHECK(error.starts_with("error: listen address \"" + std::string(one.text) + "\""));
    CHECK(error.find(one.reason) != std::string::npos);
  }
  CHECK(fault_of("unix:/" + std::string(200, 'd')).find("longer than") != std::string::npos);
  CHECK(fault_of(std::string("127.0.0.1\0:1", 12)).find("no IPv4") != std::string::npos);
}

TEST_CASE("the check refuses the port that the kernel would choose, which a test may ask for") {
  CHECK(fault_of("127.0.0.1:0").find("1 to 65535") != std::string::npos);
  CHECK(fault_of("localhost:0").find("1 to 65535") != std::string::npos);
  CHECK(listen_texts({"localhost:0"}) == Texts{"127.0.0.1:0"});
}

TEST_CASE("an address that is listed twice is refused, however it is written") {
  const std::vector<Texts> cases = {{"127.0.0.1:1", "127.0.0.1:1"},
                                    {"127.0.0.1:1", "localhost:1"},
                                    {"localhost:1", "[0:0:0:0:0:0:0:1]:1"},
                                    {"unix:/a", "unix:/a/"},
                                    {"unix:/a", "unix:/a:6432"},
                                    {"unix:/a:2", "unix:/a", "[::]:2"}};
  for (const Texts& texts : cases) {
    CAPTURE(texts[0]);
    CHECK(listen_texts(texts)[0].find("given twice") != std::string::npos);
    const std::vector<std::string> faults = listen_faults(texts);
    REQUIRE(faults.size() == texts.size());
    CHECK(faults[0] == "");
    CHECK(faults[1].find("given twice") != std::string::npos);
  }
}

TEST_CASE("one wrong listen address does not hide what is wrong with another") {
  const std::vector<std::string> faults = listen_faults(Texts{"a", "[::1]:1", "unix:b"});
  REQUIRE(faults.size() == 3);
  CHECK(faults[0] != "");
  CHECK(faults[1] == "");
  CHECK(faults[2] != "");
}
