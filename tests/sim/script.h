// What simulated clients ask, and what exactly they must be answered.
//
// Every text that a client sends carries its mark, and the scripted server (session_bench.h) gives
// it back: so the messages of each answer are known in advance, byte for byte.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios::sim {

// The answer to a simple query, or to an extended batch: up to its ReadyForQuery.
struct Reply {
  // What holds for the client's session once it has succeeded.
  enum class Effect : uint8_t {
    none,
    begin,
    end,
    rename,
    prepare,
    deallocate,
    set,      // A parameter that the server does not report, or the role.
    reset,    // The same.
    hold,     // What keeps a backend with its client.
    release,  // That.
    discard,  // All of it.
    listen,
    unlisten,  // No name: to everything.
  };

  // In order; without ParameterStatus and ReadyForQuery.
  std::deque<test::WireMessage> expected;
  std::string error;  // SQLSTATE of the error that it must end with; empty: it must succeed.
  Effect effect = Effect::none;
  std::string name;  // Of the statement, the parameter, the channel, or what is held.
  std::string text;  // The new application_name, the statement's text, the parameter's value, or
                     // how a transaction ends.
  std::string error_if_interrupted =
      {};                    // May be instead, where something before was cancelled or lost.
  bool tells_own = false;    // Of the client's session, or its own statement.
  bool has_begun = false;    // A part of it has come.
  bool has_noticed = false;  // Its client was told that it waits.
  bool may_be_lost = false;  // It was asked for before its client was told of a loss.
};

// Bytes that are sent together, and the answers that they begin.
struct Step {
  std::string bytes;
  std::vector<Reply> replies;
  bool continues = false;  // Belongs to the answer that the step before has begun.
};

struct PreparedText {
  std::string text;
  bool is_by_query = false;  // It was made by PREPARE.
};

// What the client knows of its session: as far as answers have come.
struct SessionFacts {
  std::string application_name;
  std::string first_application_name;              // Of the start-up packet.
  std::map<std::string, PreparedText> statements;  // By name.
  std::map<std::string, std::string> settings;     // What the server does not report, and the role.
  std::map<std::string, std::string> settings_at_begin;
  std::set<std::string> held;
  std::set<std::string> channels;  // To which it listens.
};

// What a client's pool lets it do.
struct Licence {
  bool sets = false;      // What it sets and makes stays its own.
  bool discards = false;  // DISCARD ALL leads to what it began with.
  bool listens = false;   // What is notified in its database reaches it.
  bool rebinds = false;   // The unnamed statement follows.
};

class Scriptwriter {
 public:
  Scriptwriter(SimRandom& random, std::string mark, Licence licence)
      : random_(random), mark_(std::move(mark)), licence_(licence) {}

  // One unit of work. `is_certain`: nothing is under way that may change the facts.
  [[nodiscard]] std::deque<Step> next(const SessionFacts& facts, bool is_certain);
  // The way out of a transaction that has failed.
  [[nodiscard]] std::deque<Step> rollback() { return {command("ROLLBACK", Reply::Effect::end)}; }
  // What keeps its backend, if that is lost, may not go on: a statement was made by name, in SQL or
  // in a Parse, or one without a name was to be bound later.
  [[nodiscard]] bool has_prepared() const { return has_prepared_; }
  [[nodiscard]] bool has_split_unnamed() const { return has_split_unnamed_; }
  [[nodiscard]] bool has_parsed() const { return has_parsed_; }
  // A unit was written that begins a transaction, which statement mode forbids.
  [[nodiscard]] bool has_transaction() const { return has_transaction_; }

 private:
  [[nodiscard]] std::string next_text();
  [[nodiscard]] Step query(const std::string& text);
  [[nodiscard]] Step command(const std::string& text, Reply::Effect effect);
  [[nodiscard]] Step failure();
  [[nodiscard]] Step batch();
  [[nodiscard]] std::deque<Step> open_batch();
  [[nodiscard]] std::deque<Step> transaction();
  [[nodiscard]] std::deque<Step> copy_in();
  [[nodiscard]] Step copy_out();
  [[nodiscard]] Step rename();
  [[nodiscard]] Step who(const SessionFacts& facts);
  [[nodiscard]] Step ghost(const std::string& name);
  [[nodiscard]] Step named(const SessionFacts& facts);
  [[nodiscard]] Step prepare(const std::string& name);
  [[nodiscard]] Step use(const std::string& name, const PreparedText& statement);
  [[nodiscard]] std::deque<Step> bind_later();
  [[nodiscard]] Step twins();
  [[nodiscard]] Step notify();
  [[nodiscard]] Step listen();
  [[nodiscard]] Step unlisten(const SessionFacts& facts);
  [[nodiscard]] Step in_any_protocol(const std::string& text, Reply::Effect effect);
  [[nodiscard]] Step own(const SessionFacts& facts);
  [[nodiscard]] Step set();
  [[nodiscard]] Step reset(const SessionFacts& facts);
  [[nodiscard]] Step state(const SessionFacts& facts);
  [[nodiscard]] Step hold_or_release(const SessionFacts& facts);
  [[nodiscard]] Step row(const std::string& text, const std::string& row);

  SimRandom& random_;
  std::string mark_;
  Licence licence_;
  uint32_t texts_count_ = 0;
  bool has_transaction_ = false;
  bool has_prepared_ = false;
  bool has_split_unnamed_ = false;
  bool has_parsed_ = false;
};

}  // namespace helios::sim
