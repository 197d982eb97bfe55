#include "helios/pool/statement.h"

#include <doctest/doctest.h>

#include <string>

namespace helios {
namespace {

constexpr ParseContext context{1, 2, 3};

std::string content_of(std::string_view text) {
  return std::string(text) + std::string(3, '\0');
}

}  // namespace

TEST_CASE("equal statements are one, and go with the last who uses them") {
  StatementTable table;
  const std::string text = content_of("select 1");
  {
    const StatementRef a = table.intern(as_bytes(text), context, SIZE_MAX);
    StatementRef b = table.intern(as_bytes(text), context, SIZE_MAX);
    const StatementRef c = table.intern(as_bytes(content_of("select 2")), context, SIZE_MAX);
    CHECK(a == b);
    CHECK_FALSE(a == c);
    CHECK(table.count() == 2);
    CHECK(table.bytes() == a->size() + c->size());
    CHECK(a->text() == "select 1");
    CHECK(as_text(a->content()) == text);
    b = c;
    CHECK(table.count() == 2);
  }
  CHECK(table.count() == 0);
  CHECK(table.bytes() == 0);
}

TEST_CASE("a statement has one name on every core, which its types belong to") {
  StatementTable here;
  StatementTable there;
  const std::string text = content_of("select $1");
  std::string typed = text;
  typed[typed.size() - 1] = 1;
  typed += std::string("\0\0\0\x17", 4);
  const StatementRef a = here.intern(as_bytes(text), context, SIZE_MAX);
  const StatementRef b = there.intern(as_bytes(text), context, SIZE_MAX);
  const StatementRef c = here.intern(as_bytes(typed), context, SIZE_MAX);
  CHECK(a->key() == b->key());
  CHECK(a->name() == b->name());
  CHECK(a->name() != c->name());
  CHECK(a->name().size() == statement_name_size);
  CHECK(a->name().starts_with("helios_"));
  CHECK(looks_like_ours(a->name()));
  CHECK_FALSE(looks_like_ours(std::string(a->name()) + "_"));
  CHECK_FALSE(looks_like_ours("helios_"));
}

TEST_CASE("the same text is another statement where it is parsed in another way") {
  StatementTable table;
  const std::string text = content_of("select '01/02/2026'::date");
  const ParseContext other{1, 2, 4};
  const StatementRef a = table.intern(as_bytes(text), context, SIZE_MAX);
  const StatementRef b = table.intern(as_bytes(text), other, SIZE_MAX);
  CHECK(a->key() != b->key());
  CHECK(a->name() != b->name());
  CHECK(a->context() == context);
  CHECK(b->context() == other);
  CHECK(a->content().size() == b->content().size());
  CHECK(table.intern(as_bytes(text), other, SIZE_MAX) == b);
  CHECK(table.count() == 2);
}

TEST_CASE("beyond its memory the table takes nothing new") {
  StatementTable table;
  const std::string text = content_of("select 1");
  const size_t size = Statement::size_of(text.size());
  CHECK(table.intern(as_bytes(text), context, size - 1).is_null());
  const StatementRef a = table.intern(as_bytes(text), context, size);
  CHECK_FALSE(a.is_null());
  CHECK(table.intern(as_bytes(content_of("select 2")), context, size).is_null());
  // What is there needs none.
  CHECK(table.intern(as_bytes(text), context, 0) == a);
}

}  // namespace helios
