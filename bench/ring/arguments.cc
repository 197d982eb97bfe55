#include "bench/ring/arguments.h"

#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "helios/runtime/cpu_set.h"

namespace helios::bench {
namespace {

constexpr const char* help =
    "usage: ring-bench [options]\n"
    "\n"
    "Turns the switches of io_uring one at a time in a relay and compares each with its base.\n"
    "\n"
    "  --connections N,N,...  connections on either side of the relay (1,16,64,256,1000)\n"
    "  --only NAME,NAME,...   these variants, or experiments by number (all; see --list)\n"
    "  --list                 print the variants and end\n"
    "  --rounds N             rounds of base and variant, in turn first (5)\n"
    "  --seconds S            counted time of each run (0.5)\n"
    "  --warm-up S            time before it (0.1)\n"
    "  --size BYTES           message size, a multiple of 8 (64)\n"
    "  --unix                 unix sockets instead of loopback TCP\n"
    "  --place one|two        everything on one CPU, or the relay on one of its own (one)\n"
    "  --cpus A[,B]           the CPUs: the relay's, and with two the others' (the first usable)\n"
    "  --policy batch|other   SCHED_BATCH for all, or the default policy, in which each send may "
    "be\n"
    "                         preempted by its receiver (batch)\n"
    "  --markdown             print a section for bench/RESULTS.md\n"
    "  --help                 this text\n"
    "\n"
    "Progress goes to stderr. The exit status is 1 when a run failed or a byte was wrong.\n";

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

template <typename Number>
bool read_number(const std::string& text, Number min, Number max, Number& target) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if (!(value >= min && value <= max)) return false;
  target = value;
  return true;
}

template <typename Number>
bool read_numbers(const std::string& text, Number min, Number max, std::vector<Number>& target) {
  target.clear();
  for (const std::string& word : split(text)) {
    target.emplace_back();
    if (!read_number(word, min, max, target.back())) return false;
  }
  return true;
}

bool read_seconds(const std::string& text, double min, Nanoseconds& target) {
  double value = 0;
  if (!read_number(text, min, 600.0, value)) return false;
  target = static_cast<Nanoseconds>(value * 1e9);
  return true;
}

bool is_known(const std::string& name) {
  int row = 0;
  if (read_number(name, 1, rows_count, row) || name == wake_name) return true;
  const auto variants = all_variants();
  return std::any_of(variants.begin(), variants.end(),
                     [&name](const Variant& variant) { return name == variant.name; });
}

// Empty, or what the value should have been.
std::string read_option(char option, const std::string& value, Arguments& arguments) {
  switch (option) {
    case 'c':
      return read_numbers(value, 1U, 4000U, arguments.connections)
                 ? ""
                 : "numbers from 1 to 4000, with commas between them";
    case 'o':
      arguments.only = split(value);
      for (const std::string& name : arguments.only)
        if (!is_known(name))
          return "names of variants or numbers of experiments (\"" + name + "\" is none: --list)";
      return "";
    case 'r':
      return read_number(value, 1U, 1000U, arguments.rounds) ? "" : "a number from 1 to 1000";
    case 's':
      return read_seconds(value, 0.01, arguments.span) ? "" : "seconds, from 0.01 to 600";
    case 'w':
      return read_seconds(value, 0, arguments.warm_up) ? "" : "seconds, from 0 to 600";
    case 'b':
      return read_number(value, 8U, 1U << 20, arguments.message_size) &&
                     arguments.message_size % 8 == 0
                 ? ""
                 : "a multiple of 8, from 8 to 1048576";
    case 'p':
      arguments.place = value == "two" ? Place::two : Place::one;
      return value == "one" || value == "two" ? "" : "\"one\" or \"two\"";
    case 'P':
      arguments.batch_policy = value == "batch";
      return value == "batch" || value == "other" ? "" : "\"batch\" or \"other\"";
    case 'C':
      return read_numbers(value, 0, 1 << 20, arguments.cpus) && arguments.cpus.size() <= 2
                 ? ""
                 : "one or two CPU numbers";
    default:
      return "";
  }
}

void print_list() {
  for (const Variant& variant : all_variants())
    std::printf("%2d  %-21s %s (against %s: %s)\n", variant.row, variant.name, variant.what,
                variant.base, base_named(variant.base).what);
  std::printf("%2d  %-21s MSG_RING against eventfd between two threads that sleep\n", wake_row,
              wake_name);
}

// The CPUs that were not given are the first usable ones.
bool complete_cpus(Arguments& arguments) {
  const bool needs_two = arguments.place == Place::two;
  if (arguments.cpus.empty()) {
    arguments.cpus = usable_cpus();
    arguments.cpus.resize(std::min<size_t>(arguments.cpus.size(), 2));
  }
  return !needs_two || arguments.cpus.size() == 2;
}

}  // namespace

Outcome parse_arguments(int argc, char** argv, Arguments& arguments) {
  static const option options[] = {{"connections", required_argument, nullptr, 'c'},
                                   {"only", required_argument, nullptr, 'o'},
                                   {"rounds", required_argument, nullptr, 'r'},
                                   {"seconds", required_argument, nullptr, 's'},
                                   {"warm-up", required_argument, nullptr, 'w'},
                                   {"size", required_argument, nullptr, 'b'},
                                   {"place", required_argument, nullptr, 'p'},
                                   {"policy", required_argument, nullptr, 'P'},
                                   {"cpus", required_argument, nullptr, 'C'},
                                   {"unix", no_argument, nullptr, 'u'},
                                   {"markdown", no_argument, nullptr, 'm'},
                                   {"list", no_argument, nullptr, 'l'},
                                   {"help", no_argument, nullptr, 'h'},
                                   {nullptr, 0, nullptr, 0}};
  int index = 0;
  for (int letter = 0; (letter = getopt_long(argc, argv, "", options, &index)) != -1;) {
    if (letter == '?') {
      std::fprintf(stderr, "See ring-bench --help.\n");
      return Outcome::wrong;
    }
    if (letter == 'h') return std::fputs(help, stdout), Outcome::done;
    if (letter == 'l') return print_list(), Outcome::done;
    if (letter == 'u') arguments.family = Family::unix_socket;
    if (letter == 'm') arguments.style = Style::markdown;
    const std::string expected =
        read_option(static_cast<char>(letter), optarg == nullptr ? "" : optarg, arguments);
    if (expected.empty()) continue;
    std::fprintf(stderr, "ring-bench: --%s must be %s\n", options[index].name, expected.c_str());
    return Outcome::wrong;
  }
  if (optind < argc) {
    std::fprintf(stderr, "ring-bench: \"%s\" is not an option. See ring-bench --help.\n",
                 argv[optind]);
    return Outcome::wrong;
  }
  if (!complete_cpus(arguments)) {
    std::fprintf(stderr, "ring-bench: --place two needs two CPUs; there is one\n");
    return Outcome::wrong;
  }
  arguments.command = "build/bench/ring/ring-bench";
  for (int i = 1; i < argc; ++i) arguments.command += std::string(" ") + argv[i];
  return Outcome::run;
}

bool is_wanted(const Arguments& arguments, const std::string& name, int row) {
  if (arguments.only.empty()) return true;
  return std::any_of(arguments.only.begin(), arguments.only.end(), [&](const std::string& word) {
    return word == name || word == std::to_string(row);
  });
}

}  // namespace helios::bench
