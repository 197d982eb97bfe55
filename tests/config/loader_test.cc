#include "helios/config/loader.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace helios {
namespace {

const std::string verifier =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const std::string md5_hash = "md5" + std::string(32, '7');

// The least that is a configuration.
const std::string node_text = "[[node]]\nname = \"main\"\nhost = \"127.0.0.1\"\n";
const std::string database_text = "[[database]]\nname = \"app\"\nnode = \"main\"\n";
const std::string user_text = "[[user]]\nname = \"app\"\npassword = \"secret\"\n";
const std::string least = node_text + database_text + user_text;

std::optional<std::string> lookup(std::string_view name) {
  if (name == "NUMBER") return "7";
  if (name == "TRUE") return "true";
  if (name == "DURATION") return "9s";
  if (name == "SIZE") return "4KiB";
  if (name == "SECRET") return "from the environment";
  if (name == "WORD") return "word";
  if (name == "EMPTY") return "";
  return std::nullopt;
}

LoadResult load(const std::string& text) {
  return load_config_text(text, "a.toml", lookup);
}

// Requires: the text is a good configuration.
Config config_of(const std::string& text) {
  LoadResult result = load(text);
  CHECK(result.errors == std::vector<std::string>());
  REQUIRE(result.config.has_value());
  return *result.config;
}

// The errors, one a line; checks that there is no configuration then.
std::string errors_of(const std::string& text) {
  const LoadResult result = load(text);
  CHECK(result.config.has_value() == result.errors.empty());
  std::string all;
  for (const std::string& error : result.errors) all += (all.empty() ? "" : "\n") + error;
  return all;
}

std::string one_line(const std::string& section, const std::string& line) {
  return errors_of("[" + section + "]\n" + line + "\n" + least);
}

TEST_CASE("what is left out has its default") {
  const Config config = config_of(least);
  CHECK(config.proxy == ProxyConfig());
  CHECK(config.pool == PoolConfig());
  REQUIRE(config.nodes.size() == 1);
  NodeConfig node;
  node.name = "main";
  node.host = "127.0.0.1";
  CHECK(config.nodes[0] == node);
  REQUIRE(config.databases.size() == 1);
  DatabaseConfig database;
  database.name = "app";
  database.node = "main";
  CHECK(config.databases[0] == database);
  REQUIRE(config.users.size() == 1);
  UserConfig user;
  user.name = "app";
  user.password = "secret";
  CHECK(config.users[0] == user);
  CHECK(load(least).warnings.empty());
}

// Every key, in the same order in both: what holds (PoolConfig) and what is written
// (PoolOverrides).
template <typename Pool>
Pool pool_of_keys() {
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
          "select '$'",
          seconds(8),
          seconds(9),
          IdleTransactionWhen::waited_for,
          seconds(10),
          seconds(11),
          SessionStateMode::strict,
          std::vector<std::string>{"f", "app.*"},
          43,
          2048,
          4096,
          8192};
}

TEST_CASE("every key arrives at its place") {
  const std::string pool_keys =
      "mode = \"session\"\nmin_connections = 3\nmax_connections = 13\nidle_timeout = \"1s\"\n"
      "max_lifetime = \"2s\"\nacquire_timeout = \"3s\"\ntest_on_acquire = false\n"
      "test_after = \"4s\"\nconnect_timeout = \"5s\"\nweight = 6\nmax_waiters = 23\n"
      "reserve_connections = 33\nreserve_after = \"6s\"\nwait_notice = \"7s\"\n"
      "connect_query = \"select '$$'\"\nquery_timeout = \"8s\"\n"
      "idle_transaction_timeout = \"9s\"\nidle_transaction_timeout_when = \"waited_for\"\n"
      "transaction_timeout = \"10s\"\nclient_idle_timeout = \"11s\"\nsession_state = \"strict\"\n"
      "harmless_functions = [\"f\", \"app.*\"]\n"
      "max_prepared_statements = 43\n"
      "max_prepared_statement_size = \"2KiB\"\nmax_client_statements_size = 4096\n"
      "max_client_notifications_size = 8192\n";
  const auto pool = pool_of_keys<PoolConfig>();
  const auto overrides = pool_of_keys<PoolOverrides>();
  const Config config = config_of(
      "[proxy]\nlisten = [\"0.0.0.0:1\", \"unix:/run\"]\ncores = 3\nmax_clients = 4\n"
      "client_login_timeout = \"5s\"\nlog_level = \"debug\"\nclient_buffers = 8\n"
      "client_buffer_size = \"1KiB\"\nbackend_buffers = 16\nbackend_buffer_size = 2048\n"
      "drain_timeout = \"0s\"\ndns_refresh = \"7s\"\nmax_statements_size = \"2MiB\"\n[pool]\n" +
      pool_keys +
      "[[node]]\nname = \"n\"\nhost = \"/run\"\nport = 5433\nmax_connections = 6\n"
      "connecting_max = 3\nscram_rounds_max = 4096\nfail_fast = false\nretry_max = \"6s\"\n"
      "[[database]]\nname = \"d\"\nnode = \"n\"\ndbname = \"e\"\nnode_user = \"f\"\n"
      "node_password = \"g\"\nmax_connections_total = 7\nmax_clients = 71\n" +
      pool_keys +
      "[[user]]\nname = \"u\"\npassword = \"p\"\nauth = \"md5\"\nnode_user = \"v\"\n"
      "node_password = \"w\"\nmax_connections_total = 8\nmax_clients = 81\n" +
      pool_keys);
  Config expected;
  expected.proxy.listen = {"0.0.0.0:1", "unix:/run"};
  expected.proxy.cores = 3;
  expected.proxy.max_clients = 4;
  expected.proxy.client_login_timeout = seconds(5);
  expected.proxy.log_level = LogLevel::debug;
  expected.proxy.client_buffers = 8;
  expected.proxy.client_buffer_size = 1024;
  expected.proxy.backend_buffers = 16;
  expected.proxy.backend_buffer_size = 2048;
  expected.proxy.drain_timeout = 0;
  expected.proxy.dns_refresh = seconds(7);
  expected.proxy.max_statements_size = 2 * 1024 * 1024;
  expected.pool = pool;
  expected.nodes = {{"n", "/run", 5433, 6, 3, 4096, false, seconds(6)}};
  expected.databases = {{"d", "n", "e", "f", "g", 7, 71, overrides}};
  expected.users = {{"u", "p", ClientAuth::md5, "v", "w", 8, 81, overrides}};
  CHECK(config == expected);
}

TEST_CASE("text that is not TOML is an error with line and column") {
  const std::string errors = errors_of("[proxy]\ncores = 1\nlisten = [\n\"a\"\n[pool]\n");
  CHECK(errors.starts_with("a.toml:5:1: not valid TOML: "));
  CHECK(errors_of("[proxy]\ncores = = 1\n").starts_with("a.toml:2:9: not valid TOML: "));
  CHECK(errors_of("[pool]\nmode = \"transaction\n").starts_with("a.toml:2:"));
  CHECK(errors_of("[pool]\n[pool]\n").starts_with("a.toml:2:"));
  CHECK(errors_of("[pool]\nmode = \"session\"\nmode = \"session\"\n").starts_with("a.toml:3:"));
  CHECK(errors_of("[pool]\nmode = \"\xff\"\n").starts_with("a.toml:2:"));
}

TEST_CASE("a letter that is for strings and comments only is an error with its place") {
  CHECK(errors_of("# \xc3\xa9\n[pool]\nmode =\xc3\xa9 \"session\"\n" + least) ==
        "a.toml:3:7: not valid TOML: this letter can stand in a string or comment only");
  CHECK(config_of(least + "node_user = \"\xc3\xa9\"  # \xc3\xa9\n").users[0].node_user ==
        "\xc3\xa9");
}

TEST_CASE("a header on which the TOML parser gives up is an error with its line") {
  for (const std::string header : {"[$pool]", "[=]", "[[.]]", "[", "[\n", "[\x01pool]", "[ (a]"}) {
    CAPTURE(header);
    CHECK(errors_of(least + header).starts_with("a.toml:10:"));
    CHECK(errors_of(header + "\n" + least).starts_with("a.toml:1:"));
    CHECK(errors_of("[pool]\n" + header + "\nmode = 1\n" + least).starts_with("a.toml:2:"));
  }
  CHECK(errors_of("[pool]\n[$pool]\n" + least) ==
        "a.toml:2:1: not valid TOML: this line cannot be understood");
}

TEST_CASE("all errors are told, in the order of the file") {
  CHECK(errors_of("[[node]]\nname = \"main\"\nhost = \"127.0.0.1\"\nport = 0\n"
                  "[pool]\nmdoe = \"session\"\nmax_connections = 0\n"
                  "[proxy]\ncores = \"two\"\nidle = 1\n" +
                  database_text + user_text) ==
        "a.toml:4:8: node.port: 0 is out of range: 1 to 65535\n"
        "a.toml:6:1: pool.mdoe: unknown key; did you mean \"mode\"?\n"
        "a.toml:7:19: pool.max_connections: 0 is out of range: 1 to 100000\n"
        "a.toml:9:9: proxy.cores: must be a whole number without quotes, not a string (only one "
        "whole \"${NAME}\" may stand for it)\n"
        "a.toml:10:1: proxy.idle: unknown key; known: listen, cores, max_clients, "
        "client_login_timeout, log_level, client_buffers, client_buffer_size, backend_buffers, "
        "backend_buffer_size, drain_timeout, dns_refresh, max_statements_size");
}

TEST_CASE("an unknown key is an error in every section") {
  CHECK(one_line("proxy", "max_client = 1") ==
        "a.toml:2:1: proxy.max_client: unknown key; did you mean \"max_clients\"?");
  CHECK(errors_of(least + "max_connection = 1\n") ==
        "a.toml:10:1: user.max_connection: unknown key; did you mean \"max_connections\"?");
  CHECK(errors_of(node_text + database_text + "db_name = \"x\"\n" + user_text) ==
        "a.toml:7:1: database.db_name: unknown key; did you mean \"dbname\"?");
  CHECK(errors_of(node_text + "hots = \"x\"\n" + database_text + user_text) ==
        "a.toml:4:1: node.hots: unknown key; did you mean \"host\"?");
  CHECK(errors_of(node_text + "mode = \"session\"\n" + database_text + user_text)
            .starts_with("a.toml:4:1: node.mode: unknown key"));
}

TEST_CASE("an unknown section, and a key outside of any, is an error") {
  CHECK(errors_of("[poll]\n" + least) ==
        "a.toml:1:2: poll: unknown section; did you mean \"pool\"?");
  CHECK(errors_of("[[databases]]\nname = \"x\"\n" + least) ==
        "a.toml:1:3: databases: unknown section; did you mean \"database\"?");
  CHECK(errors_of("listen = [\"127.0.0.1:1\"]\n" + least) ==
        "a.toml:1:1: listen: unknown key outside of any section; known: proxy, pool, node, "
        "database, user");
}

TEST_CASE("one bracket for two, or two for one, is an error that shows the right form") {
  CHECK(errors_of("[node]\nname = \"main\"\nhost = \"a\"\n" + database_text + user_text)
            .starts_with("a.toml:1:2: node: must be a section, written [[node]], once for each"));
  CHECK(errors_of("[[pool]]\nmode = \"session\"\n" + least) ==
        "a.toml:1:3: pool: must be a section, written [pool], once");
  CHECK(errors_of("proxy = 1\n" + least) ==
        "a.toml:1:1: proxy: must be a section, written [proxy], once");
  CHECK(errors_of("user = []\n" + node_text + database_text) ==
        "a.toml:1:1: user: must be a section, written [[user]], once for each");
}

TEST_CASE("a value of the wrong type is an error that names both types") {
  CHECK(one_line("proxy", "cores = 1.5") ==
        "a.toml:2:9: proxy.cores: must be a whole number, not a number with a fraction");
  CHECK(one_line("proxy", "cores = true") ==
        "a.toml:2:9: proxy.cores: must be a whole number, not true or false");
  CHECK(one_line("proxy", "cores = [1]") ==
        "a.toml:2:9: proxy.cores: must be a whole number, not a list");
  CHECK(one_line("proxy", "cores = {a = 1}") ==
        "a.toml:2:9: proxy.cores: must be a whole number, not a table");
  CHECK(one_line("proxy", "cores = 2020-01-01") ==
        "a.toml:2:9: proxy.cores: must be a whole number, not a date or time");
  CHECK(one_line("proxy", "log_level = 1") ==
        "a.toml:2:13: proxy.log_level: must be a string, not a whole number");
  CHECK(one_line("proxy", "drain_timeout = 60") ==
        "a.toml:2:17: proxy.drain_timeout: must be a duration with its unit in quotes, such as "
        "\"30s\", not a whole number");
  CHECK(one_line("proxy", "client_buffer_size = false") ==
        "a.toml:2:22: proxy.client_buffer_size: must be a size such as \"64KiB\", not true or "
        "false");
  CHECK(one_line("proxy", "listen = \"127.0.0.1:6432\"") ==
        "a.toml:2:10: proxy.listen: must be a list of strings, not a string");
  CHECK(one_line("proxy", "listen = [\"127.0.0.1:6432\", 6432]") ==
        "a.toml:2:29: proxy.listen: must be a string, not a whole number");
  CHECK(one_line("pool", "test_on_acquire = 1") ==
        "a.toml:2:19: pool.test_on_acquire: must be true or false, not a whole number");
  CHECK(one_line("pool", "test_on_acquire = \"true\"") ==
        "a.toml:2:19: pool.test_on_acquire: must be true or false without quotes, not a string "
        "(only one whole \"${NAME}\" may stand for it)");
}

TEST_CASE("a number outside of its range is an error with the range, and both ends are inside") {
  struct Case {
    const char* section;
    const char* key;
    long min;
    long max;
  };
  const Case cases[] = {{"proxy", "cores", 0, 1024},
                        {"proxy", "max_clients", 1, 1'000'000},
                        {"pool", "min_connections", 0, 100'000},
                        {"pool", "max_connections", 1, 100'000},
                        {"pool", "max_waiters", 0, 1'000'000},
                        {"pool", "reserve_connections", 0, 100'000}};
  for (const Case& one : cases) {
    const std::string key = one.key;
    CAPTURE(key);
    const std::string range =
        " is out of range: " + std::to_string(one.min) + " to " + std::to_string(one.max);
    for (const long wrong : {one.min - 1, one.max + 1, 5'000'000'000L}) {
      CHECK(one_line(one.section, key + " = " + std::to_string(wrong)) ==
            "a.toml:2:" + std::to_string(key.size() + 4) + ": " + one.section + "." + key + ": " +
                std::to_string(wrong) + range);
    }
    for (const long right : {one.min, one.max})
      CHECK(one_line(one.section, key + " = " + std::to_string(right)).find("range") ==
            std::string::npos);
  }
}

TEST_CASE("the numbers of nodes, databases and users have ranges too") {
  const auto with_node = [](const std::string& line) {
    return errors_of(node_text + line + "\n" + database_text + user_text);
  };
  CHECK(with_node("port = 65536") == "a.toml:4:8: node.port: 65536 is out of range: 1 to 65535");
  CHECK(with_node("port = 65535") == "");
  CHECK(with_node("max_connections = -1") ==
        "a.toml:4:19: node.max_connections: -1 is out of range: 0 to 1000000");
  CHECK(with_node("scram_rounds_max = 0") ==
        "a.toml:4:20: node.scram_rounds_max: 0 is out of range: 1 to 10000000");
  CHECK(with_node("retry_max = \"0s\"") ==
        "a.toml:4:13: node.retry_max: \"0s\" is out of range: 10ms to 1h");
  CHECK(with_node("connecting_max = 0") == "");
  CHECK(with_node("connecting_max = 100001") ==
        "a.toml:4:18: node.connecting_max: 100001 is out of range: 0 to 100000");
  CHECK(errors_of(least + "max_connections_total = 1000001\n") ==
        "a.toml:10:25: user.max_connections_total: 1000001 is out of range: 0 to 1000000");
  CHECK(errors_of(node_text + database_text + "max_connections_total = -1\n" + user_text) ==
        "a.toml:7:25: database.max_connections_total: -1 is out of range: 0 to 1000000");
  CHECK(errors_of(least + "max_clients = 1000001\n") ==
        "a.toml:10:15: user.max_clients: 1000001 is out of range: 0 to 1000000");
  CHECK(errors_of(node_text + database_text + "max_clients = -1\n" + user_text) ==
        "a.toml:7:15: database.max_clients: -1 is out of range: 0 to 1000000");
}

TEST_CASE("a buffer count or size is a power of two within its range") {
  CHECK(one_line("proxy", "client_buffers = 2") == "");
  CHECK(one_line("proxy", "backend_buffers = 32768") == "");
  CHECK(one_line("proxy", "client_buffers = 1") ==
        "a.toml:2:18: proxy.client_buffers: 1 is out of range: 2 to 32768");
  CHECK(one_line("proxy", "backend_buffers = 100") ==
        "a.toml:2:19: proxy.backend_buffers: 100 is not a power of two (2 to 32768)");
  CHECK(one_line("proxy", "client_buffer_size = 1024") == "");
  CHECK(one_line("proxy", "client_buffer_size = \"1024\"") == "");
  CHECK(one_line("proxy", "backend_buffer_size = \"1MiB\"") == "");
  CHECK(one_line("proxy", "client_buffer_size = \"2MiB\"") ==
        "a.toml:2:22: proxy.client_buffer_size: 2097152 bytes are out of range: a power of two, "
        "1KiB to 1MiB");
  CHECK(one_line("proxy", "client_buffer_size = -1024") ==
        "a.toml:2:22: proxy.client_buffer_size: -1024 bytes are out of range: a power of two, "
        "1KiB to 1MiB");
  CHECK(one_line("proxy", "client_buffer_size = \"3KiB\"") ==
        "a.toml:2:22: proxy.client_buffer_size: 3072 bytes are not a power of two (1KiB to 1MiB)");
  CHECK(one_line("proxy", "client_buffer_size = \"8KB\"") ==
        "a.toml:2:22: proxy.client_buffer_size: \"8KB\" is not a size: write a whole number of "
        "bytes, or one with KiB, MiB or GiB, such as \"64KiB\"");
}

TEST_CASE("a duration outside of its range is an error with the range") {
  CHECK(one_line("proxy", "client_login_timeout = \"99ms\"") ==
        "a.toml:2:24: proxy.client_login_timeout: \"99ms\" is out of range: 100ms to 1h");
  CHECK(one_line("proxy", "client_login_timeout = \"0s\"") ==
        "a.toml:2:24: proxy.client_login_timeout: \"0s\" is out of range: 100ms to 1h");
  CHECK(one_line("proxy", "client_login_timeout = \"1h\"") == "");
  CHECK(one_line("pool", "connect_timeout = \"0s\"") ==
        "a.toml:2:19: pool.connect_timeout: \"0s\" is out of range: 1ms to 1h");
  CHECK(one_line("pool", "test_after = \"0s\"") == "");
  CHECK(one_line("pool", "reserve_after = \"0s\"") == "");
  CHECK(one_line("pool", "test_after = \"8761h\"") ==
        "a.toml:2:14: pool.test_after: \"8761h\" is out of range: 0s to 8760h");
  CHECK(one_line("pool", "idle_timeout = \"99999999999999999999h\"") ==
        "a.toml:2:16: pool.idle_timeout: \"99999999999999999999h\" is out of range: 0s (off), or "
        "1ms to 8760h");
  CHECK(one_line("pool", "idle_timeout = \"30\"") ==
        "a.toml:2:16: pool.idle_timeout: \"30\" is not a duration: write a whole number and ms, "
        "s, m or h, such as \"30s\"");
}

TEST_CASE("zero turns the timeouts off that can be off") {
  const Config config = config_of(
      "[proxy]\ndrain_timeout = \"0s\"\n[pool]\nidle_timeout = \"0s\"\nmax_lifetime = \"0ms\"\n"
      "acquire_timeout = \"0h\"\nwait_notice = \"0s\"\n" +
      least);
  CHECK(config.proxy.drain_timeout == 0);
  CHECK(config.pool.idle_timeout == 0);
  CHECK(config.pool.max_lifetime == 0);
  CHECK(config.pool.acquire_timeout == 0);
  CHECK(config.pool.wait_notice == 0);
}

TEST_CASE("a word that is none of the known ones is an error with the nearest") {
  CHECK(one_line("pool", "mode = \"transactions\"") ==
        "a.toml:2:8: pool.mode: \"transactions\" is not \"session\", \"transaction\" or "
        "\"statement\"; did you mean \"transaction\"?");
  CHECK(one_line("pool", "idle_transaction_timeout_when = \"wanted\"") ==
        "a.toml:2:33: pool.idle_transaction_timeout_when: \"wanted\" is not \"always\" or "
        "\"waited_for\"");
  CHECK(one_line("pool", "mode = \"\"") ==
        "a.toml:2:8: pool.mode: \"\" is not \"session\", \"transaction\" or \"statement\"");
  for (const std::string name :
       {"f()", "a.b.c", ".f", "a.", "a b", "'f'", "f;", "*f", "a*.f", "f**"}) {
    CHECK(one_line("pool", "harmless_functions = [\"f\", \"" + name + "\"]") ==
          "a.toml:2:28: pool.harmless_functions: \"" + name +
              "\" is no name of a function: \"name\" or \"schema.name\", without quotes or "
              "parentheses; \"*\" may stand at the end");
  }
  CHECK(one_line("pool", "harmless_functions = \"f\"") ==
        "a.toml:2:22: pool.harmless_functions: must be a list of strings, not a string");
  CHECK(one_line("pool", "session_state = \"followed\"") ==
        "a.toml:2:17: pool.session_state: \"followed\" is not \"follow\", \"strict\", \"pin\", "
        "\"warn\" or \"refuse\"; did you mean \"follow\"?");
  CHECK(one_line("proxy", "log_level = \"loud\"") ==
        "a.toml:2:13: proxy.log_level: \"loud\" is not \"error\", \"warning\", \"info\" or "
        "\"debug\"");
  CHECK(errors_of(least + "auth = \"scram\"\n") ==
        "a.toml:10:8: user.auth: \"scram\" is not \"scram-sha-256\", \"md5\" or \"trust\"");
}

TEST_CASE("a wrong auth is one error, not two") {
  CHECK(errors_of(node_text + database_text + "[[user]]\nname = \"*\"\nauth = \"tust\"\n") ==
        "a.toml:9:8: user.auth: \"tust\" is not \"scram-sha-256\", \"md5\" or \"trust\"; did you "
        "mean \"trust\"?");
}

TEST_CASE("listen addresses are checked one by one") {
  CHECK(one_line("proxy", "listen = []") ==
        "a.toml:2:10: proxy.listen: 0 entries are out of range: 1 to 64");
  CHECK(one_line("proxy", "listen = [\"127.0.0.1:1\", \"127.0.0.1\",\n  \"*:1\"]") ==
        "a.toml:2:26: proxy.listen: \"127.0.0.1\" has no port: write 127.0.0.1:6432, "
        "[::1]:6432, localhost:6432 or unix:/path/to/dir\n"
        "a.toml:3:3: proxy.listen: \"*:1\": write 0.0.0.0 for every IPv4 address, [::] for "
        "every IPv6 address (list both for all)");
  CHECK(one_line("proxy", "listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]") ==
        "a.toml:2:26: proxy.listen: \"127.0.0.1:1\" is given twice");
  CHECK(one_line("proxy", "listen = [\"127.0.0.1:1\", \"localhost:1\"]") ==
        "a.toml:2:26: proxy.listen: \"localhost:1\" is given twice, first as \"127.0.0.1:1\"");
}

TEST_CASE("a host is checked for its form") {
  CHECK(errors_of("[[node]]\nname = \"main\"\nhost = \"db:5432\"\n" + database_text + user_text) ==
        "a.toml:3:8: node.host: \"db:5432\": the port has a key of its own, port");
  CHECK(errors_of("[[node]]\nname = \"main\"\nhost = \"\"\n" + database_text + user_text) ==
        "a.toml:3:8: node.host: 0 bytes are out of range: 1 to 255");
}

TEST_CASE("what a section must have is missed with its line") {
  CHECK(errors_of("[[node]]\n[[database]]\n[[user]]\n") ==
        "a.toml:1:1: node.name: is missing\n"
        "a.toml:1:1: node.host: is missing: a host name, an address, or the directory of a unix "
        "socket\n"
        "a.toml:2:1: database.name: is missing\n"
        "a.toml:2:1: database.node: is missing: the name of a [[node]]\n"
        "a.toml:3:1: user.name: is missing\n"
        "a.toml:3:1: user.password: is missing: give one, or auth = \"trust\" for a test");
}

TEST_CASE("an empty file misses a node, a database and a user") {
  CHECK(errors_of("") ==
        "a.toml:1:1: node: there is no [[node]]: at least one is needed\n"
        "a.toml:1:1: database: there is no [[database]]: at least one is needed\n"
        "a.toml:1:1: user: there is no [[user]]: at least one is needed");
}

TEST_CASE("the keys of prepared statements have their ranges") {
  CHECK(one_line("pool", "max_prepared_statements = 0") == "");
  CHECK(one_line("pool", "max_prepared_statements = 100001") ==
        "a.toml:2:27: pool.max_prepared_statements: 100001 is out of range: 0 to 100000");
  CHECK(one_line("pool", "max_prepared_statement_size = \"1KiB\"") == "");
  CHECK(one_line("pool", "max_prepared_statement_size = 1023") ==
        "a.toml:2:31: pool.max_prepared_statement_size: 1023 bytes are out of range: 1KiB to 1GiB");
  CHECK(one_line("pool", "max_client_statements_size = \"2GiB\"") ==
        "a.toml:2:30: pool.max_client_statements_size: 2147483648 bytes are out of range: 1KiB to "
        "1GiB");
  CHECK(one_line("pool", "max_client_statements_size = \"16 MiB\"") ==
        "a.toml:2:30: pool.max_client_statements_size: \"16 MiB\" is not a size: write a whole "
        "number of bytes, "
        "or "
        "one with KiB, MiB or GiB, such as \"64KiB\"");
  CHECK(one_line("proxy", "max_statements_size = \"1024GiB\"") == "");
  CHECK(one_line("proxy", "max_statements_size = 0") ==
        "a.toml:2:23: proxy.max_statements_size: 0 bytes are out of range: 1MiB to 1024GiB");
}

TEST_CASE("connect_query may be empty, long or of several lines, within 16 KiB") {
  CHECK(one_line("pool", "connect_query = \"\"") == "");
  CHECK(one_line("pool", "connect_query = \"\"\"select 1;\nselect 2\"\"\"") == "");
  CHECK(one_line("pool", "connect_query = \"" + std::string(16384, 'x') + "\"") == "");
  CHECK(one_line("pool", "connect_query = \"" + std::string(16385, 'x') + "\"") ==
        "a.toml:2:17: pool.connect_query: 16385 bytes are out of range: 0 to 16384");
  CHECK(one_line("pool", "connect_query = \"a\\u0000b\"") ==
        "a.toml:2:17: pool.connect_query: a zero byte cannot be sent to PostgreSQL");
  CHECK(one_line("pool", "connect_query = 1") ==
        "a.toml:2:17: pool.connect_query: must be a string, not a whole number");
}

TEST_CASE("a name may have 1 to 255 bytes and no zero byte") {
  const auto with_name = [](const std::string& name) {
    return errors_of(node_text + "[[database]]\nname = \"" + name + "\"\nnode = \"main\"\n" +
                     user_text);
  };
  CHECK(with_name(std::string(255, 'a')) == "");
  CHECK(with_name(std::string(256, 'a')) ==
        "a.toml:5:8: database.name: 256 bytes are out of range: 1 to 255");
  CHECK(with_name("") == "a.toml:5:8: database.name: 0 bytes are out of range: 1 to 255");
  CHECK(with_name("a\\u0000b") ==
        "a.toml:5:8: database.name: a zero byte cannot be sent to PostgreSQL");
}

TEST_CASE("a name that is given twice is an error with the line of the first") {
  CHECK(errors_of(least + node_text) ==
        "a.toml:11:8: node.name: \"main\" is given twice, first in line 2");
  CHECK(errors_of(least + database_text) ==
        "a.toml:11:8: database.name: \"app\" is given twice, first in line 5");
  CHECK(errors_of(least + user_text) ==
        "a.toml:11:8: user.name: \"app\" is given twice, first in line 8");
  const std::string any = "[[database]]\nname = \"*\"\nnode = \"main\"\n";
  CHECK(errors_of(least + any) == "");
  CHECK(errors_of(least + any + any) ==
        "a.toml:14:8: database.name: \"*\" is given twice, first in line 11");
}

TEST_CASE("a database on an unknown node is an error with the nearest node") {
  CHECK(errors_of(node_text + "[[database]]\nname = \"app\"\nnode = \"mian\"\n" + user_text) ==
        "a.toml:6:8: database.node: there is no [[node]] with the name \"mian\"; did you mean "
        "\"main\"?");
  CHECK(errors_of(node_text + "[[database]]\nname = \"app\"\nnode = \"replica\"\n" + user_text) ==
        "a.toml:6:8: database.node: there is no [[node]] with the name \"replica\"; known: main");
}

TEST_CASE("nodes, databases and users may stand in any order") {
  const Config config = config_of(user_text + database_text + node_text);
  CHECK(config.databases[0].node == config.nodes[0].name);
}

TEST_CASE("a node cannot have the name *") {
  CHECK(errors_of("[[node]]\nname = \"*\"\nhost = \"a\"\n" + least) ==
        "a.toml:2:8: node.name: \"*\" is for databases and users, not for nodes");
}

TEST_CASE("a minimum above the maximum is an error where it was written") {
  CHECK(one_line("pool", "min_connections = 6\nmax_connections = 5") ==
        "a.toml:2:19: pool.min_connections: 6 is more than the max_connections of 5");
  CHECK(one_line("pool", "min_connections = 11") ==
        "a.toml:2:19: pool.min_connections: 11 is more than the max_connections of 10 that holds "
        "here without one of its own");
  CHECK(one_line("pool", "min_connections = 5\nmax_connections = 5") == "");
  CHECK(errors_of(node_text + database_text + "min_connections = 11\n" + user_text) ==
        "a.toml:7:19: database.min_connections: 11 is more than the max_connections of 10 that "
        "holds here without one of its own");
  CHECK(errors_of(least + "min_connections = 3\nmax_connections = 2\n") ==
        "a.toml:10:19: user.min_connections: 3 is more than the max_connections of 2");
}

TEST_CASE("a user's minimum may need the maximum that only a database has") {
  const std::string wide_database = database_text + "max_connections = 50\n";
  CHECK(errors_of(node_text + wide_database + user_text + "min_connections = 50\n") == "");
  CHECK(errors_of(node_text + wide_database + user_text + "min_connections = 51\n") ==
        "a.toml:11:19: user.min_connections: 51 is more than the max_connections of 50 that holds "
        "here without one of its own");
}

TEST_CASE("a maximum below the default minimum lowers the minimum") {
  const Config config = config_of("[pool]\nmax_connections = 1\n" + least);
  CHECK(config.pool.min_connections == 1);
  CHECK(config.pool.max_connections == 1);
}

TEST_CASE("a password decides how a user is asked") {
  const auto auth_of = [](const std::string& password, const std::string& auth) {
    return config_of(node_text + database_text + "[[user]]\nname = \"app\"\npassword = \"" +
                     password + "\"\n" + auth)
        .users[0]
        .auth;
  };
  CHECK(auth_of("secret", "") == ClientAuth::scram_sha_256);
  CHECK(auth_of(verifier, "") == ClientAuth::scram_sha_256);
  CHECK(auth_of(md5_hash, "") == ClientAuth::md5);
  CHECK(auth_of("secret", "auth = \"md5\"\n") == ClientAuth::md5);
  CHECK(auth_of("secret", "auth = \"trust\"\n") == ClientAuth::trust);
}

TEST_CASE("a way to log in that the password cannot serve is an error") {
  const auto errors_with = [](const std::string& password, const std::string& auth) {
    return errors_of(node_text + database_text + "[[user]]\nname = \"app\"\npassword = \"" +
                     password + "\"\nauth = \"" + auth + "\"\n");
  };
  CHECK(errors_with(md5_hash, "scram-sha-256") ==
        "a.toml:10:8: user.auth: \"scram-sha-256\" cannot be checked against an md5 hash: leave "
        "auth out, or give the password or a SCRAM verifier");
  CHECK(errors_with(verifier, "md5") ==
        "a.toml:10:8: user.auth: \"md5\" cannot be checked against a SCRAM verifier: leave auth "
        "out, or give the password or an md5 hash");
}

TEST_CASE("a password that only looks like a verifier is an error, not a password") {
  CHECK(errors_of(node_text + database_text +
                  "[[user]]\nname = \"app\"\npassword = \"SCRAM-SHA-256$4096:abc\"\n") ==
        "a.toml:9:12: user.password: begins like a verifier and is none: "
        "SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey, as PostgreSQL keeps it in pg_authid");
}

TEST_CASE("an empty password is an error, from the file or from the environment") {
  const std::string expected = "a.toml:9:12: user.password: 0 bytes are out of range: 1 to 1024";
  for (const char* password : {"", "${EMPTY}"}) {
    CHECK(errors_of(node_text + database_text + "[[user]]\nname = \"app\"\npassword = \"" +
                    password + "\"\n") == expected);
  }
}

TEST_CASE("a verifier cannot be the password for a node") {
  const std::string line = "node_password = \"" + verifier + "\"\n";
  CHECK(errors_of(least + line) ==
        "a.toml:10:17: user.node_password: a SCRAM verifier cannot log in anywhere: the plain "
        "password is needed");
  CHECK(errors_of(node_text + database_text + line + user_text)
            .starts_with("a.toml:7:17: database.node_password: a SCRAM verifier cannot"));
}

TEST_CASE("the user * must be let in by trust and can have no password") {
  const std::string rest = node_text + database_text + "[[user]]\nname = \"*\"\n";
  CHECK(errors_of(rest) ==
        "a.toml:8:8: user.name: the user \"*\" is everybody: it must have auth = \"trust\"");
  CHECK(errors_of(rest + "auth = \"scram-sha-256\"\n") ==
        "a.toml:9:8: user.auth: the user \"*\" is everybody: it must have auth = \"trust\"");
  CHECK(errors_of(rest + "auth = \"trust\"\npassword = \"x\"\n") ==
        "a.toml:10:12: user.password: the user \"*\" is everybody: it can have no password");
  CHECK(config_of(rest + "auth = \"trust\"\n").users[0].auth == ClientAuth::trust);
}

TEST_CASE("trust is a warning for each user who has it") {
  const LoadResult result = load(
      node_text + database_text +
      "[[user]]\nname = \"*\"\nauth = \"trust\"\n[[user]]\nname = \"app\"\nauth = \"trust\"\n");
  REQUIRE(result.config.has_value());
  CHECK(result.warnings ==
        std::vector<std::string>{
            "a.toml:9:8: user.auth: every user without an entry is let in without being asked for "
            "a password (trust): for tests and private machines only",
            "a.toml:12:8: user.auth: the user \"app\" is let in without being asked for a password "
            "(trust): for tests and private machines only"});
}

TEST_CASE("the environment serves every kind of value") {
  const Config config = config_of(
      "[proxy]\ncores = \"${NUMBER}\"\nlisten = [\"localhost:1${NUMBER}\"]\n"
      "client_buffer_size = \"${SIZE}\"\nlog_level = \"${NONE:-debug}\"\n"
      "[pool]\ntest_on_acquire = \"${NONE:-false}\"\nidle_timeout = \"${DURATION}\"\n"
      "max_connections = \"${NONE:-3}\"\n" +
      node_text + database_text +
      "test_on_acquire = \"${TRUE}\"\n[[user]]\nname = \"a $${WORD}\"\npassword = \"${SECRET}\"\n");
  CHECK(config.proxy.cores == 7);
  CHECK(config.proxy.listen == std::vector<std::string>{"localhost:17"});
  CHECK(config.proxy.client_buffer_size == 4096);
  CHECK(config.proxy.log_level == LogLevel::debug);
  CHECK_FALSE(config.pool.test_on_acquire);
  CHECK(config.pool.idle_timeout == seconds(9));
  CHECK(config.pool.max_connections == 3);
  CHECK(config.databases[0].pool.test_on_acquire == true);
  CHECK(config.users[0].name == "a ${WORD}");
  CHECK(config.users[0].password == "from the environment");
}

TEST_CASE("what the environment gives is checked like what the file gives") {
  CHECK(one_line("proxy", "cores = \"${WORD}\"") ==
        "a.toml:2:9: proxy.cores: \"word\" (from the environment) is not a whole number");
  CHECK(one_line("proxy", "cores = \"${NONE:-9999}\"") ==
        "a.toml:2:9: proxy.cores: 9999 is out of range: 0 to 1024");
  CHECK(one_line("pool", "test_on_acquire = \"${NUMBER}\"") ==
        "a.toml:2:19: pool.test_on_acquire: \"7\" (from the environment) is not true or false");
  CHECK(one_line("pool", "idle_timeout = \"${NUMBER}\"") ==
        "a.toml:2:16: pool.idle_timeout: \"7\" is not a duration: write a whole number and ms, s, "
        "m or h, such as \"30s\"");
  CHECK(one_line("proxy", "cores = \"1${NUMBER}\"")
            .starts_with("a.toml:2:9: proxy.cores: must be a whole number without quotes"));
}

TEST_CASE("a variable that is not set is an error that names it, in every kind of value") {
  const std::string reason =
      "the environment variable NONE is not set, and there is no default (${NONE:-default})";
  CHECK(one_line("proxy", "cores = \"${NONE}\"") == "a.toml:2:9: proxy.cores: " + reason);
  CHECK(one_line("proxy", "listen = [\"[::]:1\", \"${NONE}\"]") ==
        "a.toml:2:21: proxy.listen: " + reason);
  CHECK(one_line("pool", "mode = \"${NONE}\"") == "a.toml:2:8: pool.mode: " + reason);
  CHECK(one_line("pool", "idle_timeout = \"${NONE}\"") ==
        "a.toml:2:16: pool.idle_timeout: " + reason);
  CHECK(one_line("pool", "test_on_acquire = \"${NONE}\"") ==
        "a.toml:2:19: pool.test_on_acquire: " + reason);
  CHECK(one_line("proxy", "client_buffer_size = \"${NONE}\"") ==
        "a.toml:2:22: proxy.client_buffer_size: " + reason);
  CHECK(
      errors_of(node_text + database_text + "[[user]]\nname = \"app\"\npassword = \"${NONE}\"\n") ==
      "a.toml:9:12: user.password: " + reason);
}

TEST_CASE("no error shows a password") {
  const std::string text = errors_of(
      node_text + database_text + "node_password = \"SCRAM-SHA-256$hunter2\"\n" +
      "[[user]]\nname = \"app\"\npassword = \"SCRAM-SHA-256$hunter2\"\nnode_password = \"" +
      std::string(1020, 'x') + "hunter2\"\n");
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  CHECK(text.find("hunter2") == std::string::npos);
}

TEST_CASE("a file cut at any byte gives a configuration or errors, never both or neither") {
  const std::string text =
      "[proxy]\ncores = \"${NUMBER}\"\nlisten = [\"[::]:1\"]\n[pool]\nmode = "
      "\"session\"\nidle_timeout = \"1s\"\n" +
      least;
  for (size_t size = 0; size <= text.size(); ++size) {
    const LoadResult result = load(text.substr(0, size));
    CAPTURE(size);
    CHECK(result.config.has_value() == result.errors.empty());
    for (const std::string& error : result.errors) CHECK(error.starts_with("a.toml:"));
  }
}

TEST_CASE("a file with any byte changed gives a configuration or errors, never both or neither") {
  const std::string text = "[pool]\nmode = \"session\"\nmax_connections = 3\n" + least;
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char letter : {'\0', '"', '[', ']', '=', '$', '{', '9', '\n', '\xff', '#', '.'}) {
      std::string changed = text;
      changed[at] = letter;
      const LoadResult result = load(changed);
      CAPTURE(changed);
      CHECK(result.config.has_value() == result.errors.empty());
    }
  }
}

// A file that is gone at the end.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& text, mode_t mode) {
    char name[] = "/tmp/helios_config_test_XXXXXX";
    const int fd = mkstemp(name);
    REQUIRE(fd >= 0);
    close(fd);
    path_ = name;
    std::ofstream(path_) << text;
    REQUIRE(chmod(path_.c_str(), mode) == 0);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

TEST_CASE("a file is loaded, and its name stands before each error") {
  const TemporaryFile good(least, 0600);
  const LoadResult result = load_config_file(good.path());
  CHECK(result.errors.empty());
  CHECK(result.warnings.empty());
  REQUIRE(result.config.has_value());
  CHECK(*result.config == config_of(least));
  const TemporaryFile bad("[pool]\nmode = 1\n" + least, 0600);
  CHECK(load_config_file(bad.path()).errors ==
        std::vector<std::string>{bad.path() +
                                 ":2:8: pool.mode: must be a string, not a whole number"});
}

TEST_CASE("a file with passwords that everybody may read is a warning") {
  const TemporaryFile open_file(least, 0644);
  CHECK(load_config_file(open_file.path()).warnings ==
        std::vector<std::string>{open_file.path() +
                                 ": every user of this machine can read the passwords in it: chmod "
                                 "640 it, or take them from the environment"});
  const TemporaryFile node_secret(node_text + database_text +
                                      "node_password = \"x\"\n[[user]]\nname = \"a\"\npassword = "
                                      "\"${HOME:-x}\"\n",
                                  0604);
  CHECK(load_config_file(node_secret.path()).warnings.size() == 1);
  const TemporaryFile group_file(least, 0640);
  CHECK(load_config_file(group_file.path()).warnings.empty());
  const TemporaryFile without(
      node_text + database_text + "[[user]]\nname = \"a\"\npassword = \"${HOME:-x}\"\n", 0644);
  CHECK(load_config_file(without.path()).warnings.empty());
}

TEST_CASE("a file that cannot be read is an error with the system's reason") {
  const LoadResult missing = load_config_file("/nowhere/a.toml");
  CHECK_FALSE(missing.config.has_value());
  CHECK(missing.errors ==
        std::vector<std::string>{"/nowhere/a.toml: cannot be read: No such file or directory"});
  CHECK(load_config_file("/").errors ==
        std::vector<std::string>{"/: cannot be read: Is a directory"});
  CHECK(load_config_file("/dev/zero").errors ==
        std::vector<std::string>{
            "/dev/zero: is larger than 4 MiB: this cannot be a configuration file"});
}

}  // namespace
}  // namespace helios
