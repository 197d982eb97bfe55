#include "load/load_run.h"

#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <string>

#include "helios/net/descriptor_limit.h"
#include "helios/runtime/signals.h"
#include "load/load_core.h"

namespace helios::bench {
namespace {

constexpr Nanoseconds look_interval = milliseconds(20);
// When nobody has connected by then, the address is wrong rather than busy (unless somebody has
// said how long to wait).
constexpr Nanoseconds first_connect_timeout = seconds(3);
constexpr uint64_t descriptors_besides = 64;

// "user%d" and a number is "user7".
std::string numbered(const std::string& pattern, uint32_t number) {
  const size_t at = pattern.find("%d");
  if (at == std::string::npos) return pattern;
  return pattern.substr(0, at) + std::to_string(number) + pattern.substr(at + 2);
}

// A login for each combination that a client can get when clients are dealt over both in turn.
std::vector<BackendLoginOptions> make_logins(const LoadOptions& options) {
  std::vector<BackendLoginOptions> logins;
  for (uint32_t database = 1; database <= options.databases_count; ++database) {
    for (uint32_t user = 1; user <= options.users_count; ++user) {
      BackendLoginOptions login;
      login.user = numbered(options.user, user);
      login.database = numbered(options.database, database);
      login.password = options.password;
      login.password_is_plain = true;
      login.parameters = {{"application_name", "helios-bench"}};
      logins.push_back(std::move(login));
    }
  }
  return logins;
}

Result<bool> make_room_for_descriptors(const LoadOptions& options) {
  const uint64_t needed = options.clients + options.cores * 8ULL + descriptors_besides;
  const Result<uint64_t> raised = raise_descriptor_limit(needed);
  if (raised.ok()) return true;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return Error{std::to_string(options.clients) + " clients need " + std::to_string(needed) +
               " open descriptors, but the hard limit is " + std::to_string(limit.rlim_max) +
               ": raise it before the start (as root: ulimit -Hn " + std::to_string(needed) +
               ", or LimitNOFILE= of a systemd service), or run fewer clients"};
}

RingOptions ring_options(uint32_t clients) {
  RingOptions options;
  options.targets_max = clients + 16;
  // Receives draw from one group; the other is not used.
  options.client_buffers = {2, 4096};
  options.backend_buffers = {std::clamp(std::bit_ceil(clients), 16U, 512U), 16'384};
  return options;
}

}  // namespace

LoadRun::LoadRun(const LoadOptions& options, const ScriptSet& scripts)
    : shared_{options, scripts, {}, {}, 0, 0, {}, {}} {
  pthread_sigmask(SIG_SETMASK, nullptr, &old_signals_);
  block_signals();
}

LoadRun::~LoadRun() {
  stop(0);
  pthread_sigmask(SIG_SETMASK, &old_signals_, nullptr);
}

Result<std::unique_ptr<LoadRun>> LoadRun::start(const LoadOptions& options,
                                                const ScriptSet& scripts) {
  std::unique_ptr<LoadRun> run(new LoadRun(options, scripts));
  Result<bool> result = run->set_up();
  if (result.ok()) result = run->start_cores();
  if (!result.ok()) return Error{result.error()};
  return run;
}

Result<bool> LoadRun::set_up() {
  const LoadOptions& options = shared_.options;
  Result<std::vector<Target>> targets = find_targets(options.targets);
  if (!targets.ok()) return Error{targets.error()};
  shared_.targets = std::move(targets.value());
  shared_.logins = make_logins(options);
  shared_.clients_per_address = clients_per_address(local_ports_count());
  shared_.think_time = options.think_time > 0 ? options.think_time : shared_.scripts.think_time;
  return make_room_for_descriptors(options);
}

Result<bool> LoadRun::start_cores() {
  const LoadOptions& options = shared_.options;
  const auto cores_count = static_cast<CoreId>(options.cores);
  mailboxes_ = std::make_unique<MailboxSystem>(cores_count);
  wakes_ = std::make_unique<WakeTable>(cores_count);
  if (!wakes_->ok()) return Error{"no eventfd could be made: too many open descriptors"};
  reports_ = std::make_unique<CoreReport[]>(cores_count);
  statistics_.resize(cores_count);
  for (CoreId id = 0; id < cores_count; ++id) {
    CoreOptions core;
    core.id = id;
    if (!options.cpus.empty()) core.cpu = options.cpus[id % options.cpus.size()];
    core.ring = ring_options(options.clients / cores_count + 1);
    Result<std::unique_ptr<Core>> started =
        Core::start(core, CoreShared{*mailboxes_, *wakes_},
                    [this, id](CoreContext& context) -> Result<std::unique_ptr<CoreApplication>> {
                      return std::unique_ptr<CoreApplication>(std::make_unique<LoadCore>(
                          context, shared_, reports_[id], statistics_[id]));
                    });
    if (!started.ok()) return Error{started.error()};
    cores_.push_back(std::move(started.value()));
  }
  return true;
}

void LoadRun::wake() noexcept {
  for (const auto& core : cores_) wakes_->wake_by_event(core->id());
}

Result<bool> LoadRun::wait_connected(const std::function<void()>& on_tick) {
  const Nanoseconds began = clock_.now();
  const Nanoseconds timeout = shared_.options.connect_timeout;
  const Nanoseconds first_timeout =
      shared_.options.has_connect_timeout ? timeout : first_connect_timeout;
  bool is_hopeless = false;
  const WaitEnd end = wait(began + timeout, look_interval, [&] {
    on_tick();
    const uint32_t connected = progress().connected;
    const Nanoseconds waited = clock_.now() - began;
    is_hopeless = connected == 0 && waited > first_timeout && !shared_.problems.connect().empty();
    return is_hopeless || connected == shared_.options.clients;
  });
  switch (end) {
    case WaitEnd::failed:
      return Error{"a client could not log in: " + fatal_problem()};
    case WaitEnd::interrupted:
      return Error{"interrupted while clients were connecting"};
    case WaitEnd::timed_out:
      return Error{connect_failure()};
    case WaitEnd::reached:
      break;
  }
  if (is_hopeless) return Error{connect_failure()};
  return true;
}

std::string LoadRun::connect_failure() {
  const std::string problem = shared_.problems.connect();
  return std::to_string(progress().connected) + " of " + std::to_string(shared_.options.clients) +
         " clients could connect to " + shared_.targets.front().address.text() +
         (shared_.targets.size() > 1 ? " and the others" : "") +
         (problem.empty() ? std::string(": no answer") : "; the last failure was: " + problem);
}

void LoadRun::set_quota(uint64_t quota) noexcept {
  shared_.control.quota.store(quota, std::memory_order_relaxed);
  wake();
}

void LoadRun::count_from(Nanoseconds from) noexcept {
  shared_.control.count_from.store(from, std::memory_order_relaxed);
}

void LoadRun::count_until(Nanoseconds until) noexcept {
  shared_.control.count_until.store(until, std::memory_order_relaxed);
}

WaitEnd LoadRun::wait(Nanoseconds deadline, Nanoseconds interval,
                      const std::function<bool()>& is_reached) {
  for (;;) {
    if (!fatal_problem().empty()) return WaitEnd::failed;
    if (is_reached()) return WaitEnd::reached;
    const Nanoseconds left = deadline - clock_.now();
    if (left <= 0) return WaitEnd::timed_out;
    const std::optional<Signal> signal = wait_for_signal(std::min(left, interval));
    if (signal && is_stop(*signal)) return WaitEnd::interrupted;
  }
}

LoadProgress LoadRun::progress() const noexcept {
  LoadProgress sum;
  for (size_t i = 0; i < statistics_.size(); ++i) {
    const CoreReport& report = reports_[i];
    sum.connected += report.connected.load(std::memory_order_relaxed);
    sum.finished += report.finished.load(std::memory_order_relaxed);
    sum.transactions += report.transactions.load(std::memory_order_relaxed);
    sum.failed += report.failed.load(std::memory_order_relaxed);
    sum.wrong += report.wrong.load(std::memory_order_relaxed);
    sum.latency_sum += report.latency_sum.load(std::memory_order_relaxed);
  }
  return sum;
}

Nanoseconds LoadRun::last_finish() const noexcept {
  Nanoseconds last = 0;
  for (size_t i = 0; i < statistics_.size(); ++i)
    last = std::max(last, reports_[i].last_finish.load(std::memory_order_relaxed));
  return last;
}

void LoadRun::stop(Nanoseconds patience, const std::function<void()>& on_tick) {
  if (cores_.empty()) return;
  shared_.control.is_stopping.store(true, std::memory_order_relaxed);
  wake();
  const auto have_ended = [this] {
    return std::all_of(cores_.begin(), cores_.end(),
                       [](const auto& core) { return core->has_ended(); });
  };
  const Nanoseconds deadline = clock_.now() + patience;
  while (!have_ended() && clock_.now() < deadline) {
    if (wait_for_signal(milliseconds(2))) break;  // Asked again to stop.
    on_tick();
  }
  shared_.control.is_giving_up.store(true, std::memory_order_relaxed);
  wake();
  for (const auto& core : cores_) core->join();
  cores_.clear();
}

void LoadRun::summarise_scripts(LoadSummary& summary) const {
  const std::vector<Script>& scripts = shared_.scripts.scripts;
  if (scripts.size() == 1) return;
  const size_t count = std::min(scripts.size(), summary.scripts.size());
  for (size_t i = 0; i < count; ++i) {
    Histogram latency;
    for (const CoreStatistics& core : statistics_) latency.merge(core.script_latency[i]);
    summary.scripts[i] = summary_of(scripts[i].name, latency);
  }
  summary.scripts_count = static_cast<uint32_t>(count);
}

LoadSummary LoadRun::summary() const {
  LoadSummary summary;
  Histogram latency;
  Histogram connect;
  ErrorCounts errors;
  std::vector<uint64_t> clients;
  for (const CoreStatistics& core : statistics_) {
    latency.merge(core.latency);
    connect.merge(core.connect);
    errors.merge(core.errors);
    summary.transactions += core.transactions;
    summary.failed += core.failed;
    summary.wrong += core.wrong;
    summary.unserved += core.unserved;
    summary.bytes_received += core.bytes_received;
    clients.insert(clients.end(), core.transactions_of_clients.begin(),
                   core.transactions_of_clients.end());
  }
  summary.latency = summary_of(latency);
  summary.connect = summary_of(connect);
  errors.write_to(summary);
  summarise_scripts(summary);
  if (clients.empty()) return summary;
  std::sort(clients.begin(), clients.end());
  summary.client_min = clients.front();
  summary.client_median = median_of(clients);
  summary.client_max = clients.back();
  return summary;
}

}  // namespace helios::bench
