// What a client has, or may have, left in the session of its backend.
//
// The texts of its queries say what may have changed (sql_effects.h); when its transaction is over
// the server is asked what really has (StateProbe): parameters follow the client from then on, the
// rest pins. One session's data; nothing is allocated for clients that never change anything.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/base/clock.h"
#include "helios/pool/pool_spec.h"
#include "helios/pool/state_probe.h"
#include "helios/session/sql_effects.h"

namespace helios {

class SessionState {
 public:
  // A text may have had these effects; one that is parsed only will have them when it is bound.
  void add(const SqlEffects& effects, bool is_executed = true);
  // A prepared statement (0: the unnamed one) has this text: the effects count when it is bound,
  // again and again.
  void add_statement(uint64_t name, const SqlEffects& effects);
  [[nodiscard]] bool has_statements() const noexcept {
    return details_ && (!details_->statements.empty() || details_->any_effects != 0);
  }
  void on_bind(uint64_t name);
  // One that could not be read.
  void on_unknown_bind();

  // There may be something that the session holds, or has prepared in SQL.
  [[nodiscard]] bool may_hold() const noexcept {
    return details_ && (details_->pins != 0 || details_->has_prepared || details_->pending != 0 ||
                        details_->is_asking);
  }
  // The backend may not change hands before the server was asked.
  [[nodiscard]] bool must_ask() const noexcept { return details_ && details_->pending != 0; }
  [[nodiscard]] bool is_asking() const noexcept { return details_ && details_->is_asking; }
  // The question that is due now. Requires: must_ask().
  [[nodiscard]] std::unique_ptr<StateProbe> ask();
  // The question that is not answered yet is for a RESET of parameters that servers report.
  [[nodiscard]] bool has_reset_reported() const noexcept {
    return details_ && (details_->asked & sql_effect::reported) != 0;
  }
  // A RESET may have happened of which the server was not asked yet, or has not answered.
  [[nodiscard]] bool awaits_reset() const noexcept {
    return details_ && (details_->open_effects() & sql_effect::reset) != 0;
  }
  // Its answer; `pins`: what pins of parameters and statements, as far as they were asked for.
  void on_answer(const StateProbe& probe, PinReasons pins) noexcept;

  // LOAD has succeeded: nothing undoes it.
  void on_library() { details().pins |= pin_bit(PinReason::library); }
  // The backend listens for this session; or no longer, because another connection does.
  void on_listening() { details().pins |= pin_bit(PinReason::listening); }
  void on_handed_over() {
    details().pins &= static_cast<PinReasons>(~pin_bit(PinReason::listening));
  }
  // The client asks what its session has got of a sequence. From then on no backend comes to it
  // with what another session has got.
  void on_sequences() { details().asks_sequences = true; }
  [[nodiscard]] bool asks_sequences() const noexcept {
    return details_ && details_->asks_sequences;
  }
  // The server has answered with an error: what the texts say did not all happen.
  void on_error() noexcept {
    if (details_) [[unlikely]]
      note_error();
  }
  // No cleaning takes away what the session holds, or may hold.
  [[nodiscard]] bool must_end() const noexcept {
    return details_ && ((details_->pins & lasting_pins) != 0 ||
                        (details_->open_effects() & lasting_effects) != 0);
  }
  [[nodiscard]] PinReasons pins() const noexcept { return details_ ? details_->pins : 0; }
  [[nodiscard]] bool has_pin(PinReason reason) const noexcept {
    return (pins() & pin_bit(reason)) != 0;
  }
  // PREPARE may have left something that the server was not asked about, or that cannot follow.
  [[nodiscard]] bool may_have_prepared() const noexcept;
  // The same, of a PREPARE that was read in a text, or that pins.
  [[nodiscard]] bool may_have_unknown_names() const noexcept {
    return has_pin(PinReason::statement) ||
           (details_ && (details_->open_effects() & sql_effect::prepares) != 0);
  }
  // Parameters that decides_literals may be other ones than those that are known: the context in
  // which texts are parsed then, which is like no other. Null: they are as known.
  [[nodiscard]] const ParseContext* own_parse_context() const noexcept {
    return details_ && details_->own_context_until != Known::now ? &details_->own_context : nullptr;
  }
  // Everything is answered: what servers report is known.
  void on_reported() noexcept {
    if (details_ && details_->own_context_until == Known::when_reported)
      details_->own_context_until = Known::now;
  }
  // The transaction is over, and there is nothing to ask.
  void on_settled() noexcept {
    if (details_ && !details_->is_unknown) details_->own_context_until = Known::now;
  }

  // A transaction has ended: what is pending is there to stay, as far as its client knows.
  void on_transaction_end() noexcept {
    if (must_ask()) [[unlikely]]
      details_->has_stayed = true;
  }
  // The client would miss something if its transaction were rolled back and the backend were gone:
  // what the server was not asked about yet. `is_block`: what is pending may have been done in a
  // transaction block that is still open.
  [[nodiscard]] bool outlives_rollback(bool is_block) const noexcept;
  // Something may be left that the server was not, or could not be, asked about.
  [[nodiscard]] bool is_dirty() const noexcept {
    return details_ && (details_->is_dirty || details_->is_asking || details_->pending != 0);
  }
  // The backend is another session's now, or nobody's.
  void on_released() noexcept;

  // The body of a message that comes in pieces, as long as it is at most text_size_max.
  static constexpr size_t text_size_max = 64 * 1024;
  void keep_text(std::string_view piece) { details().text += piece; }
  [[nodiscard]] size_t text_size() const noexcept { return details_ ? details_->text.size() : 0; }
  [[nodiscard]] std::string take_text() { return std::exchange(details().text, {}); }
  // Of one that is longer.
  [[nodiscard]] TextScreen& screen() { return details().screen; }

 private:
  // Custom parameters that are asked for again and again.
  static constexpr size_t names_max = 64;
  // Statements with effects that are told apart. (That one was closed is not noticed.)
  static constexpr size_t statements_max = 256;
  // A question that the server does not answer is put again so many times.
  static constexpr uint8_t attempts_max = 3;

  // What goes only with the backend, and the effects that may lead to it.
  static constexpr PinReasons lasting_pins =
      pin_bit(PinReason::library) | pin_bit(PinReason::slot) | pin_bit(PinReason::origin) |
      pin_bit(PinReason::backup) | pin_bit(PinReason::seed) | pin_bit(PinReason::dblink);
  static constexpr uint32_t lasting_effects = sql_effect::slot | sql_effect::origin |
                                              sql_effect::backup | sql_effect::seed |
                                              sql_effect::dblink;

  // When it is known again how literals are read.
  enum class Known : uint8_t { now, when_reported, when_settled };

  struct Details {
    std::string text;
    TextScreen screen;
    std::vector<std::string> custom_names;
    std::vector<std::pair<uint64_t, uint32_t>> statements;  // With effects. 0: the unnamed one.
    uint32_t any_effects = 0;                               // Of others, whatever their names.
    uint32_t prepared_effects = 0;                          // Of PREPARE in SQL.
    uint32_t pending = 0;  // sql_effect bits since the last question.
    uint32_t asked = 0;    // Those of the question that is not answered yet.
    PinReasons pins = 0;
    // Of what no server tells: what is there by the texts, in their order, and what has begun since
    // the last question.
    PinReasons told_pins = 0;
    PinReasons begun_pins = 0;
    uint8_t attempts_count = 0;
    ParseContext own_context{};
    Known own_context_until = Known::now;
    bool has_prepared = false;  // Something of PREPARE, as far as the server was asked.
    bool has_failed = false;    // Something that is pending, or was meanwhile.
    bool is_asking = false;
    bool asks_sequences = false;
    bool is_dirty = false;
    bool is_unknown = false;  // The server did not tell what is set.
    bool has_stayed = false;  // Something pending is of a transaction that has ended.

    // What the server was not asked about yet, or has not answered.
    [[nodiscard]] uint32_t open_effects() const noexcept {
      return pending | (is_asking ? asked : 0);
    }
    // With these effects other statements of PREPARE may be there than before.
    [[nodiscard]] bool may_prepare(uint32_t effects) const noexcept {
      return (effects & (sql_effect::prepares | sql_effect::unseen)) != 0 ||
             ((effects & sql_effect::ends) != 0 && has_prepared);
    }
  };
  [[nodiscard]] Details& details();
  void add_bits(uint32_t bits);
  void execute(uint32_t bits);
  void note_error();
  void note_told(uint32_t bits);
  void settle_told();
  void note_literals(uint32_t bits);
  void start_own_context(Known until);
  void add_names(const SqlEffects& effects);

  // Most clients never need it.
  std::unique_ptr<Details> details_;
};

}  // namespace helios
