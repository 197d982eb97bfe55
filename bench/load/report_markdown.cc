// The Markdown of the report.

#include <algorithm>
#include <map>

#include "load/report_compare.h"
#include "load/report_text.h"

namespace helios::bench {
namespace {

constexpr const char* nothing = "–";

std::string range_text(const Spread& spread) {
  return rounded(spread.min) + "–" + rounded(spread.max);
}

std::string with_range(const std::optional<Spread>& spread) {
  if (!spread) return nothing;
  return rounded(spread->median) + " (" + range_text(*spread) + ")";
}

std::string median_text(const std::optional<Spread>& spread) {
  return spread ? rounded(spread->median) : nothing;
}

std::string pair_text(const std::optional<Spread>& first, const std::optional<Spread>& second) {
  return first && second ? rounded(first->median) + " / " + rounded(second->median) : nothing;
}

// `mark`: the footnote of the base.
std::string ratio_text(const Spread& ratios, const std::string& mark) {
  return " (" + decimal(ratios.median, 2) + ", " + decimal(ratios.min, 2) + "–" +
         decimal(ratios.max, 2) + mark + ")";
}

std::string table_line(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

std::string table_head(const std::vector<std::string>& cells) {
  std::string line = table_line(cells) + "|---|";
  for (size_t i = 1; i < cells.size(); ++i) line += "---:|";
  return line + "\n";
}

class Report {
 public:
  explicit Report(const Comparison& comparison) : comparison_(comparison) {}

  std::string write() {
    text_ = "# Poolers compared\n\n";
    if (comparison_.was_interrupted)
      text_ += "**Interrupted: this is what had been measured by then.**\n\n";
    if (comparison_.rounds < 5)
      text_ += "**Fewer than 5 rounds: a first look, not a result to rely on.**\n\n";
    write_main_table();
    write_charts();
    write_memory_table();
    write_details();
    write_footnotes();
    write_absences();
    write_facts();
    write_method();
    return std::move(text_);
  }

 private:
  // Peers with a CPU figure in some row.
  [[nodiscard]] std::vector<std::string> main_peers() const {
    std::vector<std::string> peers;
    for (const std::string& name : comparison_.peers) {
      const bool has_figure =
          std::any_of(comparison_.rows.begin(), comparison_.rows.end(), [&](const RowResult& row) {
            const PeerResult* result = row.find(name);
            return row.row.kind == RowKind::load && result != nullptr &&
                   spread_over(*result, cpu_us).has_value();
          });
      if (has_figure) peers.push_back(name);
    }
    return peers;
  }

  [[nodiscard]] bool has_rows(RowKind kind) const {
    return std::any_of(comparison_.rows.begin(), comparison_.rows.end(),
                       [&](const RowResult& row) { return row.row.kind == kind; });
  }

  void write_main_table() {
    const std::vector<std::string> peers = main_peers();
    if (peers.empty()) return;
    text_ +=
        "## CPU time of the pooler\n\nMicroseconds (user and system) for each transaction, "
        "median of the rounds; in parentheses the ratio to " +
        markdown_cell(comparison_.base) +
        " taken round by round: median, smallest–largest. A small number is a footnote: not "
        "measured cleanly; behind a ratio: its base was not.\n\n";
    std::vector<std::string> head = {"row"};
    for (const std::string& peer : peers) head.push_back(markdown_cell(peer) + " µs");
    text_ += table_head(head);
    for (const RowResult& row : comparison_.rows) {
      if (row.row.kind != RowKind::load) continue;
      std::vector<std::string> cells = {markdown_cell(row.row.title)};
      for (const std::string& peer : peers) cells.push_back(main_cell(row, peer));
      text_ += table_line(cells);
    }
    text_ += "\n";
  }

  std::string main_cell(const RowResult& row, const std::string& peer) {
    const PeerResult* result = row.find(peer);
    if (result == nullptr || !result->skipped.empty()) return nothing;
    const std::optional<Spread> spread = spread_over(*result, cpu_us);
    std::string cell = median_text(spread);
    const PeerResult* base = row.find(comparison_.base);
    if (base != nullptr && peer != comparison_.base) {
      const std::optional<Spread> ratios = ratios_over(*result, *base, cpu_us);
      if (ratios) cell += ratio_text(*ratios, footnote_mark(row, *base));
    }
    return cell + footnote_mark(row, *result);
  }

  // The number of the footnote of this row and peer; empty when all of it is clean.
  std::string footnote_mark(const RowResult& row, const PeerResult& result) {
    const std::string flaws = flaws_text(result, row.row);
    if (flaws.empty()) return "";
    const std::string note = row.row.name + ", " + result.peer + ": " + flaws;
    const auto found = std::find(footnotes_.begin(), footnotes_.end(), note);
    const auto index = static_cast<size_t>(found - footnotes_.begin());
    if (found == footnotes_.end()) footnotes_.push_back(note);
    return " <sup>" + std::to_string(index + 1) + "</sup>";
  }

  void write_charts() {
    if (!has_rows(RowKind::load)) return;
    text_ += std::string("![CPU time for each transaction](") + cpu_chart_file + ")\n\n" +
             "![Throughput and latency](" + latency_chart_file + ")\n\n";
  }

  void write_memory_table() {
    if (!has_rows(RowKind::memory)) return;
    text_ +=
        "## Memory of idle clients\n\nThe pooler was just started; the memory of its "
        "processes with this many clients, each of which has run one query, less that with " +
        std::to_string(memory_base_clients) +
        " clients, for each client more. Median (smallest–largest). Memory of the kernel "
        "(sockets) is not in it. " +
        memory_wait_text() + "\n\n";
    text_ += table_head({"row", "peer", "PSS per client", "RSS per client", "RSS in all"});
    for (const RowResult& row : comparison_.rows) {
      if (row.row.kind != RowKind::memory) continue;
      for (const PeerResult& result : row.peers) {
        if (!result.skipped.empty()) continue;
        text_ += table_line({markdown_cell(row.row.title),
                             markdown_cell(result.peer) + footnote_mark(row, result),
                             size_spread(spread_over(result, pss_per_client)),
                             size_spread(spread_over(result, rss_per_client)),
                             size_median(spread_over(result, rss_bytes))});
      }
    }
    text_ += "\n";
  }

  [[nodiscard]] std::string memory_wait_text() const {
    std::string text = "It is read after the clients have been idle for " +
                       decimal(static_cast<double>(comparison_.memory_wait) / 1e9, 1) + " s.";
    if (comparison_.memory_wait < memory_wait_usual)
      text += " **That is short: memory that was needed for a moment may not have gone back yet.**";
    return text;
  }

  static std::string size_median(const std::optional<Spread>& spread) {
    return spread ? size_text(spread->median) : nothing;
  }

  static std::string size_spread(const std::optional<Spread>& spread) {
    if (!spread) return nothing;
    return size_text(spread->median) + " (" + size_text(spread->min) + "–" +
           size_text(spread->max) + ")";
  }

  void write_details() {
    if (!has_rows(RowKind::load)) return;
    text_ +=
        "## Details\n\nMedians; in parentheses smallest–largest of the rounds. User and "
        "system time and context switches (voluntary / involuntary) are of the pooler, for "
        "each transaction. Throughput and latency depend on what else the machine does far "
        "more than CPU time does.\n\n";
    text_ += table_head({"row", "peer", "CPU µs", "user / system µs", "switches", "RSS",
                         "transactions/s", "p50 µs", "p99 µs", "rounds"});
    for (const RowResult& row : comparison_.rows) {
      if (row.row.kind != RowKind::load) continue;
      for (const PeerResult& result : row.peers)
        if (result.skipped.empty()) text_ += details_line(row, result);
    }
    text_ += "\n";
  }

  std::string details_line(const RowResult& row, const PeerResult& result) {
    const std::optional<Spread> throughput = spread_over(result, transactions_per_second);
    return table_line({row.row.name, markdown_cell(result.peer) + footnote_mark(row, result),
                       with_range(spread_over(result, cpu_us)),
                       pair_text(spread_over(result, user_us), spread_over(result, system_us)),
                       pair_text(spread_over(result, voluntary_switches),
                                 spread_over(result, involuntary_switches)),
                       size_median(spread_over(result, rss_bytes)), with_range(throughput),
                       with_range(spread_over(result, p50_us)),
                       with_range(spread_over(result, p99_us)),
                       std::to_string(throughput ? throughput->count : 0)});
  }

  void write_footnotes() {
    text_ += "## Not measured cleanly\n\n";
    if (!comparison_.has_own_server)
      text_ +=
          "The server was not started by this program and, if it runs on this machine, counts "
          "among the other processes: **what other processes used is no reason for a mark "
          "here.** " +
          std::string(results_file) + " has it for each measurement.\n\n";
    if (footnotes_.empty()) text_ += "Nothing: every measurement was clean.\n";
    for (size_t i = 0; i < footnotes_.size(); ++i)
      text_ += std::to_string(i + 1) + ". " + markdown_cell(footnotes_[i]) + "\n";
    text_ += "\n";
  }

  void write_absences() {
    std::map<std::string, std::string> rows_of;  // By "peer: reason".
    for (const RowResult& row : comparison_.rows) {
      for (const PeerResult& result : row.peers) {
        if (result.skipped.empty()) continue;
        std::string& rows = rows_of[result.peer + ": " + result.skipped];
        rows += (rows.empty() ? "" : ", ") + row.row.name;
      }
    }
    if (rows_of.empty() && comparison_.remarks.empty()) return;
    text_ += "## Left out\n\n";
    for (const std::string& remark : comparison_.remarks) text_ += "- " + remark + "\n";
    for (const auto& [reason, rows] : rows_of)
      text_ += "- " + markdown_cell(reason) + " (" + rows + ")\n";
    text_ += "\n";
  }

  void write_facts() {
    text_ += "## Machine and versions\n\n| what | which |\n|---|---|\n";
    for (const auto& [name, value] : comparison_.facts)
      text_ += table_line({markdown_cell(name), markdown_cell(value)});
    text_ += "\n";
  }

  void write_method() {
    text_ +=
        "## How it was measured\n\n"
        "- All peers of a row run at the same time and are measured in turn, in every round, in "
        "an order that is reversed from round to round; only the one being measured works.\n"
        "- CPU time is that of all processes of the pooler, from their CPU clocks, at the very "
        "ends of the counted time. Its division into user and system time is the kernel's, from "
        "ticks. The load checks the answers of the queries that can be checked.\n"
        "- Poolers have logging off, no passwords unless the row says so, transaction pooling "
        "where they have it, and the same pool size. pgpool2 has a process and a server "
        "connection for each client; haproxy a server connection for each client.\n"
        "- A measurement is marked when transactions failed, were fewer than 20 or had wrong "
        "answers; when the hypervisor took more than 2 % of one CPU's time meanwhile; when all "
        "CPUs "
        "together did more than 5 % of one CPU's work besides ours (idle time of /proc/stat "
        "against the CPU clocks of our own processes); when, in the quarter of a second before, "
        "on average more than half a thread of others was runnable; or when the other peers used "
        "more than 1 % of a CPU. The load average is written down for each measurement but is no "
        "criterion: our own processes raise it.\n"
        "- Marked measurements are in the medians. Such noise only adds to CPU time and to "
        "latency, and takes from throughput; a ratio it moves either way: down when the base was "
        "disturbed, which is why the base's footnote stands behind its ratios too. In the charts "
        "an asterisk marks such a bar.\n"
        "- " +
        std::string(results_file) +
        " has every measurement, one JSON object a line, with its position in the round and what "
        "was not clean.\n";
  }

  const Comparison& comparison_;
  std::vector<std::string> footnotes_;
  std::string text_;
};

}  // namespace

std::string markdown_report(const Comparison& comparison) {
  return Report(comparison).write();
}

}  // namespace helios::bench
