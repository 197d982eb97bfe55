#include "load/idle.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "load/load_run.h"
#include "load/process_usage.h"
#include "load/progress.h"
#include "load/script.h"
#include "load/text_file.h"

namespace helios::bench {
namespace {

constexpr Nanoseconds look_interval = milliseconds(10);
constexpr Nanoseconds drain_patience = seconds(5);

// Measures into `memory`. An error when it cannot be.
Result<bool> measure(const LoadOptions& options, Memory& memory) {
  const ProcessSample sample =
      sample_processes(options.watched, WithChildren::yes, WithMemory::yes);
  if (!sample.is_complete)
    return Error{"a process of --watch has gone, so nobody can tell what clients cost it"};
  const Result<std::string> sockstat = read_text_file("/proc/net/sockstat");
  memory = {sample.rss, sample.pss, sample.has_pss,
            sockstat.ok() ? tcp_memory_of(sockstat.value().c_str()) : 0};
  return true;
}

class IdleTest {
 public:
  IdleTest(const IdleOptions& options, LoadRun& run)
      : options_(options), run_(run), line_(options.load.shows_progress, options.load.clients) {}

  // `summary.before` is measured already.
  [[nodiscard]] Result<bool> conduct(IdleSummary& summary) {
    run_.count_from(0);
    const Result<bool> connected = run_.wait_connected(
        [this] { line_.tick(ProgressLine::Phase::connecting, run_.progress()); });
    if (!connected.ok()) return connected;
    summary.load.clients_connected = run_.progress().connected;
    Result<bool> result = ask(1, summary.answered_first);
    if (result.ok()) result = rest();
    if (result.ok()) result = measure(options_.load, summary.connected);
    if (result.ok()) result = ask(2, summary.answered_second);
    if (!result.ok()) return result;
    run_.stop(drain_patience);
    return rest();
  }

 private:
  // Every client asks once more, and has its answer or an error. Who has no connection cannot even
  // ask: he is waited for as long as for an answer, and for the look at what is late.
  [[nodiscard]] Result<bool> ask(uint64_t round, uint64_t& answered) {
    const uint64_t good_before = run_.progress().transactions;
    run_.set_quota(round);
    const uint64_t wanted = round * options_.load.clients;
    const Nanoseconds deadline = clock_.now() + options_.load.answer_timeout + seconds(1);
    const WaitEnd end = run_.wait(deadline, look_interval, [&] {
      line_.tick(ProgressLine::Phase::asking, run_.progress());
      return run_.progress().finished >= wanted;
    });
    answered = run_.progress().transactions - good_before;
    return check(end);
  }

  [[nodiscard]] Result<bool> rest() {
    return check(run_.wait(clock_.now() + options_.settle, look_interval, [this] {
      line_.tick(ProgressLine::Phase::resting, run_.progress());
      return false;
    }));
  }

  [[nodiscard]] Result<bool> check(WaitEnd end) {
    if (end == WaitEnd::failed) return Error{run_.fatal_problem()};
    if (end == WaitEnd::interrupted) return Error{"interrupted"};
    return true;
  }

  const IdleOptions& options_;
  LoadRun& run_;
  ProgressLine line_;
  MonotonicClock clock_;
};

}  // namespace

uint64_t tcp_memory_of(const char* sockstat) {
  const char* line = std::strstr(sockstat, "TCP: ");
  const char* memory = line != nullptr ? std::strstr(line, " mem ") : nullptr;
  if (memory == nullptr) return 0;
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return std::strtoull(memory + std::strlen(" mem "), nullptr, 10) * page;
}

Result<IdleSummary> run_idle(const IdleOptions& options) {
  if (const std::string problem = load_problem(options.load); !problem.empty())
    return Error{problem};
  const Result<ScriptSet> scripts = load_scripts(options.load.scripts);
  if (!scripts.ok()) return Error{scripts.error()};
  IdleSummary summary;
  Result<bool> result = measure(options.load, summary.before);
  if (!result.ok()) return Error{result.error()};
  Result<std::unique_ptr<LoadRun>> run = LoadRun::start(options.load, scripts.value());
  if (!run.ok()) return Error{run.error()};
  result = IdleTest(options, *run.value()).conduct(summary);
  if (result.ok()) result = measure(options.load, summary.after);
  if (!result.ok()) return Error{result.error()};
  const uint32_t clients_connected = summary.load.clients_connected;
  summary.load = run.value()->summary();
  summary.load.clients_connected = clients_connected;
  return summary;
}

}  // namespace helios::bench
