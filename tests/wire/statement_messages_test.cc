#include "helios/wire/statement_messages.h"

#include <doctest/doctest.h>

#include <string>

namespace helios {
namespace {

using Kind = StatementHead::Kind;
using namespace std::string_literals;

StatementHead head_of(char tag, const std::string& body) {
  return read_statement_head(static_cast<uint8_t>(tag), as_bytes(body));
}

}  // namespace

TEST_CASE("a name is read as soon as its end is there") {
  struct Case {
    char tag;
    std::string body;
    size_t head_size;
  };
  for (const Case& one :
       {Case{'P', "name\0text\0\0\0"s, 5}, Case{'B', "\0name\0\0\0"s, 6},
        Case{'B', "portal\0name\0\0\0"s, 12}, Case{'D', "Sname\0"s, 6}, Case{'C', "Sname\0"s, 6}}) {
    for (size_t size = 0; size <= one.body.size(); ++size) {
      const std::string seen = one.body.substr(0, size);
      const StatementHead head = head_of(one.tag, seen);
      CAPTURE(one.tag);
      CAPTURE(size);
      if (size < one.head_size) {
        REQUIRE(head.kind == Kind::need_more);
      } else {
        REQUIRE(head.kind == Kind::named);
        REQUIRE(head.name == "name");
        REQUIRE(head.size == one.head_size);
      }
    }
  }
}

TEST_CASE("the portal of a Bind is read too") {
  const std::string body = "portal\0name\0"s;
  CHECK(head_of('B', body).portal == "portal");
}

TEST_CASE("the unnamed statement and portals are no names") {
  CHECK(head_of('P', "\0"s).kind == Kind::unnamed);
  CHECK(head_of('B', "\0\0"s).kind == Kind::unnamed);
  CHECK(head_of('B', "portal\0\0"s).kind == Kind::unnamed);
  CHECK(head_of('D', "S\0"s).kind == Kind::unnamed);
  CHECK(head_of('D', "P"s).kind == Kind::unnamed);
  CHECK(head_of('C', "P"s).kind == Kind::unnamed);
  CHECK(head_of('C', "x"s).kind == Kind::unnamed);
}

TEST_CASE("what is written is read again") {
  MessageWriter writer;
  write_bind_head(writer, "portal", "name", 3);
  writer.add_messages(as_bytes("abc"));
  ByteSpan message = writer.bytes();
  CHECK(load_be32(message.data() + 1) == message.size() - 1);
  const StatementHead bind = read_statement_head('B', message.subspan(5));
  CHECK(bind.portal == "portal");
  CHECK(bind.name == "name");
  CHECK(message.size() == 5 + bind.size + 3);

  writer.clear();
  write_parse_head(writer, "name", 12);
  CHECK(load_be32(writer.bytes().data() + 1) == 4 + 5 + 12);
  CHECK(read_statement_head('P', writer.bytes().subspan(5)).name == "name");

  for (const bool is_close : {false, true}) {
    writer.clear();
    is_close ? write_close_statement(writer, "name") : write_describe_statement(writer, "name");
    CHECK(writer.bytes()[0] == (is_close ? 'C' : 'D'));
    CHECK(read_statement_head(writer.bytes()[0], writer.bytes().subspan(5)).name == "name");
  }
}

}  // namespace helios
