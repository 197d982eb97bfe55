#include "helios/pool/backend_statements.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

using State = BackendStatements::State;

StatementKey key(uint64_t number) {
  return {number, number};
}

void add_settled(BackendStatements& statements, uint64_t number) {
  statements.add(key(number), 1);
  statements.settle(key(number));
}

}  // namespace

TEST_CASE("a statement is pending from its Parse to the answer") {
  BackendStatements statements;
  CHECK(statements.state_of(key(1)) == State::absent);
  statements.add(key(1), 5);
  CHECK(statements.state_of(key(1)) == State::pending);
  CHECK_FALSE(statements.is_pending_before(key(1), 5));
  CHECK(statements.is_pending_before(key(1), 6));
  statements.settle(key(1));
  CHECK(statements.state_of(key(1)) == State::present);
  CHECK_FALSE(statements.is_pending_before(key(1), 6));
  statements.remove(key(1));
  CHECK(statements.state_of(key(1)) == State::absent);
  CHECK(statements.size() == 0);
}

TEST_CASE("a doubtful statement is so until its next Parse") {
  BackendStatements statements;
  statements.doubt(key(1));
  CHECK(statements.state_of(key(1)) == State::absent);
  add_settled(statements, 1);
  statements.doubt(key(1));
  CHECK(statements.state_of(key(1)) == State::doubtful);
  statements.settle(key(1));
  CHECK(statements.state_of(key(1)) == State::doubtful);
  add_settled(statements, 1);
  CHECK(statements.state_of(key(1)) == State::present);
}

TEST_CASE("what was not used for longest is evicted first, and nothing that is pending") {
  BackendStatements statements;
  for (uint64_t number = 1; number <= 3; ++number) add_settled(statements, number);
  statements.add(key(4), 1);
  statements.touch(key(1));
  StatementKey evicted;
  for (const uint64_t number : {2, 3, 1}) {
    REQUIRE(statements.evict(evicted, false));
    CHECK(evicted == key(number));
  }
  CHECK_FALSE(statements.evict(evicted, false));
  CHECK(statements.size() == 1);
}

TEST_CASE("what was used last stays when it is wanted") {
  BackendStatements statements;
  add_settled(statements, 1);
  statements.add(key(2), 1);
  statements.touch(key(1));
  StatementKey evicted;
  CHECK_FALSE(statements.evict(evicted, true));
  CHECK(statements.evict(evicted, false));
  CHECK(evicted == key(1));
}

TEST_CASE("when the server drops all, what is pending comes after that") {
  BackendStatements statements;
  add_settled(statements, 1);
  statements.add(key(2), 1);
  add_settled(statements, 3);
  statements.drop_settled();
  CHECK(statements.size() == 1);
  CHECK(statements.state_of(key(2)) == State::pending);
}

TEST_CASE("a list makes the same again, in the same order") {
  BackendStatements statements;
  for (uint64_t number = 1; number <= 3; ++number) add_settled(statements, number);
  statements.touch(key(1));
  statements.doubt(key(3));
  BackendStatements other;
  other.restore(statements.list());
  CHECK(other.state_of(key(1)) == State::present);
  CHECK(other.state_of(key(3)) == State::doubtful);
  StatementKey evicted;
  for (const uint64_t number : {2, 3, 1}) {
    REQUIRE(other.evict(evicted, false));
    CHECK(evicted == key(number));
  }
}

}  // namespace helios
