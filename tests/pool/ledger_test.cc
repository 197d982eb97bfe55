#include "helios/pool/ledger.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <utility>

namespace helios {
namespace {

constexpr StatementKey key_a{1, 2};
constexpr StatementKey key_b{3, 4};

void send(Ledger& ledger, const char* tags) {
  for (const char* tag = tags; *tag != 0; ++tag)
    ledger.on_sent(static_cast<uint8_t>(*tag), LedgerAction::forward);
}

// Plays replies; returns the first that is a violation, or 0.
char reply(Ledger& ledger, const char* tags) {
  for (const char* tag = tags; *tag != 0; ++tag)
    if (ledger.on_reply(static_cast<uint8_t>(*tag)).verdict == ReplyVerdict::violation) return *tag;
  return 0;
}

}  // namespace

TEST_CASE("a simple query is owed until its ReadyForQuery") {
  Ledger ledger;
  send(ledger, "Q");
  CHECK(reply(ledger, "TDDC") == 0);
  CHECK(!ledger.empty());
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("each extended message is completed by its own reply") {
  Ledger ledger;
  send(ledger, "PBDES");
  CHECK(reply(ledger, "12TDDC") == 0);
  CHECK(ledger.size() == 1);
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("a reply of the pooler's own is not held up by a CopyDone that ends no COPY") {
  Ledger ledger;
  send(ledger, "Cc");
  ledger.on_sent({{}, 'C', LedgerAction::fake, 0});
  send(ledger, "c");
  ledger.on_sent({{}, 'C', LedgerAction::fake, 0});
  send(ledger, "ES");
  CHECK_FALSE(ledger.has_due_fake());
  CHECK(reply(ledger, "3") == 0);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(ledger.has_due_fake());
    CHECK(ledger.take_due_fake().tag == 'C');
  }
  CHECK(reply(ledger, "EZ") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("what stands behind a simple query may be skipped for what stands before it") {
  Ledger ledger;
  CHECK_FALSE(ledger.may_skip_next());
  send(ledger, "Q");
  CHECK_FALSE(ledger.may_skip_next());
  send(ledger, "PQ");
  CHECK(ledger.may_skip_next());
  send(ledger, "S");
  CHECK_FALSE(ledger.may_skip_next());
  send(ledger, "P");
  CHECK(reply(ledger, "CZ") == 0);
  CHECK(reply(ledger, "E") == 0);  // The query is skipped, too.
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.may_skip_next());
  CHECK(reply(ledger, "1") == 0);
  CHECK_FALSE(ledger.may_skip_next());
}

TEST_CASE("nothing is skipped for a Close that the pooler has put in front") {
  Ledger ledger;
  ledger.on_sent('C', LedgerAction::inject);
  CHECK_FALSE(ledger.may_skip_next());
  send(ledger, "C");
  CHECK(ledger.may_skip_next());
}

TEST_CASE("two Syncs in flight need two ReadyForQuery") {
  Ledger ledger;
  send(ledger, "PBESPBES");
  CHECK(ledger.ready_due_count() == 2);
  CHECK(reply(ledger, "12CZ") == 0);
  CHECK(!ledger.empty());
  CHECK(reply(ledger, "12CZ") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("trap 1: Sync before or after the error ends with the same ledger") {
  Ledger before;
  send(before, "PBES");
  CHECK(reply(before, "1E") == 0);
  CHECK(before.size() == 1);
  CHECK(reply(before, "Z") == 0);
  CHECK(before.empty());

  Ledger after;
  send(after, "PBE");
  CHECK(reply(after, "1E") == 0);
  CHECK(after.empty());
  CHECK(after.is_skipping_to_sync());
  send(after, "PBE");  // Still ignored.
  CHECK(after.empty());
  send(after, "S");
  CHECK(!after.is_skipping_to_sync());
  CHECK(reply(after, "Z") == 0);
  CHECK(after.empty());
}

TEST_CASE("trap 1: the error may come at each place of the batch") {
  const char* sent = "PBDES";
  const char* completions = "12TC";
  for (size_t failing = 0; failing < 4; ++failing) {
    Ledger ledger;
    send(ledger, sent);
    CHECK(reply(ledger, std::string(completions, failing).c_str()) == 0);
    CHECK(reply(ledger, "EZ") == 0);
    CHECK(ledger.empty());
    send(ledger, "PBES");
    CHECK(reply(ledger, "12CZ") == 0);
    CHECK(ledger.empty());
  }
}

TEST_CASE("trap 2: a simple Query inside a failed batch has no reply, in either order") {
  Ledger sent_before;
  send(sent_before, "PBEQS");
  CHECK(reply(sent_before, "EZ") == 0);
  CHECK(sent_before.empty());

  Ledger sent_after;
  send(sent_after, "PBE");
  CHECK(reply(sent_after, "E") == 0);
  send(sent_after, "QS");
  CHECK(reply(sent_after, "Z") == 0);
  CHECK(sent_after.empty());
}

TEST_CASE("trap 3: a Sync behind the Execute of a COPY is ignored by the server") {
  Ledger ledger;
  send(ledger, "PBES");
  CHECK(reply(ledger, "12G") == 0);
  CHECK(ledger.is_copying_in());
  send(ledger, "ddcS");
  CHECK(reply(ledger, "CZ") == 0);
  CHECK(ledger.empty());
  CHECK(!ledger.is_ambiguous());
}

TEST_CASE("trap 3: the whole COPY may be sent before its first reply is seen") {
  Ledger ledger;
  send(ledger, "PBESdcS");
  CHECK(reply(ledger, "12GCZ") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("trap 3: a COPY that fails with Syncs in between is ambiguous") {
  Ledger ledger;
  send(ledger, "PBES");
  CHECK(reply(ledger, "12G") == 0);
  send(ledger, "d");
  CHECK(reply(ledger, "E") == 0);
  CHECK(ledger.is_ambiguous());
  send(ledger, "cS");
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("a Query behind the data of a failed COPY leaves it open how many replies will come") {
  for (const char* behind : {"Q", "PBES", "F"}) {
    Ledger ledger;
    send(ledger, "Q");
    CHECK(reply(ledger, "G") == 0);
    send(ledger, "d");
    send(ledger, behind);
    CHECK(reply(ledger, "EZ") == 0);
    CHECK(ledger.is_ambiguous());
  }
}

TEST_CASE("a ReadyForQuery that an ambiguous COPY may still bring is no violation") {
  Ledger ledger;
  send(ledger, "PBES");
  CHECK(reply(ledger, "12GEZ") == 0);
  CHECK(ledger.empty());
  CHECK(ledger.is_ambiguous());
}

TEST_CASE("only Query, FunctionCall and Sync bring everything to an answer") {
  Ledger ledger;
  CHECK(!ledger.ends_with_ready_request());
  send(ledger, "PBE");
  CHECK(!ledger.ends_with_ready_request());
  send(ledger, "S");
  CHECK(ledger.ends_with_ready_request());
  send(ledger, "P");
  CHECK(!ledger.ends_with_ready_request());
}

TEST_CASE("trap 3: an Execute that fails before the COPY began keeps its Sync") {
  Ledger ledger;
  send(ledger, "PBES");
  CHECK(reply(ledger, "12EZ") == 0);
  CHECK(ledger.empty());
  CHECK(!ledger.is_ambiguous());
}

TEST_CASE(
    "trap 4: CopyDone that comes after the failed COPY's ReadyForQuery leaves nothing behind") {
  Ledger ledger;
  send(ledger, "Q");
  CHECK(reply(ledger, "G") == 0);
  send(ledger, "d");
  CHECK(reply(ledger, "EZ") == 0);
  CHECK(ledger.empty());
  send(ledger, "dc");
  CHECK(ledger.empty());
}

TEST_CASE("trap 4: CopyDone sent before the error is seen leaves nothing behind") {
  Ledger ledger;
  send(ledger, "Q");
  CHECK(reply(ledger, "G") == 0);
  send(ledger, "dc");
  CHECK(reply(ledger, "EZ") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("a COPY by simple query among other statements keeps its Query") {
  Ledger ledger;
  send(ledger, "Q");
  CHECK(reply(ledger, "CG") == 0);
  send(ledger, "dc");
  CHECK(reply(ledger, "CC") == 0);
  CHECK(!ledger.empty());
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("trap 5: a FAKE entry behind a swallowed reply becomes due when that is gone") {
  Ledger ledger;
  ledger.on_sent('P', LedgerAction::skip);
  ledger.on_sent('P', LedgerAction::fake);
  ledger.on_sent('B', LedgerAction::forward);
  ledger.on_sent('S', LedgerAction::forward);
  CHECK_FALSE(ledger.has_due_fake());
  const Reply swallowed = ledger.on_reply('1');
  CHECK(swallowed.verdict == ReplyVerdict::skip);
  CHECK(ledger.take_due_fake().tag == 'P');
  CHECK_FALSE(ledger.has_due_fake());
  CHECK(ledger.on_reply('2').verdict == ReplyVerdict::forward);
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("trap 5: a reply cannot overtake a FAKE entry that was not taken") {
  Ledger ledger;
  ledger.on_sent('P', LedgerAction::fake);
  ledger.on_sent('B', LedgerAction::forward);
  CHECK(ledger.on_reply('2').verdict == ReplyVerdict::violation);
}

TEST_CASE("trap 6: FAKE replies behind an error in the same batch are never due, in either order") {
  Ledger sent_before;
  sent_before.on_sent('P', LedgerAction::forward);
  sent_before.on_sent('P', LedgerAction::fake);
  sent_before.on_sent('S', LedgerAction::forward);
  CHECK(reply(sent_before, "E") == 0);
  CHECK_FALSE(sent_before.has_due_fake());
  CHECK(reply(sent_before, "Z") == 0);
  CHECK(sent_before.empty());

  Ledger sent_after;
  sent_after.on_sent('P', LedgerAction::forward);
  CHECK(reply(sent_after, "E") == 0);
  sent_after.on_sent('C', LedgerAction::fake);
  CHECK_FALSE(sent_after.has_due_fake());
  sent_after.on_sent('S', LedgerAction::forward);
  CHECK(reply(sent_after, "Z") == 0);
  CHECK(sent_after.empty());
}

TEST_CASE("trap 7: Flush without Sync leaves nothing owed but the batch open") {
  Ledger ledger;
  send(ledger, "PBEH");
  CHECK(reply(ledger, "12C") == 0);
  CHECK(ledger.empty());
  CHECK(ledger.ready_due_count() == 0);
}

TEST_CASE("trap 8: unnamed messages are tracked like named ones") {
  Ledger ledger;
  send(ledger, "PDCS");
  ledger.name_newest('S', 0);
  CHECK(reply(ledger, "1tn3Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("swallowed and forwarded replies keep their order") {
  Ledger ledger;
  ledger.on_sent('Q', LedgerAction::skip);
  ledger.on_sent('Q', LedgerAction::forward);
  CHECK(ledger.on_reply('C').verdict == ReplyVerdict::skip);
  CHECK(ledger.on_reply('Z').verdict == ReplyVerdict::skip);
  CHECK(ledger.on_reply('T').verdict == ReplyVerdict::forward);
  CHECK(ledger.on_reply('C').verdict == ReplyVerdict::forward);
  CHECK(ledger.on_reply('Z').verdict == ReplyVerdict::forward);
  CHECK(ledger.empty());
}

TEST_CASE("a stream of replication lasts until both sides have ended it, whoever begins") {
  for (const char* ends : {"client", "server"}) {
    Ledger ledger;
    send(ledger, "Q");
    CHECK(reply(ledger, "W") == 0);
    CHECK(ledger.is_streaming());
    CHECK(ledger.is_copying_in());
    send(ledger, "dd");
    CHECK(reply(ledger, "dd") == 0);
    if (ends == std::string("client")) {
      send(ledger, "c");
      CHECK(reply(ledger, "ddc") == 0);
    } else {
      CHECK(reply(ledger, "c") == 0);
      send(ledger, "dc");
    }
    CHECK(ledger.is_streaming());
    // A row tells where the next timeline begins; each of two parts of the server says that it is
    // done.
    CHECK(reply(ledger, "TDCC") == 0);
    CHECK_FALSE(ledger.is_streaming());
    CHECK(ledger.size() == 1);
    CHECK(reply(ledger, "Z") == 0);
    CHECK(ledger.empty());
  }
}

TEST_CASE("an error ends a stream of replication, and what is on its way to the server") {
  for (const char* late : {"", "d", "dc"}) {
    Ledger ledger;
    send(ledger, "Q");
    CHECK(reply(ledger, "WdE") == 0);
    CHECK_FALSE(ledger.is_streaming());
    send(ledger, late);
    CHECK(reply(ledger, "Z") == 0);
    CHECK(ledger.empty());
    CHECK_FALSE(ledger.is_ambiguous());
  }
  Ledger copy;
  send(copy, "Q");
  CHECK(reply(copy, "G") == 0);
  CHECK_FALSE(copy.is_streaming());
}

TEST_CASE("replies that nobody asked for are violations") {
  for (const char tag :
       {'Z', '1', '2', '3', 'n', 'T', 'C', 'I', 's', 'D', 'd', 'G', 'H', 'V', 'x'}) {
    Ledger ledger;
    CAPTURE(tag);
    CHECK(ledger.on_reply(static_cast<uint8_t>(tag)).verdict == ReplyVerdict::violation);
  }
  Ledger mismatched;
  send(mismatched, "PBES");
  CHECK(reply(mismatched, "2") == '2');
}

TEST_CASE("an error that nobody asked for is the server's farewell") {
  Ledger ledger;
  CHECK(ledger.on_reply('E').verdict == ReplyVerdict::forward);
}

TEST_CASE("a deferred error at Sync is followed by its ReadyForQuery") {
  Ledger ledger;
  send(ledger, "PBESPBES");
  CHECK(reply(ledger, "12CEZ12CZ") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("the name of a statement comes back with its completion") {
  Ledger ledger;
  send(ledger, "P");
  ledger.name_newest('P', 77);
  send(ledger, "S");
  const Reply done = ledger.on_reply('1');
  CHECK(done.completed);
  CHECK(done.marks == ledger_mark::pins);
  CHECK(ledger.marked().key.low == 77);
}

TEST_CASE("an injected message is swallowed when it succeeds, and its error is the client's") {
  for (const bool fails : {false, true}) {
    Ledger ledger;
    ledger.on_sent({key_a, 'P', LedgerAction::inject, ledger_mark::parses});
    ledger.on_sent({key_a, 'B', LedgerAction::forward, ledger_mark::uses});
    send(ledger, "ES");
    const Reply first = ledger.on_reply(fails ? 'E' : '1');
    CHECK(first.completed == !fails);
    CHECK(first.verdict == (fails ? ReplyVerdict::forward : ReplyVerdict::skip));
    CHECK(first.marks == ledger_mark::parses);
    CHECK(ledger.marked().key == key_a);
    if (!fails) CHECK(reply(ledger, "2C") == 0);
    CHECK(reply(ledger, "Z") == 0);
    CHECK(ledger.empty());
  }
}

TEST_CASE("what an error makes the server skip is told, in its order, up to the Sync") {
  Ledger ledger;
  send(ledger, "P");
  ledger.on_sent({key_a, 'P', LedgerAction::forward, ledger_mark::parses});
  send(ledger, "BE");
  ledger.on_sent({{}, 'C', LedgerAction::fake, ledger_mark::renames});
  send(ledger, "S");
  ledger.on_sent({key_b, 'P', LedgerAction::forward, ledger_mark::parses});
  CHECK(ledger.on_reply('E').marks == 0);
  REQUIRE(ledger.has_dropped());
  const auto dropped = ledger.take_dropped();
  REQUIRE(dropped.size() == 2);
  CHECK(dropped[0].key == key_a);
  CHECK(dropped[1].tag == 'C');
  CHECK_FALSE(ledger.has_dropped());
  CHECK_FALSE(ledger.has_due_fake());
  CHECK(reply(ledger, "Z1") == 0);
  CHECK(ledger.marked().key == key_b);
  CHECK_FALSE(ledger.has_dropped());
}

TEST_CASE("what a COPY has swallowed is told too") {
  Ledger ledger;
  send(ledger, "BE");
  ledger.on_sent({key_a, 'P', LedgerAction::forward, ledger_mark::parses});
  send(ledger, "c");
  CHECK(reply(ledger, "2GC") == 0);
  const auto dropped = ledger.take_dropped();
  REQUIRE(dropped.size() == 1);
  CHECK(dropped[0].key == key_a);
}

TEST_CASE("batches are counted by their Syncs") {
  Ledger ledger;
  const uint64_t first = ledger.batch();
  send(ledger, "PBEQ");
  CHECK(ledger.batch() == first);
  send(ledger, "S");
  CHECK(ledger.batch() == first + 1);
}

TEST_CASE("a message that the pooler answers itself does not open a batch") {
  Ledger ledger;
  send(ledger, "S");
  ledger.on_sent({{}, 'C', LedgerAction::fake, 0});
  CHECK(ledger.ends_with_ready_request());
  send(ledger, "P");
  CHECK_FALSE(ledger.ends_with_ready_request());
}

TEST_CASE("marks are found among what is owed") {
  Ledger ledger;
  send(ledger, "P");
  ledger.name_newest('P', 77);
  send(ledger, "BES");
  CHECK(ledger.has_marked(ledger_mark::pins));
  CHECK_FALSE(ledger.has_marked(ledger_mark::renames));
  CHECK(reply(ledger, "1") == 0);
  CHECK_FALSE(ledger.has_marked(ledger_mark::pins));
}

TEST_CASE("long pipelines grow the ledger and keep the order") {
  Ledger ledger;
  for (int i = 0; i < 5000; ++i) send(ledger, "BE");
  for (int i = 0; i < 5000; ++i) REQUIRE(reply(ledger, "2C") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("a Parse of a name that is taken says nothing of the unnamed statement") {
  Ledger ledger;
  ledger.on_sent({{}, 'P', LedgerAction::inject, 0});
  ledger.on_sent({{}, 'P', LedgerAction::forward, ledger_mark::taken});
  CHECK(ledger.may_mean_foreign('B'));
  send(ledger, "S");
  CHECK(ledger.may_mean_foreign('B'));
  CHECK(reply(ledger, "1EZ") == 0);
  CHECK(ledger.may_mean_foreign('B'));
  CHECK_FALSE(ledger.has_unbound());
}

TEST_CASE("whose the unnamed statement is") {
  Ledger ledger;
  CHECK(ledger.may_mean_foreign('B'));
  CHECK(ledger.may_mean_foreign('D'));
  CHECK_FALSE(ledger.may_mean_foreign('P'));
  send(ledger, "P");
  ledger.name_newest('P', 77);
  CHECK(ledger.may_mean_foreign('B'));  // That one has a name.
  send(ledger, "P");
  ledger.name_newest('P', 0);
  CHECK_FALSE(ledger.may_mean_foreign('B'));
  // Neither was read by the server, which ignores a Bind too.
  CHECK(reply(ledger, "E") == 0);
  CHECK_FALSE(ledger.may_mean_foreign('B'));
  send(ledger, "P");  // Ignored: its Sync has not come yet.
  send(ledger, "S");
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.may_mean_foreign('B'));
  CHECK_FALSE(ledger.awaits_unnamed());
  // What is sent in a batch of its own will tell.
  send(ledger, "ESPS");
  CHECK(reply(ledger, "EZ") == 0);
  CHECK(ledger.may_mean_foreign('B'));
  CHECK(ledger.awaits_unnamed());
  CHECK(reply(ledger, "1Z") == 0);
  CHECK_FALSE(ledger.may_mean_foreign('B'));
  ledger.disown_unnamed();
  CHECK(ledger.may_mean_foreign('B'));
}

TEST_CASE("a query drops the unnamed statement when the server has read it") {
  for (const auto& [replies, is_read] :
       {std::pair{"TDCZ", true}, {"IZ", true}, {"GEZ", true}, {"EZ", false}}) {
    Ledger ledger;
    send(ledger, "Q");
    CHECK(ledger.may_mean_foreign('B'));
    CHECK(ledger.awaits_unnamed());
    CHECK(reply(ledger, replies) == 0);
    CHECK(ledger.may_mean_foreign('B') != is_read);
    CHECK_FALSE(ledger.awaits_unnamed());
  }
}

TEST_CASE("a query of the pooler's own drops the unnamed statement") {
  Ledger ledger;
  ledger.on_sent('Q', LedgerAction::skip);
  CHECK_FALSE(ledger.may_mean_foreign('B'));
}

TEST_CASE("a Close of the unnamed statement counts when it is executed") {
  Ledger ledger;
  ledger.on_sent('C', LedgerAction::skip);
  CHECK_FALSE(ledger.may_mean_foreign('B'));  // If one is skipped, so is the other.
  send(ledger, "S");
  CHECK(ledger.may_mean_foreign('B'));
  CHECK(ledger.awaits_unnamed());
  CHECK(reply(ledger, "3Z") == 0);
  CHECK_FALSE(ledger.may_mean_foreign('B'));
  CHECK_FALSE(ledger.has_unbound());
  ledger.disown_unnamed();
  send(ledger, "E");
  ledger.on_sent('C', LedgerAction::skip);
  send(ledger, "BS");
  CHECK(reply(ledger, "EZ") == 0);
  CHECK(ledger.may_mean_foreign('B'));
}

TEST_CASE("an error in an open batch of which nothing is owed ends at its Sync") {
  Ledger ledger;
  send(ledger, "P");
  CHECK(reply(ledger, "1") == 0);
  ledger.on_batch_failed();
  CHECK(reply(ledger, "E") == 0);
  send(ledger, "BES");
  CHECK(reply(ledger, "Z") == 0);
  CHECK(ledger.empty());
}

TEST_CASE("an error of the pooler's own statement is not the client's") {
  Ledger ledger;
  ledger.on_sent('P', LedgerAction::skip);
  ledger.on_sent('S', LedgerAction::skip);
  send(ledger, "Q");
  CHECK(reply(ledger, "E") == 0);
  CHECK_FALSE(ledger.is_head_failed());
}

TEST_CASE("an unnamed statement is unbound from its ParseComplete to whatever binds or drops it") {
  Ledger ledger;
  for (const char* end : {"2Z", "EZ"}) {
    send(ledger, "PS");
    CHECK(reply(ledger, "1Z") == 0);
    CHECK(ledger.has_unbound());
    send(ledger, "BS");
    CHECK(reply(ledger, end) == 0);
    CHECK_FALSE(ledger.has_unbound());
  }
  send(ledger, "PS");
  CHECK(reply(ledger, "1Z") == 0);
  send(ledger, "Q");
  CHECK(reply(ledger, "CZ") == 0);
  CHECK_FALSE(ledger.has_unbound());
  send(ledger, "P");
  ledger.name_newest('P', 77);
  send(ledger, "S");
  CHECK(reply(ledger, "1Z") == 0);
  CHECK_FALSE(ledger.has_unbound());
  for (const bool is_dropped : {false, true}) {
    send(ledger, "PSC");
    if (is_dropped) ledger.note_drop();
    send(ledger, "S");
    CHECK(reply(ledger, "1Z3Z") == 0);
    CHECK(ledger.has_unbound() != is_dropped);
  }
}

}  // namespace helios
