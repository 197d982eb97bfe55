// What the canned server says on one connection: bytes in, bytes out, no socket and no clock.
//
// A statement is answered as soon as it is read, unless it takes time (`waiting`, for pause()), has
// more rows than there is room for (`streaming`), or takes data (`copying`). Until it is answered
// nothing behind it is read: answers come in order. One owner, one core; answers go to the core's
// AnswerBuffer, which the owner lends to this connection during each call.
//
//   starting -> reading <-> waiting, streaming, copying;  any -> ended
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/clock.h"
#include "helios/wire/body_reader.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/startup.h"
#include "load/answer_buffer.h"
#include "load/backend_settings.h"
#include "load/backend_sql.h"
#include "load/canned_answers.h"

namespace helios::bench {

// What the connections of one core have in common.
struct ConversationContext {
  const CannedAnswers& answers;
  AnswerBuffer& buffer;
  Nanoseconds delay;                     // Before each answer.
  std::atomic<uint32_t>& clients_count;  // Logged in, on all cores. A counter: relaxed.
  uint32_t clients_max;
  uint64_t queries_count = 0;  // Statements begun.
};

// 4 bytes are told to clients of protocol 3.0, all to those of 3.2.
inline constexpr size_t backend_key_size = 16;
using BackendKey = std::array<uint8_t, backend_key_size>;

struct CancelTarget {
  uint32_t pid = 0;
  BackendKey key{};
  uint32_t key_size = 0;
};

class Conversation {
 public:
  enum class State : uint8_t {
    starting,   // Reads start-up packets.
    reading,    // Reads messages.
    waiting,    // on_time() answers the statement; pause() says when.
    streaming,  // on_room() goes on with its rows.
    copying,    // Reads the data of COPY FROM STDIN.
    ended,      // The connection is to be closed behind what was written.
  };

  explicit Conversation(ConversationContext& context);
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;
  ~Conversation();

  // What BackendKeyData will tell the client. Before the first byte.
  void set_identity(uint32_t pid, const BackendKey& key) noexcept {
    pid_ = pid;
    key_ = key;
  }

  // Takes messages from the front of `input` and drops them from it, until it is used up, a
  // statement is not answered at once, or there is no room for answers.
  void feed(ByteSpan& input) noexcept;
  [[nodiscard]] bool takes_input() const noexcept {
    return state_ == State::starting || state_ == State::reading || state_ == State::copying;
  }

  void on_time() noexcept;  // Requires: waiting.
  void on_room() noexcept;  // Requires: streaming.
  // Ends the running statement with an error, if there is one.
  void cancel() noexcept;
  // Whether a cancel request with this key is meant for us.
  [[nodiscard]] bool is_target(const CancelTarget& target) const noexcept;

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] Nanoseconds pause() const noexcept { return pause_; }
  // When the connection brought a cancel request (it has ended then).
  [[nodiscard]] const std::optional<CancelTarget>& cancel_target() const noexcept {
    return cancel_target_;
  }

  // Bytes of one message at the most.
  static constexpr uint32_t body_size_max = 64 * 1024 * 1024;

 private:
  enum class Outcome : uint8_t {
    done,
    failed,   // The error was written.
    blocked,  // `state_` says for what.
  };

  struct PreparedStatement {
    std::string text;
    Statement statement;
    std::vector<uint32_t> types;  // As Parse gave them.
  };

  struct Portal {
    Statement statement;  // With the value that was bound.
    std::string text;     // Only where the answer needs it.
    CellFormat format = CellFormat::text;
    uint64_t rows_done = 0;
  };

  // The statement that is being answered.
  struct Running {
    Statement statement;
    std::string_view text;
    CellFormat format = CellFormat::text;
    Portal* portal = nullptr;  // None: of a simple query.
    uint32_t rows_max = 0;     // 0: all.
  };

  // conversation.cc: the login, simple queries and answers.
  void take_startup(ByteSpan& input);
  void refuse_startup(const StartupError& error);
  void take_cancel(const CancelRequest& request);
  void log_in(const StartupMessage& startup);
  void take_message(ByteSpan& input);
  void on_message(uint8_t tag, ByteSpan body);
  void on_query(ByteSpan body);
  void run_texts(std::string_view rest);
  [[nodiscard]] Outcome run(const Running& running);
  [[nodiscard]] Outcome answer();
  [[nodiscard]] Outcome answer_rollback_to();
  [[nodiscard]] Outcome answer_end_of_block();
  [[nodiscard]] Outcome answer_setting();
  [[nodiscard]] Outcome answer_show();
  [[nodiscard]] Outcome answer_discard_all();
  [[nodiscard]] Outcome answer_deallocate();
  [[nodiscard]] Outcome answer_rows();
  [[nodiscard]] Outcome pump_rows();
  void complete_rows();
  [[nodiscard]] Outcome complete();
  void add_completion(std::string_view tag);
  void add_count_completion(std::string_view word, uint64_t count);
  void finish_statement(Outcome outcome);
  void begin_copy_in();
  void on_copy_message(uint8_t tag, ByteSpan body);
  [[nodiscard]] Outcome fail(std::string_view sqlstate, std::string_view message);
  void end_with_error(std::string_view sqlstate, std::string_view message);
  void ready();
  [[nodiscard]] bool is_in_block() const noexcept;

  // extended_messages.cc.
  [[nodiscard]] bool take_extended(uint8_t tag, ByteSpan body);
  [[nodiscard]] Outcome on_parse(BodyReader body);
  [[nodiscard]] Outcome on_bind(BodyReader body);
  [[nodiscard]] Outcome on_describe(BodyReader body);
  [[nodiscard]] Outcome on_execute(BodyReader body);
  [[nodiscard]] Outcome on_close(BodyReader body);
  [[nodiscard]] Outcome fill_portal(Portal& portal, const PreparedStatement& prepared,
                                    BodyReader& body);
  [[nodiscard]] Outcome bind_values(BodyReader& body, Portal& portal);
  [[nodiscard]] Outcome bind_value(ByteSpan value, bool is_binary, Portal& portal);
  [[nodiscard]] Outcome malformed();
  // NoData where there are none.
  void describe_rows(const Statement& statement, std::string_view text, CellFormat format);
  void describe_parameters(const PreparedStatement& prepared);
  [[nodiscard]] PreparedStatement* find_statement(std::string_view name);
  [[nodiscard]] Portal* find_portal(std::string_view name);
  [[nodiscard]] Portal& make_portal(std::string_view name);
  void drop_portal(std::string_view name);

  ConversationContext& context_;
  AnswerBuffer& buffer_;
  uint32_t pid_ = 0;
  BackendKey key_{};
  uint32_t key_size_ = 0;  // 0: nobody knows the key yet.
  State state_ = State::starting;
  uint8_t status_;  // One of transaction_status.
  bool is_counted_ = false;
  bool is_skipping_ = false;  // After an error of an extended message, up to Sync.

  StartupAssembler startup_;
  MessageAssembler messages_{body_size_max};
  BackendSettings settings_;

  Running running_;
  Nanoseconds pause_ = 0;
  std::string held_text_;  // Of a statement that waits.
  std::string rest_;       // The statements behind a blocked one in the same simple query.
  const RowBlock* rows_ = nullptr;
  uint64_t rows_left_ = 0;
  uint64_t rows_given_ = 0;  // By this Execute, once it is through.
  bool suspends_ = false;    // The portal has more rows than this Execute wants.
  uint64_t copied_rows_ = 0;

  PreparedStatement unnamed_statement_;
  bool has_unnamed_statement_ = false;
  Portal unnamed_portal_;
  bool has_unnamed_portal_ = false;
  std::map<std::string, PreparedStatement, std::less<>> statements_;
  std::map<std::string, Portal, std::less<>> portals_;
  std::optional<CancelTarget> cancel_target_;
};

}  // namespace helios::bench
