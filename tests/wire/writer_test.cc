#include "helios/wire/writer.h"

#include <doctest/doctest.h>

#include <array>

#include "helios/wire/message.h"
#include "wire/wire_support.h"

namespace helios {
namespace {

using test::string_of;
using namespace std::string_view_literals;

template <typename Write>
std::string written(const Write& write) {
  MessageWriter writer;
  write(writer);
  return string_of(writer.bytes());
}

TEST_CASE("a message gets its length when it ends") {
  const std::string bytes = written([](MessageWriter& writer) {
    writer.begin('x');
    writer.add_byte(1);
    writer.add_int16(0x0203);
    writer.add_int32(0x04050607);
    writer.add_text("ab");
    writer.add_bytes(as_bytes("cd"));
    writer.end();
  });
  CHECK(bytes == "x\0\0\0\x10\1\2\3\4\5\6\7ab\0cd"sv);
}

TEST_CASE("messages are appended to the caller's vector") {
  std::vector<uint8_t> target = {'a'};
  MessageWriter writer(target);
  write_sync(writer);
  write_terminate(writer);
  CHECK(string_of(target) == "aS\0\0\0\4X\0\0\0\4"sv);
}

TEST_CASE("messages that were built before are added as they are") {
  CHECK(written([](MessageWriter& writer) {
          write_sync(writer);
          writer.add_messages(as_bytes("X\0\0\0\4"sv));
        }) == "S\0\0\0\4X\0\0\0\4"sv);
}

TEST_CASE("a text with a zero byte ends there instead of starting another field") {
  CHECK(written([](MessageWriter& w) { write_parameter_status(w, "a\0b"sv, "c"); }) ==
        "S\0\0\0\x08"
        "a\0c\0"sv);
}

TEST_CASE("a notification is written as servers do") {
  CHECK(written([](MessageWriter& w) { write_notification(w, 0x102, "news", "hello"); }) ==
        "A\0\0\0\x13\0\0\1\2news\0hello\0"sv);
}

TEST_CASE("the messages of a login are those of the manual") {
  CHECK(written([](MessageWriter& w) { write_authentication_ok(w); }) == "R\0\0\0\x08\0\0\0\0"sv);
  CHECK(written([](MessageWriter& w) { write_authentication_md5(w, as_bytes("salt")); }) ==
        "R\0\0\0\x0c\0\0\0\5salt"sv);
  CHECK(written([](MessageWriter& w) { write_authentication_sasl(w); }) ==
        "R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"sv);
  CHECK(written([](MessageWriter& w) { write_authentication_sasl_continue(w, "r=x"); }) ==
        "R\0\0\0\x0b\0\0\0\x0br=x"sv);
  CHECK(written([](MessageWriter& w) { write_authentication_sasl_final(w, "v=y"); }) ==
        "R\0\0\0\x0b\0\0\0\x0cv=y"sv);
  CHECK(written([](MessageWriter& w) { write_ready_for_query(w, transaction_status::idle); }) ==
        "Z\0\0\0\5I"sv);
  CHECK(written([](MessageWriter& w) { write_password(w, "pw"); }) == "p\0\0\0\7pw\0"sv);
  CHECK(written([](MessageWriter& w) { write_sasl_initial_response(w, "M", "n,,"); }) ==
        "p\0\0\0\x0dM\0\0\0\0\3n,,"sv);
  CHECK(written([](MessageWriter& w) { write_sasl_response(w, "c="); }) == "p\0\0\0\6c="sv);
  CHECK(written([](MessageWriter& w) { write_query(w, "select 1"); }) == "Q\0\0\0\x0dselect 1\0"sv);
}

TEST_CASE("a cancel key may have any length from 4 to 256 bytes") {
  for (const size_t size : {4u, 32u, 256u}) {
    const std::string key(size, 'k');
    const std::string data =
        written([&](MessageWriter& w) { write_backend_key_data(w, 0x01020304, as_bytes(key)); });
    CHECK(data == test::message('K', "\1\2\3\4" + key));
    const std::string request =
        written([&](MessageWriter& w) { write_cancel_request(w, 0x01020304, as_bytes(key)); });
    CHECK(request.substr(4) == "\x04\xd2\x16\x2e\1\2\3\4" + key);
    CHECK(load_be32(as_bytes(request).data()) == size + 12);
  }
}

TEST_CASE("a start-up packet ends with one zero byte") {
  const std::array<TextPair, 2> parameters = {TextPair{"user", "me"}, TextPair{"database", ""}};
  CHECK(written([&](MessageWriter& w) { write_startup(w, protocol_version(3, 2), parameters); }) ==
        "\0\0\0\x1b\0\3\0\2user\0me\0database\0\0\0"sv);
  CHECK(written([](MessageWriter& w) { write_ssl_request(w); }) == "\0\0\0\x08\x04\xd2\x16\x2f"sv);
}

TEST_CASE("a negotiation names the version and each unknown option") {
  const std::array<std::string_view, 2> options = {"_pq_.a", "_pq_.b"};
  CHECK(written([&](MessageWriter& w) { write_negotiate_protocol_version(w, 2, options); }) ==
        "v\0\0\0\x1a\0\3\0\2\0\0\0\2_pq_.a\0_pq_.b\0"sv);
}

TEST_CASE("a tag is legal from a client only when the manual lists it") {
  const std::string_view legal = "BCdcfDEHFPQSX";
  for (int tag = 0; tag < 256; ++tag) {
    const bool is_listed = legal.find(static_cast<char>(tag)) != std::string_view::npos;
    CHECK(is_client_tag(static_cast<uint8_t>(tag)) == is_listed);
  }
}

}  // namespace
}  // namespace helios
