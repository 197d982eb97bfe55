#include "load/compare_results.h"

#include <algorithm>
#include <map>

#include "load/report_text.h"

namespace helios::bench {
namespace {

std::optional<double> per_transaction(const Measurement& measurement, uint64_t amount) {
  if (!measurement.error.empty() || !measurement.has_pooler) return std::nullopt;
  if (measurement.load.transactions == 0) return std::nullopt;
  return static_cast<double>(amount) / static_cast<double>(measurement.load.transactions);
}

std::optional<double> microseconds_of(std::optional<double> nanoseconds) {
  if (!nanoseconds) return std::nullopt;
  return *nanoseconds / 1e3;
}

std::optional<double> latency_us(const Measurement& measurement, uint64_t latency) {
  if (!measurement.error.empty() || measurement.load.latency.count == 0) return std::nullopt;
  return static_cast<double>(latency) / 1e3;
}

const Measurement* find_round(const PeerResult& result, uint32_t round) {
  for (const Measurement& measurement : result.rounds)
    if (measurement.round == round) return &measurement;
  return nullptr;
}

std::string percent(double share) {
  return decimal(share * 100, share < 0.1 ? 1 : 0) + " %";
}

std::string flaw_text(Flaw flaw, double amount) {
  switch (flaw) {
    case Flaw::no_result:
      return "no result";
    case Flaw::failed_transactions:
      return "up to " + decimal(amount, 0) + " transactions failed";
    case Flaw::wrong_answers:
      return "up to " + decimal(amount, 0) + " WRONG ANSWERS";
    case Flaw::clients_missing:
      return "up to " + decimal(amount, 0) + " clients could not connect";
    case Flaw::few_transactions:
      return "fewer than " + std::to_string(transactions_min) + " transactions";
    case Flaw::incomplete_usage:
      return "a process of the pooler ended meanwhile";
    case Flaw::steal:
      return "the hypervisor took up to " + percent(amount) + " of a CPU";
    case Flaw::foreign_cpu:
      return "other processes used up to " + percent(amount) + " of a CPU";
    case Flaw::foreign_runnable:
      return "up to " + decimal(amount, 1) + " threads of others were runnable just before";
    case Flaw::idle_peers:
      return "the peers that were not measured used up to " + percent(amount) + " of a CPU";
  }
  return {};
}

struct FlawRounds {
  std::vector<uint32_t> rounds;
  double amount = 0;
  std::string detail;  // The first error.
};

std::string rounds_text(const std::vector<uint32_t>& rounds, size_t count) {
  if (rounds.size() == count && count > 1) return "all rounds";
  std::string text = rounds.size() == 1 ? "round " : "rounds ";
  for (size_t i = 0; i < rounds.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(rounds[i]);
  return text;
}

void add_flaw(std::vector<FoundFlaw>& flaws, const FoundFlaw& added) {
  for (FoundFlaw& flaw : flaws) {
    if (flaw.flaw != added.flaw) continue;
    flaw.amount = std::max(flaw.amount, added.amount);
    return;
  }
  flaws.push_back(added);
}

std::string first_error(const Measurement& measurement) {
  if (!measurement.error.empty()) return measurement.error;
  if (measurement.load.errors_count == 0) return {};
  const ErrorCount& error = measurement.load.errors.front();
  return std::string(error.sqlstate.data()) + " " + error.example.data();
}

}  // namespace

const PeerResult* RowResult::find(const std::string& peer) const {
  for (const PeerResult& result : peers)
    if (result.peer == peer) return &result;
  return nullptr;
}

std::optional<Spread> spread_of(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return Spread{median, values.front(), values.back(), values.size()};
}

std::optional<double> cpu_us(const Measurement& measurement) {
  return microseconds_of(per_transaction(measurement, measurement.load.watched.cpu));
}

std::optional<double> user_us(const Measurement& measurement) {
  return microseconds_of(per_transaction(measurement, measurement.load.watched.cpu_user));
}

std::optional<double> system_us(const Measurement& measurement) {
  return microseconds_of(per_transaction(measurement, measurement.load.watched.cpu_system));
}

std::optional<double> voluntary_switches(const Measurement& measurement) {
  return per_transaction(measurement, measurement.load.watched.voluntary_switches);
}

std::optional<double> involuntary_switches(const Measurement& measurement) {
  return per_transaction(measurement, measurement.load.watched.involuntary_switches);
}

std::optional<double> rss_bytes(const Measurement& measurement) {
  if (!measurement.error.empty() || !measurement.has_pooler) return std::nullopt;
  return static_cast<double>(measurement.load.watched.rss);
}

std::optional<double> transactions_per_second(const Measurement& measurement) {
  if (!measurement.error.empty() || measurement.load.span <= 0) return std::nullopt;
  return static_cast<double>(measurement.load.transactions) * 1e9 /
         static_cast<double>(measurement.load.span);
}

std::optional<double> p50_us(const Measurement& measurement) {
  return latency_us(measurement, measurement.load.latency.p50);
}

std::optional<double> p99_us(const Measurement& measurement) {
  return latency_us(measurement, measurement.load.latency.p99);
}

std::optional<double> rss_per_client(const Measurement& measurement) {
  if (!measurement.error.empty()) return std::nullopt;
  return measurement.rss_per_client;
}

std::optional<double> pss_per_client(const Measurement& measurement) {
  if (!measurement.error.empty()) return std::nullopt;
  return measurement.pss_per_client;
}

std::optional<Spread> spread_over(const PeerResult& result, Figure figure) {
  std::vector<double> values;
  for (const Measurement& measurement : result.rounds)
    if (const std::optional<double> value = figure(measurement)) values.push_back(*value);
  return spread_of(std::move(values));
}

std::optional<Spread> ratios_over(const PeerResult& result, const PeerResult& base, Figure figure) {
  std::vector<double> ratios;
  for (const Measurement& measurement : result.rounds) {
    const Measurement* other = find_round(base, measurement.round);
    if (other == nullptr) continue;
    const std::optional<double> value = figure(measurement);
    const std::optional<double> base_value = figure(*other);
    if (value && base_value && *base_value > 0) ratios.push_back(*value / *base_value);
  }
  return spread_of(std::move(ratios));
}

std::vector<FoundFlaw> flaws_of(const Measurement& measurement, const Row& row) {
  if (!measurement.error.empty()) return {{Flaw::no_result, 0}};
  std::vector<FoundFlaw> flaws;
  const bool is_memory = row.kind == RowKind::memory;
  const uint32_t clients = row.clients;
  const auto note = [&](bool is_so, Flaw flaw, double amount) {
    if (is_so) flaws.push_back({flaw, amount});
  };
  const LoadSummary& load = measurement.load;
  note(load.failed > 0, Flaw::failed_transactions, static_cast<double>(load.failed));
  note(load.wrong > 0, Flaw::wrong_answers, static_cast<double>(load.wrong));
  note(load.clients_connected < clients, Flaw::clients_missing,
       static_cast<double>(clients) - load.clients_connected);
  note(!is_memory && load.transactions < transactions_min, Flaw::few_transactions, 0);
  note(measurement.has_pooler && !load.watched.is_complete, Flaw::incomplete_usage, 0);
  note(measurement.foreign.steal > steal_cpus_max, Flaw::steal, measurement.foreign.steal);
  note(measurement.has_own_server && measurement.foreign.cpus > foreign_cpus_max, Flaw::foreign_cpu,
       measurement.foreign.cpus);
  note(measurement.idle.runnable > runnable_max, Flaw::foreign_runnable, measurement.idle.runnable);
  note(measurement.idle_peers_cpus > idle_peer_cpus_max, Flaw::idle_peers,
       measurement.idle_peers_cpus);
  for (const FoundFlaw& flaw : measurement.base_flaws) add_flaw(flaws, flaw);
  return flaws;
}

const char* name_of(Flaw flaw) noexcept {
  switch (flaw) {
    case Flaw::no_result:
      return "no_result";
    case Flaw::failed_transactions:
      return "failed_transactions";
    case Flaw::wrong_answers:
      return "wrong_answers";
    case Flaw::clients_missing:
      return "clients_missing";
    case Flaw::few_transactions:
      return "few_transactions";
    case Flaw::incomplete_usage:
      return "incomplete_usage";
    case Flaw::steal:
      return "steal";
    case Flaw::foreign_cpu:
      return "foreign_cpu";
    case Flaw::foreign_runnable:
      return "foreign_runnable";
    case Flaw::idle_peers:
      return "idle_peers";
  }
  return "";
}

std::string flaws_text(const PeerResult& result, const Row& row) {
  std::map<Flaw, FlawRounds> found;
  for (const Measurement& measurement : result.rounds) {
    for (const FoundFlaw& flaw : flaws_of(measurement, row)) {
      FlawRounds& rounds = found[flaw.flaw];
      rounds.rounds.push_back(measurement.round);
      rounds.amount = std::max(rounds.amount, flaw.amount);
      const bool has_detail =
          flaw.flaw == Flaw::no_result || flaw.flaw == Flaw::failed_transactions;
      if (has_detail && rounds.detail.empty()) rounds.detail = first_error(measurement);
    }
  }
  std::string text;
  for (const auto& [flaw, rounds] : found) {
    if (!text.empty()) text += "; ";
    text +=
        rounds_text(rounds.rounds, result.rounds.size()) + ": " + flaw_text(flaw, rounds.amount);
    if (!rounds.detail.empty()) text += " (" + rounds.detail + ")";
  }
  return text;
}

}  // namespace helios::bench
