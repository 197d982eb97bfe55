// Options of a sub-command: a table of names, values and help texts, read from argv.
//
// `--name value` and `--name=value`; a wrong one is answered with what is wrong with it, the
// nearest known name, and where help is. Each sub-command fills a table, so that --help cannot
// differ from what is understood.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

class CommandLine {
 public:
  // `command` as the user types it ("load"); `summary` is the first line of its help.
  CommandLine(std::string command, std::string summary);

  // Each adds one option. `value` is its name in the help ("N"); the variable keeps its default
  // when the option is not given.
  void flag(std::string name, std::string help, bool& target);
  void text(std::string name, std::string value, std::string help, std::string& target);
  void texts(
      std::string name, std::string value, std::string help,
      std::vector<std::string>& target);  // May be repeated; the first one replaces the default.
  void number(std::string name, std::string value, std::string help, uint64_t min, uint64_t max,
              uint64_t& target);
  void number(std::string name, std::string value, std::string help, uint32_t min, uint32_t max,
              uint32_t& target);
  void real(std::string name, std::string value, std::string help, double min, double max,
            double& target);
  void duration(std::string name, std::string help, Nanoseconds min, Nanoseconds max,
                Nanoseconds& target,
                bool* is_given = nullptr);  // "500ms", "10s", "2min"; a unit is needed.
  void size(std::string name, std::string help, uint64_t min, uint64_t max,
            uint64_t& target);  // "1MiB", "64KiB", plain bytes.
  // Anything else: the function returns an empty text, or what is wrong.
  void custom(std::string name, std::string value, std::string help,
              std::function<std::string(std::string_view)> read);
  // Lines at the end of the help (examples).
  void epilogue(std::string text);

  enum class Outcome : uint8_t { run, help, wrong };
  // Reads argv from argv[1] on: argv[0] is the command. Prints the help (stdout) or the error
  // (stderr) itself.
  [[nodiscard]] Outcome parse(int argc, char** argv);

 private:
  struct Option {
    std::string name;
    std::string value;  // Empty: a flag.
    std::string help;
    std::function<std::string(std::string_view)> read;
  };
  void add(Option option);
  // Reads one option, from words[next] on. Returns what is wrong with it, or nothing.
  [[nodiscard]] std::string parse_option(std::span<const std::string_view> words,
                                         size_t& next) const;
  [[nodiscard]] const Option* find(std::string_view name) const;
  [[nodiscard]] std::string nearest_option(std::string_view name) const;
  void print_help() const;

  std::string command_;
  std::string summary_;
  std::string epilogue_;
  std::vector<Option> options_;
};

}  // namespace helios::bench
