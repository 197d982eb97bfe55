#include "load/report.h"

#include <array>
#include <cstdarg>
#include <cstdio>

namespace helios::bench {
namespace {

__attribute__((format(printf, 1, 2))) std::string format(const char* pattern, ...) {
  std::array<char, 512> line{};
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(line.data(), line.size(), pattern, arguments);
  va_end(arguments);
  return line.data();
}

double per_second(uint64_t count, Nanoseconds span) {
  return span > 0 ? static_cast<double>(count) * 1e9 / static_cast<double>(span) : 0;
}

double per_transaction(uint64_t amount, const LoadSummary& summary) {
  return summary.transactions > 0
             ? static_cast<double>(amount) / static_cast<double>(summary.transactions)
             : 0;
}

unsigned long long wide(uint64_t number) {
  return number;
}

// Nanoseconds in the unit that is easy to read.
std::string show_time(uint64_t time) {
  const auto value = static_cast<double>(time);
  if (time < 1'000'000) return format("%.1f us", value / 1e3);
  if (time < 1'000'000'000) return format("%.3f ms", value / 1e6);
  return format("%.3f s", value / 1e9);
}

std::string latency_line(const char* name, const LatencySummary& latency) {
  return format("%-14s p50 %s, p90 %s, p95 %s, p99 %s, p99.9 %s, p99.99 %s\n", name,
                show_time(latency.p50).c_str(), show_time(latency.p90).c_str(),
                show_time(latency.p95).c_str(), show_time(latency.p99).c_str(),
                show_time(latency.p999).c_str(), show_time(latency.p9999).c_str()) +
         format("%-14s min %s, mean %s, max %s\n", "", show_time(latency.min).c_str(),
                show_time(latency.mean).c_str(), show_time(latency.max).c_str());
}

std::string usage_lines(const char* name, const ProcessUsage& usage, const LoadSummary& summary) {
  const double cores =
      summary.span > 0 ? static_cast<double>(usage.cpu) / static_cast<double>(summary.span) : 0;
  std::string text = format(
      "%-14s CPU %.3f s (%.2f cores; user %.3f s, system %.3f s), %.2f us a transaction\n", name,
      static_cast<double>(usage.cpu) / 1e9, cores, static_cast<double>(usage.cpu_user) / 1e9,
      static_cast<double>(usage.cpu_system) / 1e9, per_transaction(usage.cpu, summary) / 1e3);
  text += format("%-14s switches %llu voluntary, %llu involuntary; RSS %s, %s\n", "",
                 wide(usage.voluntary_switches), wide(usage.involuntary_switches),
                 show_bytes(usage.rss).c_str(), show_pss(usage.pss, usage.has_pss).c_str());
  if (!usage.is_complete) text += format("%-14s a process was not there all the time\n", "");
  return text;
}

std::string script_names(const LoadOptions& options) {
  std::string names;
  for (const ScriptChoice& script : options.scripts) {
    if (!names.empty()) names += ", ";
    names += script.name;
    if (options.scripts.size() > 1) names += "=" + std::to_string(script.weight);
  }
  return names;
}

}  // namespace

const char* const json_keys_help =
    "keys of --json (times are nanoseconds, sizes bytes):\n"
    "  transactions          good ones that ended in the counted time; with --rate those that "
    "were\n"
    "                        due in it\n"
    "  tps                   of these, per second\n"
    "  failed, wrong         errors; answers that were not the asker's: at any time, warm-up too\n"
    "  unserved              with --rate: due in the counted time, but every client was busy "
    "until\n"
    "                        its end; latency has them with the time they had waited by then\n"
    "  bytes_received, span  in the counted time; its length\n"
    "  latency, connect      {count, min, mean, p50, p90, p95, p99, p99.9, p99.99, max}; connect "
    "is\n"
    "                        from connect() to the end of the login, of all connects\n"
    "  clients               {connected, min, median, max}: transactions of the client that had\n"
    "                        fewest, of the median client, of the one that had most\n"
    "  by_script             [{script, latency}]: of the first eight scripts, when there are "
    "several;\n"
    "                        the parts of a built-in script are scripts too\n"
    "  errors                [{sqlstate, count, example}]; sqlstate may also be io (the "
    "connection\n"
    "                        broke), timeout, wrong, script\n"
    "  watched, own          {cpu, cpu_user, cpu_system, cpu_per_transaction,\n"
    "                        voluntary_switches, involuntary_switches, rss, pss, complete}: of "
    "the\n"
    "                        processes of --watch (when given), and of helios-bench itself; no "
    "pss\n"
    "                        when it cannot be read (processes of another user)\n"
    "  interrupted           a signal ended the run early\n"
    "  mode, scripts, seed   as asked for";

const char* name_of(QueryMode mode) noexcept {
  switch (mode) {
    case QueryMode::simple:
      return "simple";
    case QueryMode::extended:
      return "extended";
    case QueryMode::prepared:
      return "prepared";
  }
  return "";
}

std::string show_bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 1024 * 1024) return format("%.1f KiB", value / 1024);
  return format("%.1f MiB", value / (1024 * 1024));
}

std::string show_pss(uint64_t pss, bool has_pss) {
  return "PSS " + (has_pss ? show_bytes(pss) : std::string("not readable"));
}

void write_usage(JsonWriter& json, const ProcessUsage& usage) {
  json.number("cpu", usage.cpu);
  json.number("cpu_user", usage.cpu_user);
  json.number("cpu_system", usage.cpu_system);
  json.number("voluntary_switches", usage.voluntary_switches);
  json.number("involuntary_switches", usage.involuntary_switches);
  json.number("rss", usage.rss);
  if (usage.has_pss) json.number("pss", usage.pss);
  json.boolean("complete", usage.is_complete);
}

void write_latency(JsonWriter& json, const char* key, const LatencySummary& latency) {
  json.begin_object(key);
  json.number("count", latency.count);
  json.number("min", latency.min);
  json.number("mean", latency.mean);
  json.number("p50", latency.p50);
  json.number("p90", latency.p90);
  json.number("p95", latency.p95);
  json.number("p99", latency.p99);
  json.number("p99.9", latency.p999);
  json.number("p99.99", latency.p9999);
  json.number("max", latency.max);
  json.end();
}

namespace {

void write_scripts(JsonWriter& json, const LoadSummary& summary) {
  json.begin_list("by_script");
  for (uint32_t i = 0; i < summary.scripts_count; ++i) {
    json.begin_item();
    json.text("script", summary.scripts[i].name.data());
    write_latency(json, "latency", summary.scripts[i].latency);
    json.end();
  }
  json.end();
}

}  // namespace

void write_errors(JsonWriter& json, const LoadSummary& summary) {
  json.begin_list("errors");
  for (uint32_t i = 0; i < summary.errors_count; ++i) {
    const ErrorCount& error = summary.errors[i];
    json.begin_item();
    json.text("sqlstate", error.sqlstate.data());
    json.number("count", error.count);
    json.text("example", error.example.data());
    json.end();
  }
  json.end();
}

std::string error_lines(const LoadSummary& summary) {
  std::string text;
  for (uint32_t i = 0; i < summary.errors_count; ++i) {
    const ErrorCount& error = summary.errors[i];
    text += format("%-14s %s %llu times, first: %s\n", "error", error.sqlstate.data(),
                   wide(error.count), error.example.data());
  }
  return text;
}

std::string json_of(const LoadOptions& options, const LoadSummary& summary) {
  JsonWriter json;
  json.number("transactions", summary.transactions);
  json.real("tps", per_second(summary.transactions, summary.span));
  json.number("failed", summary.failed);
  json.number("wrong", summary.wrong);
  json.number("unserved", summary.unserved);
  json.number("bytes_received", summary.bytes_received);
  json.number("span", static_cast<uint64_t>(summary.span));
  write_latency(json, "latency", summary.latency);
  write_latency(json, "connect", summary.connect);
  json.begin_object("clients");
  json.number("connected", summary.clients_connected);
  json.number("min", summary.client_min);
  json.number("median", summary.client_median);
  json.number("max", summary.client_max);
  json.end();
  if (summary.scripts_count > 0) write_scripts(json, summary);
  write_errors(json, summary);
  const auto write_process = [&](const char* key, const ProcessUsage& usage) {
    json.begin_object(key);
    write_usage(json, usage);
    json.real("cpu_per_transaction", per_transaction(usage.cpu, summary));
    json.end();
  };
  if (!options.watched.empty()) write_process("watched", summary.watched);
  write_process("own", summary.own);
  json.boolean("interrupted", summary.is_interrupted);
  json.text("mode", name_of(options.mode));
  json.text("scripts", script_names(options));
  json.number("seed", options.seed);
  return json.finish();
}

std::string table_of(const LoadOptions& options, const LoadSummary& summary) {
  std::string text = format("%-14s %s, %s, %u client%s on %u core%s, %.2f s\n", "load",
                            script_names(options).c_str(), name_of(options.mode), options.clients,
                            options.clients == 1 ? "" : "s", options.cores,
                            options.cores == 1 ? "" : "s", static_cast<double>(summary.span) / 1e9);
  text += format("%-14s %llu (%.1f/s), %llu failed, %llu wrong\n", "transactions",
                 wide(summary.transactions), per_second(summary.transactions, summary.span),
                 wide(summary.failed), wide(summary.wrong));
  if (options.rate > 0)
    text += format("%-14s %.1f/s wanted, %llu were due but found no free client\n", "rate",
                   options.rate, wide(summary.unserved));
  text += latency_line("latency", summary.latency);
  for (uint32_t i = 0; i < summary.scripts_count; ++i)
    text += latency_line(summary.scripts[i].name.data(), summary.scripts[i].latency);
  text += latency_line("connect", summary.connect);
  text += format("%-14s transactions of a client: min %llu, median %llu, max %llu\n", "fairness",
                 wide(summary.client_min), wide(summary.client_median), wide(summary.client_max));
  text += format(
      "%-14s %s (%s/s)\n", "received", show_bytes(summary.bytes_received).c_str(),
      show_bytes(static_cast<uint64_t>(per_second(summary.bytes_received, summary.span))).c_str());
  if (!options.watched.empty()) text += usage_lines("watched", summary.watched, summary);
  text += usage_lines("helios-bench", summary.own, summary);
  text += error_lines(summary);
  if (summary.transactions == 0)
    text += format("%-14s no transaction %s in the counted time\n", "note",
                   options.rate > 0 ? "ended well of those due" : "ended well");
  if (summary.is_interrupted) text += format("%-14s the run was interrupted\n", "note");
  return text;
}

}  // namespace helios::bench
