// ring-bench: the switches of io_uring, one at a time.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "bench/ring/arguments.h"
#include "bench/ring/bench_ring.h"
#include "bench/ring/machine.h"
#include "bench/ring/report.h"
#include "bench/ring/run.h"
#include "bench/ring/wake.h"
#include "helios/net/descriptor_limit.h"

namespace helios::bench {
namespace {

// A line on stderr that says how far it is: replaced in place on a terminal.
class Progress {
 public:
  explicit Progress(size_t steps_count) noexcept
      : steps_count_(steps_count), is_terminal_(isatty(STDERR_FILENO) == 1) {}

  void next_step() noexcept { ++step_; }
  // What is going on. Only where it can be replaced.
  void show(const std::string& text) const {
    if (is_terminal_) std::fprintf(stderr, "\r\x1b[K%s %s", position().c_str(), text.c_str());
  }
  // What has come of it. Stays.
  void say(const std::string& text) const {
    std::fprintf(stderr, "%s%s %s\n", is_terminal_ ? "\r\x1b[K" : "", position().c_str(),
                 text.c_str());
  }

 private:
  [[nodiscard]] std::string position() const {
    return "[" + std::to_string(step_) + "/" + std::to_string(steps_count_) + "]";
  }
  size_t steps_count_;
  size_t step_ = 0;
  bool is_terminal_;
};

// One comparison to be made.
struct Task {
  const Variant* variant;
  const Base* base;
  uint32_t connections;
};

class Bench {
 public:
  explicit Bench(const Arguments& arguments) : arguments_(arguments), progress_(0) {}
  // The exit status.
  [[nodiscard]] int run();

 private:
  void plan();
  // Why the comparison cannot be made here; null when it can.
  [[nodiscard]] const char* obstacle_of(const Variant& variant, const Base& base) const;
  [[nodiscard]] bool has_two_cpus() const noexcept { return arguments_.cpus.size() == 2; }
  [[nodiscard]] RunOptions options_for(const Task& task, const Switches& switches) const;
  void compare(const Task& task);
  void compare_wakes(const char* place, int first_cpu, int second_cpu);
  void fail(const std::string& text);
  [[nodiscard]] std::string method() const;

  const Arguments& arguments_;
  std::vector<Task> tasks_;
  Progress progress_;
  Report report_;
  bool has_failed_ = false;
};

int Bench::run() {
  report_.command = arguments_.command;
  report_.method = method();
  report_.load_before = load_average();
  plan();
  for (const Task& task : tasks_) compare(task);
  if (is_wanted(arguments_, wake_name, wake_row)) {
    const int first = arguments_.cpus.front();
    compare_wakes("on one CPU", first, first);
    if (has_two_cpus()) compare_wakes("on two CPUs", first, arguments_.cpus.back());
  }
  std::fputs(print_report(report_, arguments_.style).c_str(), stdout);
  return has_failed_ ? 1 : 0;
}

const char* Bench::obstacle_of(const Variant& variant, const Base& base) const {
  if (base.place == Place::two && !has_two_cpus()) return "it needs two CPUs";
  // Both would do the same.
  const bool turns_no_iowait = variant.switches.no_iowait != base.switches.no_iowait;
  if (turns_no_iowait && !BenchRing::knows_no_iowait())
    return "this kernel does not know NO_IOWAIT (Linux 6.15)";
  return nullptr;
}

void Bench::plan() {
  for (const Variant& variant : all_variants()) {
    if (!is_wanted(arguments_, variant.name, variant.row)) continue;
    const Base& base = base_named(variant.base);
    if (const char* obstacle = obstacle_of(variant, base); obstacle != nullptr) {
      report_.notes.push_back(std::string(variant.name) + " is left out: " + obstacle);
      continue;
    }
    std::vector<uint32_t> connections = arguments_.connections;
    if (base.connections > 0) connections = {base.connections};
    for (const uint32_t count : connections) tasks_.push_back({&variant, &base, count});
  }
  size_t wakes_count = has_two_cpus() ? 2 : 1;
  if (!is_wanted(arguments_, wake_name, wake_row)) wakes_count = 0;
  progress_ = Progress(tasks_.size() + wakes_count);
}

RunOptions Bench::options_for(const Task& task, const Switches& switches) const {
  RunOptions options;
  options.switches = switches;
  options.family = arguments_.family;
  options.connections = task.connections;
  options.message_size =
      task.base->message_size > 0 ? task.base->message_size : arguments_.message_size;
  options.warm_up = arguments_.warm_up;
  options.span = arguments_.span;
  options.relay_cpu = arguments_.cpus.front();
  options.other_cpu = task.base->place.value_or(arguments_.place) == Place::two
                          ? arguments_.cpus.back()
                          : options.relay_cpu;
  options.batch_policy = arguments_.batch_policy;
  return options;
}

// Base and variant in each round; who is first alternates (A B, B A, ...), so that a machine that
// gets slower or faster all the time favours none.
void Bench::compare(const Task& task) {
  progress_.next_step();
  Comparison comparison{task.variant, task.base, task.connections, {}, {}};
  const std::string name =
      std::string(task.variant->name) + ", " + counted(task.connections, "connection");
  for (uint32_t round = 0; round < arguments_.rounds; ++round) {
    progress_.show(name + ": round " + std::to_string(round + 1) + " of " +
                   std::to_string(arguments_.rounds));
    for (const bool is_base : {round % 2 == 0, round % 2 != 0}) {
      Result<RunResult> result =
          run_once(options_for(task, is_base ? task.base->switches : task.variant->switches));
      if (!result.ok()) return fail(name + (is_base ? " (its base): " : ": ") + result.error());
      (is_base ? comparison.base_runs : comparison.own_runs).push_back(result.value());
    }
  }
  progress_.say(summary_of(comparison));
  report_.comparisons.push_back(std::move(comparison));
}

void Bench::compare_wakes(const char* place, int first_cpu, int second_cpu) {
  progress_.next_step();
  WakeComparison comparison{place, {}, {}};
  for (uint32_t round = 0; round < arguments_.rounds; ++round) {
    progress_.show(std::string(wake_name) + ", " + place);
    for (const bool is_event : {round % 2 == 0, round % 2 != 0}) {
      Result<double> result =
          measure_wake({is_event ? WakeKind::event_fd : WakeKind::msg_ring, first_cpu, second_cpu,
                        arguments_.batch_policy, arguments_.span});
      if (!result.ok()) return fail(std::string(wake_name) + ", " + place + ": " + result.error());
      (is_event ? comparison.event_fd : comparison.msg_ring).push_back(result.value());
    }
  }
  progress_.say(std::string(wake_name) + ", " + place + ": done");
  report_.wakes.push_back(std::move(comparison));
}

// The others go on: hours of measuring shall not be lost.
void Bench::fail(const std::string& text) {
  has_failed_ = true;
  progress_.say("FAILED: " + text);
  report_.notes.push_back("FAILED: " + text);
}

std::string Bench::method() const {
  const auto seconds_text = [](Nanoseconds time) {
    char text[32];
    (void)std::snprintf(text, sizeof(text), "%g s", static_cast<double>(time) / 1e9);
    return std::string(text);
  };
  std::string text = counted(arguments_.rounds, "round") + " of " + seconds_text(arguments_.span) +
                     " after " + seconds_text(arguments_.warm_up) + "; messages of " +
                     std::to_string(arguments_.message_size) + " bytes over ";
  text += arguments_.family == Family::tcp ? "loopback TCP; " : "unix sockets; ";
  text += arguments_.place == Place::one ? "all processes on one CPU, "
                                         : "the relay on a CPU of its own, ";
  return text + (arguments_.batch_policy ? "SCHED_BATCH" : "the default scheduling policy");
}

}  // namespace
}  // namespace helios::bench

int main(int argc, char** argv) {
  using namespace helios::bench;
  Arguments arguments;
  switch (parse_arguments(argc, argv, arguments)) {
    case Outcome::done:
      return 0;
    case Outcome::wrong:
      return 2;
    case Outcome::run:
      break;
  }
  const uint32_t most =
      *std::max_element(arguments.connections.begin(), arguments.connections.end());
  // Two sockets for each connection in the relay, and a few.
  const auto limit = helios::raise_descriptor_limit(uint64_t{most} * 2 + 64);
  if (!limit.ok()) {
    std::fprintf(stderr, "ring-bench: %s\n", limit.error().c_str());
    return 1;
  }
  return Bench(arguments).run();
}
