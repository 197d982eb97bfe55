#include "helios/session/client_statements.h"

#include <doctest/doctest.h>

#include <string>

namespace helios {
namespace {

struct Scene {
  StatementTable table;
  ClientStatements names;

  StatementRef statement(std::string_view text) {
    return table.intern(as_bytes(std::string(text) + std::string(3, '\0')), ParseContext{},
                        SIZE_MAX);
  }
  std::string text_of(std::string_view name) {
    const Statement* found = names.find(name);
    return found == nullptr ? "" : std::string(found->text());
  }
};

}  // namespace

TEST_CASE("a name means its statement at once, and other batches wait until it is settled") {
  Scene scene;
  scene.names.set("a", scene.statement("one"), 7);
  CHECK(scene.text_of("a") == "one");
  CHECK_FALSE(scene.names.is_unsettled_before("a", 7));
  CHECK(scene.names.is_unsettled_before("a", 8));
  CHECK_FALSE(scene.names.is_unsettled_before("b", 8));
  scene.names.settle();
  CHECK_FALSE(scene.names.is_unsettled_before("a", 8));
  CHECK(scene.text_of("a") == "one");
}

TEST_CASE("changes that did not happen are undone") {
  Scene scene;
  scene.names.set("a", scene.statement("one"), 1);
  scene.names.settle();
  scene.names.remove("a", 2);
  scene.names.set("a", scene.statement("two"), 2);
  scene.names.set("b", scene.statement("two"), 2);
  scene.names.remove("a", 2);
  CHECK(scene.text_of("a").empty());
  CHECK(scene.names.is_unsettled_before("a", 3));
  SUBCASE("all of them") {
    scene.names.undo(4);
    CHECK(scene.text_of("a") == "one");
    CHECK(scene.text_of("b").empty());
    CHECK(scene.table.count() == 1);
  }
  SUBCASE("those behind one that happened") {
    scene.names.settle();
    scene.names.undo(3);
    CHECK(scene.text_of("a").empty());
    CHECK(scene.names.empty());
    CHECK(scene.table.count() == 0);
  }
  CHECK_FALSE(scene.names.has_unsettled());
}

TEST_CASE("what the server forgets is what was settled") {
  Scene scene;
  scene.names.set("a", scene.statement("one"), 1);
  scene.names.set("b", scene.statement("one"), 1);
  scene.names.settle();
  scene.names.settle();
  scene.names.set("b", scene.statement("two"), 2);
  SUBCASE("all") {
    scene.names.forget_settled();
    CHECK(scene.text_of("a").empty());
  }
  SUBCASE("one by one") {
    scene.names.forget_settled("a");
    CHECK(scene.text_of("a").empty());
    CHECK(scene.text_of("b") == "two");
    scene.names.forget_settled("b");
  }
  CHECK(scene.text_of("b") == "two");
  CHECK(scene.names.find_unsettled("b") != nullptr);
  // Not what it was before: that is forgotten.
  scene.names.undo(1);
  CHECK(scene.names.empty());
  CHECK(scene.table.count() == 0);
}

TEST_CASE("only names of this batch are found where the rest is being forgotten") {
  Scene scene;
  scene.names.set("a", scene.statement("one"), 1);
  CHECK(scene.names.find_unsettled("a") != nullptr);
  scene.names.settle();
  CHECK(scene.names.find_unsettled("a") == nullptr);
  CHECK(scene.names.find_unsettled("b") == nullptr);
}

TEST_CASE("memory is counted for what the names mean now") {
  Scene scene;
  const StatementRef statement = scene.statement("one");
  const size_t size = ClientStatements::size_of("a", statement->content().size());
  scene.names.set("a", statement, 1);
  scene.names.set("b", statement, 1);
  CHECK(scene.names.bytes() == 2 * size);
  scene.names.remove("a", 1);
  CHECK(scene.names.bytes() == size);
  scene.names.undo(3);
  CHECK(scene.names.bytes() == 0);
  CHECK(scene.names.empty());
}

}  // namespace helios
