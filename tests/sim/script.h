// What simulated clients ask, and what exactly they must be answered.
//
// Every text that a client sends carries its mark, and the scripted server (session_bench.h) gives
// it back: so the messages of each answer are known in advance, byte for byte.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios::sim {

// The answer to a simple query, or to an extended batch: up to its ReadyForQuery.
struct Reply {
  // What holds for the client's session once it has succeeded.
  enum class Effect : uint8_t { none, begin, end, rename, prepare, deallocate };

  // In order; without ParameterStatus and ReadyForQuery.
  std::deque<test::WireMessage> expected;
  std::string error;  // SQLSTATE of the error that it must end with; empty: it must succeed.
  Effect effect = Effect::none;
  std::string text;        // The new application_name (rename), or the statement's text (prepare).
  bool has_begun = false;  // A part of it has come.
  bool has_noticed = false;  // Its client was told that it waits.
};

// Bytes that are sent together, and the answers that they begin.
struct Step {
  std::string bytes;
  std::vector<Reply> replies;
  bool continues = false;  // Belongs to the answer that the step before has begun.
};

// What the client knows of its session: as far as answers have come.
struct SessionFacts {
  std::string application_name;
  std::string statement;     // Text of the statement "s"; empty when there is none.
  bool is_by_query = false;  // It was made by PREPARE.
};

class Scriptwriter {
 public:
  Scriptwriter(SimRandom& random, std::string mark) : random_(random), mark_(std::move(mark)) {}

  // One unit of work. `is_certain`: nothing is under way that may change the facts.
  [[nodiscard]] std::deque<Step> next(const SessionFacts& facts, bool is_certain);
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
  [[nodiscard]] Step ghost();
  [[nodiscard]] Step named(const SessionFacts& facts);

  SimRandom& random_;
  std::string mark_;
  uint32_t texts_count_ = 0;
  bool has_transaction_ = false;
};

}  // namespace helios::sim
