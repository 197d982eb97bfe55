// What a server refuses of what a client starts with is told to that client, as by the server
// itself, and to nobody else.
#include <doctest/doctest.h>

#include "helios/wire/error_response.h"
#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

std::string refusal_of(Severity severity, std::string_view sqlstate, std::string_view message,
                       std::string_view detail = {}, std::string_view hint = {}) {
  MessageWriter writer;
  write_error(writer, severity, sqlstate, message, detail, hint);
  return std::string(as_text(writer.bytes()));
}

const std::string refusal = refusal_of(Severity::fatal, "22023", "no such size", "It is too long.",
                                       "Valid units are \"kB\" and \"MB\".");

using Parameters = std::vector<std::pair<std::string, std::string>>;

void knock(TestClient& client, const Parameters& parameters) {
  client.write(startup_packet("me", "db", parameters));
}

// What a client was told at its login, and nothing behind it; its first message is
// AuthenticationOk.
std::string last_words(TestClient& client) {
  const std::string ok = frame('R', std::string(4, '\0'));
  const std::string bytes = client.take_bytes();
  CHECK(client.is_closed());
  CHECK(bytes.starts_with(ok));
  return bytes.substr(ok.size());
}

TEST_CASE("a refused start-up parameter is told to all who asked for it, byte by byte") {
  for (const CoreId cores : {CoreId{1}, CoreId{3}}) {
    BenchOptions options = with_backends(1, cores);
    SessionBench bench(options);
    bench.server.refused_parameters["work_mem"] = refusal;
    TestClient holder(bench, 0, "me");
    holder.query("BEGIN");
    TestClient waiter(bench, 0, "me");
    waiter.query("waits");
    CHECK(waiter.take_tags().empty());
    std::vector<TestClient> refused;
    for (CoreId core = 0; core < cores; ++core) {
      refused.emplace_back(bench, core);
      refused.back().write_later(startup_packet("me", "db", {{"work_mem", "much"}}));
    }
    // Of the same set one attempt tells them all, or the next one does.
    bench.advance_in_steps(seconds(2), milliseconds(20));
    for (TestClient& client : refused) CHECK(last_words(client) == refusal);
    CHECK_FALSE(bench.node.health.is_down());
    CHECK(waiter.take_tags().empty());
    TestClient other(bench, 0);
    knock(other, {{"statement_timeout", "5s"}});
    CHECK(tags_of(other.take()).ends_with("Z"));
    holder.query("COMMIT");
    CHECK(waiter.take_tags() == "TDCZ");
    // It comes to know of it.
    bench.server.refused_parameters.clear();
    TestClient late(bench, 0);
    knock(late, {{"work_mem", "much"}});
    bench.advance_in_steps(seconds(2), milliseconds(20));
    CHECK(tags_of(late.take()).ends_with("Z"));
  }
}

TEST_CASE("what is not of the parameters names the node, and nothing else") {
  SessionBench bench;
  bench.server.refused_parameters["work_mem"] =
      refusal_of(Severity::fatal, "53300", "too many connections", "Detail.", "Hint.");
  TestClient client(bench, 0);
  knock(client, {{"work_mem", "4MB"}});
  std::string bytes = last_words(client);
  const std::vector<WireMessage> messages = take_messages(bytes);
  REQUIRE(messages.size() == 1);
  CHECK(field_of(messages[0], 'C') == "53300");
  CHECK(field_of(messages[0], 'M').starts_with("cannot connect to node "));
  CHECK(field_of(messages[0], 'D').empty());
}

TEST_CASE("who waits in a pool that is refused all the time is told why, and not how long") {
  BenchOptions options;
  options.limits.acquire_timeout = milliseconds(30);
  SessionBench bench(options);
  bench.server.refused_parameters["work_mem"] = refusal;
  TestClient first(bench, 0);
  knock(first, {{"work_mem", "much"}});
  CHECK(last_words(first) == refusal);
  TestClient second(bench, 0);
  knock(second, {{"work_mem", "much"}});
  bench.advance(milliseconds(31));  // Before the next attempt.
  CHECK(last_words(second) == refusal);
}

TEST_CASE("a replication connection that is refused does not wait for others of its user") {
  SessionBench bench;
  TestClient plain(bench, 0, "me");
  bench.server.refused_parameters["work_mem"] = refusal;
  TestClient client(bench, 0);
  knock(client, {{"replication", "database"}, {"work_mem", "much"}});
  CHECK(last_words(client) == refusal);
  plain.query("q");
  CHECK(plain.take_tags() == "TDCZ");
}

struct Refusal {
  Parameters parameters;
  std::string said;  // By the server, of the SET.
  std::string told;  // To the client.
};

TEST_CASE("a parameter that is set after the login is refused in the words of a start") {
  const auto error = [](std::string_view sqlstate, std::string_view message,
                        std::string_view detail = {}, std::string_view hint = {}) {
    return refusal_of(Severity::error, sqlstate, message, detail, hint);
  };
  const auto fatal = [](std::string_view sqlstate, std::string_view message,
                        std::string_view detail = {}, std::string_view hint = {}) {
    return refusal_of(Severity::fatal, sqlstate, message, detail, hint);
  };
  const Refusal refusals[] = {
      {{{"DateStyle", "xyz"}},
       error("22023", "invalid value for parameter \"DateStyle\": \"DEFAULT, xyz\"",
             "Unrecognized key word: \"xyz\"."),
       fatal("22023", "invalid value for parameter \"DateStyle\": \"xyz\"",
             "Unrecognized key word: \"xyz\".")},
      {{{"Standard_Conforming_Strings", "x"}},
       error("22023", "parameter \"standard_conforming_strings\" requires a Boolean value"),
       fatal("22023", "parameter \"Standard_Conforming_Strings\" requires a Boolean value")},
      {{{"client_encoding", "MULE_INTERNAL"}},
       error("0A000", "invalid value for parameter \"client_encoding\": \"MULE_INTERNAL\"",
             "Conversion between MULE_INTERNAL and UTF8 is not supported."),
       fatal("0A000", "conversion between MULE_INTERNAL and UTF8 is not supported")},
  };
  for (const Refusal& one : refusals) {
    SessionBench bench;
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    TestClient client(bench, 0);
    knock(client, one.parameters);
    REQUIRE(server.log.size() == 1);
    server.write(one.said + ready());
    bench.settle();
    CHECK(last_words(client) == one.told);
    // The backend serves others.
    server.is_silent = false;
    other.query("q");
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.open_sessions().size() == 1);
  }
}

TEST_CASE("what the start-up packet itself is refused for has the hint of PostgreSQL") {
  SessionBench bench;
  TestClient client(bench, 0);
  knock(client, {{"options", "-x"}});
  CHECK(client.take_bytes() == refusal_of(Severity::fatal, "42601",
                                          "invalid command-line argument for server process: -x",
                                          "", "Try \"postgres --help\" for more information."));
  CHECK(client.is_closed());
}

}  // namespace
}  // namespace helios
