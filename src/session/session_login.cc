// A client's way in: start-up packets, authentication, and the welcome.
#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/message.h"
#include "session/session_login.h"

namespace helios {
namespace {

// Key of a pool's table of spellings.
std::string spelling_key(const std::string& name, const std::string& value) {
  return name + '=' + value;
}

// What a start-up packet leaves out of DateStyle, the style or the order, is the server's default
// on a new connection; a SET alone would leave it as the backend's last client had it.
constexpr std::string_view date_style_base = "DEFAULT, ";

std::string value_to_set(const std::string& name, const std::string& value) {
  const bool is_partial = !value.empty() && equal_names(name, "DateStyle");
  return is_partial ? std::string(date_style_base) + value : value;
}

bool is_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Of these two a server says the name as it was given, and SET gives it in lower case.
void use_spelling(std::string& message, const std::string& name) {
  for (const std::string_view given : {"intervalstyle", "standard_conforming_strings"}) {
    if (!equal_names(name, given)) continue;
    const size_t at = message.find('"' + std::string(given) + '"');
    if (at != std::string::npos) message.replace(at + 1, given.size(), name);
  }
}

// Of an encoding that the database cannot be read in SET says that the value is invalid, and why;
// a start-up only why.
void name_conversion(PoolError& error) {
  constexpr std::string_view begin = "Conversion between ";
  if (error.sqlstate != sqlstate::feature_not_supported || !error.detail.starts_with(begin)) return;
  error.message = std::exchange(error.detail, {});
  error.message.front() = 'c';
  if (error.message.ends_with('.')) error.message.pop_back();
}

// More than this and the table is made anew: clients choose the values.
constexpr size_t spellings_max = 1024;

}  // namespace

void Session::on_login_bytes(ByteSpan& input) noexcept {
  while (state_ == State::login && !input.empty()) {
    if (login_->is_cancelling) {
      input = {};
    } else if (!login_->has_started) {
      on_startup_packet(input);
    } else if (login_->waits_for_key) {
      // Nothing is due from the client now.
      return fail(sqlstate::protocol_violation, "unexpected message in the login");
    } else {
      MessageWriter& output = sessions_.pools().writer();
      on_login_step(login_->dialogue.on_input(input, output), output);
    }
  }
}

void Session::on_startup_packet(ByteSpan& input) noexcept {
  const FrameStatus status = login_->assembler.feed(input);
  if (status == FrameStatus::need_more) return;
  if (status == FrameStatus::malformed) {
    const StartupError error = bad_startup_length();
    return fail(error.sqlstate, error.message);
  }
  StartupPacket packet = decode_startup(login_->assembler.body());
  if (auto* error = std::get_if<StartupError>(&packet))
    return fail(error->sqlstate, error->message, error->detail, error->hint);
  if (auto* cancel = std::get_if<CancelRequest>(&packet)) {
    login_->is_cancelling = true;
    return sessions_.on_cancel_request(*this, cancel->pid, cancel->key);
  }
  if (auto* startup = std::get_if<StartupMessage>(&packet)) return on_startup_message(*startup);

  bool& refused =
      std::holds_alternative<SslRequest>(packet) ? login_->ssl_refused : login_->gss_refused;
  // Bytes that came before our answer could have been put there by somebody in between.
  if (!input.empty())
    return fail(sqlstate::protocol_violation,
                "received unencrypted data after SSL or GSSAPI encryption request");
  if (std::exchange(refused, true))
    return fail(sqlstate::protocol_violation, "encryption was requested twice");
  stream_.send(as_bytes("N"));
}

void Session::on_startup_message(StartupMessage& startup) noexcept {
  login_->has_started = true;
  login_->assembler = {};  // The packet's bytes are not needed while others are waited for.
  login_->minor = startup.agreed_minor();
  login_->user = startup.user;
  const bool is_physical = startup.replication == ReplicationMode::physical;
  login_->database = is_physical ? physical_replication_database : startup.database;
  if (sessions_.is_draining())
    return fail(sqlstate::cannot_connect_now, "the pooler is shutting down");
  SessionsShared& shared = sessions_.shared();
  counted_ = true;
  if (shared.clients_count.fetch_add(1, std::memory_order_relaxed) >= shared.clients_max)
    return fail(sqlstate::too_many_connections, "no more connections allowed (max_clients)");
  if (!take_settings(startup)) return;
  MessageWriter& output = sessions_.pools().writer();
  on_login_step(
      login_->dialogue.start(startup, sessions_.directory().secret_of(login_->user), output),
      output);
}

// What is set after the login, and what belongs to the pool. False: the client has been told.
bool Session::take_settings(StartupMessage& startup) noexcept {
  const bool is_replication = startup.replication != ReplicationMode::none;
  for (StartupParameter& setting : startup.settings) {
    // The backend of a replication connection is made for it: it starts with all of them.
    const bool is_later = !is_replication && is_settable_later(setting.name);
    if (is_later && !is_ascii(setting.value)) {
      // It goes into a statement in the encoding that the backend's last client left behind. An
      // application name is treated as the server would; no other value of these has such letters.
      if (!equal_names(setting.name, "application_name")) {
        fail(sqlstate::invalid_parameter_value,
             "invalid value for parameter \"" + setting.name + "\": \"" + setting.value + "\"");
        return false;
      }
      for (char& c : setting.value)
        if (static_cast<unsigned char>(c) >= 0x80) c = '?';
    }
    ParameterList& list = is_later ? login_->wanted : login_->settings;
    list.emplace_back(std::move(setting.name), std::move(setting.value));
  }
  const bool is_physical = startup.replication == ReplicationMode::physical;
  if (is_replication)
    login_->settings.emplace_back(replication_parameter, is_physical ? "true" : "database");
  return true;
}

void Session::on_login_step(ClientLoginStep step, MessageWriter& output) noexcept {
  send_output(output);
  switch (step) {
    case ClientLoginStep::more:
      return;
    case ClientLoginStep::need_key:
      login_->waits_for_key = true;
      return sessions_.pools().context().keys.request(login_->dialogue.password(),
                                                      as_bytes(login_->dialogue.salt()),
                                                      login_->dialogue.rounds(), *this);
    case ClientLoginStep::accepted:
      return on_logged_in();
    case ClientLoginStep::refused:
      ++sessions_.counters().refused;
      LOG_LIMITED(warning, "login of user \"%s\" refused: %.*s", login_->user.c_str(),
                  static_cast<int>(login_->dialogue.reason().size()),
                  login_->dialogue.reason().data());
      return end("login refused");
  }
}

void Session::send_output(MessageWriter& output) noexcept {
  if (!output.empty()) stream_.send(output.bytes());
}

void Session::set_login_deadline(Nanoseconds deadline) noexcept {
  login_->deadline = deadline;
  if (deadline != never) sessions_.timers().schedule(timer_, deadline);
}

void Session::forget_login() noexcept {
  if (SessionLogin* login = std::exchange(login_, nullptr); login != nullptr)
    sessions_.free_login(login);
}

void Session::on_key(const Sha256Digest& salted_password) noexcept {
  ASSERT(state_ == State::login);
  login_->waits_for_key = false;
  MessageWriter& output = sessions_.pools().writer();
  on_login_step(login_->dialogue.on_key(salted_password, output), output);
}

// Only now may the client learn which databases there are.
void Session::on_logged_in() noexcept {
  const Directory& directory = sessions_.directory();
  if (!directory.has_database(login_->database)) {
    std::string text = "database \"" + login_->database + "\" does not exist";
    if (login_->database == physical_replication_database)
      text += ": physical replication needs a [[database]] of this name, or \"*\"";
    return fail(sqlstate::invalid_catalog_name, text);
  }
  Pools& pools = sessions_.pools();
  PoolEntry* pool = pools.find_pool(pool_key(login_->database, login_->user, login_->settings));
  if (pool == nullptr) {
    const PoolSpecRef spec = directory.pool_of(login_->database, login_->user, login_->settings);
    // Not since it said its name, but before.
    if (spec.is_null()) return fail(pools.why_removed(login_->database, login_->user));
    pool = &pools.pool_of(spec);
  }
  const CoreId place = sessions_.place_of(pool->slice.spec());
  if (place != pools.context().postbox.core()) return start_move(pool->slice.spec_ref(), place);
  enter(*pool);
}

// Here it stays.
void Session::enter(PoolEntry& pool) noexcept {
  pool_ = &pool;
  choose_following();
  if (!count_client()) return;
  follow_time_limits();
  set_state(State::welcome);
  if (!leases_at_login() && know_welcome()) return send_welcome();
  if (acquire()) start_welcome();
}

// Takes its place among the clients of its database and user. False: there is none, and the client
// has been told.
bool Session::count_client() noexcept {
  const PoolSpec& spec = pool_->slice.spec();
  const auto refuse = [this](std::string_view kind, const std::string& name) {
    fail(sqlstate::too_many_connections, "too many clients of " + std::string(kind) + " \"" + name +
                                             "\" (max_clients in [[" + std::string(kind) + "]])");
    return false;
  };
  if (spec.database_clients != nullptr && !spec.database_clients->try_take())
    return refuse("database", spec.database);
  if (spec.user_clients != nullptr && !spec.user_clients->try_take()) {
    if (spec.database_clients != nullptr) (void)spec.database_clients->give_back();
    return refuse("user", spec.user);
  }
  // The first: the pool keeps its minimum open from now on.
  if (++pool_->slice.sessions_count == 1) sessions_.pools().activate(pool_->slice);
  uses_pool_ = true;
  return true;
}

// The pool's server is known, and so is its spelling of everything the client asks for.
bool Session::know_welcome() noexcept {
  if (pool_->welcome.empty()) return false;
  ParameterStore& store = sessions_.pools().parameters();
  ParameterSetRef target = pool_->welcome_set;
  for (const auto& [name, value] : login_->wanted) {
    const std::string* reported = find_parameter(pool_->welcome.reported, name);
    if (reported == nullptr) continue;  // This server does not report it.
    const auto known = pool_->canonical_values.find(spelling_key(name, value));
    if (known != pool_->canonical_values.end()) {
      target = store.with(target, name, known->second);
    } else if (*reported == value || is_canonical_value(name, value)) {
      target = store.with(target, name, value);
    } else {
      return false;
    }
  }
  parameters_ = target;
  return true;
}

// A backend is there: it says what the server is like, and takes the client's parameters or refuses
// them.
void Session::start_welcome() noexcept {
  ASSERT(backend_ != nullptr);
  ASSERT(!pool_->welcome.empty());
  if (has_own_backend()) {
    // It has just said what it is like, and began with what the client asks for.
    parameters_ = backend_->parameters();
    return send_welcome();
  }
  if (know_welcome()) return finish_welcome();
  ask_welcome();
}

void Session::ask_welcome() noexcept {
  ParameterStore& store = sessions_.pools().parameters();
  ParameterSetRef target = pool_->welcome_set;
  for (const auto& [name, value] : login_->wanted)
    if (find_parameter(pool_->welcome.reported, name) != nullptr)
      target = store.with(target, name, value_to_set(name, value));
  if (backend_->apply_parameters(target))
    return;  // Goes on in on_input_end, or in on_skipped_error.
  // The backend has exactly these values already.
  learn_spellings();
  finish_welcome();
}

// The server has refused the SET, in words about what we sent; the client gets what the server
// would have said of its own.
void Session::refuse_welcome(PoolError error) noexcept {
  const size_t at = error.message.find(date_style_base);
  if (at != std::string::npos) error.message.erase(at, date_style_base.size());
  for (const auto& [name, value] : login_->wanted) use_spelling(error.message, name);
  name_conversion(error);
  login_->refusal = std::move(error);
}

// The SET of the start-up parameters has been answered: with an error?
bool Session::welcome_failed() noexcept {
  Backend& backend = *backend_;
  if (backend.transaction_status() != transaction_status::idle) {
    drop_backend("not idle after SET");
    fail(sqlstate::protocol_violation, "the server is not idle after SET");
    return true;
  }
  if (!login_->refusal) return false;
  const PoolError refusal = std::move(*login_->refusal);
  std::exchange(backend_, nullptr)->give_back(Cleaning::none);
  fail(refusal);
  return true;
}

void Session::learn_spellings() noexcept {
  parameters_ = backend_->parameters();
  if (pool_->canonical_values.size() > spellings_max) pool_->canonical_values.clear();
  for (const auto& [name, value] : login_->wanted) {
    const std::string* reported = find_parameter(parameters_->list(), name);
    if (reported != nullptr) pool_->canonical_values[spelling_key(name, value)] = *reported;
  }
}

// The backend has told what there was to learn.
void Session::finish_welcome() noexcept {
  if (!leases_at_login()) std::exchange(backend_, nullptr)->give_back(Cleaning::none);
  send_welcome();
}

void Session::send_welcome() noexcept {
  MessageWriter& writer = sessions_.pools().writer();
  if (parameters_ == pool_->welcome_set) {
    writer.add_messages(pool_->welcome_bytes);
  } else {
    for (const auto& [name, value] : pool_->welcome.reported) {
      const std::string* own = find_parameter(parameters_->list(), name);
      write_parameter_status(writer, name, own != nullptr ? *own : value);
    }
  }
  first_parameters_ = parameters_;
  cancel_key_size_ = login_->minor >= 2 ? 32 : 4;
  const std::string key = sessions_.cancel_key_of(*this, cancel_key_size_);
  process_id_ = sessions_.tell_process_id(*this, backend_);
  write_backend_key_data(writer, process_id_, as_bytes(key));
  write_ready_for_query(writer, 'I');
  send_output(writer);
  const PoolSpec& spec = pool_->slice.spec();
  LOG(debug, "client %u is user \"%s\" of database \"%s\", and was told process id %u",
      sessions_.process_id_of(*this), spec.user.c_str(), spec.database.c_str(), process_id_);
  ++sessions_.counters().logged_in;
  sessions_.timers().cancel(timer_);
  forget_login();
  if (backend_ != nullptr) {
    start_lease();
  } else {
    set_state(State::ready);
  }
  if (sessions_.is_draining()) return drain();
  on_reload();
  run_inbox();
}

void Session::on_cancel_finished() noexcept {
  if (state_ != State::ending) end("cancel request done");
}

}  // namespace helios
