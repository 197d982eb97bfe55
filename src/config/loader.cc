#include "helios/config/loader.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "config/file.h"
#include "config/findings.h"
#include "config/section.h"
#include "config/toml_tree.h"
#include "helios/base/address.h"
#include "helios/base/assert.h"
#include "helios/base/listen_address.h"
#include "helios/config/nearest.h"

namespace helios {
namespace {

// PostgreSQL's own names end at 63 bytes; builds with a larger NAMEDATALEN exist.
constexpr size_t name_size_max = 255;
constexpr size_t password_size_max = 1024;
constexpr size_t listen_count_max = 64;
constexpr size_t address_size_max = 255;
constexpr size_t connect_query_size_max = 16 * 1024;
constexpr size_t harmless_functions_max = 1000;
constexpr Nanoseconds duration_max = seconds(365LL * 24 * 3600);
constexpr NumberRange total_range = {0, 1'000'000};

constexpr std::array<std::string_view, 4> log_level_names = {"error", "warning", "info", "debug"};
constexpr std::array<LogLevel, 4> log_levels = {LogLevel::error, LogLevel::warning, LogLevel::info,
                                                LogLevel::debug};
constexpr std::array<std::string_view, 3> mode_names = {"session", "transaction", "statement"};
constexpr std::array<PoolMode, 3> modes = {PoolMode::session, PoolMode::transaction,
                                           PoolMode::statement};
constexpr std::array<std::string_view, 2> when_names = {"always", "waited_for"};
constexpr std::array<IdleTransactionWhen, 2> whens = {IdleTransactionWhen::always,
                                                      IdleTransactionWhen::waited_for};
constexpr std::array<std::string_view, 5> session_state_names = {"follow", "strict", "pin", "warn",
                                                                 "refuse"};
constexpr std::array<SessionStateMode, 5> session_states = {
    SessionStateMode::follow, SessionStateMode::strict, SessionStateMode::pin,
    SessionStateMode::warn, SessionStateMode::refuse};
constexpr std::array<std::string_view, 3> auth_names = {"scram-sha-256", "md5", "trust"};
constexpr std::array<ClientAuth, 3> auths = {ClientAuth::scram_sha_256, ClientAuth::md5,
                                             ClientAuth::trust};

std::string quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

// "name" or "schema.name"; "*" may stand at the end.
bool is_function_name(std::string_view text) {
  if (text.find_first_of("()\"';, \t\n\r") != std::string_view::npos) return false;
  if (text.substr(0, text.size() - 1).find('*') != std::string_view::npos) return false;
  const size_t dot = text.find('.');
  const std::string_view name = text.substr(dot == std::string_view::npos ? 0 : dot + 1);
  return dot != 0 && !name.empty() && name.find('.') == std::string_view::npos &&
         text.size() <= 2 * name_size_max;
}

// Reads one document. Lives for one call of load_config_text.
class Loader {
 public:
  // The document must live longer.
  Loader(const TomlDocument& document, std::string_view name, EnvironmentLookup lookup)
      : document_(document), findings_(name), lookup_(std::move(lookup)) {}

  [[nodiscard]] LoadResult load();
  // A password stands in the file, not in the environment.
  [[nodiscard]] bool has_literal_secret() const noexcept { return has_literal_secret_; }

 private:
  using TableReader = void (Loader::*)(const TomlTable& table);

  void read_sections();
  void read_section(const TomlSection& section);
  void read_proxy(const TomlTable& table);
  void read_listen(Section& section);
  void read_pool(const TomlTable& table);
  void read_node(const TomlTable& table);
  void read_database(const TomlTable& table);
  void read_user(const TomlTable& table);

  [[nodiscard]] PoolOverrides read_overrides(Section& section);
  [[nodiscard]] std::optional<std::vector<std::string>> read_functions(Section& section);
  [[nodiscard]] std::string read_name(Section& section, std::string_view kind);
  void read_node_login(Section& section, std::string& user, std::string& password);
  void check_password(Section& section, const UserConfig& user);
  void check_auth(Section& section, const UserConfig& user);

  // What can be said only when every table has been read.
  void check_whole();
  void check_minimum(Section& section, const PoolOverrides& pool, uint32_t max_connections);
  void check_minimums();
  void check_nodes();
  [[nodiscard]] Section section_of(std::string_view name, const TomlTable& table) {
    return Section(name, table, findings_, lookup_);
  }
  // Nothing but the reason "no table of this kind".
  void require_tables(std::string_view kind, size_t count);

  const TomlDocument& document_;
  Findings findings_;
  const EnvironmentLookup lookup_;  // A copy: callers pass functions that convert to a temporary.
  Config config_;
  // The table behind each entry of the vectors in config_, for the checks at the end.
  std::vector<const TomlTable*> database_tables_;
  std::vector<const TomlTable*> user_tables_;
  // "node" + name and so on, with the place of the first.
  std::map<std::pair<std::string, std::string>, Place> names_;
  std::map<std::string, std::string> proxy_places_;  // See LoadResult.
  bool has_literal_secret_ = false;
};

LoadResult Loader::load() {
  if (document_.error.has_value()) {
    findings_.error(document_.error->place, "not valid TOML", document_.error->text);
  } else {
    read_sections();
    check_whole();
  }
  LoadResult result;
  if (!findings_.has_errors()) result.config = std::move(config_);
  result.proxy_places = std::move(proxy_places_);
  result.errors = findings_.take_errors();
  result.warnings = findings_.take_warnings();
  return result;
}

void Loader::read_sections() {
  for (const TomlSection& section : document_.sections) read_section(section);
}

void Loader::read_section(const TomlSection& section) {
  struct Known {
    std::string_view name;
    SectionForm form;
    TableReader read;
  };
  constexpr std::array<Known, 5> known = {{
      {"proxy", SectionForm::table, &Loader::read_proxy},
      {"pool", SectionForm::table, &Loader::read_pool},
      {"node", SectionForm::tables, &Loader::read_node},
      {"database", SectionForm::tables, &Loader::read_database},
      {"user", SectionForm::tables, &Loader::read_user},
  }};
  constexpr std::array<std::string_view, 5> names = {"proxy", "pool", "node", "database", "user"};
  for (const Known& one : known) {
    if (one.name != section.name) continue;
    if (one.form == section.form) {
      for (const TomlTable& table : section.tables) (this->*one.read)(table);
      return;
    }
    const std::string name(one.name);
    const bool is_single = one.form == SectionForm::table;
    findings_.error(section.place, name,
                    "must be a section, written " +
                        (is_single ? "[" + name + "], once" : "[[" + name + "]], once for each"));
    return;
  }
  const bool is_key = section.form == SectionForm::not_a_section;
  const std::string what = is_key ? "unknown key outside of any section" : "unknown section";
  findings_.error(section.place, section.name, what + suggestion(section.name, names));
}

void Loader::read_proxy(const TomlTable& table) {
  Section section = section_of("proxy", table);
  ProxyConfig& proxy = config_.proxy;
  constexpr NumberRange count_range = {2, 32768};
  constexpr NumberRange size_range = {1024, 1024 * 1024};
  proxy_places_.emplace("", findings_.text_of(table.place));
  for (const TomlEntry& entry : table.entries)
    proxy_places_.emplace(entry.key, findings_.text_of(entry.place));
  read_listen(section);
  proxy.cores = section.number("cores", {0, 1024}).value_or(proxy.cores);
  proxy.max_clients = section.number("max_clients", {1, 1'000'000}).value_or(proxy.max_clients);
  proxy.client_login_timeout =
      section.duration("client_login_timeout", {milliseconds(100), seconds(3600), false})
          .value_or(proxy.client_login_timeout);
  if (const auto level = section.choice("log_level", log_level_names); level.has_value())
    proxy.log_level = log_levels[*level];
  proxy.client_buffers =
      section.power_of_two("client_buffers", count_range).value_or(proxy.client_buffers);
  proxy.client_buffer_size = section.power_of_two_size("client_buffer_size", size_range)
                                 .value_or(proxy.client_buffer_size);
  proxy.backend_buffers =
      section.power_of_two("backend_buffers", count_range).value_or(proxy.backend_buffers);
  proxy.backend_buffer_size = section.power_of_two_size("backend_buffer_size", size_range)
                                  .value_or(proxy.backend_buffer_size);
  proxy.drain_timeout = section.duration("drain_timeout", {milliseconds(1), duration_max, true})
                            .value_or(proxy.drain_timeout);
  proxy.dns_refresh =
      section.duration("dns_refresh", {seconds(1), duration_max, true}).value_or(proxy.dns_refresh);
  proxy.max_statements_size =
      section.byte_count("max_statements_size", {1024 * 1024, int64_t{1} << 40})
          .value_or(proxy.max_statements_size);
  section.finish();
}

void Loader::read_listen(Section& section) {
  const auto entries = section.texts("listen", listen_count_max);
  if (!entries.has_value()) return;
  std::vector<std::string> listen;
  for (const Section::LocatedText& entry : *entries) listen.push_back(entry.text);
  const std::vector<std::string> faults = listen_faults(listen);
  for (size_t i = 0; i < faults.size(); ++i)
    if (!faults[i].empty()) section.error_at((*entries)[i].place, "listen", faults[i]);
  config_.proxy.listen = std::move(listen);
}

void Loader::read_pool(const TomlTable& table) {
  Section section = section_of("pool", table);
  const PoolOverrides pool = read_overrides(section);
  section.finish();
  apply_overrides(config_.pool, pool);
  check_minimum(section, pool, config_.pool.max_connections);
  // A smaller maximum alone is no mistake of the writer: the minimum that nobody wrote gives way.
  config_.pool.min_connections =
      std::min(config_.pool.min_connections, config_.pool.max_connections);
}

void Loader::read_node(const TomlTable& table) {
  Section section = section_of("node", table);
  NodeConfig node;
  node.name = read_name(section, "node");
  if (node.name == "*") section.error("name", "\"*\" is for databases and users, not for nodes");
  node.host = section.text("host", address_size_max).value_or("");
  if (!section.has("host")) {
    section.error("host", "is missing: a host name, an address, or the directory of a unix socket");
  } else if (!node.host.empty()) {
    for (const std::string& host : node.hosts()) {
      const std::string fault = host.empty()
                                    ? "\"" + node.host + "\": a host is missing between commas"
                                    : host_fault(host);
      if (!fault.empty()) section.error("host", fault);
    }
  }
  node.port = static_cast<uint16_t>(section.number("port", {1, 65535}).value_or(node.port));
  node.max_connections =
      section.number("max_connections", total_range).value_or(node.max_connections);
  node.connecting_max =
      section.number("connecting_max", {0, 100'000}).value_or(node.connecting_max);
  node.scram_rounds_max =
      section.number("scram_rounds_max", {1, 10'000'000}).value_or(node.scram_rounds_max);
  node.fail_fast = section.flag("fail_fast").value_or(node.fail_fast);
  node.retry_max = section.duration("retry_max", {milliseconds(10), seconds(3600), false})
                       .value_or(node.retry_max);
  section.finish();
  config_.nodes.push_back(std::move(node));
}

void Loader::read_database(const TomlTable& table) {
  Section section = section_of("database", table);
  DatabaseConfig database;
  database.name = read_name(section, "database");
  database.node = section.text("node", name_size_max).value_or("");
  if (!section.has("node")) section.error("node", "is missing: the name of a [[node]]");
  database.dbname = section.text("dbname", name_size_max).value_or("");
  read_node_login(section, database.node_user, database.node_password);
  database.max_connections_total = section.number("max_connections_total", total_range).value_or(0);
  database.max_clients = section.number("max_clients", total_range).value_or(0);
  database.pool = read_overrides(section);
  section.finish();
  config_.databases.push_back(std::move(database));
  database_tables_.push_back(&table);
}

void Loader::read_user(const TomlTable& table) {
  Section section = section_of("user", table);
  UserConfig user;
  user.name = read_name(section, "user");
  user.password = section.secret("password", password_size_max).value_or("");
  const std::optional<size_t> auth = section.choice("auth", auth_names);
  if (auth.has_value()) {
    user.auth = auths[*auth];
  } else if (user.password_kind() == PasswordKind::md5_hash) {
    user.auth = ClientAuth::md5;
  }
  read_node_login(section, user.node_user, user.node_password);
  user.max_connections_total = section.number("max_connections_total", total_range).value_or(0);
  user.max_clients = section.number("max_clients", total_range).value_or(0);
  user.pool = read_overrides(section);
  section.finish();
  has_literal_secret_ = has_literal_secret_ || section.has_literal_secret();
  check_password(section, user);
  // A wrong value has its own message.
  if (auth.has_value() || !section.has("auth")) check_auth(section, user);
  config_.users.push_back(std::move(user));
  user_tables_.push_back(&table);
}

PoolOverrides Loader::read_overrides(Section& section) {
  constexpr NumberRange min_range = {0, 100'000};
  constexpr NumberRange max_range = {1, 100'000};
  constexpr DurationRange or_off = {milliseconds(1), duration_max, true};
  constexpr NumberRange size_range = {1024, 1024 * 1024 * 1024};
  PoolOverrides pool;
  if (const auto mode = section.choice("mode", mode_names); mode.has_value())
    pool.mode = modes[*mode];
  pool.min_connections = section.number("min_connections", min_range);
  pool.max_connections = section.number("max_connections", max_range);
  pool.idle_timeout = section.duration("idle_timeout", or_off);
  pool.max_lifetime = section.duration("max_lifetime", or_off);
  pool.acquire_timeout = section.duration("acquire_timeout", or_off);
  pool.test_on_acquire = section.flag("test_on_acquire");
  pool.test_after = section.duration("test_after", {0, duration_max, false});
  pool.connect_timeout =
      section.duration("connect_timeout", {milliseconds(1), seconds(3600), false});
  pool.weight = section.number("weight", {1, 1000});
  pool.max_waiters = section.number("max_waiters", total_range);
  pool.reserve_connections = section.number("reserve_connections", min_range);
  pool.reserve_after = section.duration("reserve_after", {0, duration_max, false});
  pool.wait_notice = section.duration("wait_notice", or_off);
  pool.connect_query = section.text_or_nothing("connect_query", connect_query_size_max);
  pool.query_timeout = section.duration("query_timeout", or_off);
  pool.idle_transaction_timeout = section.duration("idle_transaction_timeout", or_off);
  if (const auto when = section.choice("idle_transaction_timeout_when", when_names);
      when.has_value())
    pool.idle_transaction_timeout_when = whens[*when];
  pool.transaction_timeout = section.duration("transaction_timeout", or_off);
  pool.client_idle_timeout = section.duration("client_idle_timeout", or_off);
  if (const auto state = section.choice("session_state", session_state_names); state.has_value())
    pool.session_state = session_states[*state];
  pool.harmless_functions = read_functions(section);
  pool.max_prepared_statements = section.number("max_prepared_statements", min_range);
  pool.max_prepared_statement_size = section.byte_count("max_prepared_statement_size", size_range);
  pool.max_client_statements_size = section.byte_count("max_client_statements_size", size_range);
  pool.max_client_notifications_size =
      section.byte_count("max_client_notifications_size", size_range);
  return pool;
}

std::optional<std::vector<std::string>> Loader::read_functions(Section& section) {
  auto entries = section.texts("harmless_functions", harmless_functions_max, 0);
  if (!entries.has_value()) return std::nullopt;
  std::vector<std::string> functions;
  for (Section::LocatedText& entry : *entries) {
    if (!is_function_name(entry.text)) {
      section.error_at(entry.place, "harmless_functions",
                       quoted(entry.text) +
                           " is no name of a function: \"name\" or \"schema.name\", without "
                           "quotes or parentheses; \"*\" may stand at the end");
    }
    functions.push_back(std::move(entry.text));
  }
  return functions;
}

std::string Loader::read_name(Section& section, std::string_view kind) {
  std::string name = section.text("name", name_size_max).value_or("");
  if (!section.has("name")) section.error("name", "is missing");
  if (name.empty()) return name;
  const Place place = section.place_of("name");
  const auto [first, is_new] = names_.try_emplace({std::string(kind), name}, place);
  if (!is_new) {
    section.error("name", quoted(name) + " is given twice, first in line " +
                              std::to_string(first->second.line));
  }
  return name;
}

void Loader::read_node_login(Section& section, std::string& user, std::string& password) {
  user = section.text("node_user", name_size_max).value_or("");
  password = section.secret("node_password", password_size_max).value_or("");
  has_literal_secret_ = has_literal_secret_ || section.has_literal_secret();
  if (password.starts_with(scram_verifier_prefix)) {
    section.error("node_password",
                  "a SCRAM verifier cannot log in anywhere: the plain password is needed");
  }
}

void Loader::check_password(Section& section, const UserConfig& user) {
  const bool is_verifier_like = user.password.starts_with(scram_verifier_prefix);
  if (is_verifier_like && user.password_kind() != PasswordKind::scram_verifier) {
    section.error(
        "password",
        "begins like a verifier and is none: SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey,"
        " as PostgreSQL keeps it in pg_authid");
  }
}

void Loader::check_auth(Section& section, const UserConfig& user) {
  const bool is_any = user.name == "*";
  if (is_any && section.has("password"))
    return section.error("password", "the user \"*\" is everybody: it can have no password");
  if (user.auth == ClientAuth::trust) {
    const std::string who =
        is_any ? "every user without an entry" : "the user " + quoted(user.name);
    return section.warning("auth", who +
                                       " is let in without being asked for a password (trust): "
                                       "for tests and private machines only");
  }
  const std::string_view auth = to_text(user.auth);
  if (is_any) {
    return section.error(section.has("auth") ? "auth" : "name",
                         "the user \"*\" is everybody: it must have auth = \"trust\"");
  }
  if (!section.has("password"))
    return section.error("password", "is missing: give one, or auth = \"trust\" for a test");
  const PasswordKind kind = user.password_kind();
  if (user.auth == ClientAuth::scram_sha_256 && kind == PasswordKind::md5_hash) {
    return section.error("auth", quoted(auth) +
                                     " cannot be checked against an md5 hash: leave auth "
                                     "out, or give the password or a SCRAM verifier");
  }
  if (user.auth == ClientAuth::md5 && kind == PasswordKind::scram_verifier) {
    return section.error("auth", quoted(auth) +
                                     " cannot be checked against a SCRAM verifier: leave "
                                     "auth out, or give the password or an md5 hash");
  }
}

void Loader::check_whole() {
  require_tables("node", config_.nodes.size());
  require_tables("database", config_.databases.size());
  require_tables("user", config_.users.size());
  check_nodes();
  check_minimums();
}

void Loader::require_tables(std::string_view kind, size_t count) {
  // A section of another form has its own message.
  const auto has_name = [&](const TomlSection& section) { return section.name == kind; };
  if (count > 0 || std::any_of(document_.sections.begin(), document_.sections.end(), has_name))
    return;
  findings_.error({}, kind, "there is no [[" + std::string(kind) + "]]: at least one is needed");
}

void Loader::check_nodes() {
  std::vector<std::string_view> known;
  for (const NodeConfig& node : config_.nodes) known.push_back(node.name);
  for (size_t i = 0; i < config_.databases.size(); ++i) {
    const std::string& node = config_.databases[i].node;
    if (node.empty() || config_.find_node(node) != nullptr) continue;
    Section section = section_of("database", *database_tables_[i]);
    section.error("node",
                  "there is no [[node]] with the name " + quoted(node) + suggestion(node, known));
  }
}

void Loader::check_minimum(Section& section, const PoolOverrides& pool, uint32_t max_connections) {
  if (pool.min_connections.value_or(0) <= max_connections) return;
  const std::string_view source =
      pool.max_connections.has_value() ? "" : " that holds here without one of its own";
  section.error("min_connections", std::to_string(*pool.min_connections) +
                                       " is more than the max_connections of " +
                                       std::to_string(max_connections) + std::string(source));
}

void Loader::check_minimums() {
  // A user without a maximum of its own gets that of the database: wrong only when it fits none.
  uint32_t largest = config_.pool.max_connections;
  for (size_t i = 0; i < config_.databases.size(); ++i) {
    const PoolOverrides& pool = config_.databases[i].pool;
    const uint32_t max = pool.max_connections.value_or(config_.pool.max_connections);
    Section section = section_of("database", *database_tables_[i]);
    check_minimum(section, pool, max);
    largest = std::max(largest, max);
  }
  for (size_t i = 0; i < config_.users.size(); ++i) {
    const PoolOverrides& pool = config_.users[i].pool;
    Section section = section_of("user", *user_tables_[i]);
    check_minimum(section, pool, pool.max_connections.value_or(largest));
  }
}

}  // namespace

LoadResult load_config_text(std::string_view text, std::string_view name,
                            const EnvironmentLookup& lookup) {
  const TomlDocument document = parse_toml(text);
  return Loader(document, name, lookup).load();
}

LoadResult load_config_file(const std::string& path) {
  Result<ConfigFile> file = read_config_file(path);
  LoadResult result;
  if (!file.ok()) {
    result.errors.push_back(path + ": " + file.error());
    return result;
  }
  const TomlDocument document = parse_toml(file.value().text);
  Loader loader(document, path, process_environment);
  result = loader.load();
  if (file.value().is_world_readable && loader.has_literal_secret()) {
    result.warnings.push_back(path +
                              ": every user of this machine can read the passwords "
                              "in it: chmod 640 it, or take them from the environment");
  }
  return result;
}

}  // namespace helios
