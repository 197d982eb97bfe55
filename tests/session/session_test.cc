// Logins, the welcome, and what a pool without a server tells its clients.
#include "helios/session/session.h"

#include <doctest/doctest.h>

#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

std::string request_packet(uint32_t code) {
  uint8_t bytes[8];
  store_be32(bytes, 8);
  store_be32(bytes + 4, code);
  return std::string(as_text(bytes));
}

const std::string ssl_request = request_packet(80877103);
const std::string gss_request = request_packet(80877104);

std::string parameter_of(const std::vector<WireMessage>& messages, const std::string& name) {
  for (const WireMessage& message : messages)
    if (message.tag == 'S' && message.body.compare(0, name.size() + 1, name + '\0') == 0)
      return message.body.substr(name.size() + 1, message.body.size() - name.size() - 2);
  return "(none)";
}

TEST_CASE("a client logs in and its query is answered") {
  SessionBench bench;
  TestClient client(bench, 0, "me");
  client.query("select 1");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(bench.server.only().queries() == std::vector<std::string>{"select 1"});
}

TEST_CASE("a login that comes one byte at a time ends like any other") {
  SessionBench bench;
  TestClient client(bench);
  for (const char byte : ssl_request) client.write(std::string(1, byte));
  CHECK(client.take_bytes() == "N");
  for (const char byte : startup_packet("me", "db")) {
    CHECK(client.take_bytes().empty());
    client.write(std::string(1, byte));
  }
  CHECK(client.take_tags() == "RSSSSSSKZ");
  for (const char byte : query_message("select 1")) client.write(std::string(1, byte));
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("requests for encryption are answered N, each once") {
  SessionBench bench;
  TestClient client(bench);
  client.write(gss_request);
  CHECK(client.take_bytes() == "N");
  client.write(ssl_request);
  CHECK(client.take_bytes() == "N");
  client.write(startup_packet("me", "db"));
  CHECK(client.take_tags().back() == 'Z');

  TestClient other(bench);
  other.write(ssl_request);
  CHECK(other.take_bytes() == "N");
  other.write(ssl_request);
  CHECK(other.take_error() == "08P01");
  CHECK(other.is_closed());
}

TEST_CASE("bytes behind a request for encryption end the connection") {
  for (const std::string& request : {ssl_request, gss_request}) {
    SessionBench bench;
    TestClient client(bench);
    client.write(request + startup_packet("me", "db"));
    CHECK(client.take_error() == "08P01");
    CHECK(client.is_closed());
    CHECK(bench.server.sessions().empty());
  }
}

TEST_CASE("a start-up packet of an impossible length is refused") {
  SessionBench bench;
  TestClient client(bench);
  client.write(std::string("\x7f\xff\xff\xff\0\0\0\0", 8));
  CHECK(client.take_error() == "08P01");
  CHECK(client.is_closed());
}

TEST_CASE("a client above max_clients is refused, and comes in when another has gone") {
  BenchOptions options;
  options.clients_max = 2;
  SessionBench bench(options);
  TestClient first(bench, 0, "me");
  TestClient second(bench, 0, "me");
  TestClient third(bench);
  third.write(startup_packet("me", "db"));
  CHECK(third.take_error() == "53300");
  CHECK(third.is_closed());
  first.close();
  TestClient fourth(bench, 0, "me");
}

TEST_CASE("an unknown database is told to those who are logged in only") {
  SessionBench bench;
  TestClient client(bench);
  client.write(startup_packet("me", "missing"));
  CHECK(client.take_error() == "3D000");
  CHECK(client.is_closed());
  TestClient stranger(bench);
  stranger.write(startup_packet("stranger", "missing"));
  CHECK(stranger.take_tags() == "R");
  CHECK(bench.server.sessions().empty());
}

TEST_CASE("a client that is turned away is counted, whatever it asked for") {
  BenchOptions options;
  options.clients_max = 2;
  SessionBench bench(options);
  const auto ask = [&](const std::string& bytes, std::string_view code) {
    TestClient client(bench);
    client.write(bytes);
    CHECK(client.take_error() == code);
  };
  ask(startup_packet("me", "missing"), "3D000");
  ask(std::string("\x7f\xff\xff\xff\0\0\0\0", 8), "08P01");
  ask(startup_packet("stranger", "db") + frame('p', std::string("MD5\0\0\0\0\0", 8)), "08P01");
  bench.server.login_error = error_reply("FATAL", "28P01", "no such role");
  ask(startup_packet("me", "db"), "28P01");
  bench.server.login_error.clear();
  bench.advance(seconds(2));
  const TestClient first(bench, 0, "me");
  const TestClient second(bench, 0, "me");
  ask(startup_packet("me", "db"), "53300");
  const SessionsCounters& counters = bench.sessions().counters();
  CHECK(counters.accepted == 7);
  CHECK(counters.logged_in == 2);
  CHECK(counters.refused == 5);
}

TEST_CASE("a client that says nothing is told so after the login timeout") {
  SessionBench bench;
  TestClient client(bench);
  bench.advance(seconds(61));
  CHECK(client.take_error() == "57014");
  CHECK(client.is_closed());
}

TEST_CASE("the welcome waits for the pool's first backend, and for no other") {
  SessionBench bench;
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db") + query_message("select 1"));
  CHECK(client.take_tags() == "R");
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(client.take_tags() == "SSSSSSKZTDCZ");

  bench.server.only().is_silent = true;
  client.query("a long one");
  TestClient other(bench);
  other.write(startup_packet("me", "db"));
  CHECK(other.take_tags().back() == 'Z');
  CHECK(bench.server.sessions().size() == 1);
}

TEST_CASE("a start-up parameter is set with one statement whose replies stay here") {
  SessionBench bench;
  TestClient client(bench);
  client.write(startup_packet("me", "db", {{"application_name", "one"}, {"TimeZone", "utc"}}));
  const auto welcome = client.take();
  CHECK(tags_of(welcome) == "RSSSSSSKZ");
  CHECK(parameter_of(welcome, "application_name") == "one");
  CHECK(parameter_of(welcome, "TimeZone") == "UTC");  // As the server spells it.
  client.query("select 1");
  CHECK(client.take_tags() == "TDCZ");
  const size_t statements = bench.server.only().log.size();
  client.query("select 2");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(bench.server.only().log.size() == statements + 1);  // No SET again.
  CHECK(bench.server.only().parameters().at("application_name") == "one");
}

TEST_CASE("a refused start-up parameter is the client's error and nobody else's") {
  SessionBench bench;
  TestClient client(bench);
  client.write(startup_packet("me", "db", {{"DateStyle", "bad"}}));
  const std::string refusal = client.take_bytes();
  CHECK(refusal.find("C22023") != std::string::npos);
  CHECK(refusal.find("invalid value for parameter \"DateStyle\": \"bad\"") != std::string::npos);
  CHECK(client.is_closed());
  TestClient other(bench, 0, "me");
  other.query("select 1");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.only().parameters().at("DateStyle") == "ISO, MDY");
}

TEST_CASE("a client that leaves before its welcome takes nothing with it") {
  SessionBench bench;
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  client.close();
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(bench.sessions().is_empty());
  TestClient other(bench, 0, "me");

  bench.server.only().is_silent = true;
  TestClient third(bench);
  third.write(startup_packet("me", "db", {{"DateStyle", "German"}}));
  CHECK(third.take_tags() == "R");
  third.close();
  CHECK(bench.sessions().count() == 1);
  CHECK(bench.slice().waiters_count() == 0);
}

TEST_CASE("many clients that wait for one welcome are all welcomed") {
  BenchOptions options;
  options.limits.max_connections = 1;
  SessionBench bench(options);
  bench.server.holds_logins = true;
  std::vector<TestClient> clients;
  for (int i = 0; i < 3000; ++i) {
    clients.emplace_back(bench);
    clients.back().write_later(startup_packet("me", "db"));
  }
  bench.settle();
  CHECK(bench.slice().waiters_count() == clients.size());
  bench.server.holds_logins = false;
  bench.settle();
  size_t welcome_count = 0;
  for (TestClient& client : clients) welcome_count += client.take_tags() == "RSSSSSSKZ" ? 1 : 0;
  CHECK(welcome_count == clients.size());
}

TEST_CASE("a node that refuses connections is an error for those who wait, and comes back") {
  SessionBench bench;
  bench.server.stop_listening();
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  CHECK(client.take_error() == "08006");
  CHECK(client.is_closed());
  bench.server.start_listening();
  bench.advance(seconds(1));
  TestClient other(bench, 0, "me");
  other.query("select 1");
  CHECK(other.take_tags() == "TDCZ");
}

TEST_CASE("a login that the node refuses reaches the client with the node's words") {
  SessionBench bench;
  bench.server.login_error = error_reply("FATAL", "28P01", "no such role");
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  const auto answer = client.take();
  REQUIRE(tags_of(answer) == "RE");
  CHECK(field_of(answer[1], 'C') == "28P01");
  CHECK(field_of(answer[1], 'M').find("no such role") != std::string::npos);
  CHECK(client.is_closed());
}

TEST_CASE("a node that is starting up makes clients wait, and serves them once it is there") {
  SessionBench bench;
  bench.server.login_error = error_reply("FATAL", "57P03", "the database system is starting up");
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  CHECK(client.take_tags() == "R");
  for (int i = 0; i < 5; ++i) bench.advance(seconds(1));
  CHECK_FALSE(client.is_closed());
  bench.server.login_error.clear();
  bench.advance(seconds(2));
  CHECK(client.take_tags() == "SSSSSSKZ");
}

TEST_CASE("a server that talks on behind its login harms nobody") {
  for (const size_t size : {10, 1500, 3000}) {
    SessionBench bench;
    const std::string notice =
        frame('N', std::string("SNOTICE\0C00000\0M", 16) + std::string(size, 'x') + '\0' + '\0');
    bench.server.after_login = notice;
    TestClient client(bench);
    client.write(startup_packet("me", "db") + query_message("select 1"));
    const std::string tags = client.take_tags();
    CHECK(tags.front() == 'R');
    CHECK(tags.substr(tags.size() - 4) == "TDCZ");
    client.query("select 2");
    CHECK(client.take_tags() == "TDCZ");
  }
}

TEST_CASE(
    "what a server says behind its login belongs to the login, not to the client that waits") {
  // One client waits with a query while the second backend logs in.
  for (const size_t size : {10, 1500, 3000}) {
    SessionBench bench;
    TestClient first(bench, 0, "me");
    bench.server.after_login =
        frame('N', std::string("SNOTICE\0C00000\0M", 16) + std::string(size, 'x') + '\0' + '\0');
    first.query("BEGIN");
    TestClient second(bench, 0, "me");
    second.query("select 1");
    CHECK(second.take_tags() == "TDCZ");
  }
}

TEST_CASE("a user with a password logs in only with it") {
  SessionBench bench;
  TestClient client(bench);
  client.write(startup_packet("typist", "db"));
  bench.settle();
  CHECK(client.take_tags() == "R");
  client.write(frame('p', std::string("MD5\0\0\0\0\0", 8)));
  CHECK(client.take_error() == "08P01");
  CHECK(client.is_closed());

  // One that leaves while its key is derived.
  TestClient hasty(bench);
  hasty.write_later(startup_packet("typist2", "db"));
  hasty.close();
  CHECK(bench.sessions().is_empty());
}

}  // namespace
}  // namespace helios
