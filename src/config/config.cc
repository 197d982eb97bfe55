#include "helios/config/config.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/base/hex.h"

namespace helios {
namespace {

constexpr std::string_view any_name = "*";

// The entry of this name, else the one for any name, else nullptr.
template <typename Entry>
const Entry* find_or_any(const std::vector<Entry>& entries, std::string_view name) noexcept {
  const Entry* any = nullptr;
  for (const Entry& entry : entries) {
    if (entry.name == any_name) {
      any = &entry;
    } else if (entry.name == name) {
      return &entry;
    }
  }
  return any;
}

bool is_base64_of(std::string_view text, size_t size_min, size_t size_max) noexcept {
  if (text.empty() || text.size() % 4 != 0) return false;
  size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
  const size_t size = text.size() / 4 * 3 - padding;
  if (size < size_min || size > size_max) return false;
  for (const char letter : text.substr(0, text.size() - padding)) {
    const bool is_letter = (letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z');
    const bool is_other = (letter >= '0' && letter <= '9') || letter == '+' || letter == '/';
    if (!is_letter && !is_other) return false;
  }
  return true;
}

bool is_rounds(std::string_view text) noexcept {
  constexpr size_t digit_count_max = 9;  // Fits a 32-bit number.
  if (text.empty() || text.size() > digit_count_max || text.front() == '0') return false;
  return text.find_first_not_of("0123456789") == std::string_view::npos;
}

// SCRAM-SHA-256$<rounds>:<salt>$<StoredKey>:<ServerKey> (PostgreSQL, chapter "pg_authid").
bool is_scram_verifier(std::string_view text) noexcept {
  if (!text.starts_with(scram_verifier_prefix)) return false;
  text.remove_prefix(scram_verifier_prefix.size());
  const size_t keys_at = text.find('$');
  if (keys_at == std::string_view::npos) return false;
  const std::string_view challenge = text.substr(0, keys_at);
  const std::string_view keys = text.substr(keys_at + 1);
  const size_t salt_at = challenge.find(':');
  const size_t server_key_at = keys.find(':');
  if (salt_at == std::string_view::npos || server_key_at == std::string_view::npos) return false;
  constexpr size_t salt_size_max = 1024;
  constexpr size_t key_size = 32;  // SHA-256.
  return is_rounds(challenge.substr(0, salt_at)) &&
         is_base64_of(challenge.substr(salt_at + 1), 1, salt_size_max) &&
         is_base64_of(keys.substr(0, server_key_at), key_size, key_size) &&
         is_base64_of(keys.substr(server_key_at + 1), key_size, key_size);
}

// As PostgreSQL decides it: "md5" and 32 lower-case digits.
bool is_md5_hash(std::string_view text) noexcept {
  constexpr size_t hash_text_size = 3 + 32;
  if (text.size() != hash_text_size || !text.starts_with("md5")) return false;
  return text.find_first_not_of(hex_digits, 3) == std::string_view::npos;
}

}  // namespace

std::vector<std::string> NodeConfig::hosts() const {
  constexpr std::string_view blanks = " \t";
  std::vector<std::string> parts;
  std::string_view rest = host;
  for (bool is_last = false; !is_last;) {
    const size_t comma = rest.find(',');
    is_last = comma == std::string_view::npos;
    std::string_view part = rest.substr(0, comma);
    part.remove_prefix(std::min(part.find_first_not_of(blanks), part.size()));
    part = part.substr(0, part.find_last_not_of(blanks) + 1);
    parts.emplace_back(part);
    if (!is_last) rest.remove_prefix(comma + 1);
  }
  return parts;
}

std::string_view to_text(PoolMode mode) noexcept {
  switch (mode) {
    case PoolMode::session:
      return "session";
    case PoolMode::transaction:
      return "transaction";
    case PoolMode::statement:
      return "statement";
  }
  UNREACHABLE("pool mode");
}

std::string_view to_text(IdleTransactionWhen when) noexcept {
  switch (when) {
    case IdleTransactionWhen::always:
      return "always";
    case IdleTransactionWhen::waited_for:
      return "waited_for";
  }
  UNREACHABLE("when idle transactions end");
}

std::string_view to_text(SessionStateMode mode) noexcept {
  switch (mode) {
    case SessionStateMode::follow:
      return "follow";
    case SessionStateMode::strict:
      return "strict";
    case SessionStateMode::pin:
      return "pin";
    case SessionStateMode::warn:
      return "warn";
    case SessionStateMode::refuse:
      return "refuse";
  }
  UNREACHABLE("session state mode");
}

std::string_view to_text(ClientAuth auth) noexcept {
  switch (auth) {
    case ClientAuth::scram_sha_256:
      return "scram-sha-256";
    case ClientAuth::md5:
      return "md5";
    case ClientAuth::trust:
      return "trust";
  }
  UNREACHABLE("client auth");
}

PasswordKind password_kind_of(std::string_view password) noexcept {
  if (password.empty()) return PasswordKind::none;
  if (is_scram_verifier(password)) return PasswordKind::scram_verifier;
  if (is_md5_hash(password)) return PasswordKind::md5_hash;
  return PasswordKind::plain;
}

PasswordKind UserConfig::password_kind() const noexcept {
  return password_kind_of(password);
}

void apply_overrides(PoolConfig& pool, const PoolOverrides& overrides) noexcept {
  pool.mode = overrides.mode.value_or(pool.mode);
  pool.min_connections = overrides.min_connections.value_or(pool.min_connections);
  pool.max_connections = overrides.max_connections.value_or(pool.max_connections);
  pool.idle_timeout = overrides.idle_timeout.value_or(pool.idle_timeout);
  pool.max_lifetime = overrides.max_lifetime.value_or(pool.max_lifetime);
  pool.acquire_timeout = overrides.acquire_timeout.value_or(pool.acquire_timeout);
  pool.test_on_acquire = overrides.test_on_acquire.value_or(pool.test_on_acquire);
  pool.test_after = overrides.test_after.value_or(pool.test_after);
  pool.connect_timeout = overrides.connect_timeout.value_or(pool.connect_timeout);
  pool.weight = overrides.weight.value_or(pool.weight);
  pool.max_waiters = overrides.max_waiters.value_or(pool.max_waiters);
  pool.reserve_connections = overrides.reserve_connections.value_or(pool.reserve_connections);
  pool.reserve_after = overrides.reserve_after.value_or(pool.reserve_after);
  pool.wait_notice = overrides.wait_notice.value_or(pool.wait_notice);
  pool.connect_query = overrides.connect_query.value_or(pool.connect_query);
  pool.query_timeout = overrides.query_timeout.value_or(pool.query_timeout);
  pool.idle_transaction_timeout =
      overrides.idle_transaction_timeout.value_or(pool.idle_transaction_timeout);
  pool.idle_transaction_timeout_when =
      overrides.idle_transaction_timeout_when.value_or(pool.idle_transaction_timeout_when);
  pool.transaction_timeout = overrides.transaction_timeout.value_or(pool.transaction_timeout);
  pool.client_idle_timeout = overrides.client_idle_timeout.value_or(pool.client_idle_timeout);
  pool.session_state = overrides.session_state.value_or(pool.session_state);
  if (overrides.harmless_functions.has_value())
    pool.harmless_functions = *overrides.harmless_functions;
  pool.max_prepared_statements =
      overrides.max_prepared_statements.value_or(pool.max_prepared_statements);
  pool.max_prepared_statement_size =
      overrides.max_prepared_statement_size.value_or(pool.max_prepared_statement_size);
  pool.max_client_statements_size =
      overrides.max_client_statements_size.value_or(pool.max_client_statements_size);
  pool.max_client_notifications_size =
      overrides.max_client_notifications_size.value_or(pool.max_client_notifications_size);
}

const DatabaseConfig* Config::find_database(std::string_view name) const noexcept {
  return find_or_any(databases, name);
}

const UserConfig* Config::find_user(std::string_view name) const noexcept {
  return find_or_any(users, name);
}

const NodeConfig* Config::find_node(std::string_view name) const noexcept {
  for (const NodeConfig& node : nodes)
    if (node.name == name) return &node;
  return nullptr;
}

PoolConfig Config::effective_pool(const DatabaseConfig& database,
                                  const UserConfig& user) const noexcept {
  PoolConfig result = pool;
  // Names that anybody can make up would otherwise each keep backends open.
  if (database.name == any_name || user.name == any_name) result.min_connections = 0;
  apply_overrides(result, database.pool);
  apply_overrides(result, user.pool);
  result.min_connections = std::min(result.min_connections, result.max_connections);
  ASSERT(result.max_connections >= 1);
  return result;
}

NodeLogin Config::node_login(const DatabaseConfig& database, const UserConfig& user,
                             std::string_view client_name) const {
  const bool user_decides = !user.node_user.empty() || !user.node_password.empty();
  NodeLogin login;
  // Never one entry's name with the other one's password.
  login.user = user_decides ? user.node_user : database.node_user;
  login.password = user_decides ? user.node_password : database.node_password;
  if (login.user.empty()) login.user = client_name;
  if (login.password.empty() && login.user == client_name) login.password = user.password;
  login.kind = password_kind_of(login.password);
  if (login.kind == PasswordKind::scram_verifier) login.password.clear();
  return login;
}

}  // namespace helios
