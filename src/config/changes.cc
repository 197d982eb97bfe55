#include "helios/config/changes.h"

#include <algorithm>
#include <optional>

#include "config/units.h"

namespace helios {
namespace {

std::string shown(const std::string& text) {
  return "\"" + text + "\"";
}
std::string shown(const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + shown(text);
  return "[" + list + "]";
}
std::string shown(bool flag) {
  return flag ? "true" : "false";
}
std::string shown(uint32_t number) {
  return std::to_string(number);
}
std::string shown(uint16_t number) {
  return std::to_string(number);
}
// The only ones of this type are sizes.
std::string shown(uint64_t size) {
  return shown(format_size(static_cast<int64_t>(size)));
}
std::string shown(Nanoseconds duration) {
  return shown(format_duration(duration));
}
std::string shown(PoolMode mode) {
  return shown(std::string(to_text(mode)));
}
std::string shown(IdleTransactionWhen when) {
  return shown(std::string(to_text(when)));
}
std::string shown(SessionStateMode mode) {
  return shown(std::string(to_text(mode)));
}
std::string shown(ClientAuth auth) {
  return shown(std::string(to_text(auth)));
}
std::string shown(LogLevel level) {
  constexpr const char* names[] = {"error", "warning", "info", "debug"};
  return shown(std::string(names[static_cast<size_t>(level)]));
}
template <typename Value>
std::string shown(const std::optional<Value>& value) {
  return value.has_value() ? shown(*value) : "unset";
}

// Collects the keys in which two structs differ.
class Comparison {
 public:
  template <typename Value>
  void compare(const char* key, const Value& before, const Value& after) {
    if (before == after) return;
    changes_.push_back({key, std::string(key) + " " + shown(before) + " -> " + shown(after)});
  }
  void compare_secret(const char* key, const std::string& before, const std::string& after) {
    if (before != after) changes_.push_back({key, std::string(key) + " changed"});
  }
  [[nodiscard]] std::vector<KeyChange> take() { return std::move(changes_); }
  // All in one line; empty: nothing.
  [[nodiscard]] std::string line() const {
    std::string text;
    for (const KeyChange& change : changes_) text += (text.empty() ? "" : ", ") + change.text;
    return text;
  }

 private:
  std::vector<KeyChange> changes_;
};

// PoolConfig and PoolOverrides have the same keys.
template <typename Pool>
void compare_pools(Comparison& to, const Pool& before, const Pool& after) {
  to.compare("mode", before.mode, after.mode);
  to.compare("min_connections", before.min_connections, after.min_connections);
  to.compare("max_connections", before.max_connections, after.max_connections);
  to.compare("idle_timeout", before.idle_timeout, after.idle_timeout);
  to.compare("max_lifetime", before.max_lifetime, after.max_lifetime);
  to.compare("acquire_timeout", before.acquire_timeout, after.acquire_timeout);
  to.compare("test_on_acquire", before.test_on_acquire, after.test_on_acquire);
  to.compare("test_after", before.test_after, after.test_after);
  to.compare("connect_timeout", before.connect_timeout, after.connect_timeout);
  to.compare("weight", before.weight, after.weight);
  to.compare("max_waiters", before.max_waiters, after.max_waiters);
  to.compare("reserve_connections", before.reserve_connections, after.reserve_connections);
  to.compare("reserve_after", before.reserve_after, after.reserve_after);
  to.compare("wait_notice", before.wait_notice, after.wait_notice);
  to.compare("connect_query", before.connect_query, after.connect_query);
  to.compare("query_timeout", before.query_timeout, after.query_timeout);
  to.compare("idle_transaction_timeout", before.idle_transaction_timeout,
             after.idle_transaction_timeout);
  to.compare("idle_transaction_timeout_when", before.idle_transaction_timeout_when,
             after.idle_transaction_timeout_when);
  to.compare("transaction_timeout", before.transaction_timeout, after.transaction_timeout);
  to.compare("client_idle_timeout", before.client_idle_timeout, after.client_idle_timeout);
  to.compare("session_state", before.session_state, after.session_state);
  to.compare("harmless_functions", before.harmless_functions, after.harmless_functions);
  to.compare("max_prepared_statements", before.max_prepared_statements,
             after.max_prepared_statements);
  to.compare("max_prepared_statement_size", before.max_prepared_statement_size,
             after.max_prepared_statement_size);
  to.compare("max_client_statements_size", before.max_client_statements_size,
             after.max_client_statements_size);
  to.compare("max_client_notifications_size", before.max_client_notifications_size,
             after.max_client_notifications_size);
}

void compare_entries(Comparison& to, const NodeConfig& before, const NodeConfig& after) {
  to.compare("host", before.host, after.host);
  to.compare("port", before.port, after.port);
  to.compare("max_connections", before.max_connections, after.max_connections);
  to.compare("connecting_max", before.connecting_max, after.connecting_max);
  to.compare("scram_rounds_max", before.scram_rounds_max, after.scram_rounds_max);
  to.compare("fail_fast", before.fail_fast, after.fail_fast);
  to.compare("retry_max", before.retry_max, after.retry_max);
}

// What DatabaseConfig and UserConfig have in common.
template <typename Entry>
void compare_shared(Comparison& to, const Entry& before, const Entry& after) {
  to.compare("node_user", before.node_user, after.node_user);
  to.compare_secret("node_password", before.node_password, after.node_password);
  to.compare("max_connections_total", before.max_connections_total, after.max_connections_total);
  to.compare("max_clients", before.max_clients, after.max_clients);
  compare_pools(to, before.pool, after.pool);
}

void compare_entries(Comparison& to, const DatabaseConfig& before, const DatabaseConfig& after) {
  to.compare("node", before.node, after.node);
  to.compare("dbname", before.dbname, after.dbname);
  compare_shared(to, before, after);
}

void compare_entries(Comparison& to, const UserConfig& before, const UserConfig& after) {
  to.compare_secret("password", before.password, after.password);
  to.compare("auth", before.auth, after.auth);
  compare_shared(to, before, after);
}

template <typename Entry>
const Entry* find(const std::vector<Entry>& entries, const std::string& name) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& entry) { return entry.name == name; });
  return found == entries.end() ? nullptr : &*found;
}

template <typename Entry>
void add_entries(std::vector<std::string>& lines, const char* kind,
                 const std::vector<Entry>& before, const std::vector<Entry>& after) {
  const auto subject = [&](const Entry& entry) {
    return std::string(kind) + " " + shown(entry.name) + ": ";
  };
  for (const Entry& entry : before)
    if (find(after, entry.name) == nullptr) lines.push_back(subject(entry) + "removed");
  for (const Entry& entry : after) {
    const Entry* old = find(before, entry.name);
    if (old == nullptr) {
      lines.push_back(subject(entry) + "added");
      continue;
    }
    Comparison comparison;
    compare_entries(comparison, *old, entry);
    if (const std::string line = comparison.line(); !line.empty())
      lines.push_back(subject(entry) + line);
  }
}

}  // namespace

std::vector<KeyChange> proxy_changes(const ProxyConfig& before, const ProxyConfig& after) {
  Comparison to;
  to.compare("listen", before.listen, after.listen);
  to.compare("cores", before.cores, after.cores);
  to.compare("max_clients", before.max_clients, after.max_clients);
  to.compare("client_login_timeout", before.client_login_timeout, after.client_login_timeout);
  to.compare("log_level", before.log_level, after.log_level);
  to.compare("client_buffers", before.client_buffers, after.client_buffers);
  to.compare("client_buffer_size", before.client_buffer_size, after.client_buffer_size);
  to.compare("backend_buffers", before.backend_buffers, after.backend_buffers);
  to.compare("backend_buffer_size", before.backend_buffer_size, after.backend_buffer_size);
  to.compare("drain_timeout", before.drain_timeout, after.drain_timeout);
  to.compare("dns_refresh", before.dns_refresh, after.dns_refresh);
  to.compare("max_statements_size", before.max_statements_size, after.max_statements_size);
  return to.take();
}

std::vector<std::string> entry_changes(const Config& before, const Config& after) {
  std::vector<std::string> lines;
  Comparison pool;
  compare_pools(pool, before.pool, after.pool);
  if (const std::string line = pool.line(); !line.empty()) lines.push_back("[pool]: " + line);
  add_entries(lines, "node", before.nodes, after.nodes);
  add_entries(lines, "database", before.databases, after.databases);
  add_entries(lines, "user", before.users, after.users);
  return lines;
}

}  // namespace helios
