#include "helios/config/changes.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

Config some_config() {
  Config config;
  config.nodes.push_back({});
  config.nodes.back().name = "main";
  config.nodes.back().host = "db1";
  config.databases.push_back({});
  config.databases.back().name = "app";
  config.databases.back().node = "main";
  config.users.push_back({});
  config.users.back().name = "app";
  config.users.back().password = "first secret";
  return config;
}

TEST_CASE("the same configuration changes nothing") {
  CHECK(entry_changes(some_config(), some_config()).empty());
  CHECK(proxy_changes({}, {}).empty());
}

TEST_CASE("each entry that differs is one line, with every key") {
  const Config before = some_config();
  Config after = some_config();
  after.pool.max_connections = 20;
  after.nodes[0].port = 6000;
  after.nodes[0].host = "db2";
  after.databases[0].pool.acquire_timeout = seconds(90);
  after.databases[0].pool.idle_transaction_timeout_when = IdleTransactionWhen::waited_for;
  after.databases.push_back(before.databases[0]);
  after.databases.back().name = "new";
  after.users[0].max_clients = 7;
  after.users[0].name = "other";
  const std::vector<std::string> lines = entry_changes(before, after);
  const std::vector<std::string> wanted = {
      "[pool]: max_connections 10 -> 20",
      "node \"main\": host \"db1\" -> \"db2\", port 5432 -> 6000",
      "database \"app\": acquire_timeout unset -> \"90s\", idle_transaction_timeout_when unset -> "
      "\"waited_for\"",
      "database \"new\": added",
      "user \"app\": removed",
      "user \"other\": added"};
  CHECK(lines == wanted);
}

TEST_CASE("lists are told whole, and sizes with their unit") {
  Config after = some_config();
  after.pool.harmless_functions = {"f", "app.g"};
  after.pool.max_prepared_statement_size = 2 * 1024 * 1024;
  after.pool.max_client_notifications_size = 1024;
  after.users[0].pool.max_client_statements_size = 3000;
  const std::vector<std::string> wanted = {
      "[pool]: harmless_functions [] -> [\"f\", \"app.g\"], max_prepared_statement_size \"1MiB\" "
      "-> \"2MiB\", max_client_notifications_size "
      "\"1MiB\" -> \"1KiB\"",
      "user \"app\": max_client_statements_size unset -> \"3000\""};
  CHECK(entry_changes(some_config(), after) == wanted);
}

TEST_CASE("secrets are not told") {
  const Config before = some_config();
  Config after = some_config();
  after.users[0].password = "second secret";
  after.users[0].node_password = "third secret";
  after.databases[0].node_password = "fourth secret";
  for (const std::string& line : entry_changes(before, after)) {
    CHECK(line.find("changed") != std::string::npos);
    CHECK(line.find("secret") == std::string::npos);
  }
}

TEST_CASE("a changed key of [proxy] is named with its old and new value") {
  ProxyConfig after;
  after.listen = {"127.0.0.1:1", "[::1]:2"};
  after.log_level = LogLevel::debug;
  after.drain_timeout = 0;
  const std::vector<KeyChange> changes = proxy_changes({}, after);
  REQUIRE(changes.size() == 3);
  CHECK(changes[0].text == "listen [\"127.0.0.1:6432\"] -> [\"127.0.0.1:1\", \"[::1]:2\"]");
  CHECK(changes[1].text == "log_level \"info\" -> \"debug\"");
  CHECK(changes[2].key == "drain_timeout");
}

}  // namespace
}  // namespace helios
