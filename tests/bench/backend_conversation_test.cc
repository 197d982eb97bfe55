// Logins, simple queries, COPY, waits and back-pressure of the canned server.
#include <doctest/doctest.h>

#include "tests/bench/conversation_bench.h"

namespace helios::bench {
namespace {

using namespace test;
using State = Conversation::State;

std::string message(char tag, std::string_view body) {
  MessageWriter writer;
  writer.begin(static_cast<uint8_t>(tag));
  writer.add_bytes(as_bytes(body));
  writer.end();
  return std::string(as_text(writer.bytes()));
}

std::string tags_of(const std::vector<TestMessage>& messages) {
  std::string tags;
  for (const TestMessage& each : messages) tags += static_cast<char>(each.tag);
  return tags;
}

std::string parameter_of(const std::vector<TestMessage>& messages, const std::string& name) {
  const std::string begin = name + '\0';
  for (const TestMessage& each : messages)
    if (each.tag == 'S' && each.body.starts_with(begin))
      return each.body.substr(begin.size(), each.body.size() - begin.size() - 1);
  return "(none)";
}

// ---------------------------------------------------------------- the login

TEST_CASE("a login reports what PostgreSQL 15 reports, with the client's values") {
  ConversationBench bench;
  bench.log_in(0, {{"application_name", "test"}, {"datestyle", "German"}});
  const auto messages = bench.take();
  CHECK(tags_of(messages) == "RSSSSSSSSSSSSSKZ");
  CHECK(parameter_of(messages, "application_name") == "test");
  CHECK(parameter_of(messages, "DateStyle") == "German");
  CHECK(parameter_of(messages, "session_authorization") == "me");
  CHECK(parameter_of(messages, "server_version").substr(0, 3) == "15.");
  CHECK(messages[14].body == std::string("\0\0\0\x4d\1\2\3\4", 8));
  CHECK(bench.clients_count == 1);
  bench.conversation.reset();
  CHECK(bench.clients_count == 0);
}

TEST_CASE("requests for encryption are answered N, byte by byte or not") {
  ConversationBench bench;
  MessageWriter writer;
  write_ssl_request(writer);
  for (const uint8_t byte : writer.bytes()) bench.write(std::string(1, static_cast<char>(byte)));
  CHECK(bench.take_bytes() == "N");
  bench.write(std::string("\0\0\0\x08\x04\xd2\x16\x30", 8));
  CHECK(bench.take_bytes() == "N");
  bench.log_in();
  CHECK(bench.conversation->state() == State::reading);
}

TEST_CASE("protocol 3.2 gets a long key, a newer one a negotiation") {
  ConversationBench bench;
  bench.log_in(2);
  CHECK(bench.take()[14].body.size() == 4 + backend_key_size);
  ConversationBench newer;
  newer.log_in(9);
  CHECK(tags_of(newer.take()).substr(0, 2) == "vR");
}

TEST_CASE("a cancel request tells whom it means, and ends its connection") {
  ConversationBench bench;
  MessageWriter writer;
  write_cancel_request(writer, 77, ByteSpan(ConversationBench::key).first(4));
  bench.write(writer);
  CHECK(bench.conversation->state() == State::ended);
  REQUIRE(bench.conversation->cancel_target().has_value());
  CHECK(bench.take_bytes().empty());

  ConversationBench victim;
  CancelTarget target = *bench.conversation->cancel_target();
  CHECK_FALSE(victim.conversation->is_target(target));  // Not logged in.
  victim.log_in_quietly();
  CHECK(victim.conversation->is_target(target));
  target.key[3] = 9;
  CHECK_FALSE(victim.conversation->is_target(target));
}

TEST_CASE("one client too many is refused, and replication too") {
  ConversationBench bench({.clients_max = 1});
  bench.clients_count = 1;
  bench.log_in();
  CHECK(bench.take_story() == "E:53300");
  CHECK(bench.conversation->state() == State::ended);
  ConversationBench other;
  other.log_in(0, {{"replication", "true"}});
  CHECK(other.take_story() == "E:0A000");
}

TEST_CASE("what is no start-up packet, and what is no message, ends the connection") {
  ConversationBench bench;
  bench.write(std::string("\0\0\0\1", 4));
  CHECK(bench.take_story() == "E:08P01");
  ConversationBench other({.logs_in = true});
  other.write("?????");
  CHECK(other.take_story() == "E:08P01");
  ConversationBench third({.logs_in = true});
  third.write(message('!', ""));
  CHECK(third.take_story() == "E:08P01");
}

// ---------------------------------------------------------------- simple queries

TEST_CASE("a number is answered with itself, a lookup with its aid") {
  ConversationBench bench({.logs_in = true});
  CHECK(bench.story_of("select 42") == "T D:42 C:SELECT 1 Z:I");
  CHECK(bench.story_of("select -9000000000") == "T D:-9000000000 C:SELECT 1 Z:I");
  CHECK(bench.story_of("select abalance from t where aid = 5;") == "T D:5 C:SELECT 1 Z:I");
  bench.query("select abalance, aid from t where aid = 6");
  const auto messages = bench.take();
  CHECK(messages[1].body == std::string("\0\2\0\0\0\1"
                                        "6\0\0\0\1"
                                        "6",
                                        12));
  CHECK(bench.story_of("select now()") == "T D:0 C:SELECT 1 Z:I");
}

TEST_CASE("several statements are answered in order with one ReadyForQuery, in one send") {
  ConversationBench bench({.logs_in = true});
  bench.query("begin; select 1;;insert into t values (1); commit;");
  CHECK(bench.sends_count == 1);
  CHECK(bench.take_story() == "C:BEGIN T D:1 C:SELECT 1 C:INSERT 0 1 C:COMMIT Z:I");
  CHECK(bench.story_of("update t set a = 1; delete from t") == "C:UPDATE 1 C:DELETE 1 Z:I");
}

TEST_CASE("an empty query has its own answer") {
  ConversationBench bench({.logs_in = true});
  CHECK(bench.story_of("") == "I Z:I");
  CHECK(bench.story_of(" ; ;") == "I Z:I");
}

TEST_CASE("an error ends the query's other statements, and fails a block until its end") {
  ConversationBench bench({.logs_in = true});
  CHECK(bench.story_of("select 1; select 1/0; select 2") == "T D:1 C:SELECT 1 E:22012 Z:I");
  CHECK(bench.story_of("begin") == "C:BEGIN Z:T");
  CHECK(bench.story_of("select 1/0") == "E:22012 Z:E");
  CHECK(bench.story_of("select 1") == "E:25P02 Z:E");
  CHECK(bench.story_of("rollback to a") == "C:ROLLBACK Z:T");
  CHECK(bench.story_of("select 1/0") == "E:22012 Z:E");
  CHECK(bench.story_of("commit") == "C:ROLLBACK Z:I");
  CHECK(bench.story_of("rollback to a") == "E:25P01 Z:I");
}

TEST_CASE("parameters are reported before ReadyForQuery when they change") {
  ConversationBench bench({.logs_in = true});
  CHECK(bench.story_of("set application_name = 'x'") == "C:SET S Z:I");
  CHECK(bench.story_of("set application_name = 'x'") == "C:SET Z:I");
  CHECK(bench.story_of("show application_name") == "T D:x C:SHOW Z:I");
  CHECK(bench.story_of("begin; set timezone to CET") == "C:BEGIN C:SET S Z:T");
  CHECK(bench.story_of("rollback") == "C:ROLLBACK S Z:I");
  CHECK(bench.story_of("set local timezone to CET") == "C:SET Z:I");
  CHECK(bench.story_of("reset application_name") == "C:RESET S Z:I");
  CHECK(bench.story_of("set timezone to CET; discard all") == "C:SET C:DISCARD ALL Z:I");
  CHECK(bench.story_of("show nonsense") == "E:42704 Z:I");
  CHECK(bench.story_of("begin; discard all") == "C:BEGIN E:25001 Z:E");
}

TEST_CASE("results are as large as asked for") {
  ConversationBench bench({.rows = 3, .row_size = 10, .logs_in = true});
  CHECK(bench.story_of("select a") == "T D:xxxxxxxxxx D:xxxxxxxxxx D:xxxxxxxxxx C:SELECT 3 Z:I");
  CHECK(bench.story_of("select 1") == "T D:1 C:SELECT 1 Z:I");
  CHECK(bench.story_of("copy t to stdout") == "H d d d c C:COPY 3 Z:I");
  bench.query("select big");
  const auto messages = bench.take();
  CHECK(messages.size() == 10'003);
  CHECK(messages[1].body.size() == 2 + 4 + 94);
  CHECK(messages[10'001].body == std::string("SELECT 10000\0", 13));
}

TEST_CASE("a function call is refused and nothing else") {
  ConversationBench bench({.logs_in = true});
  bench.write(message('F', std::string(10, '\0')));
  CHECK(bench.take_story() == "E:0A000 Z:I");
}

// ---------------------------------------------------------------- COPY FROM STDIN

TEST_CASE("COPY takes its data in any pieces and counts lines") {
  ConversationBench bench({.logs_in = true});
  CHECK(bench.story_of("copy t from stdin; select 1") == "G");
  CHECK(bench.conversation->state() == State::copying);
  bench.write(message('d', "a\nb") + message('H', "") + message('S', "") + message('d', "c\nd\n"));
  CHECK(bench.take_story().empty());
  bench.write(message('c', ""));
  CHECK(bench.take_story() == "C:COPY 3 T D:1 C:SELECT 1 Z:I");
}

TEST_CASE("COPY fails when the client says so, and in the middle of a block the block too") {
  ConversationBench bench({.logs_in = true});
  CHECK(bench.story_of("begin; copy t from stdin; select 1") == "C:BEGIN G");
  bench.write(message('f', std::string("why\0", 4)));
  CHECK(bench.take_story() == "E:57014 Z:E");
  bench.write(message('d', "late") + message('c', ""));
  CHECK(bench.take_story().empty());
}

TEST_CASE("a query in the middle of COPY data ends the connection") {
  ConversationBench bench({.logs_in = true});
  (void)bench.story_of("copy t from stdin");
  bench.query("select 1");
  CHECK(bench.take_story() == "E:08P01");
  CHECK(bench.conversation->state() == State::ended);
}

// ---------------------------------------------------------------- waits and room

TEST_CASE("pg_sleep answers when its time is over, and nothing overtakes it") {
  ConversationBench bench({.logs_in = true});
  MessageWriter writer;
  write_query(writer, "select 1; select pg_sleep(0.5); select 2");
  write_query(writer, "select 3");
  const std::string rest = bench.write(writer);
  CHECK(bench.take_story() == "T D:1 C:SELECT 1");
  CHECK(bench.conversation->state() == State::waiting);
  CHECK(bench.conversation->pause() == milliseconds(500));
  CHECK(bench.write(rest) == rest);
  bench.on_time();
  CHECK(bench.take_story() == "T D: C:SELECT 1 T D:2 C:SELECT 1 Z:I");
  CHECK(bench.write(rest).empty());
  CHECK(bench.take_story() == "T D:3 C:SELECT 1 Z:I");
}

TEST_CASE("with a delay each statement waits") {
  ConversationBench bench({.delay = milliseconds(3), .logs_in = true});
  bench.query("set application_name = 'x'; select 1");
  CHECK(bench.conversation->pause() == milliseconds(3));
  bench.on_time();
  CHECK(bench.take_story() == "C:SET");
  bench.on_time();
  CHECK(bench.take_story() == "T D:1 C:SELECT 1 S Z:I");
  CHECK(bench.conversation->state() == State::reading);
}

TEST_CASE("a cancelled statement ends in an error, an idle connection does not care") {
  ConversationBench bench({.logs_in = true});
  bench.cancel();
  CHECK(bench.take_story().empty());
  bench.query("begin; select pg_sleep(9); select 1");
  bench.cancel();
  CHECK(bench.take_story() == "C:BEGIN E:57014 Z:E");
  CHECK(bench.story_of("rollback") == "C:ROLLBACK Z:I");
}

TEST_CASE("rows are made as room comes, never much more") {
  ConversationBench bench({.logs_in = true});
  bench.room = 100'000;
  bench.query("select big; select 1");
  size_t rows = 0;
  std::string last;
  for (int i = 0; i < 100 && bench.conversation->state() == State::streaming; ++i) {
    const auto messages = bench.take();
    size_t size = 0;
    for (const TestMessage& each : messages) {
      size += each.body.size() + 5;
      rows += each.tag == 'D' ? 1 : 0;
    }
    CHECK(size < bench.room + 2 * AnswerBuffer::capacity);
    CHECK(size > 0);
    bench.on_room();
  }
  for (const TestMessage& each : bench.take()) {
    rows += each.tag == 'D' ? 1 : 0;
    last += static_cast<char>(each.tag);
  }
  CHECK(rows == 10'001);
  CHECK(last.ends_with("CTDCZ"));
}

TEST_CASE("a client that does not read its answers is not read on") {
  ConversationBench bench({.logs_in = true});
  bench.room = 1000;
  MessageWriter writer;
  for (int i = 0; i < 1000; ++i) write_query(writer, "select 1");
  std::string rest = bench.write(writer);
  CHECK(rest.size() > writer.bytes().size() / 2);
  int turns = 0;
  size_t answers = 0;
  while (!rest.empty() && ++turns < 2000) {
    answers += bench.take().size();
    rest = bench.write(rest);
  }
  answers += bench.take().size();
  CHECK(answers == 4000);
}

}  // namespace
}  // namespace helios::bench
