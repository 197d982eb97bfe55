#include "load/query_writer.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "helios/wire/frame_reader.h"

namespace helios::bench {
namespace {

const std::vector<int64_t> variables{1, 0, -5, 123456};

ScriptStatement statement() {
  ScriptStatement made;
  made.texts = {"SELECT ", ", ", ""};
  made.slots = {3, 2};
  made.parameter_text = "SELECT $1, $2";
  made.prepared_name = "helios_bench_0";
  return made;
}

struct Read {
  std::string tags;
  std::vector<std::string> bodies;
};

Read read(ByteSpan bytes) {
  Read messages;
  FrameReader reader;
  while (!bytes.empty()) {
    REQUIRE(reader.read_header(bytes) == FrameStatus::message);
    messages.tags += static_cast<char>(reader.header().tag);
    messages.bodies.emplace_back(as_text(reader.take_body(bytes)));
    REQUIRE(reader.body_left() == 0);
  }
  return messages;
}

std::string with_zeros(std::string text) {
  for (char& letter : text)
    if (letter == '|') letter = '\0';
  return text;
}

}  // namespace

TEST_CASE("a simple query holds its values in the text") {
  QueryWriter writer(QueryMode::simple);
  const Read messages = read(writer.write(statement(), variables, false));
  CHECK(messages.tags == "Q");
  CHECK(messages.bodies[0] == with_zeros("SELECT 123456, -5|"));
}

TEST_CASE("an extended query parses each time and passes its values as parameters") {
  QueryWriter writer(QueryMode::extended);
  const Read messages = read(writer.write(statement(), variables, false));
  CHECK(messages.tags == "PBDES");
  CHECK(messages.bodies[0] == with_zeros("|SELECT $1, $2|||"));
  CHECK(messages.bodies[1] == std::string(4, '\0') + std::string("\0\2", 2) +
                                  std::string("\0\0\0\6", 4) + "123456" +
                                  std::string("\0\0\0\2", 4) + "-5" + std::string("\0\0", 2));
  CHECK(messages.bodies[2] == with_zeros("P|"));
}

TEST_CASE("a prepared statement is parsed once, under its name") {
  QueryWriter writer(QueryMode::prepared);
  const Read first = read(writer.write(statement(), variables, true));
  CHECK(first.tags == "PBES");
  CHECK(first.bodies[0] == with_zeros("helios_bench_0|SELECT $1, $2|||"));
  const Read second = read(writer.write(statement(), variables, false));
  CHECK(second.tags == "BES");
  CHECK(second.bodies[0].starts_with(with_zeros("|helios_bench_0|")));
}

TEST_CASE("a statement that copies in is a simple query in every mode") {
  ScriptStatement copying = statement();
  copying.copies_in = true;
  for (const QueryMode mode : {QueryMode::simple, QueryMode::extended, QueryMode::prepared}) {
    QueryWriter writer(mode);
    CHECK(read(writer.write(copying, variables, false)).tags == "Q");
  }
}

}  // namespace helios::bench
