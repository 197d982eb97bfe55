#include "helios/wire/startup.h"

#include <doctest/doctest.h>

#include "helios/wire/error_response.h"
#include "helios/wire/message.h"
#include "wire/wire_support.h"

namespace helios {
namespace {

using test::ExactBytes;
using test::InputMaker;
using test::string_of;
using namespace std::string_literals;
using namespace std::string_view_literals;

std::string int32(uint32_t value) {
  uint8_t bytes[4];
  store_be32(bytes, value);
  return string_of(bytes);
}

// The packet's body: a code and what follows.
std::string body_of(uint32_t code, std::string_view rest) {
  return int32(code) + std::string(rest);
}

std::string with_length(const std::string& body) {
  return int32(static_cast<uint32_t>(body.size() + 4)) + body;
}

StartupPacket decode(const std::string& body) {
  const ExactBytes copy(body);
  return decode_startup(copy.span());
}

StartupPacket decode_fields(std::string_view fields, uint16_t minor = 0) {
  return decode(body_of(protocol_version(3, minor), fields));
}

StartupMessage startup_of(std::string_view fields, uint16_t minor = 0) {
  StartupPacket packet = decode_fields(fields, minor);
  REQUIRE(std::holds_alternative<StartupMessage>(packet));
  return *std::get_if<StartupMessage>(&packet);
}

StartupError error_of(const StartupPacket& packet) {
  REQUIRE(std::holds_alternative<StartupError>(packet));
  return *std::get_if<StartupError>(&packet);
}

StartupMessage startup_with_options(std::string_view options) {
  return startup_of("user\0me\0options\0"s.append(options) + "\0\0"s);
}

StartupError error_of_options(std::string_view options) {
  return error_of(decode_fields("user\0me\0options\0"s.append(options) + "\0\0"s));
}

std::string settings_of(const StartupMessage& startup) {
  std::string text;
  for (const auto& [name, value] : startup.settings) text += name + "=" + value + ";";
  return text;
}

TEST_CASE("a packet cut at any two places is put together") {
  const std::string body = body_of(protocol_version(3, 0), "user\0me\0database\0db\0\0"sv);
  const std::string stream = with_length(body);
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      StartupAssembler assembler;
      FrameStatus status = FrameStatus::need_more;
      for (const auto& [from, to] :
           {std::pair<size_t, size_t>{0, first}, {first, second}, {second, stream.size()}}) {
        if (from == to) continue;
        REQUIRE(status == FrameStatus::need_more);
        const ExactBytes copy(std::string_view(stream).substr(from, to - from));
        ByteSpan input = copy.span();
        status = assembler.feed(input);
        REQUIRE(input.empty());
        REQUIRE(assembler.at_boundary() == (status == FrameStatus::message));
      }
      REQUIRE(status == FrameStatus::message);
      REQUIRE(string_of(assembler.body()) == body);
    }
  }
}

TEST_CASE("bytes behind a packet stay in the input, and begin the next") {
  const std::string request = with_length(body_of(protocol_version(1234, 5679), ""));
  const std::string stream = request + request + "tail";
  ByteSpan input = as_bytes(stream);
  StartupAssembler assembler;
  REQUIRE(assembler.feed(input) == FrameStatus::message);
  CHECK(input.size() == request.size() + 4);
  REQUIRE(assembler.feed(input) == FrameStatus::message);
  CHECK(string_of(input) == "tail");
}

TEST_CASE("a packet's length is 8 to 10,004 and malformed otherwise, from its fourth byte on") {
  for (const uint32_t length : {0u, 4u, 7u, 10'005u, 0x16030100u, 0x80000000u, 0xffffffffu}) {
    const std::string stream = int32(length);
    StartupAssembler assembler;
    ByteSpan input = as_bytes(stream);
    CHECK(assembler.feed(input) == FrameStatus::malformed);
    CHECK(assembler.feed(input) == FrameStatus::malformed);
  }
  for (const uint32_t length : {8u, 10'004u}) {
    const std::string stream = int32(length) + std::string(length - 4, 'x');
    StartupAssembler assembler;
    ByteSpan input = as_bytes(stream);
    CHECK(assembler.feed(input) == FrameStatus::message);
    CHECK(assembler.body().size() == length - 4);
  }
}

TEST_CASE("requests for encryption are told apart and carry nothing") {
  CHECK(std::holds_alternative<SslRequest>(decode(body_of(protocol_version(1234, 5679), ""))));
  CHECK(std::holds_alternative<GssencRequest>(decode(body_of(protocol_version(1234, 5680), ""))));
  CHECK(error_of(decode(body_of(protocol_version(1234, 5679), "x"))).sqlstate == "08P01");
  CHECK(error_of(decode(body_of(protocol_version(1234, 5680), "x"))).sqlstate == "08P01");
}

TEST_CASE("a cancel request has a key of 4 to 256 bytes") {
  for (const size_t size : {4u, 32u, 256u}) {
    const std::string body =
        body_of(protocol_version(1234, 5678), int32(77) + std::string(size, 'k'));
    const StartupPacket packet = decode_startup(as_bytes(body));
    const auto* cancel = std::get_if<CancelRequest>(&packet);
    REQUIRE(cancel != nullptr);
    CHECK(cancel->pid == 77);
    CHECK(string_of(cancel->key) == std::string(size, 'k'));
  }
  for (const std::string& rest :
       {""s, "abc"s, int32(1), int32(1) + "abc", int32(1) + std::string(257, 'k')}) {
    CHECK(error_of(decode(body_of(protocol_version(1234, 5678), rest))).sqlstate == "08P01");
  }
}

TEST_CASE("another major version is refused by PostgreSQL's words") {
  const StartupError error = error_of(decode(body_of(protocol_version(2, 0), "user\0me\0\0"sv)));
  CHECK(error.sqlstate == "0A000");
  CHECK(error.message == "unsupported frontend protocol 2.0: server supports 3.0 to 3.2");
  CHECK(error_of(decode(body_of(protocol_version(4, 1), ""))).sqlstate == "0A000");
  CHECK(error_of(decode(body_of(protocol_version(1234, 9999), ""))).sqlstate == "0A000");
  CHECK(error_of(decode(body_of(0, ""))).sqlstate == "0A000");
}

TEST_CASE("a start-up message gives user, database and settings in order") {
  const StartupMessage startup =
      startup_of("application_name\0x\0user\0me\0DateStyle\0ISO, MDY\0database\0db\0\0"sv, 2);
  CHECK(startup.minor == 2);
  CHECK(startup.user == "me");
  CHECK(startup.database == "db");
  CHECK(startup.replication == ReplicationMode::none);
  CHECK(settings_of(startup) == "application_name=x;DateStyle=ISO, MDY;");
  CHECK(*startup.find_setting("datestyle") == "ISO, MDY");
  CHECK(startup.find_setting("date") == nullptr);
}

TEST_CASE("the database is the user's name where none is given") {
  CHECK(startup_of("user\0me\0\0"sv).database == "me");
  CHECK(startup_of("user\0me\0database\0\0\0"sv).database == "me");
}

TEST_CASE("a start-up message without a user is refused") {
  for (const std::string_view fields : {"\0"sv, "database\0db\0\0"sv, "user\0\0\0"sv}) {
    const StartupError error = error_of(decode_fields(fields));
    CHECK(error.sqlstate == "28000");
    CHECK(error.message == "no PostgreSQL user name specified in startup packet");
  }
}

TEST_CASE("a start-up message must end with one zero byte exactly at its end") {
  for (const std::string_view fields :
       {""sv, "user"sv, "user\0"sv, "user\0me"sv, "user\0me\0"sv, "user\0me\0\0\0"sv,
        "user\0me\0\0x"sv, "user\0me\0\0database\0db\0\0"sv, "user\0me\0database\0"sv}) {
    const StartupError error = error_of(decode_fields(fields));
    CHECK(error.sqlstate == "08P01");
    CHECK(error.message == "invalid startup packet layout: expected terminator as last byte");
  }
}

TEST_CASE("a start-up message cut anywhere is refused, never half accepted") {
  const std::string body =
      body_of(protocol_version(3, 0), "user\0me\0options\0-c a=b\0_pq_.x\0y\0\0"sv);
  for (size_t size = 0; size < body.size(); ++size) {
    CHECK(error_of(decode(body.substr(0, size))).sqlstate == "08P01");
  }
}

TEST_CASE("of duplicate parameters the last wins, whatever the case of a setting's name") {
  const StartupMessage startup =
      startup_of("user\0a\0TimeZone\0UTC\0x\0y\0timezone\0CET\0user\0b\0\0"sv);
  CHECK(startup.user == "b");
  CHECK(settings_of(startup) == "timezone=CET;x=y;");
}

TEST_CASE("replication takes PostgreSQL's booleans and the word database") {
  for (const std::string_view on : {"true", "on", "yes", "1", "t", "TRUE", "y", "On"}) {
    const StartupMessage startup =
        startup_of("user\0me\0database\0db\0replication\0"s.append(on) + "\0\0"s);
    CHECK(startup.replication == ReplicationMode::physical);
    CHECK(startup.database.empty());
  }
  for (const std::string_view off : {"false", "off", "no", "0", "f", "of", "N"}) {
    CHECK(startup_of("user\0me\0replication\0"s.append(off) + "\0\0"s).replication ==
          ReplicationMode::none);
  }
  const StartupMessage startup = startup_of("user\0me\0replication\0database\0\0"sv);
  CHECK(startup.replication == ReplicationMode::database);
  CHECK(startup.database == "me");
  for (const std::string_view bad : {"", "o", "2", "truee", "offf", "Database"}) {
    const StartupError error =
        error_of(decode_fields("user\0me\0replication\0"s.append(bad) + "\0\0"s));
    CHECK(error.sqlstate == "22023");
    CHECK(error.message ==
          "invalid value for parameter \"replication\": \"" + std::string(bad) + "\"");
    CHECK(error.hint == "Valid values are: \"false\", 0, \"true\", 1, \"database\".");
  }
}

TEST_CASE("a setting whose name PostgreSQL cannot know is refused") {
  for (const std::string_view name : {"a b", "a;b", "a\"b", "a-b", "a=b", "'", "a\nb"}) {
    const StartupError error = error_of(decode_fields("user\0me\0"s.append(name) + "\0v\0\0"s));
    CHECK(error.sqlstate == "42704");
    CHECK(error.message == "unrecognized configuration parameter \"" + std::string(name) + "\"");
  }
  CHECK(settings_of(startup_of("user\0me\0my.x_$1\0v\0\0"sv)) == "my.x_$1=v;");
}

TEST_CASE("options cannot name the user, the database or replication, whatever the case") {
  for (const std::string_view name :
       {"user", "User", "database", "options", "replication", "REPLICATION"}) {
    for (const std::string_view prefix : {"-c ", "-c", "--"}) {
      const StartupError error = error_of_options(std::string(prefix).append(name) + "=postgres");
      CHECK(error.sqlstate == "42704");
      CHECK(error.message == "unrecognized configuration parameter \"" + std::string(name) + "\"");
    }
  }
  CHECK(error_of(decode_fields("user\0me\0Replication\0on\0\0"sv)).sqlstate == "42704");
  CHECK(settings_of(startup_with_options("-c users=1")) == "users=1;");
}

TEST_CASE("options set parameters in each of PostgreSQL's spellings") {
  CHECK(settings_of(startup_with_options("-c a=1 -cb=2 --c-d=3 -c e-f=4")) ==
        "a=1;b=2;c_d=3;e_f=4;");
  CHECK(settings_of(startup_with_options("  \t-c\n a=1  ")) == "a=1;");
  CHECK(settings_of(startup_with_options("-c a=b=c -c d=")) == "a=b=c;d=;");
  CHECK(settings_of(startup_with_options("")).empty());
  CHECK(settings_of(startup_with_options("   ")).empty());
}

TEST_CASE("a backslash in options keeps white space and itself") {
  CHECK(settings_of(startup_with_options("-c a=x\\ y")) == "a=x y;");
  CHECK(settings_of(startup_with_options("-c a=x\\\\y")) == "a=x\\y;");
  CHECK(settings_of(startup_with_options("-c a=x\\\\ -c b=2")) == "a=x\\;b=2;");
  CHECK(settings_of(startup_with_options("-c a=x\\")) == "a=x;");
}

TEST_CASE("anything else in options is an error that names it") {
  for (const std::string_view word : {"-d", "x", "-", "-B100", "-ca", "--a", "-- x"}) {
    const StartupError error = error_of_options("-c a=1 "s.append(word));
    CHECK(error.sqlstate == "42601");
    const std::string_view named = word.size() > 2 ? word.substr(2) : word;
    CHECK(error.message.find(named) != std::string::npos);
  }
  const StartupError error = error_of_options("-c");
  CHECK(error.message == "invalid command-line argument for server process: -c");
  CHECK(error.hint == "Try \"postgres --help\" for more information.");
  CHECK(error_of_options("-c a").message == "-c a requires a value");
  CHECK(error_of_options("--a").message == "--a requires a value");
  CHECK(error_of_options("-- -c a=1").message ==
        "invalid command-line argument for server process: -c");
  CHECK(settings_of(startup_with_options("-c a=1 --")) == "a=1;");
  for (const std::string_view nameless : {"-c =1", "-c=1", "--=1"}) {
    CHECK(error_of_options(nameless).sqlstate == "42704");
    CHECK(error_of_options(nameless).message == "unrecognized configuration parameter \"\"");
  }
  const StartupError custom = error_of_options("-c a.b;c=1");
  CHECK(custom.sqlstate == "42602");
  CHECK(custom.message == "invalid configuration parameter name \"a.b;c\"");
  CHECK(custom.detail ==
        "Custom parameter names must be two or more simple identifiers separated by dots.");
  CHECK(error_of_options("-c a;b=1").sqlstate == "42704");
}

TEST_CASE("a parameter overrules options wherever it stands, and a later option an earlier one") {
  CHECK(settings_of(startup_of("user\0me\0a\0packet\0options\0-c a=opt -c b=1 -c B=2\0\0"sv)) ==
        "a=packet;B=2;");
  CHECK(settings_of(startup_of("user\0me\0options\0-c a=1\0options\0-c b=2\0\0"sv)) == "b=2;");
}

TEST_CASE("the number of settings is bounded, names that repeat are not counted") {
  std::string fields = "user\0me\0"s;
  for (size_t i = 0; i < startup_settings_max; ++i) fields += "s" + std::to_string(i) + "\0\0"s;
  CHECK(startup_of(fields + "S0\0x\0\0"s).settings.size() == startup_settings_max);
  const StartupError error = error_of(decode_fields(fields + "more\0\0\0"s));
  CHECK(error.sqlstate == "08P01");
}

TEST_CASE("only 3.0 and 3.2 need no negotiation") {
  for (const auto& [minor, agreed] : {std::pair<uint16_t, uint16_t>{0, 0}, {2, 2}}) {
    const StartupMessage startup = startup_of("user\0me\0\0"sv, minor);
    CHECK_FALSE(startup.needs_negotiation());
    CHECK(startup.agreed_minor() == agreed);
  }
  for (const auto& [minor, agreed] :
       {std::pair<uint16_t, uint16_t>{1, 0}, {3, 2}, {9999, 2}, {65535, 2}}) {
    const StartupMessage startup = startup_of("user\0me\0\0"sv, minor);
    CHECK(startup.needs_negotiation());
    CHECK(startup.agreed_minor() == agreed);
    MessageWriter writer;
    write_negotiation(writer, startup);
    CHECK(string_of(writer.bytes()) ==
          test::message('v', int32(protocol_version(3, agreed)) + int32(0)));
  }
}

TEST_CASE("an unknown protocol option is named, with the version that the client asked for") {
  const StartupMessage startup = startup_of("user\0me\0_pq_.b\0001\0a\0x\0_pq_.a\0\0\0"sv, 0);
  CHECK(startup.needs_negotiation());
  CHECK(settings_of(startup) == "a=x;");
  MessageWriter writer;
  write_negotiation(writer, startup);
  CHECK(string_of(writer.bytes()) ==
        test::message('v', int32(protocol_version(3, 0)) + int32(2) + "_pq_.b\0_pq_.a\0"s));
}

TEST_CASE("random start-up packets are decoded without reading past them") {
  InputMaker maker(5);
  const std::string legal[] = {
      body_of(protocol_version(3, 2),
              "user\0me\0database\0db\0options\0-c a=b\\ c --d-e=f\0replication\0on\0"
              "_pq_.x\0y\0application_name\0psql\0\0"sv),
      body_of(protocol_version(1234, 5678), int32(1) + "key4")};
  for (int i = 0; i < test::random_inputs_count; ++i) {
    const ExactBytes body(maker.next(legal[maker.below(2)]));
    const StartupPacket packet = decode_startup(body.span());
    if (const auto* error = std::get_if<StartupError>(&packet)) {
      REQUIRE(error->sqlstate.size() == 5);
      REQUIRE_FALSE(error->message.empty());
    }
    if (const auto* startup = std::get_if<StartupMessage>(&packet)) {
      REQUIRE_FALSE(startup->user.empty());
      for (const auto& setting : startup->settings) REQUIRE_FALSE(setting.name.empty());
    }
  }
}

TEST_CASE("the assembler survives random bytes in random pieces") {
  InputMaker maker(6);
  const std::string legal = with_length(body_of(protocol_version(3, 0), "user\0me\0\0"sv));
  for (int i = 0; i < test::random_inputs_count; ++i) {
    std::string bytes = maker.next(legal);
    StartupAssembler assembler;
    FrameStatus status = FrameStatus::need_more;
    while (!bytes.empty() && status == FrameStatus::need_more) {
      const ExactBytes piece(std::string_view(bytes).substr(0, 1 + maker.below(bytes.size())));
      bytes.erase(0, piece.span().size());
      ByteSpan input = piece.span();
      status = assembler.feed(input);
      if (status == FrameStatus::need_more) REQUIRE(input.empty());
    }
    if (status == FrameStatus::message) REQUIRE(assembler.body().size() >= 4);
  }
}

}  // namespace
}  // namespace helios
