#include "load/load_core.h"

#include <sched.h>

#include <algorithm>

#include "helios/base/assert.h"

namespace helios::bench {
namespace {

// Connects under way at the same time, over all cores: what a server's accept queue holds.
constexpr uint32_t connects_max_total = 256;
constexpr Nanoseconds sweep_interval_max = seconds(1);
// Where unique() begins: ten digits for the first billion numbers.
constexpr int64_t unique_first = 1'000'000'000;

Nanoseconds sweep_interval(Nanoseconds answer_timeout) noexcept {
  return std::clamp<Nanoseconds>(answer_timeout / 4, milliseconds(10), sweep_interval_max);
}

}  // namespace

LoadCore::LoadCore(CoreContext& context, LoadShared& shared, CoreReport& report,
                   CoreStatistics& statistics)
    : context_(context),
      shared_(shared),
      report_(report),
      statistics_(statistics),
      net_{context.ring, chunks_, flush_list_},
      keys_(login_random_),
      random_(shared.options.seed * 1'000'003 + context.id),
      writer_(shared.options.mode),
      sweep_timer_(on_sweep, this),
      arrival_timer_(on_arrival, this),
      prepared_words_(shared.scripts.statements.size() / 64 + 1),
      unique_(unique_first + context.id),
      connects_max_(std::max(connects_max_total / shared.options.cores, 1U)) {
  if (scripts().scripts.size() > 1) statistics_.script_latency.resize(scripts().scripts.size());
}

LoadCore::~LoadCore() {
  context_.timers.cancel(sweep_timer_);
  context_.timers.cancel(arrival_timer_);
  for (const Client& client : clients_)
    statistics_.transactions_of_clients.push_back(client.counted_transactions());
}

void LoadCore::on_start() noexcept {
  if (shared_.options.batch_policy) {
    const sched_param parameter{};
    sched_setscheduler(0, SCHED_BATCH, &parameter);  // Always allowed.
  }
  make_clients();
  on_sweep(this);
}

void LoadCore::make_clients() {
  const uint32_t cores = shared_.options.cores;
  const uint32_t clients = shared_.options.clients;
  const size_t count = clients / cores + (context_.id < clients % cores ? 1 : 0);
  variables_.resize(count * scripts().variables.count());
  prepared_.resize(count * prepared_words_);
  for (size_t i = 0; i < count; ++i)
    add_unconnected(clients_.emplace_back(*this, static_cast<uint32_t>(i) * cores + context_.id));
}

std::span<int64_t> LoadCore::variables_of(uint32_t index) noexcept {
  const size_t count = scripts().variables.count();
  return std::span(variables_).subspan(index / shared_.options.cores * count, count);
}

std::span<uint64_t> LoadCore::prepared_of(uint32_t index) noexcept {
  return std::span(prepared_).subspan(index / shared_.options.cores * prepared_words_,
                                      prepared_words_);
}

EvaluationContext LoadCore::evaluation(std::span<const int64_t> variables) noexcept {
  return {variables, random_, unique_, shared_.options.cores};
}

void LoadCore::on_message(const Message&) noexcept {
  UNREACHABLE("nobody sends messages to a core of the load");
}

// ---------------------------------------------------------------- turns

bool LoadCore::on_turn_end(Nanoseconds now) noexcept {
  look_at_control();
  if (keys_.has_work()) keys_.run();
  if (!is_stopping_) {
    connect_next(now);
    begin_ready(now);
  }
  flush_streams(net_);
  return has_more(now);
}

// What the flush has left behind: clients that are ready, or want a connection, at once.
bool LoadCore::has_more(Nanoseconds now) const noexcept {
  if (keys_.has_work() || !flush_list_.empty()) return true;
  if (is_stopping_) return false;
  if (!unconnected_.empty() && connects_under_way_ < connects_max_) return true;
  return !ready_.empty() && (arrivals_ ? arrivals_->is_due(now) : quota_ > 0);
}

bool LoadCore::is_finished() noexcept {
  return is_stopping_ && ended_count_ == clients_.size() && flush_list_.empty() &&
         !keys_.has_work();
}

void LoadCore::look_at_control() noexcept {
  const LoadControl& control = shared_.control;
  const uint64_t quota = control.quota.load(std::memory_order_relaxed);
  if (quota != quota_) {
    // Not before this moment, which lies in the counted time when there is no warm-up.
    if (quota_ == 0 && shared_.options.rate > 0)
      arrivals_.emplace(shared_.options.rate / shared_.options.cores, now(), random_);
    quota_ = quota;
    for (Client& client : clients_) add_ready(client);
  }
  if (control.is_stopping.load(std::memory_order_relaxed) && !is_stopping_) stop();
  if (control.is_giving_up.load(std::memory_order_relaxed) && !has_given_up_) give_up();
}

void LoadCore::stop() noexcept {
  is_stopping_ = true;
  context_.timers.cancel(arrival_timer_);
  if (arrivals_) count_unserved();
  for (Client& client : clients_) client.leave();
}

// What was due in the counted time and is not begun will never be.
void LoadCore::count_unserved() noexcept {
  const auto has_begun_all = [this](const Client& client) {
    return client.begun_count() >= quota_;
  };
  if (std::all_of(clients_.begin(), clients_.end(), has_begun_all)) return;
  const LoadControl& control = shared_.control;
  // A run that cannot go on has no end of the counted time.
  const Nanoseconds until = std::min(control.count_until.load(std::memory_order_relaxed), now());
  while (arrivals_->is_due(until)) {
    const Nanoseconds due = arrivals_->take();
    if (!control.is_counted(due)) continue;
    ++statistics_.unserved;
    statistics_.latency.record(static_cast<uint64_t>(until - due));
  }
}

void LoadCore::give_up() noexcept {
  has_given_up_ = true;
  if (!is_stopping_) stop();
  for (Client& client : clients_) client.give_up();
}

void LoadCore::begin_ready(Nanoseconds now) noexcept {
  Nanoseconds due = now;
  while (!ready_.empty() && quota_ > 0 && take_due(now, due)) {
    Client& client = *ready_.pop_front();
    client.begin(due, now);
    add_ready(client);
  }
}

// Whether a transaction is due, and since when. In an open loop the next one is waited for, if
// somebody is there to take it.
bool LoadCore::take_due(Nanoseconds now, Nanoseconds& due) noexcept {
  if (!arrivals_) return true;
  if (arrivals_->is_due(now)) {
    due = arrivals_->take();
    return true;
  }
  if (!arrival_timer_.is_scheduled() || arrival_timer_.deadline() != arrivals_->next())
    context_.timers.schedule(arrival_timer_, arrivals_->next());
  return false;
}

void LoadCore::connect_next(Nanoseconds now) noexcept {
  while (!unconnected_.empty() && connects_under_way_ < connects_max_)
    unconnected_.pop_front()->start_connect(now);
}

void LoadCore::on_sweep(void* self) noexcept {
  LoadCore& core = *static_cast<LoadCore*>(self);
  const Nanoseconds timeout = core.shared_.options.answer_timeout;
  const Nanoseconds now = core.now();
  for (Client& client : core.clients_) client.fail_if_late(now - timeout);
  core.context_.timers.schedule(core.sweep_timer_, now + sweep_interval(timeout));
}

// ---------------------------------------------------------------- for the clients

void LoadCore::add_ready(Client& client) noexcept {
  const ListNode<ReadyTag>& node = client;
  if (node.is_linked() || is_stopping_) return;
  if (client.can_begin() && client.begun_count() < quota_) ready_.push_back(client);
}

void LoadCore::add_unconnected(Client& client) noexcept {
  unconnected_.push_back(client);
}

void LoadCore::forget(Client& client) noexcept {
  if (static_cast<const ListNode<ReadyTag>&>(client).is_linked()) ready_.remove(client);
  if (static_cast<const ListNode<ConnectTag>&>(client).is_linked()) unconnected_.remove(client);
}

void LoadCore::on_connect_ended(bool is_logged_in) noexcept {
  ASSERT(connects_under_way_ > 0);
  --connects_under_way_;
  if (is_logged_in) CoreReport::add(report_.connected, 1U);
}

void LoadCore::on_disconnected() noexcept {
  CoreReport::add(report_.connected, UINT32_MAX);  // Minus one.
}

// Before the first transaction the main thread judges; afterwards it is an error like others.
void LoadCore::on_login_failed(const std::string& text, bool is_hopeless) noexcept {
  shared_.problems.set_connect(text);
  if (is_hopeless && quota_ == 0) set_fatal(text);
}

bool LoadCore::count_transaction(uint32_t script, Nanoseconds due, Nanoseconds now,
                                 bool is_good) noexcept {
  CoreReport::add(report_.finished, uint64_t{1});
  report_.last_finish.store(now, std::memory_order_relaxed);
  if (!is_good || !shared_.control.is_counted(arrivals_ ? due : now)) return false;
  const auto latency = static_cast<uint64_t>(std::max<Nanoseconds>(now - due, 0));
  statistics_.latency.record(latency);
  if (!statistics_.script_latency.empty()) statistics_.script_latency[script].record(latency);
  ++statistics_.transactions;
  CoreReport::add(report_.transactions, uint64_t{1});
  CoreReport::add(report_.latency_sum, latency);
  return true;
}

void LoadCore::count_failed() noexcept {
  ++statistics_.failed;
  CoreReport::add(report_.failed, uint64_t{1});
}

void LoadCore::count_wrong() noexcept {
  ++statistics_.wrong;
  CoreReport::add(report_.wrong, uint64_t{1});
}

void LoadCore::count_error(std::string_view code, std::string_view message) noexcept {
  statistics_.errors.add(code, message);
}

void LoadCore::set_fatal(const std::string& text) noexcept {
  shared_.problems.set_fatal(text);
}

}  // namespace helios::bench
