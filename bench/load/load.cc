#include "load/load.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "load/load_run.h"
#include "load/process_usage.h"
#include "load/progress.h"
#include "load/script.h"
#include "load/targets.h"

namespace helios::bench {
namespace {

constexpr Nanoseconds tick_interval = milliseconds(100);
// With a number of transactions the end has to be noticed.
constexpr Nanoseconds finish_interval = milliseconds(2);

// Several users or databases need a name that has a place for their number.
std::string numbering_problem(const LoadOptions& options) {
  const auto lacks_number = [](uint32_t count, const std::string& name) {
    return count > 1 && name.find("%d") == std::string::npos;
  };
  if (lacks_number(options.users_count, options.user))
    return "--users " + std::to_string(options.users_count) + " needs a --user with %d in it: \"" +
           options.user + "\" is one user";
  if (lacks_number(options.databases_count, options.database))
    return "--databases " + std::to_string(options.databases_count) +
           " needs a --database with %d in it: \"" + options.database + "\" is one database";
  return {};
}

std::string combination_problem(const LoadOptions& options, const ScriptSet& scripts) {
  const bool reconnects =
      options.reconnect || std::any_of(scripts.scripts.begin(), scripts.scripts.end(),
                                       [](const Script& script) { return script.reconnects; });
  const bool is_pipelined = options.pipeline > 1;
  if (options.clients < options.cores)
    return "there are more cores (" + std::to_string(options.cores) + ") than clients (" +
           std::to_string(options.clients) + ")";
  if (is_pipelined && reconnects)
    return "a pipeline and a connection for each transaction exclude each other";
  if (is_pipelined && scripts.has_copy_in())
    return "copy-in cannot be pipelined: what follows it would be taken for its data";
  const bool pauses = options.think_time > 0 || scripts.think_time > 0;
  if (pauses && options.rate > 0)
    return "a rate and a think time exclude each other: in an open loop the rate says when "
           "transactions begin";
  if (pauses && is_pipelined) return "a think time and a pipeline exclude each other";
  return {};
}

// One run from its first connect to its last; the order of the calls is the order of the phases.
class Conductor {
 public:
  Conductor(const LoadOptions& options, LoadRun& run)
      : options_(options), run_(run), line_(options.shows_progress, options.clients) {}

  [[nodiscard]] Result<LoadSummary> conduct() {
    const Result<bool> connected = run_.wait_connected([this] { show(Phase::connecting); });
    if (!connected.ok()) return Error{connected.error()};
    const uint32_t clients_connected = run_.progress().connected;
    WaitEnd end = options_.transactions > 0 ? run_transactions() : run_time();
    if (end == WaitEnd::failed) return Error{run_.fatal_problem()};
    // Whoever waits for an answer may wait as long as ever; a signal ends that too.
    run_.stop(options_.answer_timeout, [this] { show(Phase::draining); });
    // A problem may have come with the last transactions.
    if (!run_.fatal_problem().empty()) return Error{run_.fatal_problem()};

    LoadSummary summary = run_.summary();
    summary.clients_connected = clients_connected;
    summary.is_interrupted = end == WaitEnd::interrupted;
    summary.span = ended_ - began_;
    if (!options_.watched.empty()) summary.watched = usage_between(watched_before_, watched_after_);
    summary.own = usage_between(own_before_, own_after_);
    return summary;
  }

 private:
  using Phase = ProgressLine::Phase;

  [[nodiscard]] WaitEnd run_time() {
    run_.set_quota(UINT64_MAX);
    const Nanoseconds warm_until = clock_.now() + options_.warm_up;
    const WaitEnd warm = wait_until(warm_until, Phase::warm_up);
    if (warm == WaitEnd::failed) return warm;
    begin_counting();
    WaitEnd end = warm;
    if (warm != WaitEnd::interrupted) end = wait_until(began_ + options_.duration, Phase::counting);
    end_counting(never);
    return end;
  }

  // No warm-up: each transaction counts.
  [[nodiscard]] WaitEnd run_transactions() {
    begin_counting();
    run_.set_quota(options_.transactions);
    const uint64_t wanted = options_.transactions * options_.clients;
    const WaitEnd end = run_.wait(never, finish_interval, [&] {
      show(Phase::counting);
      return run_.progress().finished >= wanted;
    });
    end_counting(end == WaitEnd::reached ? run_.last_finish() : never);
    return end;
  }

  [[nodiscard]] WaitEnd wait_until(Nanoseconds deadline, Phase phase) {
    return run_.wait(deadline, tick_interval, [&] {
      show(phase);
      return false;
    });
  }

  void begin_counting() {
    watched_before_ = sample_processes(options_.watched, WithChildren::yes, WithMemory::no, [this] {
      // First, as right behind the clocks as can be: our own sample takes its time.
      run_.count_from(began_ = clock_.now());
      own_before_ = sample_processes(own_, WithChildren::no, WithMemory::no);
    });
  }

  // `ended`: when the counted time ended; `never`: now.
  void end_counting(Nanoseconds ended) {
    watched_after_ =
        sample_processes(options_.watched, WithChildren::yes, WithMemory::yes, [this, ended] {
          ended_ = std::min(ended, clock_.now());
          run_.count_until(ended_ + 1);
          own_after_ = sample_processes(own_, WithChildren::no, WithMemory::yes);
        });
  }

  void show(Phase phase) { line_.tick(phase, run_.progress()); }

  const LoadOptions& options_;
  LoadRun& run_;
  ProgressLine line_;
  MonotonicClock clock_;
  Nanoseconds began_ = 0;
  Nanoseconds ended_ = 0;
  std::array<pid_t, 1> own_{getpid()};
  ProcessSample watched_before_;
  ProcessSample watched_after_;
  ProcessSample own_before_;
  ProcessSample own_after_;
};

}  // namespace

std::string load_problem(const LoadOptions& options) {
  const Result<ScriptSet> scripts = load_scripts(options.scripts);
  if (!scripts.ok()) return scripts.error();
  if (std::string problem = target_problem(options.targets); !problem.empty()) return problem;
  for (const pid_t pid : options.watched)
    if (std::string problem = watch_problem(pid); !problem.empty()) return problem;
  if (std::string problem = numbering_problem(options); !problem.empty()) return problem;
  return combination_problem(options, scripts.value());
}

Result<LoadSummary> run_load(const LoadOptions& options) {
  if (const std::string problem = load_problem(options); !problem.empty()) return Error{problem};
  const Result<ScriptSet> scripts = load_scripts(options.scripts);
  if (!scripts.ok()) return Error{scripts.error()};
  Result<std::unique_ptr<LoadRun>> run = LoadRun::start(options, scripts.value());
  if (!run.ok()) return Error{run.error()};
  return Conductor(options, *run.value()).conduct();
}

}  // namespace helios::bench
