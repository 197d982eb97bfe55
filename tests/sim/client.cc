#include "tests/sim/client.h"

#include <algorithm>
#include <utility>

namespace helios::sim {
namespace {

using namespace test;

// What a client may be told as its last word, when something has gone wrong elsewhere.
bool is_excuse(const std::string& code) {
  for (const char* known : {"53300", "08006", "57P01", "57P03"})
    if (code == known) return true;
  return false;
}

constexpr const char* loss_texts[] = {"server closed the connection unexpectedly",
                                      "terminating connection due to administrator command"};

}  // namespace

Client::Client(ClientHost& host, uint32_t number, size_t pool)
    : host_(host),
      number_(number),
      pool_(pool),
      visits_left_(1 + static_cast<uint32_t>(host.random().below(3))),
      reads_slowly_(host.random().percent(15)),
      next_act_(host.now() + host.random().up_to(host.settings().think_max)) {}

std::string Client::describe() const {
  std::string text = "client " + std::to_string(number_) + " \"" + mark_ + "\" of pool " +
                     std::to_string(pool_) + (is_welcome_ ? "" : ", not welcome yet") +
                     ", status " + status_ + ", " + std::to_string(replies_.size()) +
                     " answers due";
  if (!replies_.empty() && !replies_.front().expected.empty()) {
    const WireMessage& next = replies_.front().expected.front();
    text += std::string(", next ") + next.tag + " \"" + next.body.substr(0, 60) + "\"";
  }
  return text;
}

void Client::fail(const std::string& what) {
  host_.fail(what + " (" + describe() + ")");
}

template <typename Holds>
bool Client::any_since(Nanoseconds time, Holds holds) const {
  const std::vector<const Configuration*> known = host_.configurations_since(time);
  return std::any_of(known.begin(), known.end(),
                     [&](const Configuration* one) { return holds(*one); });
}

template <typename Holds>
bool Client::any_limits_since(Nanoseconds time, Holds holds) const {
  return any_since(time, [&](const Configuration& one) { return holds(one.limits[pool_]); });
}

bool Client::was_user_missing() const {
  const size_t user = host_.settings().pools[pool_].user;
  return any_since(came_at_, [&](const Configuration& one) { return !one.has_user[user]; });
}

bool Client::was_database_missing() const {
  const size_t database = host_.settings().pools[pool_].database;
  return any_since(came_at_, [&](const Configuration& one) { return !one.has_database[database]; });
}

bool Client::has_input() const {
  const SimNetwork& network = host_.network();
  return fd_ >= 0 && (!network.peek(fd_).empty() || network.is_at_end(fd_));
}

Nanoseconds Client::next_time() const {
  if (is_finished()) return never;
  return has_input() ? std::min(next_read_, next_act_) : next_act_;
}

Nanoseconds Client::waits_since() const {
  const bool is_idle = is_welcome_ && replies_.empty() && !has_said_goodbye_;
  if (fd_ < 0 || is_idle || !outbox_.empty() || has_input()) return never;
  // It is the client's turn.
  if (!has_said_goodbye_ && !script_.empty() && script_.front().continues) return never;
  return progress_at_;
}

Nanoseconds Client::idle_since() const {
  const bool is_idle = fd_ >= 0 && is_welcome_ && !is_told_ && !has_said_goodbye_ &&
                       status_ == 'I' && replies_.empty() && outbox_.empty() && !has_input();
  const bool is_between = !script_.empty() && script_.front().continues;
  return is_idle && !is_between ? progress_at_ : never;
}

Nanoseconds Client::unheard_since() const {
  const Nanoseconds idle = idle_since();
  Nanoseconds since = never;
  for (const auto& [channel, hearing] : hearings_) {
    if (idle == never || hearing.needed == SIZE_MAX) continue;
    const std::vector<Notified>& all = notified(channel);
    const size_t lacking = hearing.has_heard ? hearing.next : hearing.needed;
    if (lacking < all.size()) since = std::min(since, std::max(idle, all[lacking].at));
  }
  return since;
}

const std::vector<Notified>& Client::notified(const std::string& channel) const {
  return host_.notified(host_.settings().pools[pool_].database, channel);
}

void Client::act() {
  if (has_input() && next_read_ <= host_.now()) return read();
  next_act_ = host_.now() + 1;
  if (fd_ < 0) return connect();
  if (host_.random().below(1'000) < 4) return die();
  work();
}

void Client::end() {
  visits_left_ = 0;
  if (fd_ >= 0) close(false);
}

void Client::connect() {
  if (host_.is_closing_time()) visits_left_ = 0;
  if (visits_left_ == 0) return;
  --visits_left_;
  const Settings& settings = host_.settings();
  const PoolSettings& pool = settings.pools[pool_];
  SimRandom& random = host_.random();
  mark_ = "c" + std::to_string(number_) + "." + std::to_string(++visits_count_) + "-";
  writer_.emplace(random, mark_, licence());
  facts_ = {};
  hearings_.clear();
  std::vector<std::pair<std::string, std::string>> parameters;
  if (random.percent(50)) {
    facts_.application_name = mark_ + "first";
    facts_.first_application_name = facts_.application_name;
    parameters.emplace_back("application_name", facts_.application_name);
  }
  inbox_.clear();
  outbox_ = startup_packet("u" + std::to_string(pool.user), "d" + std::to_string(pool.database),
                           parameters);
  script_.clear();
  replies_.clear();
  key_.clear();
  units_left_ = 1 + static_cast<uint32_t>(random.below(settings.units_max));
  status_ = 'I';
  pipelines_ = random.percent(40);
  is_welcome_ = was_asked_ = has_cancelled_ = false;
  has_said_goodbye_ = has_failed_ = is_told_ = is_discarded_ = has_lost_block_ = false;
  told_name_ = facts_.application_name;
  came_at_ = asked_at_ = progress_at_ = host_.now();
  fd_ = host_.connect();
  host_.note("client connects", number_, visits_count_);
}

// What holds under each configuration that may come. No reload changes session_state.
Licence Client::licence() const {
  const Settings& settings = host_.settings();
  // In session mode it leads to what the backend began with; and the checker would take it for the
  // pooler's own, behind which connect_query comes again.
  const auto may_discard = [this](const Configuration& one) {
    const PoolLimits& limits = one.limits[pool_];
    return limits.mode != LeaseMode::session && limits.connect_query.empty();
  };
  const auto may_rebind = [this](const Configuration& one) {
    const PoolLimits& limits = one.limits[pool_];
    return limits.mode != LeaseMode::session && limits.max_prepared_statements > 0;
  };
  Licence licence;
  licence.rebinds = may_rebind(settings.first);
  licence.sets = settings.first.limits[pool_].session_state != StatePolicy::warn;
  licence.discards = licence.sets && may_discard(settings.first);
  licence.listens = licence.sets;
  const size_t database = settings.pools[pool_].database;
  for (const Change& change : settings.changes) {
    if (!may_discard(change.next)) licence.discards = false;
    if (!may_rebind(change.next)) licence.rebinds = false;
    // Else there are two databases of that name, whose clients do not hear each other.
    if (change.next.node_of[database] != settings.first.node_of[database]) licence.listens = false;
  }
  return licence;
}

// The answer due is to something that would keep a backend, in a pool that allows no such thing.
bool Client::may_be_kept_off() const {
  return !replies_.empty() && is_of_holding(replies_.front());
}

// The same of any that are due: what is refused behind something else, or in a transaction, is a
// last word, and comes at once.
bool Client::may_be_ended_for_it() const {
  return std::any_of(replies_.begin(), replies_.end(),
                     [this](const Reply& reply) { return is_of_holding(reply); });
}

bool Client::is_of_holding(const Reply& reply) const {
  return (reply.effect == Reply::Effect::hold || reply.effect == Reply::Effect::listen) &&
         host_.settings().first.limits[pool_].session_state == StatePolicy::refuse;
}

bool Client::may_begin_step() const {
  return !script_.empty() && (script_.front().continues || replies_.empty() || pipelines_);
}

void Client::work() {
  if (!outbox_.empty()) return send_some();
  if (!is_welcome_ || has_said_goodbye_) return dawdle();
  const bool has_time = !host_.is_closing_time() && units_left_ > 0;
  if (script_.empty() && has_time && (replies_.empty() || pipelines_)) {
    --units_left_;
    script_ = writer_->next(facts_, replies_.empty());
  }
  // A transaction that was lost with its COMMIT, say, has no end in its script.
  if (script_.empty() && replies_.empty() && has_lost_block_) script_ = writer_->rollback();
  if (!may_begin_step()) {
    if (!script_.empty() || !replies_.empty()) return dawdle();
    return leave(host_.random().percent(60));
  }
  if (replies_.empty()) asked_at_ = host_.now();
  outbox_ = std::move(script_.front().bytes);
  for (Reply& reply : script_.front().replies) {
    if (reply.effect == Reply::Effect::listen) may_listen(reply);
    replies_.push_back(std::move(reply));
  }
  script_.pop_front();
  const bool is_last = script_.empty() && (units_left_ == 0 || host_.is_closing_time());
  if (is_last && host_.random().percent(20)) {
    outbox_ += frame('X', {});
    has_said_goodbye_ = true;
  }
  send_some();
}

// Sends all that is to be sent, or a part of it, be it half a message.
void Client::send_some() {
  SimRandom& random = host_.random();
  const size_t size = random.percent(60) ? outbox_.size() : 1 + random.below(outbox_.size());
  host_.note("client sends", number_, size);
  static_cast<void>(host_.network().write(fd_, outbox_.substr(0, size)));
  outbox_.erase(0, size);
  pieces_count_ += outbox_.empty() ? 0 : 1;
  progress_at_ = host_.now();
  const Nanoseconds pause = random.percent(5) ? milliseconds(10) : microseconds(100);
  next_act_ = host_.now() + random.up_to(pause);
}

// Waits, and does not know for how long.
void Client::dawdle() {
  SimRandom& random = host_.random();
  next_act_ = host_.now() + random.up_to(milliseconds(20) + host_.settings().think_max);
  if (replies_.empty() || key_.empty() || !random.percent(4)) return;
  std::string key = key_;
  if (random.percent(20)) {
    key.back() ^= 1;  // Somebody else's guess: nothing may come of it.
  } else {
    has_cancelled_ = true;
  }
  host_.note("client cancels", number_);
  host_.send_cancel(key);
}

void Client::leave(bool with_goodbye) {
  if (!with_goodbye) return close(false);
  has_said_goodbye_ = true;
  outbox_ = frame('X', {});
  send_some();
}

void Client::die() {
  const bool is_at_rest = is_welcome_ && status_ == 'I' && replies_.empty() && outbox_.empty();
  deaths_count_ += is_at_rest ? 0 : 1;
  close(host_.random().percent(40));
}

void Client::close(bool by_reset) {
  host_.note(by_reset ? "client resets" : "client closes", number_, replies_.size());
  if (by_reset) host_.network().reset(fd_);
  host_.network().close(std::exchange(fd_, -1));
  next_act_ = host_.now() + host_.random().up_to(host_.settings().think_max + milliseconds(1));
}

void Client::read() {
  const std::string bytes = host_.network().read(fd_);
  host_.note("client reads", number_, bytes.size(), std::hash<std::string>{}(bytes));
  if (!bytes.empty()) progress_at_ = host_.now();
  if (reads_slowly_) next_read_ = host_.now() + host_.random().up_to(milliseconds(5));
  inbox_ += bytes;
  const bool had_to_wait = !replies_.empty() || !is_welcome_;
  for (const WireMessage& message : take_messages(inbox_)) on_message(message);
  if (host_.network().is_at_end(fd_)) return on_end();
  if (was_asked_) return close(false);
  // Free to go on: it thinks about it first.
  if (had_to_wait && replies_.empty() && is_welcome_) {
    const Nanoseconds thought = host_.random().up_to(host_.settings().think_max);
    next_act_ = std::min(next_act_, host_.now() + thought);
  }
}

// The pooler has ended the connection. Half a message may have come before.
void Client::on_end() {
  if (host_.is_calm() && !is_told_ && !has_said_goodbye_ && !may_be_ended_for_it())
    fail("a client was cut off without a reason");
  close(false);
}

void Client::on_message(const WireMessage& message) {
  if (is_told_) return fail("something came behind the last word");
  switch (message.tag) {
    case 'S':
      return on_parameter(message);
    case 'E':
      return on_error(message);
    case 'N':
      return on_notice(message);
    case 'Z':
      return on_ready(message.body[0]);
    case 'R':
      return on_authentication(message);
    case 'A':
      return on_notification(message);
    case 'K':
      if (is_welcome_) return fail("a part of a login came behind it");
      key_ = message.body;
      return;
    default:
      break;
  }
  if (replies_.empty()) return fail(std::string("nobody asked for ") + message.tag);
  // For Parse and Close it may not have taken a server yet.
  if (message.tag != '1' && message.tag != '3') replies_.front().has_begun = true;
  std::deque<WireMessage>& expected = replies_.front().expected;
  if (has_failed_ || expected.empty()) return fail(std::string("too much: ") + message.tag);
  // The end of a transaction that has failed already may be the pooler's own answer.
  const bool is_lost_end = replies_.front().effect == Reply::Effect::end && status_ == 'E' &&
                           !host_.is_calm() && message.tag == 'C' &&
                           message.body == std::string("ROLLBACK\0", 9);
  if (!is_lost_end &&
      (message.tag != expected.front().tag || message.body != expected.front().body))
    return fail(std::string("not its own: ") + message.tag + " \"" + message.body.substr(0, 60) +
                "\"");
  expected.pop_front();
}

// Nobody has a password: the pooler asks for one when it does not know the user, as if it did.
void Client::on_authentication(const WireMessage& message) {
  if (is_welcome_) return fail("a part of a login came behind it");
  if (message.body == std::string(4, '\0')) return;
  if (!was_user_missing()) return fail("asked for a password");
  ++removals_count_;
  was_asked_ = true;
}

void Client::on_parameter(const WireMessage& message) {
  const std::string_view body = message.body;
  constexpr std::string_view name("application_name\0", 17);
  if (body.substr(0, name.size()) != name) {
    if (is_welcome_) fail("a parameter changed that nobody touches");
    return;
  }
  const std::string_view value = body.substr(name.size(), body.size() - name.size() - 1);
  const std::string* wanted = &facts_.application_name;
  if (is_welcome_ && !replies_.empty()) {
    const Reply& reply = replies_.front();
    if (reply.effect == Reply::Effect::rename) wanted = &reply.text;
    // First the server's, then its own, when the pooler knows of it.
    if (reply.effect == Reply::Effect::discard && value.empty()) return;
    if (reply.effect == Reply::Effect::discard) wanted = &facts_.first_application_name;
  }
  if (is_discarded_ && value == facts_.first_application_name) return;
  // What was not done is taken back.
  const bool is_taken_back = !host_.is_calm() && value == facts_.application_name &&
                             told_name_ == *wanted && wanted != &facts_.application_name;
  told_name_ = value;
  if (value != *wanted && !is_taken_back)
    fail("not its own application_name: " + std::string(value));
}

// Only who waits for a server is told so: outside of a transaction, before anything of the answer.
void Client::on_notice(const WireMessage& message) {
  ++notices_count_;
  if (field_of(message, 'M').find("waiting for a server connection") != 0)
    return fail("a notice of somebody else");
  if (replies_.empty() || !is_welcome_) return fail("a notice although nothing was asked");
  Reply& reply = replies_.front();
  if (reply.has_begun || has_failed_ || status_ != 'I') fail("a notice inside an answer");
  if (std::exchange(reply.has_noticed, true)) fail("two notices in one wait");
  const Nanoseconds waited = host_.now() - asked_at_;
  const bool is_due = any_limits_since(asked_at_, [&](const PoolLimits& limits) {
    return limits.wait_notice > 0 && waited >= limits.wait_notice;
  });
  if (!is_due) fail("told too early that it waits, or without need");
}

void Client::on_error(const WireMessage& message) {
  const std::string code = field_of(message, 'C');
  if (field_of(message, 'V') == "FATAL") return on_fatal(code, field_of(message, 'M'));
  if (replies_.empty()) return fail("an error that it did not make: " + code);
  if (has_failed_) return fail("two errors in one answer");
  has_failed_ = true;
  if (is_loss(code, field_of(message, 'M'))) return on_loss();
  const Reply& reply = replies_.front();
  const bool is_lost_end = has_lost_block_ && reply.may_be_lost;
  const bool is_aborted = status_ == 'E' && (reply.effect != Reply::Effect::end || is_lost_end);
  const bool may_lack = has_cancelled_ || losses_count_ > 0 || is_aborted;
  const bool is_due = code == reply.error || (is_aborted && code == "25P02") ||
                      (may_lack && code == reply.error_if_interrupted);
  if (code == "0A000" && may_be_kept_off()) {
    ++kept_off_count_;
    return;
  }
  if (!is_due && !(has_cancelled_ && code == "57014")) fail("not its own error: " + code);
}

bool Client::is_loss(const std::string& code, const std::string& message) const {
  return (code == "08006" && message == loss_texts[0]) ||
         (code == "57P01" && message == loss_texts[1]);
}

// A backend was lost: the transaction, if there is one, has failed. Nobody is told twice.
void Client::on_loss() {
  ++losses_count_;
  if (host_.is_calm()) fail("lost a server although nothing happened");
  if (status_ == 'I') return;
  ++lost_blocks_count_;
  if (std::exchange(has_lost_block_, true)) fail("told twice that its transaction is lost");
  for (Reply& reply : replies_) reply.may_be_lost = true;
}

// --- Notifications ---

// All of a channel, in order and once, from when it listens.
void Client::on_notification(const WireMessage& message) {
  ++heard_count_;
  const uint32_t process_id = load_be32(as_bytes(message.body).data());
  const std::string channel = message.body.c_str() + 4;
  const std::string payload = message.body.c_str() + 4 + channel.size() + 1;
  const auto found = hearings_.find(channel);
  if (found == hearings_.end()) return fail("hears what it does not listen to: " + payload);
  Hearing& hearing = found->second;
  const std::vector<Notified>& all = notified(channel);
  const auto notification = std::find_if(
      all.begin(), all.end(), [&](const Notified& one) { return one.payload == payload; });
  const size_t number = static_cast<size_t>(notification - all.begin());
  if (notification == all.end()) return fail("hears what nobody has notified: " + payload);
  if (number < hearing.first) return fail("hears what came before it listened: " + payload);
  if (hearing.has_heard && number < hearing.next) return fail("hears it twice: " + payload);
  const size_t most = hearing.has_heard ? hearing.next : hearing.needed;
  if (number > most) return fail("has not heard " + all[most].payload + " before " + payload);
  hearing.has_heard = true;
  hearing.next = number + 1;
  const bool is_own = payload.starts_with(mark_);
  if (is_own && process_id != load_be32(as_bytes(key_).data()))
    fail("its own notification has another process id");
}

void Client::may_listen(const Reply& reply) {
  const auto [known, is_new] = hearings_.try_emplace(reply.name);
  if (is_new) known->second.first = notified(reply.name).size();
}

void Client::begin_listening(const std::string& channel) {
  Hearing& hearing = hearings_.at(channel);
  hearing.is_of_block = false;
  hearing.needed = std::min(hearing.needed, notified(channel).size());
  facts_.channels.insert(channel);
}

// It has not begun to, or is told that it has ended. Another LISTEN may be under way.
void Client::end_listening(const std::string& channel) {
  facts_.channels.erase(channel);
  hearings_.erase(channel);
  for (const Reply& reply : replies_)
    if (reply.effect == Reply::Effect::listen && reply.name == channel) may_listen(reply);
}

void Client::end_all_listening() {
  for (const std::string& channel : std::set<std::string>(facts_.channels)) end_listening(channel);
}

void Client::end_block(bool is_committed) {
  std::vector<std::string> begun;
  for (const auto& [channel, hearing] : hearings_)
    if (hearing.is_of_block) begun.push_back(channel);
  for (const std::string& channel : begun) {
    if (is_committed) {
      begin_listening(channel);
    } else {
      end_listening(channel);
    }
  }
}

// --- Last words ---

// Only who would miss its backend is ended with it.
void Client::check_fatal_loss() {
  if (!is_welcome_ || writer_->has_prepared() || writer_->has_split_unnamed()) return;
  // Parsed, and not bound.
  if (!replies_.empty() && !replies_.front().expected.empty() &&
      replies_.front().expected.front().tag == '2')
    return;
  if (any_limits_since(came_at_, [&](const PoolLimits& limits) {
        return limits.mode == LeaseMode::session || limits.session_state != StatePolicy::warn ||
               (writer_->has_parsed() && limits.max_prepared_statements == 0);
      }))
    return;
  fail("ended with its server, and could go on");
}

// Told that its database or user is not there (any more). Nobody is told so for nothing, nor in a
// transaction or an answer.
bool Client::is_removal(const std::string& code, const std::string& message) {
  const PoolSettings& pool = host_.settings().pools[pool_];
  const std::string database = "database \"d" + std::to_string(pool.database) + "\" ";
  const std::string user = "user \"u" + std::to_string(pool.user) + "\" ";
  const bool is_of_user = code == "57P01" && message.find("was removed") != std::string::npos;
  if (code != "57P04" && code != "3D000" && !is_of_user) return false;
  if (is_of_user ? !was_user_missing() : !was_database_missing())
    fail("removed, and is not: " + message);
  if (message.find(is_of_user ? user : database) != 0) fail("removed is another: " + message);
  if (code == "3D000" && is_welcome_) fail("welcome, and not there: " + message);
  // A Close is answered without a backend, before its Sync has come.
  const bool is_closed = !replies_.empty() && replies_.front().expected.empty() &&
                         replies_.front().effect == Reply::Effect::deallocate;
  const bool is_within = !replies_.empty() && replies_.front().has_begun && !is_closed;
  // Of a transaction, or a batch, that is lost with its server nothing is left to be done.
  const bool is_open = !script_.empty() && script_.front().continues;
  const bool may_be_lost = !host_.is_calm() && (status_ != 'I' || is_open || is_within);
  if ((status_ != 'I' || is_within) && !may_be_lost)
    fail("cut off in the middle of its work: " + message);
  ++removals_count_;
  return true;
}

// Nobody is told of a limit that is not set, nor before its time.
void Client::check_refusal(const std::string& message) {
  const Nanoseconds waited = host_.now() - asked_at_;
  if (message.find("query_wait_timeout: no server") == 0 &&
      !any_limits_since(asked_at_,
                        [&](const PoolLimits& limits) { return waited >= limits.acquire_timeout; }))
    fail("told too early that nothing became free in time");
  if (message.find("too many clients wait") == 0) {
    if (!any_limits_since(asked_at_,
                          [](const PoolLimits& limits) { return limits.max_waiters > 0; }))
      fail("refused by max_waiters, which is not set");
    if (!replies_.empty() && replies_.front().has_noticed) fail("refused while it waited");
  }
  if (message.find("too many clients of ") == 0) {
    ++refusals_count_;
    const PoolSettings& pool = host_.settings().pools[pool_];
    if (!any_since(came_at_, [&](const Configuration& one) {
          return one.database_clients_max[pool.database] > 0 || one.user_clients_max[pool.user] > 0;
        }))
      fail("refused by max_clients, which is not set");
    if (is_welcome_) fail("welcome, and then refused by max_clients");
  }
}

void Client::on_fatal(const std::string& code, const std::string& message) {
  host_.note("client is told", number_, std::hash<std::string>{}(code));
  is_told_ = true;
  if (code == "0A000" && writer_->has_transaction() &&
      any_limits_since(
          came_at_, [](const PoolLimits& limits) { return limits.mode == LeaseMode::statement; }))
    return;
  if (code == "0A000" && may_be_ended_for_it()) return;
  if (is_removal(code, message)) return;
  if (is_loss(code, message)) check_fatal_loss();
  if (!is_excuse(code)) return fail("a last word without a reason: " + code + " " + message);
  // The connection that listens for clients gives way when limits become smaller.
  const bool may_make_room = message.starts_with("the server connection that listened") &&
                             !host_.settings().changes.empty();
  if (host_.is_calm() && code != "53300" && !may_make_room)
    fail("a last word although nothing happened: " + code);
  check_refusal(message);
}

void Client::on_ready(char status) {
  if (!is_welcome_) {
    is_welcome_ = true;
    if (status != 'I') fail("welcome in a transaction");
    return;
  }
  if (replies_.empty()) return fail("ready although nothing was asked");
  const bool is_kept = may_be_kept_off() && !has_failed_;
  Reply reply = std::move(replies_.front());
  replies_.pop_front();
  ++replies_count_;
  if (std::exchange(has_failed_, false)) {
    if (status_ == 'T') status_ = 'E';
    // The end of a lost transaction that is known to be one has ended it.
    if (has_lost_block_ && reply.effect == Reply::Effect::end && status == 'I') apply(reply);
    // A name is made or closed when the server has said so, whatever becomes of the rest. But what
    // PREPARE has made is lost with its server, and the query has failed.
    const bool is_of_parse = reply.effect == Reply::Effect::prepare && reply.text != "PREPARE";
    const bool is_of_name = is_of_parse || reply.effect == Reply::Effect::deallocate;
    if (is_of_name && reply.error.empty() && reply.expected.empty()) apply(reply);
    const bool is_known = facts_.channels.contains(reply.name);
    if (reply.effect == Reply::Effect::listen && !is_known && !hearings_.at(reply.name).is_of_block)
      end_listening(reply.name);
  } else {
    if (!reply.error.empty()) fail("an error was left out");
    if (!reply.expected.empty()) fail("a part of an answer was left out");
    if (is_kept && !any_limits_since(came_at_, [](const PoolLimits& limits) {
          return limits.mode == LeaseMode::session;
        }))
      fail("keeps a backend where that is refused");
    own_count_ += reply.tells_own ? 1 : 0;
    apply(reply);
  }
  if (status != status_) fail(std::string("not its own transaction: ready ") + status);
  if (status != 'I' && !any_limits_since(came_at_, [](const PoolLimits& limits) {
        return limits.mode != LeaseMode::statement;
      }))
    fail("in a transaction in statement mode");
}

void Client::apply(const Reply& reply) {
  switch (reply.effect) {
    case Reply::Effect::none:
      return;
    case Reply::Effect::begin:
      status_ = 'T';
      facts_.settings_at_begin = facts_.settings;
      return;
    case Reply::Effect::end:
      // The transaction may not have begun.
      if (status_ == 'E' || (status_ == 'T' && reply.text == "ROLLBACK"))
        facts_.settings = facts_.settings_at_begin;
      end_block(status_ == 'T' && reply.text == "COMMIT");
      status_ = 'I';
      has_lost_block_ = false;
      return;
    case Reply::Effect::rename:
      facts_.application_name = reply.text;
      return;
    case Reply::Effect::prepare:
      facts_.statements[reply.name] = {reply.text, reply.text == "PREPARE"};
      return;
    case Reply::Effect::deallocate:
      facts_.statements.erase(reply.name);
      return;
    case Reply::Effect::set:
      facts_.settings[reply.name] = reply.text;
      return;
    case Reply::Effect::reset:
      facts_.settings.erase(reply.name);
      return;
    case Reply::Effect::hold:
      facts_.held.insert(reply.name);
      return;
    case Reply::Effect::release:
      facts_.held.erase(reply.name);
      return;
    case Reply::Effect::discard:
      return discard();
    case Reply::Effect::listen:
      if (facts_.channels.contains(reply.name)) return;
      if (status_ == 'I') return begin_listening(reply.name);
      hearings_.at(reply.name).is_of_block = true;
      return;
    case Reply::Effect::unlisten:
      if (!reply.name.empty()) return end_listening(reply.name);
      return end_all_listening();
  }
}

void Client::discard() {
  is_discarded_ = true;
  facts_.application_name = facts_.first_application_name;
  facts_.settings.clear();
  facts_.held.clear();
  facts_.statements.clear();
  end_all_listening();
}

}  // namespace helios::sim
