#include "helios/wire/error_response.h"

#include <doctest/doctest.h>

#include "wire/wire_support.h"

namespace helios {
namespace {

using test::ExactBytes;
using test::InputMaker;
using test::string_of;
using namespace std::string_view_literals;

TEST_CASE("an error carries severity twice, code and text, and closes with a zero byte") {
  MessageWriter writer;
  write_error(writer, Severity::fatal, sqlstate::invalid_password, "no");
  CHECK(string_of(writer.bytes()) == test::message('E', "SFATAL\0VFATAL\0C28P01\0Mno\0\0"sv));
}

TEST_CASE("an error carries detail and hint where they are given") {
  MessageWriter writer;
  write_error(writer, Severity::error, sqlstate::query_canceled, "m", "d", "h");
  CHECK(string_of(writer.bytes()) ==
        test::message('E', "SERROR\0VERROR\0C57014\0Mm\0Dd\0Hh\0\0"sv));
}

TEST_CASE("a notice has its own tag") {
  MessageWriter writer;
  write_notice(writer, Severity::warning, sqlstate::warning, "m");
  CHECK(string_of(writer.bytes()) == test::message('N', "SWARNING\0VWARNING\0C01000\0Mm\0\0"sv));
}

TEST_CASE("an error that was written is read back") {
  MessageWriter writer;
  write_error(writer, Severity::panic, sqlstate::crash_shutdown, "message", "detail", "hint");
  const ErrorFields fields = read_error(writer.bytes().subspan(5));
  CHECK(fields.severity == "PANIC");
  CHECK(fields.sqlstate == "57P02");
  CHECK(fields.message == "message");
  CHECK(fields.detail == "detail");
  CHECK(fields.hint == "hint");
  CHECK(fields.is_fatal());
}

TEST_CASE("the severity that is not translated counts, in either order") {
  CHECK(read_error(as_bytes("SFATALE\0VFATAL\0\0"sv)).severity == "FATAL");
  CHECK(read_error(as_bytes("VFATAL\0SFATALE\0\0"sv)).severity == "FATAL");
  CHECK(read_error(as_bytes("SERROR\0\0"sv)).severity == "ERROR");
}

TEST_CASE("an error without a code, without fields or without an end is read as far as it goes") {
  CHECK(read_error({}).message.empty());
  CHECK(read_error(as_bytes("\0"sv)).sqlstate.empty());
  CHECK(read_error(as_bytes("Mtext\0\0"sv)).sqlstate.empty());
  CHECK(read_error(as_bytes("Mtext\0\0"sv)).message == "text");
  CHECK(read_error(as_bytes("Mtext\0Dhalf"sv)).message == "text");
  CHECK(read_error(as_bytes("Mtext\0Dhalf"sv)).detail.empty());
  CHECK(read_error(as_bytes("Mtext\0\0C57014\0"sv)).sqlstate.empty());
}

TEST_CASE("a code that is none is as good as missing") {
  for (const std::string_view code : {"C\0\0"sv, "C123\0\0"sv, "C1234567\0\0"sv, "C57p14\0\0"sv}) {
    CHECK(read_error(as_bytes(code)).sqlstate.empty());
  }
  CHECK(read_error(as_bytes("CXX000\0\0"sv)).sqlstate == "XX000");
}

TEST_CASE("random error bodies are read without reading past them") {
  InputMaker maker(3);
  const std::string legal("SERROR\0VERROR\0C42601\0Mtext\0Ddetail\0Hhint\0P7\0\0"sv);
  for (int i = 0; i < test::random_inputs_count; ++i) {
    const ExactBytes body(maker.next(legal));
    const ErrorFields fields = read_error(body.span());
    REQUIRE((fields.sqlstate.empty() || fields.sqlstate.size() == 5));
    REQUIRE(fields.message.size() <= body.span().size());
  }
}

}  // namespace
}  // namespace helios
