#include "helios/wire/backend_messages.h"

#include <doctest/doctest.h>

#include "helios/wire/message.h"
#include "wire/wire_support.h"

namespace helios {
namespace {

using test::ExactBytes;
using test::InputMaker;
using test::string_of;
using namespace std::string_view_literals;

TEST_CASE("each authentication request is told apart") {
  CHECK(read_authentication(as_bytes("\0\0\0\0"sv))->kind == AuthenticationKind::ok);
  CHECK(read_authentication(as_bytes("\0\0\0\3"sv))->kind ==
        AuthenticationKind::cleartext_password);
  const auto md5 = read_authentication(as_bytes("\0\0\0\5salt"sv));
  CHECK(md5->kind == AuthenticationKind::md5_password);
  CHECK(string_of(md5->data) == "salt");
  const auto next = read_authentication(as_bytes("\0\0\0\x0br=1"sv));
  CHECK(next->kind == AuthenticationKind::sasl_continue);
  CHECK(string_of(next->data) == "r=1");
  CHECK(read_authentication(as_bytes("\0\0\0\x0cv=1"sv))->kind == AuthenticationKind::sasl_final);
  const auto gss = read_authentication(as_bytes("\0\0\0\7"sv));
  CHECK(gss->kind == AuthenticationKind::other);
  CHECK(gss->code == 7);
}

TEST_CASE("a mechanism is found in the list only as a whole") {
  const auto sasl = read_authentication(as_bytes("\0\0\0\x0aSCRAM-SHA-256-PLUS\0X\0\0"sv));
  REQUIRE(sasl.has_value());
  CHECK(sasl->has_mechanism("SCRAM-SHA-256-PLUS"));
  CHECK(sasl->has_mechanism("X"));
  CHECK_FALSE(sasl->has_mechanism("SCRAM-SHA-256"));
  CHECK_FALSE(sasl->has_mechanism(""));
}

TEST_CASE("an authentication request of a wrong size is malformed") {
  for (const std::string_view body :
       {""sv, "\0\0\0"sv, "\0\0\0\0x"sv, "\0\0\0\3x"sv, "\0\0\0\5abc"sv, "\0\0\0\5abcde"sv,
        "\0\0\0\x0a"sv, "\0\0\0\x0aM"sv, "\0\0\0\x0aM\0"sv, "\0\0\0\x0aM\0\0x"sv}) {
    CHECK_FALSE(read_authentication(as_bytes(body)).has_value());
  }
}

TEST_CASE("a parameter has a name, a value that may be empty, and nothing else") {
  const auto status = read_parameter_status(as_bytes("TimeZone\0UTC\0"sv));
  REQUIRE(status.has_value());
  CHECK(status->name == "TimeZone");
  CHECK(status->value == "UTC");
  CHECK(read_parameter_status(as_bytes("a\0\0"sv))->value.empty());
  for (const std::string_view body : {""sv, "a"sv, "a\0"sv, "a\0b"sv, "a\0b\0c"sv, "\0b\0"sv}) {
    CHECK_FALSE(read_parameter_status(as_bytes(body)).has_value());
  }
}

TEST_CASE("a backend key has 4 to 256 bytes") {
  for (const size_t size : {4u, 32u, 256u}) {
    const std::string body = std::string("\0\0\1\2", 4) + std::string(size, 'k');
    const auto key = read_backend_key_data(as_bytes(body));
    REQUIRE(key.has_value());
    CHECK(key->pid == 0x102);
    CHECK(key->key.size() == size);
  }
  for (const size_t size : {0u, 3u, 257u}) {
    const std::string body = std::string(4, '\0') + std::string(size, 'k');
    CHECK_FALSE(read_backend_key_data(as_bytes(body)).has_value());
  }
  CHECK_FALSE(read_backend_key_data(as_bytes("\0\0\0"sv)).has_value());
}

TEST_CASE("a command tag is one text") {
  CHECK(read_command_complete(as_bytes("SELECT 1\0"sv)) == "SELECT 1"sv);
  CHECK_FALSE(read_command_complete(as_bytes("SELECT 1"sv)).has_value());
  CHECK_FALSE(read_command_complete(as_bytes("SELECT\0001\0"sv)).has_value());
  CHECK_FALSE(read_command_complete({}).has_value());
}

TEST_CASE("a notification has a process id and two texts") {
  const auto notification = read_notification(as_bytes("\0\0\1\2news\0hello\0"sv));
  REQUIRE(notification.has_value());
  CHECK(notification->process_id == 0x102);
  CHECK(notification->channel == "news");
  CHECK(notification->payload == "hello");
  CHECK(read_notification(as_bytes("\0\0\0\1a\0\0"sv)).has_value());
  for (const std::string_view body :
       {""sv, "\0\0\0"sv, "\0\0\0\1"sv, "\0\0\0\1a\0"sv, "\0\0\0\1a\0b"sv, "\0\0\0\1a\0b\0c"sv}) {
    CHECK_FALSE(read_notification(as_bytes(body)).has_value());
  }
}

TEST_CASE("ready for query has one of three states") {
  CHECK(read_ready_for_query(as_bytes("I")) == transaction_status::idle);
  CHECK(read_ready_for_query(as_bytes("T")) == transaction_status::in_transaction);
  CHECK(read_ready_for_query(as_bytes("E")) == transaction_status::failed);
  for (const std::string_view body : {""sv, "X"sv, "II"sv, "\0"sv}) {
    CHECK_FALSE(read_ready_for_query(as_bytes(body)).has_value());
  }
}

TEST_CASE("a negotiated version counts the options that it names") {
  const auto answer = read_negotiate_protocol_version(as_bytes("\0\3\0\2\0\0\0\2a\0b\0"sv));
  REQUIRE(answer.has_value());
  CHECK(answer->newest_minor == 2);
  CHECK(answer->unknown_options_count == 2);
  for (const std::string_view body :
       {""sv, "\0\3\0\0"sv, "\0\2\0\0\0\0\0\0"sv, "\0\3\0\0\xff\xff\xff\xff"sv,
        "\0\3\0\0\0\0\0\1a"sv, "\0\3\0\0\0\0\0\1a\0b\0"sv}) {
    CHECK_FALSE(read_negotiate_protocol_version(as_bytes(body)).has_value());
  }
}

TEST_CASE("random bodies are decoded without reading past them") {
  InputMaker maker(4);
  const std::string_view legal[] = {"\0\0\0\x0aSCRAM-SHA-256\0OTHER\0\0"sv,
                                    "\0\0\0\5salt"sv,
                                    "name\0value\0"sv,
                                    "\0\0\0\1keykey"sv,
                                    "SELECT 1\0"sv,
                                    "\0\3\0\2\0\0\0\2a\0b\0"sv};
  for (int i = 0; i < test::random_inputs_count; ++i) {
    const ExactBytes copy(maker.next(legal[maker.below(std::size(legal))]));
    const ByteSpan body = copy.span();
    const auto request = read_authentication(body);
    if (request.has_value() && request->kind == AuthenticationKind::sasl) {
      REQUIRE_FALSE(request->has_mechanism("nobody has this"));
    }
    const auto status = read_parameter_status(body);
    if (status.has_value()) REQUIRE(status->name.size() + status->value.size() + 2 == body.size());
    const auto key = read_backend_key_data(body);
    REQUIRE(key.has_value() == (body.size() >= 8 && body.size() <= 260));
    const auto command = read_command_complete(body);
    if (command.has_value()) REQUIRE(command->size() + 1 == body.size());
    const auto ready = read_ready_for_query(body);
    if (ready.has_value()) REQUIRE(body.size() == 1);
    const auto version = read_negotiate_protocol_version(body);
    if (version.has_value()) REQUIRE(version->unknown_options_count <= body.size());
  }
}

}  // namespace
}  // namespace helios
