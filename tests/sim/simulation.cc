#include "tests/sim/simulation.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/pool_messages.h"
#include "helios/wire/writer.h"

namespace helios::sim {
namespace {

using namespace test;

// How long clients may take to come, work and go.
constexpr Nanoseconds day_max = seconds(20);
// More acts than this are no run but a circle.
constexpr uint64_t steps_max = 3'000'000;
// A server that does not close is cut after a minute.
constexpr Nanoseconds rest_max = seconds(65);
// A pool is forgotten a minute after its last use, and so is one that was made again to take
// permits home.
constexpr Nanoseconds forget_max = seconds(300);
// What may come on top of a time-out of the pooler's: the work itself, a deaf session, many turns.
constexpr Nanoseconds margin = seconds(3);
// What the pooler has to say may have to wait for an answer that the client has given up.
constexpr Nanoseconds told_max = seconds(1);
// The pooler gives a cancel request up after ten seconds.
constexpr Nanoseconds cancel_max = seconds(10) + margin;

const char* to_text(MessageKind kind) {
  switch (kind) {
    case MessageKind::want:
      return "message: want";
    case MessageKind::promise:
      return "message: promise";
    case MessageKind::unpromise:
      return "message: unpromise";
    case MessageKind::permits:
      return "message: permits";
    case MessageKind::backend:
      return "message: backend";
    case MessageKind::welcome:
      return "message: welcome";
    case MessageKind::make_room:
      return "message: make room";
    case MessageKind::limit_freed:
      return "message: limit freed";
    case MessageKind::use:
      return "message: use";
    case MessageKind::place:
      return "message: place";
    case MessageKind::node_failed:
      return "message: node failed";
    case MessageKind::node_returned:
      return "message: node returned";
    case MessageKind::cancel:
      return "message: cancel";
    case MessageKind::session:
      return "message: session";
    case MessageKind::cancel_done:
      return "message: cancel done";
    case MessageKind::none:
    case MessageKind::statistics_wanted:
    case MessageKind::statistics:
    case MessageKind::reload:
    case MessageKind::log_statistics:
    case MessageKind::client_socket:
    case MessageKind::drain:
    case MessageKind::stop:
    case MessageKind::settled:
      break;
  }
  return "message of a kind that nobody sends here";
}

}  // namespace

// --- Set-up ---

Simulation::Simulation(uint64_t seed, bool prints, const Pretence& pretence)
    : settings_(seed),
      random_(settings_.network.seed + 1),
      prints_(prints),
      pretence_(pretence),
      bench_(options_of(settings_)),
      schedules_(settings_.cores) {
  set_log_level(prints ? LogLevel::debug : LogLevel::error);
  make_limits();
  bench_.on_sent = [this](CoreId to, const Message& message) {
    note(to_text(static_cast<MessageKind>(message.kind)), message.from, to, message.count);
  };
  bench_.directory.adapt = [this](PoolSpec& spec) { adapt(spec, settings_.first); };
  for (size_t i = 0; i < settings_.first.node_max.size(); ++i)
    nodes_.push_back(std::make_unique<SimNode>(bench_, random_, settings_, i, tally_));
  checker_ = std::make_unique<Checker>(bench_, settings_, shared_, nodes_,
                                       [this](std::string text) { fail(std::move(text)); });
  for (const auto& node : nodes_)
    node->server.on_notified = [this](const ServerSession& sender, const std::string& channel,
                                      const std::string& payload) {
      const size_t database = std::strtoul(sender.database().c_str() + 1, nullptr, 10);
      notified_[{database, channel}].push_back({payload, now()});
    };
  for (size_t i = 0; i < nodes_.size(); ++i)
    nodes_[i]->server.on_read = [this, i](const ServerSession& session,
                                          const WireMessage& message) {
      checker_->on_server_message(i, session, message);
    };
  only_core_ = static_cast<CoreId>(random_.below(settings_.cores));
  for (uint32_t i = 0; i < settings_.clients_count; ++i)
    clients_.push_back(std::make_unique<Client>(*this, i, random_.below(settings_.pools.size())));
  if (settings_.has_faults) next_fault_ = now() + random_.up_to(2 * settings_.fault_every);
  if (settings_.drains_early) schedule_drain();
  if (!settings_.changes.empty()) next_change_ = now() + settings_.changes[0].pause;
}

BenchOptions Simulation::options_of(const Settings& settings) {
  BenchOptions options;
  options.cores_count = settings.cores;
  options.clients_max = settings.first.clients_max;
  options.buffers_count = settings.buffers_count;
  options.sessions_max = 128;
  options.backends_max = 64;
  options.mail_max = settings.mail_max;
  options.has_mailboxes = true;
  options.places_sessions = settings.places_sessions;
  options.network = settings.network;
  return options;
}

void Simulation::make_limits() {
  // Without a limit they count all the same: one may come later.
  for (const uint32_t max : settings_.first.database_max)
    shared_.databases.push_back(std::make_shared<SharedLimit>(max));
  for (const uint32_t max : settings_.first.user_max)
    shared_.users.push_back(std::make_shared<SharedLimit>(max));
  for (const uint32_t max : settings_.first.database_clients_max)
    shared_.database_clients.push_back(std::make_shared<Limit>(max));
  for (const uint32_t max : settings_.first.user_clients_max)
    shared_.user_clients.push_back(std::make_shared<Limit>(max));
}

void Simulation::adapt(PoolSpec& spec, const Configuration& configuration) const {
  for (size_t i = 0; i < settings_.pools.size(); ++i) {
    const PoolSettings& pool = settings_.pools[i];
    if (spec.database != "d" + std::to_string(pool.database)) continue;
    if (spec.user != "u" + std::to_string(pool.user)) continue;
    spec.node = &nodes_[configuration.node_of[pool.database]]->node;
    spec.limits = configuration.limits[i];
    spec.login.password = SimNode::password;
    spec.database_limit = shared_.databases[pool.database];
    spec.user_limit = shared_.users[pool.user];
    spec.database_clients = shared_.database_clients[pool.database];
    spec.user_clients = shared_.user_clients[pool.user];
  }
}

// --- What clients need ---

int Simulation::connect() {
  const auto [ours, theirs] = bench_.network.make_pair();
  const CoreId any = static_cast<CoreId>(random_.below(settings_.cores));
  schedules_[settings_.is_lopsided ? only_core_ : any].arrivals.push_back(theirs);
  return ours;
}

void Simulation::send_cancel(const std::string& key) {
  MessageWriter writer;
  const ByteSpan bytes = as_bytes(key);
  write_cancel_request(writer, load_be32(bytes.data()), bytes.subspan(4));
  askers_.push_back({connect(), now()});
  static_cast<void>(bench_.network.write(askers_.back().fd, as_text(writer.bytes())));
}

void Simulation::fail(std::string text) {
  if (!error_.empty()) return;
  char moment[64];
  snprintf(moment, sizeof(moment), " at %.6f ms, after %" PRIu64 " acts",
           static_cast<double>(now()) / 1e6 - 1e6, steps_count_);
  // Bytes of messages may stand in it.
  std::replace_if(
      text.begin(), text.end(), [](char letter) { return letter < ' '; }, '.');
  error_ = std::move(text) + moment + checker_->describe();
  note("failure", 0, 0, 0);
}

void Simulation::note(const char* what, uint64_t a, uint64_t b, uint64_t c) {
  const auto mix = [this](uint64_t value) {
    trace_hash_ = (trace_hash_ ^ value) * 0x100000001b3ULL;
  };
  for (const char* letter = what; *letter != '\0'; ++letter) mix(static_cast<uint8_t>(*letter));
  for (const uint64_t value : {static_cast<uint64_t>(now()), a, b, c}) mix(value);
  if (!prints_) return;
  printf("%14.6f ms  %s %" PRIu64 " %" PRIu64 " %" PRIx64 "\n",
         static_cast<double>(now()) / 1e6 - 1e6, what, a, b, c);
}

// --- The schedule ---

// When a core has something to do, and is there to do it.
Nanoseconds Simulation::next_turn(CoreId id) {
  BenchCore& core = bench_.core(id);
  const CoreSchedule& schedule = schedules_[id];
  Nanoseconds next = now();
  if (schedule.sleeps && schedule.arrivals.empty() && !core.is_woken() &&
      !bench_.network.is_ready(core.io))
    next = std::min({core.timers.next_wakeup(), schedule.drain_at, schedule.stop_at,
                     schedule.reloads.empty() ? never : schedule.reloads.front().at});
  return std::max(next, schedule.next_turn);
}

void Simulation::step() {
  ++steps_count_;
  act();
  if (steps_count_ == pretence_.fail_at) fail("a pretended failure");
  ASSERT(steps_count_ != pretence_.abort_at);
}

// Whoever is first in time; by chance where several are.
void Simulation::act() {
  enum class Kind { core, mail, node, client, fault, change };
  Nanoseconds first = std::max(next_fault_, now());
  Kind kind = Kind::fault;
  size_t index = 0;
  uint64_t ties = 1;
  const auto consider = [&](Nanoseconds time, Kind its_kind, size_t its_index) {
    time = std::max(time, now());
    if (time > first) return;
    ties = time < first ? 1 : ties + 1;
    if (time == first && random_.below(ties) != 0) return;
    first = time;
    kind = its_kind;
    index = its_index;
  };
  for (CoreId id = 0; id < settings_.cores; ++id) consider(next_turn(id), Kind::core, id);
  consider(bench_.next_mail(), Kind::mail, 0);
  for (size_t i = 0; i < nodes_.size(); ++i) consider(nodes_[i]->next_time(), Kind::node, i);
  for (size_t i = 0; i < clients_.size(); ++i) consider(clients_[i]->next_time(), Kind::client, i);
  if (next_change_ != never) consider(next_change_, Kind::change, 0);
  if (first > now()) bench_.clock.advance(first - now());
  switch (kind) {
    case Kind::core:
      run_turn(static_cast<CoreId>(index));
      check_patience();
      return;
    case Kind::mail:
      return bench_.post_mail();
    case Kind::node:
      nodes_[index]->act();
      checker_->after_node(index);
      return;
    case Kind::client:
      return clients_[index]->act();
    case Kind::fault:
      return begin_fault();
    case Kind::change:
      return change_configuration();
  }
}

void Simulation::run_turn(CoreId id) {
  BenchCore& core = bench_.core(id);
  CoreSchedule& schedule = schedules_[id];
  const bool is_late = std::exchange(schedule.is_stalled, false) && schedule.next_turn == now();
  core.wake_up();
  core.io.tell_ended_sends();
  core.io.begin_turn();
  if (schedule.drain_at <= now()) {
    schedule.drain_at = never;
    note("drain of core", id, 0, 0);
    tally_.early_drains += is_closing_time_ ? 0 : 1;
    core.sessions.start_drain();
    core.pools.start_drain();
  }
  if (schedule.stop_at <= now()) {
    schedule.stop_at = never;
    note("stop of core", id, 0, 0);
    tally_.early_stops += is_closing_time_ ? 0 : 1;
    core.sessions.stop();
    core.pools.stop();
  }
  for (const int fd : std::exchange(schedule.arrivals, {})) core.accept(fd);
  uint64_t events = 0;
  for (const uint64_t most = 1 + random_.below(24); events < most && bench_.network.step(core.io);
       ++events) {
  }
  const bool reloads_first = !schedule.reloads.empty() && random_.percent(50);
  if (reloads_first) take_over(id);
  const size_t letters = bench_.deliver_mail(id);
  if (!reloads_first) take_over(id);
  core.timers.advance(now());
  core.end_turn();
  schedule.sleeps = !core.has_work() && core.fall_asleep();
  schedule.next_turn = now() + random_.up_to(settings_.turn_max);
  if (settings_.stall_max > 0 && random_.percent(2)) {
    schedule.is_stalled = true;
    schedule.next_turn += random_.up_to(settings_.stall_max);
  }
  ++tally_.turns;
  tally_.late_turns += is_late && events + letters > 0 ? 1 : 0;
  note("turn of core", id, events, letters);
  checker_->after_turn(id);
}

void Simulation::begin_fault() {
  next_fault_ = now() + random_.up_to(2 * settings_.fault_every);
  const size_t number = random_.below(nodes_.size());
  const char* what = nodes_[number]->begin_fault();
  note(what, number, 0, 0);
}

// Limits that pools share change at once, and each core hears of the rest in its own time.
void Simulation::change_configuration() {
  const Change& change = settings_.changes[epoch_];
  const Configuration& next = change.next;
  note("new configuration", ++epoch_, 0, 0);
  for (size_t i = 0; i < nodes_.size(); ++i) nodes_[i]->node.limit.set_max(next.node_max[i]);
  for (size_t i = 0; i < shared_.databases.size(); ++i) {
    shared_.databases[i]->set_max(next.database_max[i]);
    shared_.database_clients[i]->set_max(next.database_clients_max[i]);
  }
  for (size_t i = 0; i < shared_.users.size(); ++i) {
    shared_.users[i]->set_max(next.user_max[i]);
    shared_.user_clients[i]->set_max(next.user_clients_max[i]);
  }
  bench_.shared.clients_max = next.clients_max;
  left_at_.push_back(never);
  checker_->on_change();
  const BenchDirectory& directory = bench_.reconfigure([&](BenchDirectory& changed) {
    changed.removed_databases.clear();
    changed.removed_users.clear();
    for (size_t i = 0; i < next.has_database.size(); ++i)
      if (!next.has_database[i]) changed.removed_databases.insert("d" + std::to_string(i));
    for (size_t i = 0; i < next.has_user.size(); ++i)
      if (!next.has_user[i]) changed.removed_users.insert("u" + std::to_string(i));
    changed.adapt = [this, &next](PoolSpec& spec) { adapt(spec, next); };
  });
  for (CoreSchedule& schedule : schedules_) {
    const Nanoseconds before = schedule.reloads.empty() ? 0 : schedule.reloads.back().at;
    const Nanoseconds at = now() + random_.up_to(change.spread);
    schedule.reloads.push_back({std::max(at, before), &directory});
  }
  const bool is_last = epoch_ == settings_.changes.size();
  next_change_ = is_last ? never : now() + settings_.changes[epoch_].pause;
}

void Simulation::take_over(CoreId id) {
  CoreSchedule& schedule = schedules_[id];
  BenchCore& core = bench_.core(id);
  while (!schedule.reloads.empty() && schedule.reloads.front().at <= now()) {
    const BenchDirectory& directory = *schedule.reloads.front().directory;
    schedule.reloads.pop_front();
    if (core.pools.is_draining()) continue;
    schedule.epoch = directory.epoch();
    note("reload of core", id, schedule.epoch, 0);
    core.sessions.reload(directory);
    checker_->on_reload(id, schedule.epoch);
    ++tally_.reloads;
    note_epochs();
  }
}

bool Simulation::is_changed_over() const {
  return std::all_of(schedules_.begin(), schedules_.end(),
                     [](const CoreSchedule& schedule) { return schedule.reloads.empty(); });
}

void Simulation::note_epochs() {
  uint64_t oldest = epoch_;
  for (const CoreSchedule& schedule : schedules_) oldest = std::min(oldest, schedule.epoch);
  for (uint64_t epoch = 0; epoch < oldest; ++epoch)
    left_at_[epoch] = std::min(left_at_[epoch], now());
}

std::vector<const Configuration*> Simulation::configurations_since(Nanoseconds time) {
  std::vector<const Configuration*> known;
  for (uint64_t epoch = 0; epoch <= epoch_; ++epoch)
    if (left_at_[epoch] >= time) known.push_back(&settings_.configuration(epoch));
  return known;
}

// Since when no core has this pool; `never` while one has.
Nanoseconds Simulation::gone_since(size_t pool) const {
  Nanoseconds since = 0;
  for (uint64_t epoch = 0; epoch <= epoch_; ++epoch)
    if (settings_.configuration(epoch).has(settings_.pools[pool]))
      since = std::max(since, left_at_[epoch]);
  return since;
}

// Who has nothing under way is told at once that its pool is gone.
void Simulation::check_told() {
  for (const auto& client : clients_) {
    const Nanoseconds gone = gone_since(client->pool());
    if (gone == never || client->idle_since() == never) continue;
    const Nanoseconds since = std::max(gone, client->idle_since());
    if (now() - since > told_max + 50 * settings_.hop_max())
      fail("nobody tells that its pool is gone: " + client->describe());
  }
}

// Nobody waits for ever: everybody is answered, or told, within acquire_timeout and the margin.
void Simulation::check_patience() {
  for (const auto& client : clients_) {
    const Nanoseconds since = client->waits_since();
    if (since == never) continue;
    Nanoseconds patience = 0;
    for (const Configuration* one : configurations_since(since))
      patience = std::max(patience, one->limits[client->pool()].acquire_timeout);
    patience += margin + 50 * settings_.hop_max();
    if (now() - since > patience) fail("somebody waits for ever: " + client->describe());
  }
  check_told();
  check_heard();
  look_after_askers();
}

// Who listens and has nothing under way hears everything soon.
void Simulation::check_heard() {
  if (!is_calm()) return;
  for (const auto& client : clients_) {
    const Nanoseconds since = client->unheard_since();
    if (since != never && now() - since > margin + 50 * settings_.hop_max())
      fail("nobody tells of a notification: " + client->describe());
  }
}

void Simulation::look_after_askers() {
  std::erase_if(askers_, [&](const Asker& asker) {
    static_cast<void>(bench_.network.read(asker.fd));  // "Shutting down", at most.
    const bool is_over = bench_.network.is_at_end(asker.fd);
    if (is_over) bench_.network.close(asker.fd);
    if (!is_over && now() - asker.since > cancel_max) fail("a cancel request is never dealt with");
    return is_over;
  });
}

template <typename IsOver>
void Simulation::run_until(const char* what, Nanoseconds patience, IsOver is_over) {
  const Nanoseconds deadline = now() + patience;
  while (error_.empty() && !is_over()) {
    step();
    if (now() > deadline) fail(std::string(what) + " does not end");
    if (steps_count_ > steps_max) fail("the run goes round in circles");
  }
}

// --- A run ---

const std::string& Simulation::run() {
  note("seed", settings_.seed, 0, 0);
  run_day();
  close_the_day();
  if (!settings_.drains_early) come_to_rest();
  drain();
  if (error_.empty()) check_nothing_is_left();
  return error_;
}

void Simulation::run_day() {
  const Nanoseconds evening = now() + day_max;
  run_until("the day", never - now(), [&] {
    return now() >= evening ||
           std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& client) { return client->is_finished(); });
  });
}

// Nothing breaks any more, and nobody comes. Whoever waits is served or told.
void Simulation::close_the_day() {
  note("closing time", 0, 0, 0);
  is_closing_time_ = true;
  next_fault_ = next_change_ = never;
  bench_.network.options().reset_per_mille = 0;
  bench_.network.options().connect_refused_percent = 0;
  for (const auto& node : nodes_) node->recover();
  run_until("closing time", seconds(600), [&] {
    return askers_.empty() && is_changed_over() &&
           std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& client) { return client->is_finished(); });
  });
}

void Simulation::come_to_rest() {
  note("rest", 0, 0, 0);
  run_until("the way to rest", rest_max,
            [&] { return checker_->is_at_rest() && checker_->is_reserve_whole(); });
  if (!settings_.is_forgotten) return;
  run_until("the time until pools are forgotten", forget_max,
            [&] { return checker_->is_forgotten(); });
}

// Each core is told at its own time.
void Simulation::schedule_drain() {
  const bool stops = random_.percent(30);
  const Nanoseconds begin = now() + random_.up_to(milliseconds(300));
  for (CoreSchedule& schedule : schedules_) {
    schedule.drain_at = begin + random_.up_to(milliseconds(2));
    if (stops) schedule.stop_at = schedule.drain_at + random_.up_to(milliseconds(20));
  }
}

void Simulation::drain() {
  note("drain", 0, 0, 0);
  if (!settings_.drains_early) schedule_drain();
  run_until("the drain", rest_max + seconds(1), [&] {
    for (const CoreSchedule& schedule : schedules_)
      if (schedule.drain_at != never || schedule.stop_at != never) return false;
    return bench_.is_empty() && checker_->is_at_rest() &&
           std::all_of(nodes_.begin(), nodes_.end(), [](const auto& node) {
             return node->server.open_sessions().empty() && node->next_time() == never;
           });
  });
}

void Simulation::check_nothing_is_left() {
  checker_->check_nothing_is_left();
  for (const auto& node : nodes_) {
    node->server.forget_ended();
    if (!node->server.sessions().empty()) fail("a connection to a node is left");
    node->server.stop_listening();
  }
  if (bench_.shared.clients_count != 0) fail("max_clients has lost count");
  for (const auto& load : bench_.loads)
    if (load != 0) fail("a core has lost count of its clients");
  for (CoreId id = 0; id < settings_.cores; ++id) {
    const BenchCore& core = bench_.core(id);
    if (core.io.in_flight_count() + core.io.targets_count() > 0) fail("an op or target is left");
    if (core.chunks.lent_count() > 0) fail("a chunk is lent");
    for (const BufferGroup group : {BufferGroup::client, BufferGroup::backend})
      if (core.io.lent_count(group) > 0) fail("a buffer is lent");
  }
  bench_.server.stop_listening();
  if (bench_.network.open_count() != 0) fail("a descriptor is open");
  if (error_.empty()) bench_.finish();
}

Tally Simulation::tally() {
  uint64_t violations = 0;
  for (CoreId id = 0; id < settings_.cores; ++id) {
    tally_.session_moves += bench_.core(id).sessions.counters().moved;
    const PoolCounters pools = bench_.core(id).pools.statistics().total.counters;
    tally_.waits += pools.waited;
    tally_.wait_timeouts += pools.failures[WaitFailure::timed_out];
    tally_.waits_cancelled += pools.failures[WaitFailure::cancelled];
    tally_.waits_refused += pools.waits_refused;
    tally_.connects += pools.connects;
    tally_.connect_failures += pools.connect_failures;
    tally_.moves += pools.moves_in;
    tally_.cancels += pools.cancels;
    tally_.pins += pools.pins.total();
    // Part of a farewell that comes while the backend moves is one too.
    violations += pools.violations;
    if (pools.late_ends > 0) fail("a node is said to have closed too late");
  }
  for (const auto& node : nodes_) violations -= std::min(violations, node->farewells_count());
  if (violations > 0) fail("a node is said to have broken the protocol");
  for (const auto& node : nodes_) {
    if (node->server.verifier) tally_.scram_logins += node->server.logins_count;
    tally_.refused_logins += node->server.refusals_count;
    tally_.pieces += node->server.pieces_count;
  }
  static_cast<SimEffects&>(tally_) = bench_.network.effects();
  for (const auto& client : clients_) {
    tally_.replies += client->replies_count();
    tally_.notices += client->notices_count();
    tally_.removals += client->removals_count();
    tally_.refusals += client->refusals_count();
    tally_.own_answers += client->own_count();
    tally_.kept_off += client->kept_off_count();
    tally_.heard += client->heard_count();
    tally_.losses += client->losses_count();
    tally_.lost_blocks += client->lost_blocks_count();
    tally_.client_deaths += client->deaths_count();
    tally_.client_pieces += client->pieces_count();
  }
  tally_.reserve_uses = checker_->reserve_uses_count();
  tally_.connect_queries = checker_->connect_queries_count();
  tally_.resizes = checker_->resizes_count();
  tally_.shrinks = checker_->shrinks_count();
  tally_.generations = checker_->next_generations_count();
  tally_.hubs = checker_->hubs_count();
  tally_.excess_hops = checker_->excess_hops();
  return tally_;
}

}  // namespace helios::sim
