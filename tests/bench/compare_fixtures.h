// Measurements and comparisons made up for tests.
#pragma once

#include <string>
#include <vector>

#include "load/compare_results.h"

namespace helios::bench {

// `cpu_us` of the pooler for each of 1,000 transactions within a second.
inline Measurement made_measurement(uint32_t round, double cpu_us, uint32_t clients = 16) {
  Measurement measurement;
  measurement.round = round;
  measurement.has_pooler = true;
  measurement.load.transactions = 1000;
  measurement.load.span = seconds(1);
  measurement.load.clients_connected = clients;
  measurement.load.latency.count = 1000;
  measurement.load.latency.p50 = 200'000;
  measurement.load.latency.p99 = 900'000;
  measurement.load.watched.cpu = static_cast<uint64_t>(cpu_us * 1000 * 1000);
  measurement.load.watched.cpu_user = measurement.load.watched.cpu / 4;
  measurement.load.watched.cpu_system = measurement.load.watched.cpu / 4 * 3;
  measurement.load.watched.voluntary_switches = 500;
  measurement.load.watched.rss = 8 << 20;
  measurement.load.watched.is_complete = true;
  return measurement;
}

inline PeerResult made_result(const std::string& peer, const std::vector<double>& cpu_us) {
  PeerResult result;
  result.peer = peer;
  for (size_t i = 0; i < cpu_us.size(); ++i)
    result.rounds.push_back(made_measurement(static_cast<uint32_t>(i + 1), cpu_us[i]));
  return result;
}

// Two peers and one that did not take part, in one row of three rounds.
inline Comparison made_comparison() {
  Comparison comparison;
  comparison.facts = {{"placement", "all on one CPU"}, {"CPU", "a | b"}};
  comparison.peers = {"pgbouncer", "heliosproxy", "direct"};
  comparison.base = "pgbouncer";
  comparison.rounds = 3;
  RowResult row;
  row.row.name = "simple-16";
  row.row.title = "simple query, 16 clients";
  row.row.clients = 16;
  row.peers = {made_result("pgbouncer", {10, 20, 30}), made_result("heliosproxy", {9, 16, 30})};
  row.peers.push_back({"direct", "no reason", {}});
  comparison.rows.push_back(row);
  return comparison;
}

}  // namespace helios::bench
