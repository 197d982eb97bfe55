// Logins, the welcome, and the end of sessions.
#include "helios/session/session.h"

#include <doctest/doctest.h>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

TEST_CASE("a client logs in and its query is answered") {
  SessionBench bench;
  TestClient client(bench, 0, "me");
  client.query("select 1");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(bench.server.only().queries() == std::vector<std::string>{"select 1"});
}

}  // namespace
}  // namespace helios
