#include "server/config_directory.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/wire/md5_auth.h"
#include "helios/wire/scram.h"

namespace helios {
namespace {

LeaseMode to_lease_mode(PoolMode mode) {
  switch (mode) {
    case PoolMode::session:
      return LeaseMode::session;
    case PoolMode::transaction:
      return LeaseMode::transaction;
    case PoolMode::statement:
      return LeaseMode::statement;
  }
  UNREACHABLE("pool mode");
}

StatePolicy to_policy(SessionStateMode mode) {
  switch (mode) {
    case SessionStateMode::follow:
      return StatePolicy::follow;
    case SessionStateMode::strict:
      return StatePolicy::strict;
    case SessionStateMode::pin:
      return StatePolicy::pin;
    case SessionStateMode::warn:
      return StatePolicy::warn;
    case SessionStateMode::refuse:
      return StatePolicy::refuse;
  }
  UNREACHABLE("session state mode");
}

PoolLimits to_limits(const PoolConfig& pool) {
  PoolLimits limits;
  limits.mode = to_lease_mode(pool.mode);
  limits.min_connections = pool.min_connections;
  limits.max_connections = pool.max_connections;
  limits.idle_timeout = pool.idle_timeout;
  limits.max_lifetime = pool.max_lifetime;
  limits.acquire_timeout = pool.acquire_timeout;
  limits.connect_timeout = pool.connect_timeout;
  limits.test_after = pool.test_on_acquire ? pool.test_after : never;
  limits.weight = pool.weight;
  limits.max_waiters = pool.max_waiters;
  limits.reserve_connections = pool.reserve_connections;
  limits.reserve_after = pool.reserve_after;
  limits.wait_notice = pool.wait_notice;
  limits.connect_query = pool.connect_query;
  limits.time_limits.query = pool.query_timeout;
  limits.time_limits.idle_transaction = pool.idle_transaction_timeout;
  limits.time_limits.idle_transaction_if_waited_for =
      pool.idle_transaction_timeout_when == IdleTransactionWhen::waited_for;
  limits.time_limits.transaction = pool.transaction_timeout;
  limits.time_limits.client_idle = pool.client_idle_timeout;
  limits.session_state = to_policy(pool.session_state);
  limits.harmless_functions = pool.harmless_functions;
  limits.max_prepared_statements = pool.max_prepared_statements;
  limits.max_prepared_statement_size = pool.max_prepared_statement_size;
  limits.max_client_statements_size = pool.max_client_statements_size;
  limits.max_client_notifications_size = pool.max_client_notifications_size;
  return limits;
}

}  // namespace

ConfigDirectory::ConfigDirectory(Config config, ConfigCatalog& catalog, uint64_t epoch)
    : config_(std::move(config)), catalog_(catalog), epoch_(epoch) {
  for (const NodeConfig& node : config_.nodes) nodes_.emplace(node.name, &catalog.node_of(node));
  for (const DatabaseConfig& database : config_.databases)
    database_limits_.emplace(&database, catalog.limits_of(database));
  for (const UserConfig& user : config_.users) {
    user_limits_.emplace(&user, catalog.limits_of(user));
    if (auto verifier = parse_scram_verifier(user.password)) verifiers_.emplace(&user, *verifier);
  }
}

UserSecret ConfigDirectory::secret_of(std::string_view name) const {
  UserSecret secret;
  const UserConfig* user = config_.find_user(name);
  if (user == nullptr) return secret;
  if (user->auth == ClientAuth::trust) {
    secret.kind = UserSecret::Kind::trust;
    return secret;
  }
  switch (user->password_kind()) {
    case PasswordKind::none:
      break;
    case PasswordKind::plain:
      if (user->auth == ClientAuth::md5) {
        secret.kind = UserSecret::Kind::md5_hash;
        secret.text = SecretBytes(md5_hash(user->password, name));
        break;
      }
      secret.kind = UserSecret::Kind::plain_password;
      secret.text = SecretBytes(user->password);
      break;
    case PasswordKind::scram_verifier: {
      const auto verifier = verifiers_.find(user);
      ASSERT(verifier != verifiers_.end());
      secret.kind = UserSecret::Kind::scram_verifier;
      secret.verifier = verifier->second;
      break;
    }
    case PasswordKind::md5_hash:
      secret.kind = UserSecret::Kind::md5_hash;
      secret.text = SecretBytes(user->password);
      break;
  }
  return secret;
}

bool ConfigDirectory::has_database(std::string_view database) const {
  return config_.find_database(database) != nullptr;
}

PoolSpecRef ConfigDirectory::pool_of(std::string_view database_name, std::string_view user_name,
                                     const ParameterList& settings) const {
  const DatabaseConfig* database = config_.find_database(database_name);
  const UserConfig* user = config_.find_user(user_name);
  if (database == nullptr || user == nullptr) return {};
  const NodeConfig* node = config_.find_node(database->node);
  ASSERT(node != nullptr);
  const NodeLogin login = config_.node_login(*database, *user, user_name);

  auto* spec = new PoolSpec();
  spec->database = database_name;
  spec->user = user_name;
  spec->node = nodes_.at(database->node);
  const EntryLimits& of_database = database_limits_.at(database);
  const EntryLimits& of_user = user_limits_.at(user);
  spec->database_limit = of_database.connections;
  spec->database_clients = of_database.clients;
  spec->user_limit = of_user.connections;
  spec->user_clients = of_user.clients;
  spec->limits = to_limits(config_.effective_pool(*database, *user));
  spec->login.user = login.user;
  spec->login.database = database->name_on_node(database_name);
  // Of a verifier there is no password; the prefix makes the login say so when the node asks for
  // one.
  spec->login.password = login.kind == PasswordKind::scram_verifier
                             ? std::string(scram_verifier_prefix)
                             : login.password;
  spec->login.password_is_plain = login.kind == PasswordKind::plain;
  spec->login.scram_rounds_max = node->scram_rounds_max;

  spec->key = pool_key(database_name, user_name, settings);
  spec->login.parameters.assign(settings.begin(), settings.end());
  std::sort(spec->login.parameters.begin(), spec->login.parameters.end());
  spec->epoch = epoch_;
  apply_replication(*spec);
  spec->shared = catalog_.registry().shared_of(spec->key, *spec, epoch_);
  return PoolSpecRef(spec);
}

}  // namespace helios
