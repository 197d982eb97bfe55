#include "helios/net/resolver.h"

#include <doctest/doctest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

using namespace helios;

namespace {

// Answers look-ups as the test says; the test waits for calls instead of sleeping.
struct Script {
  Result<std::vector<SocketAddress>> answer(const std::string& host, uint16_t port) {
    std::unique_lock lock(mutex);
    hosts.push_back(host);
    changed.notify_all();
    changed.wait(lock, [this] { return hosts.size() <= allowed; });
    if (fails) return Error{"no such host"};
    return std::vector<SocketAddress>{literal_address(address, port).value()};
  }
  // Waits until the n-th look-up has begun: the one before is then published.
  void await(size_t n) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return hosts.size() >= n; });
  }
  void set(bool fail, const std::string& to, size_t allow = SIZE_MAX) {
    std::lock_guard lock(mutex);
    fails = fail;
    address = to;
    allowed = allow;
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> hosts;
  size_t allowed = SIZE_MAX;
  bool fails = false;
  std::string address = "10.0.0.1";
};

ResolverOptions scripted(const std::shared_ptr<Script>& script) {
  ResolverOptions options;
  options.lookup = [script](const std::string& host, uint16_t port) {
    return script->answer(host, port);
  };
  options.refresh_interval = never;
  options.request_interval = 0;
  options.start_wait = seconds(60);
  return options;
}

}  // namespace

TEST_CASE("literals and directories are answered without a look-up") {
  auto script = std::make_shared<Script>();
  Resolver resolver(scripted(script));
  size_t v4 = resolver.add("127.0.0.1", 5432);
  size_t path = resolver.add("/run/postgresql", 5433);
  CHECK(resolver.add("127.0.0.1", 5432) == v4);
  resolver.start();
  REQUIRE(resolver.snapshot(v4)->addresses.size() == 1);
  CHECK(resolver.snapshot(v4)->addresses[0].text() == "127.0.0.1:5432");
  CHECK(resolver.snapshot(path)->addresses[0].text() == "unix:/run/postgresql/.s.PGSQL.5433");
  resolver.refresh_soon(v4);
  resolver.stop();
  CHECK(script->hosts.empty());
}

TEST_CASE("start waits for the first answers of all names") {
  auto script = std::make_shared<Script>();
  Resolver resolver(scripted(script));
  size_t a = resolver.add("a.example", 1);
  size_t b = resolver.add("b.example", 2);
  CHECK(resolver.snapshot(a)->addresses.empty());
  CHECK(resolver.snapshot(a)->error != "");
  resolver.start();
  CHECK(resolver.snapshot(a)->addresses[0].text() == "10.0.0.1:1");
  CHECK(resolver.snapshot(b)->addresses[0].text() == "10.0.0.1:2");
  CHECK(resolver.snapshot(b)->error == "");
}

TEST_CASE("a name that fails does not prevent the start and is told by its snapshot") {
  auto script = std::make_shared<Script>();
  script->set(true, "");
  Resolver resolver(scripted(script));
  size_t id = resolver.add("gone.example", 1);
  resolver.start();
  CHECK(resolver.snapshot(id)->addresses.empty());
  CHECK(resolver.snapshot(id)->error == "no such host");
}

TEST_CASE("a look-up that hangs holds up neither start nor stop") {
  auto script = std::make_shared<Script>();
  script->set(false, "10.0.0.1", 0);  // No look-up may end.
  {
    ResolverOptions options = scripted(script);
    options.start_wait = milliseconds(1);
    options.stop_wait = milliseconds(1);
    Resolver resolver(options);
    size_t id = resolver.add("slow.example", 1);
    resolver.start();
    CHECK(resolver.snapshot(id)->error.find("not been resolved yet") != std::string::npos);
    script->await(1);
  }
  script->set(false, "10.0.0.1");
}

TEST_CASE("a refresh on request publishes the new addresses, a failed one keeps the old") {
  auto script = std::make_shared<Script>();
  Resolver resolver(scripted(script));
  size_t id = resolver.add("db.example", 5432);
  resolver.start();
  CHECK(resolver.snapshot(id)->addresses[0].text() == "10.0.0.1:5432");
  auto old = resolver.snapshot(id);

  script->set(false, "10.0.0.2");
  resolver.refresh_soon(id);
  script->await(2);
  resolver.refresh_soon(id);
  script->await(3);
  CHECK(resolver.snapshot(id)->addresses[0].text() == "10.0.0.2:5432");
  CHECK(old->addresses[0].text() == "10.0.0.1:5432");  // Whoever holds it keeps it.

  script->set(true, "");
  resolver.refresh_soon(id);
  script->await(4);
  resolver.refresh_soon(id);
  script->await(5);
  CHECK(resolver.snapshot(id)->addresses[0].text() == "10.0.0.2:5432");
  CHECK(resolver.snapshot(id)->error == "no such host");
}

TEST_CASE("names are looked up again after the refresh interval") {
  auto script = std::make_shared<Script>();
  ResolverOptions options = scripted(script);
  options.refresh_interval = milliseconds(1);
  Resolver resolver(options);
  static_cast<void>(resolver.add("db.example", 5432));
  resolver.start();
  script->await(5);
  CHECK(script->hosts[4] == "db.example");
}

TEST_CASE("a name that is added after the start is looked up") {
  auto script = std::make_shared<Script>();
  Resolver resolver(scripted(script));
  resolver.start();
  size_t id = resolver.add("late.example", 1);
  script->await(1);
  resolver.refresh_soon(id);
  script->await(2);
  CHECK(resolver.snapshot(id)->addresses[0].text() == "10.0.0.1:1");
}

TEST_CASE("getaddrinfo answers literals and refuses nonsense with a sentence") {
  auto literal = lookup_by_getaddrinfo("127.0.0.1", 5432);
  REQUIRE(literal.ok());
  REQUIRE(literal.value().size() == 1);
  CHECK(literal.value()[0].text() == "127.0.0.1:5432");
  auto nonsense = lookup_by_getaddrinfo("not a host", 5432);
  REQUIRE(!nonsense.ok());
  CHECK(nonsense.error().find("\"not a host\" cannot be resolved") != std::string::npos);
}
