// The configuration as plain structs: what heliosproxy.toml says, with its defaults.
//
// Made once by the loader (helios/config/loader.h), which checks every value; constant afterwards,
// so any thread may read it. Only `server` reads it and hands each layer an Options struct of its
// own. Durations are nanoseconds (base/clock.h) and 0 means "off" or "without limit" where the
// comment says so; sizes are bytes. conf/heliosproxy.toml explains every key; a test keeps it equal
// to the defaults here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/log.h"

namespace helios {

// When a backend goes back to its pool.
enum class PoolMode : uint8_t {
  session,      // When the client leaves.
  transaction,  // When the server reports "idle" after a transaction.
  statement,    // After each statement; transactions of several statements are refused.
};
// "session", "transaction" or "statement".
[[nodiscard]] std::string_view to_text(PoolMode mode) noexcept;

// When idle_transaction_timeout ends a transaction.
enum class IdleTransactionWhen : uint8_t {
  always,
  waited_for,  // Only while somebody waits for a backend of the pool.
};
// "always" or "waited_for".
[[nodiscard]] std::string_view to_text(IdleTransactionWhen when) noexcept;

// What becomes of what a client leaves in the session of a backend, in the modes transaction and
// statement.
enum class SessionStateMode : uint8_t {
  follow,  // Parameters follow it, the rest keeps the backend with it.
  strict,  // The same, and each backend is cleaned when it is given back.
  pin,     // Parameters keep the backend, too.
  warn,    // It stays behind; the log tells.
  refuse,  // As follow, but what would keep a backend is an error.
};
[[nodiscard]] std::string_view to_text(SessionStateMode mode) noexcept;

// How a client proves who it is.
enum class ClientAuth : uint8_t {
  scram_sha_256,  // SCRAM-SHA-256 (RFC 7677), against a plain password or a verifier.
  md5,    // The md5 dialogue: implied by an md5 hash, which nothing else can be checked against.
  trust,  // Nothing is asked.
};
// "scram-sha-256", "md5" or "trust".
[[nodiscard]] std::string_view to_text(ClientAuth auth) noexcept;

// What UserConfig::password holds.
enum class PasswordKind : uint8_t {
  none,            // No password given.
  plain,           // The password itself.
  scram_verifier,  // SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey, as in pg_authid.rolpassword.
  md5_hash,  // "md5" + 32 hex digits of md5(password + user name), as in pg_authid.rolpassword.
};

// [proxy]
struct ProxyConfig {
  // See base/listen_address.h, which checks and parses them.
  std::vector<std::string> listen = {"127.0.0.1:6432"};
  uint32_t cores = 0;  // 0: every CPU the process may use.
  uint32_t max_clients = 10'000;
  Nanoseconds client_login_timeout = seconds(60);
  LogLevel log_level = LogLevel::info;
  // Receive buffers of each core: one ring for clients, one for backends. Powers of two.
  uint32_t client_buffers = 256;
  uint32_t client_buffer_size = 64 * 1024;
  uint32_t backend_buffers = 256;
  uint32_t backend_buffer_size = 64 * 1024;
  Nanoseconds drain_timeout = seconds(60);  // 0: running transactions are never cut.
  // How often the names of nodes are looked up again; 0: only after failures.
  Nanoseconds dns_refresh = seconds(15);
  // Of the texts of prepared statements, on each core.
  uint64_t max_statements_size = 256 * 1024 * 1024;

  friend bool operator==(const ProxyConfig&, const ProxyConfig&) = default;
};

// What holds for one pool: [pool] with the overrides of its database and user laid over it.
// Invariant: 1 <= max_connections and min_connections <= max_connections.
struct PoolConfig {
  PoolMode mode = PoolMode::transaction;
  uint32_t min_connections = 2;  // Kept open from the pool's first client on.
  uint32_t max_connections = 10;
  Nanoseconds idle_timeout = seconds(300);    // 0: idle backends are never closed for idleness.
  Nanoseconds max_lifetime = seconds(1800);   // 0: backends are never closed for age.
  Nanoseconds acquire_timeout = seconds(30);  // 0: a client waits without limit.
  bool test_on_acquire = true;
  // With test_on_acquire: a backend idle for longer than this answers a ping before it is handed
  // out.
  Nanoseconds test_after = seconds(30);
  Nanoseconds connect_timeout = seconds(15);  // Connect, login and connect_query together.
  uint32_t weight = 1;       // Of the pool, where pools share a full node, database or user.
  uint32_t max_waiters = 0;  // Over all cores; 0: no limit.
  // Connections beyond max_connections while somebody has waited for longer than reserve_after.
  uint32_t reserve_connections = 0;
  Nanoseconds reserve_after = seconds(5);
  Nanoseconds wait_notice = 0;  // A client that waits for so long is told; 0: never.
  std::string connect_query;    // SQL that runs on each new backend. Empty: none.
  // How long clients may go on like this; 0: without limit.
  Nanoseconds query_timeout = 0;
  Nanoseconds idle_transaction_timeout = 0;
  IdleTransactionWhen idle_transaction_timeout_when = IdleTransactionWhen::always;
  Nanoseconds transaction_timeout = 0;
  Nanoseconds client_idle_timeout = 0;
  SessionStateMode session_state = SessionStateMode::follow;
  // Functions that are not PostgreSQL's own and change nothing in the session: as they are called,
  // "name" or "schema.name", with "*" at the end for any end.
  std::vector<std::string> harmless_functions;
  // Prepared statements that follow their clients: on each backend; 0: they pin instead.
  uint32_t max_prepared_statements = 200;
  uint64_t max_prepared_statement_size = 1024 * 1024;      // Larger ones pin.
  uint64_t max_client_statements_size = 16 * 1024 * 1024;  // Beyond it a client's pin.
  uint64_t max_client_notifications_size = 1024 * 1024;    // That a client has not read.

  friend bool operator==(const PoolConfig&, const PoolConfig&) = default;
};

// The keys of [pool] that a [[database]] or [[user]] sets for itself. Empty: not set there.
struct PoolOverrides {
  std::optional<PoolMode> mode;
  std::optional<uint32_t> min_connections;
  std::optional<uint32_t> max_connections;
  std::optional<Nanoseconds> idle_timeout;
  std::optional<Nanoseconds> max_lifetime;
  std::optional<Nanoseconds> acquire_timeout;
  std::optional<bool> test_on_acquire;
  std::optional<Nanoseconds> test_after;
  std::optional<Nanoseconds> connect_timeout;
  std::optional<uint32_t> weight;
  std::optional<uint32_t> max_waiters;
  std::optional<uint32_t> reserve_connections;
  std::optional<Nanoseconds> reserve_after;
  std::optional<Nanoseconds> wait_notice;
  std::optional<std::string> connect_query;
  std::optional<Nanoseconds> query_timeout;
  std::optional<Nanoseconds> idle_transaction_timeout;
  std::optional<IdleTransactionWhen> idle_transaction_timeout_when;
  std::optional<Nanoseconds> transaction_timeout;
  std::optional<Nanoseconds> client_idle_timeout;
  std::optional<SessionStateMode> session_state;
  std::optional<std::vector<std::string>> harmless_functions;
  std::optional<uint32_t> max_prepared_statements;
  std::optional<uint64_t> max_prepared_statement_size;
  std::optional<uint64_t> max_client_statements_size;
  std::optional<uint64_t> max_client_notifications_size;

  friend bool operator==(const PoolOverrides&, const PoolOverrides&) = default;
};

// [[node]]: a PostgreSQL server.
struct NodeConfig {
  std::string name;
  // IPv4 or IPv6 addresses, host names, or absolute paths of socket directories, separated by
  // commas: the first that answers is used.
  std::string host;
  uint16_t port = 5432;
  uint32_t max_connections = 0;  // Over all pools; 0: no limit besides the pools' own.
  uint32_t connecting_max = 16;  // Connects under way, over all pools; 0: no cap.
  // More PBKDF2 rounds than this in a server's SCRAM challenge end the login (they would cost us
  // the CPU).
  uint32_t scram_rounds_max = 100'000;
  // Clients that need a new connection get the node's error as soon as an attempt has failed;
  // otherwise at the end of their wait.
  bool fail_fast = true;
  Nanoseconds retry_max = seconds(1);  // The longest pause between attempts while it is down.

  // The parts of `host`, without blanks around them.
  [[nodiscard]] std::vector<std::string> hosts() const;

  friend bool operator==(const NodeConfig&, const NodeConfig&) = default;
};

// [[database]]: what clients ask for, and where it is.
struct DatabaseConfig {
  std::string name;           // "*": any name without an entry of its own.
  std::string node;           // Name of a NodeConfig.
  std::string dbname;         // Its name on the node; empty: the name the client asked for.
  std::string node_user;      // Login at the node; empty: see Config::node_login.
  std::string node_password;  // Empty: none, or the client's own (node_login).
  uint32_t max_connections_total = 0;  // Over all pools of this database; 0: no limit.
  uint32_t max_clients = 0;            // Logged in at the same time; 0: no limit.
  PoolOverrides pool;

  // Requires: `requested` is the name that found this entry. The database's name on the node.
  [[nodiscard]] std::string_view name_on_node(std::string_view requested) const noexcept {
    return dbname.empty() ? requested : std::string_view(dbname);
  }
  friend bool operator==(const DatabaseConfig&, const DatabaseConfig&) = default;
};

// [[user]]: who may come in, and how.
struct UserConfig {
  std::string name;      // "*": any name without an entry of its own; always `trust`.
  std::string password;  // See password_kind().
  ClientAuth auth = ClientAuth::scram_sha_256;
  std::string node_user;
  std::string node_password;
  uint32_t max_connections_total = 0;  // Over all pools of this user; 0: no limit.
  uint32_t max_clients = 0;            // Logged in at the same time; 0: no limit.
  PoolOverrides pool;

  [[nodiscard]] PasswordKind password_kind() const noexcept;
  friend bool operator==(const UserConfig&, const UserConfig&) = default;
};

// How a pool logs in at its node.
struct NodeLogin {
  std::string user;
  std::string password;  // Plain, or an md5 hash (which serves nodes that ask for md5), or empty.
  PasswordKind kind =
      PasswordKind::none;  // scram_verifier: `password` is empty, a node that asks refuses us.

  friend bool operator==(const NodeLogin&, const NodeLogin&) = default;
};

// The whole file. Names of nodes, databases and users are unique; every DatabaseConfig::node
// exists.
struct Config {
  ProxyConfig proxy;
  PoolConfig pool;
  std::vector<NodeConfig> nodes;
  std::vector<DatabaseConfig> databases;
  std::vector<UserConfig> users;

  // The entry of this name, else the entry "*", else nullptr. Valid as long as the Config is.
  [[nodiscard]] const DatabaseConfig* find_database(std::string_view name) const noexcept;
  [[nodiscard]] const UserConfig* find_user(std::string_view name) const noexcept;
  // The node of this name, or nullptr.
  [[nodiscard]] const NodeConfig* find_node(std::string_view name) const noexcept;

  // [pool], the database over it, the user over both. A pool made through "*" (either of the two)
  // has min_connections 0 unless its database or user sets it. A min_connections that only [pool]
  // set gives way to a smaller max_connections of the database or user.
  [[nodiscard]] PoolConfig effective_pool(const DatabaseConfig& database,
                                          const UserConfig& user) const noexcept;

  // User and password towards the node: node_user / node_password of the user, else of the
  // database, else the client's name with the password of its entry. A node_password alone goes
  // with the client's name.
  [[nodiscard]] NodeLogin node_login(const DatabaseConfig& database, const UserConfig& user,
                                     std::string_view client_name) const;

  friend bool operator==(const Config&, const Config&) = default;
};

// Lays the keys that are set over `pool`. Pure.
void apply_overrides(PoolConfig& pool, const PoolOverrides& overrides) noexcept;

// A text that begins so and is no well-formed verifier is refused by the loader.
constexpr std::string_view scram_verifier_prefix = "SCRAM-SHA-256$";

// What a password of this text is. A hash or verifier is one only in exactly PostgreSQL's form.
// Pure.
[[nodiscard]] PasswordKind password_kind_of(std::string_view password) noexcept;

}  // namespace helios
