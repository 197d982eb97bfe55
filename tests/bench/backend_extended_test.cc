// Parse, Bind, Describe, Execute, Close and Sync, answered by the canned server.
#include <doctest/doctest.h>

#include "tests/bench/conversation_bench.h"

namespace helios::bench {
namespace {

using namespace test;

// Builds what a client sends.
class Batch {
 public:
  Batch& parse(std::string_view text, std::string_view name = "",
               std::initializer_list<uint32_t> types = {}) {
    writer_.begin('P');
    writer_.add_text(name);
    writer_.add_text(text);
    writer_.add_int16(static_cast<uint16_t>(types.size()));
    for (const uint32_t type : types) writer_.add_int32(type);
    writer_.end();
    return *this;
  }
  // One parameter of the given format, or none; one result format.
  Batch& bind(std::string_view name = "", std::string_view portal = "",
              uint16_t result_format = 0) {
    return begin_bind(name, portal, 0).end_bind(result_format);
  }
  Batch& bind_value(std::string_view value, uint16_t format = 0, uint16_t result_format = 0,
                    std::string_view name = "") {
    begin_bind(name, "", 1, format);
    writer_.add_int32(static_cast<uint32_t>(value.size()));
    writer_.add_bytes(as_bytes(value));
    return end_bind(result_format);
  }
  Batch& bind_null() {
    begin_bind("", "", 1);
    writer_.add_int32(UINT32_MAX);
    return end_bind(0);
  }
  Batch& describe(char what, std::string_view name = "") { return named('D', what, name); }
  Batch& close(char what, std::string_view name = "") { return named('C', what, name); }
  Batch& execute(uint32_t rows = 0, std::string_view portal = "") {
    writer_.begin('E');
    writer_.add_text(portal);
    writer_.add_int32(rows);
    writer_.end();
    return *this;
  }
  Batch& sync() {
    write_sync(writer_);
    return *this;
  }
  Batch& query(std::string_view text) {
    write_query(writer_, text);
    return *this;
  }
  Batch& add(char tag) {
    writer_.begin(static_cast<uint8_t>(tag));
    writer_.end();
    return *this;
  }
  [[nodiscard]] const MessageWriter& writer() const { return writer_; }

 private:
  Batch& begin_bind(std::string_view name, std::string_view portal, uint16_t values,
                    uint16_t format = 0) {
    writer_.begin('B');
    writer_.add_text(portal);
    writer_.add_text(name);
    writer_.add_int16(values);
    for (uint16_t i = 0; i < values; ++i) writer_.add_int16(format);
    writer_.add_int16(values);
    return *this;
  }
  Batch& end_bind(uint16_t result_format) {
    writer_.add_int16(1);
    writer_.add_int16(result_format);
    writer_.end();
    return *this;
  }
  Batch& named(char tag, char what, std::string_view name) {
    writer_.begin(static_cast<uint8_t>(tag));
    writer_.add_byte(static_cast<uint8_t>(what));
    writer_.add_text(name);
    writer_.end();
    return *this;
  }

  MessageWriter writer_;
};

std::string story_of(ConversationBench& bench, const Batch& batch) {
  CHECK(bench.write(batch.writer()).empty());
  return bench.take_story();
}

TEST_CASE("a whole batch is answered in one send") {
  ConversationBench bench({.logs_in = true});
  Batch batch;
  batch.parse("select 5").bind().describe('P').execute().sync();
  bench.write(batch.writer());
  CHECK(bench.sends_count == 1);
  CHECK(bench.take_story() == "1 2 T D:5 C:SELECT 1 Z:I");
}

TEST_CASE("a batch that comes byte by byte is answered the same") {
  ConversationBench bench({.logs_in = true});
  Batch batch;
  batch.parse("select $1").bind_value("8").execute().sync();
  for (const uint8_t byte : batch.writer().bytes())
    bench.write(std::string(1, static_cast<char>(byte)));
  CHECK(bench.take_story() == "1 2 D:8 C:SELECT 1 Z:I");
}

TEST_CASE("values are bound as text and as binary integers of any size") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().parse("select $1").bind_value("-12").execute().sync()) ==
        "1 2 D:-12 C:SELECT 1 Z:I");
  const std::pair<std::string, std::string> binaries[] = {
      {std::string("\xff\xfe", 2), "-2"},
      {std::string("\0\0\1\0", 4), "256"},
      {std::string("\0\0\0\1\0\0\0\0", 8), "4294967296"}};
  for (const auto& [bytes, text] : binaries)
    CHECK(story_of(bench, Batch().bind_value(bytes, 1).execute().sync()) ==
          "2 D:" + text + " C:SELECT 1 Z:I");
  CHECK(story_of(bench, Batch().bind_value("abc").execute().sync()) == "E:22P02 Z:I");
  CHECK(story_of(bench, Batch().bind_value("abc", 1).execute().sync()) == "E:22P03 Z:I");
  CHECK(story_of(bench, Batch().bind_null().execute().sync()) == "E:22004 Z:I");
  CHECK(story_of(bench, Batch().bind().execute().sync()) == "E:08P01 Z:I");
}

TEST_CASE("a lookup's parameter is an int4") {
  ConversationBench bench({.logs_in = true});
  Batch batch;
  batch.parse("select abalance from t where aid = $1", "l");
  CHECK(story_of(bench, batch.bind_value("31", 0, 0, "l").execute().sync()) ==
        "1 2 D:31 C:SELECT 1 Z:I");
  CHECK(story_of(bench, Batch().bind_value("3000000000", 0, 0, "l").execute().sync()) ==
        "E:22003 Z:I");
}

TEST_CASE("results are binary on request, as described") {
  ConversationBench bench({.logs_in = true});
  bench.write(
      Batch().parse("select $1", "", {23}).bind_value("7", 0, 1).describe('P').execute().writer());
  auto messages = bench.take();
  REQUIRE(messages.size() == 5);
  CHECK(messages[2].body.ends_with(std::string("\0\0\0\x17\0\4\xff\xff\xff\xff\0\1", 12)));
  CHECK(messages[3].body == std::string("\0\1\0\0\0\4\0\0\0\7", 10));
  bench.write(Batch().sync().parse("select $1").bind_value("7", 0, 1).execute().sync().writer());
  messages = bench.take();
  REQUIRE(messages.size() == 6);
  CHECK(messages[3].body == std::string("\0\1\0\0\0\x08\0\0\0\0\0\0\0\7", 14));
}

TEST_CASE("a statement is described by its parameters and its columns") {
  ConversationBench bench({.logs_in = true});
  bench.write(
      Batch().parse("select abalance from t where aid = $1", "a").describe('S', "a").writer());
  auto messages = bench.take();
  REQUIRE(messages.size() == 3);
  CHECK(messages[1].body == std::string("\0\1\0\0\0\x17", 6));
  CHECK(messages[2].tag == 'T');
  bench.write(
      Batch().parse("insert into t values ($1, $2)", "b", {20}).describe('S', "b").writer());
  messages = bench.take();
  REQUIRE(messages.size() == 3);
  CHECK(messages[1].body == std::string("\0\2\0\0\0\x14\0\0\0\x19", 10));
  CHECK(messages[2].tag == 'n');
  CHECK(story_of(
            bench,
            Batch().parse("show timezone").describe('S').bind().describe('P').execute().sync()) ==
        "1 t T 2 T D:Etc/UTC C:SHOW Z:I");
}

TEST_CASE("named statements stay until they are closed") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().parse("select 1", "s").sync()) == "1 Z:I");
  CHECK(story_of(bench, Batch().bind("s").execute().sync()) == "2 D:1 C:SELECT 1 Z:I");
  CHECK(story_of(bench, Batch().parse("select 2", "s").sync()) == "E:42P05 Z:I");
  CHECK(story_of(bench, Batch().close('S', "s").close('S', "unknown").sync()) == "3 3 Z:I");
  CHECK(story_of(bench, Batch().bind("s").sync()) == "E:26000 Z:I");
  CHECK(story_of(bench, Batch().describe('S', "s").sync()) == "E:26000 Z:I");
  CHECK(story_of(bench, Batch().parse("select 1", "s").sync()) == "1 Z:I");
  CHECK(bench.story_of("deallocate s") == "C:DEALLOCATE Z:I");
  CHECK(bench.story_of("deallocate s") == "E:26000 Z:I");
  CHECK(story_of(bench, Batch().parse("select 1", "s").sync()) == "1 Z:I");
  CHECK(bench.story_of("discard all") == "C:DISCARD ALL Z:I");
  CHECK(story_of(bench, Batch().bind("s").sync()) == "E:26000 Z:I");
}

TEST_CASE("the unnamed statement lives until the next one or a simple query") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().bind().sync()) == "E:26000 Z:I");
  CHECK(story_of(bench, Batch().parse("select 1").parse("select 2").sync()) == "1 1 Z:I");
  CHECK(story_of(bench, Batch().bind().execute().sync()) == "2 D:2 C:SELECT 1 Z:I");
  (void)bench.story_of("select 1");
  CHECK(story_of(bench, Batch().bind().sync()) == "E:26000 Z:I");
}

TEST_CASE("after an error everything up to Sync is skipped, queries too") {
  ConversationBench bench({.logs_in = true});
  Batch batch;
  batch.parse("select 1/0").bind().execute().parse("select 1").bind().query("select 2").add('H');
  CHECK(story_of(bench, batch.sync().parse("select 3").bind().execute().sync()) ==
        "1 2 E:22012 Z:I 1 2 D:3 C:SELECT 1 Z:I");
}

TEST_CASE("a failed block takes only its end") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().parse("begin").bind().execute().sync()) == "1 2 C:BEGIN Z:T");
  CHECK(story_of(bench, Batch().parse("select 1/0").bind().execute().sync()) == "1 2 E:22012 Z:E");
  CHECK(story_of(bench, Batch().parse("select 1").bind().execute().sync()) == "E:25P02 Z:E");
  CHECK(story_of(bench, Batch().parse("rollback").bind().execute().sync()) == "1 2 C:ROLLBACK Z:I");
}

TEST_CASE("several commands do not make one statement, none make an empty one") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().parse("select 1; select 2").sync()) == "E:42601 Z:I");
  CHECK(story_of(bench, Batch().parse("select 1;").bind().execute().sync()) ==
        "1 2 D:1 C:SELECT 1 Z:I");
  CHECK(story_of(bench, Batch().parse("").bind().describe('P').execute().sync()) == "1 2 n I Z:I");
}

TEST_CASE("a portal gives its rows in parts") {
  ConversationBench bench({.rows = 5, .row_size = 1, .logs_in = true});
  Batch batch;
  batch.parse("select a").bind("", "p").execute(2, "p").execute(2, "p").execute(2, "p");
  CHECK(story_of(bench, batch.execute(2, "p").sync()) ==
        "1 2 D:x D:x s D:x D:x s D:x C:SELECT 1 C:SELECT 0 Z:I");
  CHECK(story_of(bench, Batch().execute(0, "p").sync()) == "E:34000 Z:I");
}

TEST_CASE("a portal lives as long as its block, unless it is closed") {
  ConversationBench bench({.logs_in = true});
  (void)bench.story_of("begin");
  CHECK(story_of(bench, Batch().parse("select 1").bind("", "p").sync()) == "1 2 Z:T");
  CHECK(story_of(bench, Batch().execute(0, "p").close('P', "p").execute(0, "p").sync()) ==
        "D:1 C:SELECT 1 3 E:34000 Z:E");
}

TEST_CASE("a bind that failed leaves no portal") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().parse("select $1").bind_value("x").sync()) == "1 E:22P02 Z:I");
  CHECK(story_of(bench, Batch().execute().sync()) == "E:34000 Z:I");
}

TEST_CASE("statements that wait keep the batch in order") {
  ConversationBench bench({.logs_in = true});
  Batch batch;
  batch.parse("select pg_sleep(1)").bind().execute().parse("select 2").bind().execute().sync();
  const std::string rest = bench.write(batch.writer());
  CHECK(bench.take_story() == "1 2");
  bench.on_time();
  CHECK(bench.take_story() == "D: C:SELECT 1");
  CHECK(bench.write(rest).empty());
  CHECK(bench.take_story() == "1 2 D:2 C:SELECT 1 Z:I");
}

TEST_CASE("a cancelled statement of a batch skips to its Sync") {
  ConversationBench bench({.logs_in = true});
  Batch batch;
  batch.parse("select pg_sleep(1)").bind().execute().parse("select 2").bind().sync();
  const std::string rest = bench.write(batch.writer());
  bench.cancel();
  CHECK(bench.write(rest).empty());
  CHECK(bench.take_story() == "1 2 E:57014 Z:I");
}

TEST_CASE("COPY works in a batch") {
  ConversationBench bench({.logs_in = true});
  CHECK(story_of(bench, Batch().parse("copy t from stdin").bind().execute().sync()) == "1 2 G");
  CHECK(story_of(bench, Batch().add('c').sync()) == "C:COPY 0 Z:I");
}

TEST_CASE("messages that break off are errors") {
  ConversationBench bench({.logs_in = true});
  for (const char tag : {'P', 'B', 'D', 'E', 'C'})
    CHECK(story_of(bench, Batch().add(tag).sync()) == "E:08P01 Z:I");
  CHECK(story_of(bench, Batch().describe('X').close('S').sync()) == "E:08P01 Z:I");
}

}  // namespace
}  // namespace helios::bench
