#include "helios/config/config.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

const std::string verifier =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const std::string md5_hash = "md5" + std::string(32, '7');

TEST_CASE("an exact name goes before the entry for any name, wherever they stand") {
  Config config;
  CHECK(config.find_database("app") == nullptr);
  config.databases.resize(3);
  config.databases[0].name = "*";
  config.databases[1].name = "app";
  config.databases[2].name = "other";
  CHECK(config.find_database("app") == &config.databases[1]);
  CHECK(config.find_database("other") == &config.databases[2]);
  CHECK(config.find_database("none") == &config.databases[0]);
  config.users.resize(2);
  config.users[0].name = "app";
  config.users[1].name = "*";
  CHECK(config.find_user("app") == &config.users[0]);
  CHECK(config.find_user("none") == &config.users[1]);
  config.users.pop_back();
  CHECK(config.find_user("none") == nullptr);
}

TEST_CASE("a node is found by its own name only") {
  Config config;
  config.nodes.resize(1);
  config.nodes[0].name = "main";
  CHECK(config.find_node("main") == &config.nodes[0]);
  CHECK(config.find_node("mai") == nullptr);
}

TEST_CASE("without a name of its own a database is asked for on the node as by the client") {
  DatabaseConfig database;
  CHECK(database.name_on_node("app") == "app");
  database.dbname = "app_2";
  CHECK(database.name_on_node("app") == "app_2");
}

// Every key, in the same order in both: what is written (PoolOverrides) and what holds
// (PoolConfig).
template <typename Pool>
Pool pool_of_database() {
  return {PoolMode::session,
          3,
          13,
          seconds(1),
          seconds(2),
          seconds(3),
          false,
          seconds(4),
          seconds(5),
          6,
          23,
          33,
          seconds(6),
          seconds(7),
          "a",
          seconds(8),
          seconds(9),
          IdleTransactionWhen::waited_for,
          seconds(10),
          seconds(11),
          SessionStateMode::pin,
          std::vector<std::string>{"f", "app.g"},
          43,
          2048,
          4096,
          8192};
}
template <typename Pool>
Pool pool_of_user() {
  return {PoolMode::statement,
          4,
          14,
          seconds(6),
          seconds(7),
          seconds(8),
          true,
          seconds(9),
          seconds(10),
          7,
          24,
          34,
          seconds(11),
          seconds(12),
          "",
          seconds(13),
          seconds(14),
          IdleTransactionWhen::always,
          seconds(15),
          seconds(16),
          SessionStateMode::warn,
          std::vector<std::string>{"f", "app.g"},
          44,
          2049,
          4097,
          8193};
}

TEST_CASE("each key of a pool is taken from the user before the database before [pool]") {
  Config config;
  DatabaseConfig database;
  UserConfig user;
  database.name = user.name = "app";
  CHECK(config.effective_pool(database, user) == PoolConfig());

  database.pool = pool_of_database<PoolOverrides>();
  CHECK(config.effective_pool(database, user) == pool_of_database<PoolConfig>());

  user.pool = pool_of_user<PoolOverrides>();
  CHECK(config.effective_pool(database, user) == pool_of_user<PoolConfig>());
  database.pool = {};
  CHECK(config.effective_pool(database, user) == pool_of_user<PoolConfig>());
}

TEST_CASE("keys are overridden one by one") {
  Config config;
  config.pool.idle_timeout = seconds(77);
  DatabaseConfig database;
  UserConfig user;
  database.pool.mode = PoolMode::session;
  user.pool.test_on_acquire = false;
  PoolConfig expected;
  expected.idle_timeout = seconds(77);
  expected.mode = PoolMode::session;
  expected.test_on_acquire = false;
  CHECK(config.effective_pool(database, user) == expected);
}

TEST_CASE("a user turns time limits of the pool off, and its own on") {
  Config config;
  config.pool.query_timeout = seconds(5);
  config.pool.client_idle_timeout = seconds(6);
  DatabaseConfig database;
  UserConfig user;
  user.pool.query_timeout = 0;
  user.pool.transaction_timeout = seconds(7);
  database.pool.client_idle_timeout = 0;
  database.pool.transaction_timeout = seconds(8);
  const PoolConfig pool = config.effective_pool(database, user);
  CHECK(pool.query_timeout == 0);
  CHECK(pool.client_idle_timeout == 0);
  CHECK(pool.transaction_timeout == seconds(7));
  CHECK(pool.idle_transaction_timeout == 0);
}

TEST_CASE("a pool made through * keeps no minimum unless its database or user sets one") {
  Config config;
  config.pool.min_connections = 5;
  DatabaseConfig database;
  UserConfig user;
  database.name = user.name = "app";
  CHECK(config.effective_pool(database, user).min_connections == 5);
  database.name = "*";
  CHECK(config.effective_pool(database, user).min_connections == 0);
  database.pool.min_connections = 1;
  CHECK(config.effective_pool(database, user).min_connections == 1);
  database = {};
  database.name = "app";
  user.name = "*";
  CHECK(config.effective_pool(database, user).min_connections == 0);
  user.pool.min_connections = 3;
  CHECK(config.effective_pool(database, user).min_connections == 3);
}

TEST_CASE("a minimum gives way to the smaller maximum of a user or database") {
  Config config;
  DatabaseConfig database;
  UserConfig user;
  database.pool.min_connections = 6;
  user.pool.max_connections = 1;
  CHECK(config.effective_pool(database, user).min_connections == 1);
  CHECK(config.effective_pool(database, user).max_connections == 1);
}

TEST_CASE("a password is a verifier or hash only in exactly PostgreSQL's form") {
  CHECK(password_kind_of("") == PasswordKind::none);
  CHECK(password_kind_of("secret") == PasswordKind::plain);
  CHECK(password_kind_of(verifier) == PasswordKind::scram_verifier);
  CHECK(password_kind_of(md5_hash) == PasswordKind::md5_hash);
  CHECK(password_kind_of(md5_hash + "7") == PasswordKind::plain);
  CHECK(password_kind_of(md5_hash.substr(1)) == PasswordKind::plain);
  CHECK(password_kind_of("md5" + std::string(32, 'F')) == PasswordKind::plain);
  CHECK(password_kind_of("md5" + std::string(32, 'g')) == PasswordKind::plain);
}

TEST_CASE("a verifier with any part missing or damaged is none") {
  for (size_t size = 0; size < verifier.size(); ++size) {
    CAPTURE(size);
    CHECK(password_kind_of(verifier.substr(0, size)) != PasswordKind::scram_verifier);
  }
  CHECK(password_kind_of(verifier + "=") == PasswordKind::plain);
  for (const char separator : {':', '$'}) {
    std::string damaged = verifier;
    damaged[damaged.rfind(separator)] = '.';
    CHECK(password_kind_of(damaged) == PasswordKind::plain);
  }
  for (const char* rounds : {"0", "-1", "x", "", "4096x", "9999999999"}) {
    CAPTURE(rounds);
    std::string damaged = verifier;
    damaged.replace(damaged.find("4096"), 4, rounds);
    CHECK(password_kind_of(damaged) == PasswordKind::plain);
  }
}

TEST_CASE("a pool logs in at its node with the user's pair, the database's, or the client's own") {
  Config config;
  DatabaseConfig database;
  UserConfig user;
  user.password = "secret";
  CHECK(config.node_login(database, user, "app") ==
        NodeLogin{"app", "secret", PasswordKind::plain});
  database.node_user = "pool";
  database.node_password = "pool_secret";
  CHECK(config.node_login(database, user, "app") ==
        NodeLogin{"pool", "pool_secret", PasswordKind::plain});
  user.node_user = "own";
  // Not the database's password with the user's name.
  CHECK(config.node_login(database, user, "app") == NodeLogin{"own", "", PasswordKind::none});
  user.node_password = md5_hash;
  CHECK(config.node_login(database, user, "app") ==
        NodeLogin{"own", md5_hash, PasswordKind::md5_hash});
  user.node_user.clear();
  CHECK(config.node_login(database, user, "app") ==
        NodeLogin{"app", md5_hash, PasswordKind::md5_hash});
}

TEST_CASE("a user's password never goes to a node under another name") {
  Config config;
  DatabaseConfig database;
  UserConfig user;
  user.password = "secret";
  database.node_user = "pool";
  CHECK(config.node_login(database, user, "app") == NodeLogin{"pool", "", PasswordKind::none});
  CHECK(config.node_login(database, user, "pool") ==
        NodeLogin{"pool", "secret", PasswordKind::plain});
}

TEST_CASE("a verifier is no password for a node") {
  UserConfig user;
  user.password = verifier;
  CHECK(Config().node_login({}, user, "app") == NodeLogin{"app", "", PasswordKind::scram_verifier});
}

TEST_CASE("modes and ways to log in have the names of the file") {
  CHECK(to_text(PoolMode::session) == "session");
  CHECK(to_text(PoolMode::transaction) == "transaction");
  CHECK(to_text(PoolMode::statement) == "statement");
  CHECK(to_text(ClientAuth::scram_sha_256) == "scram-sha-256");
  CHECK(to_text(ClientAuth::md5) == "md5");
  CHECK(to_text(ClientAuth::trust) == "trust");
}

}  // namespace
}  // namespace helios
