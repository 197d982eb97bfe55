#include "config/address_form.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

TEST_CASE("each form of a listen address is accepted") {
  for (const char* text :
       {"127.0.0.1:6432", "0.0.0.0:1", "[::]:6432", "[::1]:65535", "[fe80::1:2]:6432",
        "localhost:6432", "db-1.example.org:6432", "unix:/run/heliosproxy", "unix:/"}) {
    CAPTURE(text);
    CHECK(listen_fault(text) == "");
  }
}

TEST_CASE("a listen address of another form is refused with what is wrong") {
  struct Case {
    const char* text;
    const char* reason;
  };
  const Case cases[] = {{"", "has no port"},
                        {"127.0.0.1", "has no port"},
                        {"127.0.0.1:", "port"},
                        {"127.0.0.1:0", "1 to 65535"},
                        {"127.0.0.1:65536", "1 to 65535"},
                        {"127.0.0.1:99999999999999999999", "1 to 65535"},
                        {"127.0.0.1:-1", "1 to 65535"},
                        {"127.0.0.1:64x", "1 to 65535"},
                        {"127.0.0.1: 6432", "1 to 65535"},
                        {":6432", "0.0.0.0"},
                        {"*:6432", "0.0.0.0"},
                        {"::1:6432", "in brackets"},
                        {"[::1]", "1 to 65535"},
                        {"[::g]:6432", "no IPv6 address"},
                        {"[127.0.0.1]:6432", "no IPv6 address"},
                        {"[]:6432", "no IPv6 address"},
                        {"127.0.0.256:6432", "no IPv4 address"},
                        {"127.1:6432", "no IPv4 address"},
                        {"a b:6432", "no host name"},
                        {"-a:6432", "no host name"},
                        {"a..b:6432", "no host name"},
                        {"unix:", "no absolute path"},
                        {"unix:run", "no absolute path"}};
  for (const Case& one : cases) {
    CAPTURE(one.text);
    CHECK(listen_fault(one.text).find(one.reason) != std::string::npos);
  }
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

TEST_CASE("names and paths are accepted up to their longest and no further") {
  const std::string label(63, 'a');
  CHECK(host_fault(label) == "");
  CHECK(host_fault(label + "a") != "");
  const std::string name = label + "." + label + "." + label + "." + std::string(61, 'a');
  CHECK(host_fault(name) == "");
  CHECK(host_fault(name + "a") != "");
  // 108 bytes of sockaddr_un hold the directory, "/.s.PGSQL.65535" and a zero.
  const std::string path = "/" + std::string(91, 'a');
  CHECK(host_fault(path) == "");
  CHECK(host_fault(path + "a").find("may have 92 bytes") != std::string::npos);
  CHECK(listen_fault("unix:" + path) == "");
  CHECK(listen_fault("unix:" + path + "a") != "");
}

}  // namespace
}  // namespace helios
