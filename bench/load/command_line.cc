#include "load/command_line.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <span>
#include <utility>

#include "helios/config/nearest.h"

namespace helios::bench {
namespace {

constexpr size_t help_column = 28;
constexpr size_t help_width = 100;

struct Unit {
  std::string_view name;
  int64_t factor;
};

// Largest first: what is shown is in the largest unit that leaves no fraction.
constexpr std::array<Unit, 6> duration_units = {{{"h", seconds(3600)},
                                                 {"min", seconds(60)},
                                                 {"s", seconds(1)},
                                                 {"ms", milliseconds(1)},
                                                 {"us", microseconds(1)},
                                                 {"ns", 1}}};
constexpr std::array<Unit, 4> size_units = {
    {{"GiB", 1024 * 1024 * 1024}, {"MiB", 1024 * 1024}, {"KiB", 1024}, {"", 1}}};

template <typename Number>
std::optional<Number> read_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// A number, whole or with a fraction, and one of the units.
std::optional<int64_t> read_with_unit(std::string_view text, std::span<const Unit> units) {
  const size_t size = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::optional<double> number = read_number<double>(text.substr(0, size));
  if (!number) return std::nullopt;
  for (const Unit& unit : units) {
    if (unit.name != text.substr(size)) continue;
    const double value = *number * static_cast<double>(unit.factor);
    if (value > 9e18) return INT64_MAX;
    return std::llround(value);
  }
  return std::nullopt;
}

std::string show_with_unit(int64_t value, std::span<const Unit> units) {
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.factor == 0)
      return std::to_string(value / unit.factor).append(unit.name);
  }
  return "0";
}

std::string show_real(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g", value);
  return text.data();
}

std::string quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

template <typename Number>
std::string wrong_number(std::string_view text, Number min, Number max) {
  return quoted(text) + " is no whole number from " + std::to_string(min) + " to " +
         std::to_string(max);
}

template <typename Number>
auto number_reader(Number min, Number max, Number& target) {
  return [min, max, &target](std::string_view text) -> std::string {
    const std::optional<Number> number = read_number<Number>(text);
    if (!number || *number < min || *number > max) return wrong_number(text, min, max);
    target = *number;
    return {};
  };
}

// The help of one option, broken into lines behind the column.
void print_wrapped(std::string_view text) {
  const size_t width = help_width - help_column;
  while (text.size() > width) {
    size_t end = text.rfind(' ', width);
    if (end == std::string_view::npos) end = std::min(text.find(' '), text.size());
    std::printf("%.*s\n%*s", static_cast<int>(end), text.data(), static_cast<int>(help_column), "");
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  std::printf("%.*s\n", static_cast<int>(text.size()), text.data());
}

}  // namespace

CommandLine::CommandLine(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {}

void CommandLine::flag(std::string name, std::string help, bool& target) {
  add({std::move(name), "", std::move(help), [&target](std::string_view) -> std::string {
         target = true;
         return {};
       }});
}

void CommandLine::text(std::string name, std::string value, std::string help, std::string& target) {
  if (!target.empty()) help += " [" + target + "]";
  add({std::move(name), std::move(value), std::move(help),
       [&target](std::string_view text) -> std::string {
         target = text;
         return {};
       }});
}

void CommandLine::texts(std::string name, std::string value, std::string help,
                        std::vector<std::string>& target) {
  if (!target.empty()) help += " [" + target.front() + "]";
  add({std::move(name), std::move(value), std::move(help),
       [&target, is_first = true](std::string_view text) mutable -> std::string {
         if (std::exchange(is_first, false)) target.clear();
         target.emplace_back(text);
         return {};
       }});
}

void CommandLine::number(std::string name, std::string value, std::string help, uint64_t min,
                         uint64_t max, uint64_t& target) {
  help += " [" + std::to_string(target) + "]";
  add({std::move(name), std::move(value), std::move(help), number_reader(min, max, target)});
}

void CommandLine::number(std::string name, std::string value, std::string help, uint32_t min,
                         uint32_t max, uint32_t& target) {
  help += " [" + std::to_string(target) + "]";
  add({std::move(name), std::move(value), std::move(help), number_reader(min, max, target)});
}

void CommandLine::real(std::string name, std::string value, std::string help, double min,
                       double max, double& target) {
  help += " [" + show_real(target) + "]";
  add({std::move(name), std::move(value), std::move(help),
       [min, max, &target](std::string_view text) -> std::string {
         const std::optional<double> number = read_number<double>(text);
         // Written so that NaN is refused.
         if (!number || !(*number >= min && *number <= max))
           return quoted(text) + " is no number from " + show_real(min) + " to " + show_real(max);
         target = *number;
         return {};
       }});
}

void CommandLine::duration(std::string name, std::string help, Nanoseconds min, Nanoseconds max,
                           Nanoseconds& target, bool* is_given) {
  help += " [" + show_with_unit(target, duration_units) + "]";
  add({std::move(name), "TIME", std::move(help),
       [min, max, &target, is_given](std::string_view text) -> std::string {
         // Zero is the same in every unit.
         const std::optional<int64_t> value =
             text == "0" ? 0 : read_with_unit(text, duration_units);
         if (!value)
           return quoted(text) + " is no time: a number and a unit (us, ms, s, min, h) are needed";
         if (*value < min || *value > max)
           return quoted(text) + " is not from " + show_with_unit(min, duration_units) + " to " +
                  show_with_unit(max, duration_units);
         target = *value;
         if (is_given != nullptr) *is_given = true;
         return {};
       }});
}

void CommandLine::size(std::string name, std::string help, uint64_t min, uint64_t max,
                       uint64_t& target) {
  const auto show = [](uint64_t value) {
    return show_with_unit(static_cast<int64_t>(value), size_units);
  };
  help += " [" + show(target) + "]";
  add({std::move(name), "SIZE", std::move(help),
       [min, max, show, &target](std::string_view text) -> std::string {
         const std::optional<int64_t> value = read_with_unit(text, size_units);
         if (!value)
           return quoted(text) + " is no size: a number of bytes, perhaps with KiB, MiB or GiB";
         const auto bytes = static_cast<uint64_t>(*value);
         if (bytes < min || bytes > max)
           return quoted(text) + " is not from " + show(min) + " to " + show(max);
         target = bytes;
         return {};
       }});
}

void CommandLine::custom(std::string name, std::string value, std::string help,
                         std::function<std::string(std::string_view)> read) {
  add({std::move(name), std::move(value), std::move(help), std::move(read)});
}

void CommandLine::add(Option option) {
  options_.push_back(std::move(option));
}

void CommandLine::epilogue(std::string text) {
  epilogue_ = std::move(text);
}

CommandLine::Outcome CommandLine::parse(int argc, char** argv) {
  std::vector<std::string_view> words;
  for (int i = 1; i < argc; ++i) words.emplace_back(argv[i]);
  for (size_t next = 0; next < words.size();) {
    if (words[next] == "--help" || words[next] == "-h") {
      print_help();
      return Outcome::help;
    }
    const std::string problem = parse_option(words, next);
    if (problem.empty()) continue;
    std::fprintf(stderr, "helios-bench %s: %s (helios-bench %s --help shows the options)\n",
                 command_.c_str(), problem.c_str(), command_.c_str());
    return Outcome::wrong;
  }
  return Outcome::run;
}

std::string CommandLine::parse_option(std::span<const std::string_view> words, size_t& next) const {
  const std::string_view word = words[next++];
  if (!word.starts_with("--")) return quoted(word) + " is no option: options begin with \"--\"";
  const size_t equals = std::min(word.find('='), word.size());
  const std::string_view name = word.substr(2, equals - 2);
  const bool has_attached = equals < word.size();
  const Option* option = find(name);
  if (option == nullptr) return "unknown option --" + std::string(name) + nearest_option(name);

  const std::string shown = "--" + option->name;
  if (option->value.empty())
    return has_attached ? shown + " takes no value" : option->read(std::string_view());
  std::string_view value;
  if (has_attached) {
    value = word.substr(equals + 1);
  } else if (next < words.size() && !words[next].starts_with("--")) {
    value = words[next++];
  } else {
    return shown + " needs a value: " + shown + " " + option->value;
  }
  const std::string problem = option->read(value);
  return problem.empty() ? problem : shown + ": " + problem;
}

const CommandLine::Option* CommandLine::find(std::string_view name) const {
  const auto found = std::find_if(options_.begin(), options_.end(),
                                  [&](const Option& option) { return option.name == name; });
  return found == options_.end() ? nullptr : &*found;
}

std::string CommandLine::nearest_option(std::string_view name) const {
  std::vector<std::string_view> names;
  for (const Option& option : options_) names.emplace_back(option.name);
  const std::string_view nearest = nearest_name(name, names);
  return nearest.empty() ? std::string() : "; did you mean --" + std::string(nearest) + "?";
}

void CommandLine::print_help() const {
  std::printf("%s\n\nusage: helios-bench %s [options]\n\n", summary_.c_str(), command_.c_str());
  for (const Option& option : options_) {
    std::string head = "  --" + option.name;
    if (!option.value.empty()) head += " " + option.value;
    if (head.size() + 2 > help_column) {
      std::printf("%s\n%*s", head.c_str(), static_cast<int>(help_column), "");
    } else {
      std::printf("%-*s", static_cast<int>(help_column), head.c_str());
    }
    print_wrapped(option.help);
  }
  std::printf("%-*sprint this text and stop\n", static_cast<int>(help_column), "  --help");
  if (!epilogue_.empty()) std::printf("\n%s\n", epilogue_.c_str());
}

}  // namespace helios::bench
