#include "load/command_line.h"

#include <doctest/doctest.h>

#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace helios::bench {
namespace {

using Outcome = CommandLine::Outcome;

// What a function writes to one of the standard streams.
template <typename Function>
std::string written_to(FILE* stream, Function function) {
  std::fflush(stream);
  const int saved = dup(fileno(stream));
  FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  dup2(fileno(file), fileno(stream));
  function();
  std::fflush(stream);
  dup2(saved, fileno(stream));
  close(saved);
  std::string text;
  std::rewind(file);
  for (int letter = std::fgetc(file); letter != EOF; letter = std::fgetc(file))
    text += static_cast<char>(letter);
  std::fclose(file);
  return text;
}

struct Values {
  bool flag = false;
  std::string name = "anna";
  std::vector<std::string> targets{"here"};
  uint32_t clients = 1;
  uint64_t transactions = 0;
  double rate = 0;
  Nanoseconds duration = seconds(10);
  uint64_t size = 64 * 1024;
  std::string seen;
};

CommandLine make(Values& values) {
  CommandLine line("load", "Loads.");
  line.flag("quiet", "says nothing", values.flag);
  line.text("user", "NAME", "who", values.name);
  line.texts("target", "ADDRESS", "where", values.targets);
  line.number("clients", "N", "how many", 1, 100, values.clients);
  line.number("transactions", "N", "how often", uint64_t{0}, uint64_t{1'000'000'000'000},
              values.transactions);
  line.real("rate", "N", "how fast", 0, 1e6, values.rate);
  line.duration("duration", "how long", milliseconds(1), seconds(7200), values.duration);
  line.size("size", "how large", 1, 1'000'000'000, values.size);
  line.custom("color", "NAME", "what color", [&values](std::string_view text) -> std::string {
    values.seen = text;
    return text == "red" ? "" : "not red";
  });
  line.epilogue("the end");
  return line;
}

Outcome parse(Values& values, std::vector<std::string> words) {
  words.insert(words.begin(), "load");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return make(values).parse(static_cast<int>(argv.size()), argv.data());
}

std::string error_of(std::vector<std::string> words) {
  Values values;
  Outcome outcome = Outcome::run;
  std::string text = written_to(stderr, [&] { outcome = parse(values, std::move(words)); });
  CHECK(outcome == Outcome::wrong);
  return text;
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("options that are not given keep their defaults") {
  Values values;
  CHECK(parse(values, {}) == Outcome::run);
  CHECK_FALSE(values.flag);
  CHECK(values.name == "anna");
  CHECK(values.targets == std::vector<std::string>{"here"});
  CHECK(values.duration == seconds(10));
}

TEST_CASE("options of each kind are read, with a space and with =") {
  Values values;
  CHECK(parse(values, {"--quiet", "--user", "bob", "--target=a=b", "--target", "c", "--clients=7",
                       "--transactions", "5000000000", "--rate", "0.5", "--duration=1.5s", "--size",
                       "2MiB", "--color", "red"}) == Outcome::run);
  CHECK(values.flag);
  CHECK(values.name == "bob");
  CHECK(values.targets == std::vector<std::string>{"a=b", "c"});
  CHECK(values.clients == 7);
  CHECK(values.transactions == 5'000'000'000);
  CHECK(values.rate == 0.5);
  CHECK(values.duration == milliseconds(1500));
  CHECK(values.size == 2 * 1024 * 1024);
  CHECK(values.seen == "red");
}

TEST_CASE("each unit of time and size is known") {
  const auto duration = [](const char* text) {
    Values values;
    CHECK(parse(values, {"--duration", text}) == Outcome::run);
    return values.duration;
  };
  CHECK(duration("1000us") == milliseconds(1));
  CHECK(duration("250ms") == milliseconds(250));
  CHECK(duration("2min") == seconds(120));
  CHECK(duration("2h") == seconds(7200));
  const auto size = [](const char* text) {
    Values values;
    CHECK(parse(values, {"--size", text}) == Outcome::run);
    return values.size;
  };
  CHECK(size("512") == 512);
  CHECK(size("64KiB") == 64 * 1024);
}

TEST_CASE("a value may be empty when it is attached") {
  Values values;
  CHECK(parse(values, {"--user="}) == Outcome::run);
  CHECK(values.name.empty());
}

TEST_CASE("a wrong option is explained with the nearest one") {
  const std::string text = error_of({"--clinets", "3"});
  CHECK(has(text, "unknown option --clinets; did you mean --clients?"));
  CHECK(has(text, "helios-bench load --help"));
  CHECK(has(error_of({"--zzzzzzzz"}), "unknown option --zzzzzzzz"));
}

TEST_CASE("wrong values are explained") {
  CHECK(has(error_of({"--clients", "0"}), "--clients: \"0\" is no whole number from 1 to 100"));
  CHECK(has(error_of({"--clients", "101"}), "1 to 100"));
  CHECK(has(error_of({"--clients", "3x"}), "\"3x\""));
  CHECK(has(error_of({"--clients"}), "--clients needs a value: --clients N"));
  CHECK(has(error_of({"--clients", "--quiet"}), "--clients needs a value"));
  CHECK(has(error_of({"--quiet=yes"}), "--quiet takes no value"));
  CHECK(has(error_of({"--rate", "-1"}), "no number from 0 to 1e+06"));
  CHECK(has(error_of({"--rate", "nan"}), "\"nan\""));
  CHECK(has(error_of({"--duration", "10"}), "a unit"));
  CHECK(has(error_of({"--duration", "0"}), "not from 1ms to 2h"));
  CHECK(has(error_of({"--duration", "3h"}), "not from 1ms to 2h"));
  CHECK(has(error_of({"--size", "1MB"}), "no size"));
  CHECK(has(error_of({"--size", "0"}), "not from 1"));
  CHECK(has(error_of({"--color", "blue"}), "--color: not red"));
  CHECK(has(error_of({"stray"}), "\"stray\" is no option"));
}

TEST_CASE("the help names every option, its value and its default") {
  Values values;
  Outcome outcome = Outcome::run;
  const std::string text = written_to(stdout, [&] {
    outcome = parse(values, {"--clients", "3", "--help"});
  });
  CHECK(outcome == Outcome::help);
  for (const char* part :
       {"Loads.", "--quiet", "--user NAME", "[anna]", "--target ADDRESS", "[here]", "--clients N",
        "--duration TIME", "[10s]", "--size SIZE", "[64KiB]", "--color NAME", "--help", "the end"})
    CHECK_MESSAGE(has(text, part), part);
}

}  // namespace helios::bench
