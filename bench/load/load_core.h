// One core of the load: its share of the clients, and who of them begins when.
//
// A turn: the ring delivers answers, clients finish transactions and become ready; at the end of
// the turn ready clients begin what is due, the next clients connect, and everything that was
// written leaves with one enter. Owned by its thread (runtime/core.h); what it tells the main
// thread goes through CoreReport, and its statistics when it has ended.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "helios/net/stream.h"
#include "helios/runtime/core.h"
#include "helios/wire/key_derivation.h"
#include "load/arrivals.h"
#include "load/client.h"
#include "load/control.h"
#include "load/query_writer.h"
#include "load/statistics.h"

namespace helios::bench {

class LoadCore final : public CoreApplication {
 public:
  // Requires: `shared`, `report` and `statistics` outlive the core.
  LoadCore(CoreContext& context, LoadShared& shared, CoreReport& report,
           CoreStatistics& statistics);
  ~LoadCore() override;

  void on_start() noexcept override;
  void on_message(const Message& message) noexcept override;
  bool on_turn_end(Nanoseconds now) noexcept override;
  bool is_finished() noexcept override;

  // For the clients.
  [[nodiscard]] LoadShared& shared() noexcept { return shared_; }
  [[nodiscard]] const ScriptSet& scripts() const noexcept { return shared_.scripts; }
  [[nodiscard]] NetContext& net() noexcept { return net_; }
  [[nodiscard]] TimerWheel& timers() noexcept { return context_.timers; }
  [[nodiscard]] KeyDerivation& keys() noexcept { return keys_; }
  [[nodiscard]] Random& login_random() noexcept { return login_random_; }
  [[nodiscard]] RandomNumbers& random() noexcept { return random_; }
  [[nodiscard]] QueryWriter& writer() noexcept { return writer_; }
  [[nodiscard]] CoreStatistics& statistics() noexcept { return statistics_; }
  // The time of this moment, not of the turn: answers of one turn did not come at the same time.
  [[nodiscard]] Nanoseconds now() noexcept { return clock_.now(); }
  [[nodiscard]] bool is_stopping() const noexcept { return is_stopping_; }
  // Transactions may have begun.
  [[nodiscard]] bool has_begun() const noexcept { return quota_ > 0; }
  [[nodiscard]] EvaluationContext evaluation(std::span<const int64_t> variables) noexcept;
  // A client's part of the core's memory.
  [[nodiscard]] std::span<int64_t> variables_of(uint32_t index) noexcept;
  [[nodiscard]] std::span<uint64_t> prepared_of(uint32_t index) noexcept;

  // The client could begin a transaction: it will, when one is due.
  void add_ready(Client& client) noexcept;
  // The client wants a connection: it gets its turn.
  void add_unconnected(Client& client) noexcept;
  // Takes the client out of both lists, if it is in one.
  void forget(Client& client) noexcept;
  void on_connect_begun() noexcept { ++connects_under_way_; }
  void on_login_failed(const std::string& text, bool is_hopeless) noexcept;
  void on_connect_ended(bool is_logged_in) noexcept;
  void on_disconnected() noexcept;
  void on_client_ended() noexcept { ++ended_count_; }
  // A transaction has ended. `is_good`: neither failed nor wrong. Whether it was counted: by the
  // moment when it ended, in an open loop by that when it was due. Else those that a server leaves
  // waiting at the end of the counted time would be in no number.
  bool count_transaction(uint32_t script, Nanoseconds due, Nanoseconds now, bool is_good) noexcept;
  void count_failed() noexcept;
  void count_wrong() noexcept;
  void count_error(std::string_view code, std::string_view message) noexcept;
  // Nothing can go on: the main thread ends the run with this text.
  void set_fatal(const std::string& text) noexcept;

 private:
  void make_clients();
  void look_at_control() noexcept;
  void begin_ready(Nanoseconds now) noexcept;
  [[nodiscard]] bool take_due(Nanoseconds now, Nanoseconds& due) noexcept;
  void connect_next(Nanoseconds now) noexcept;
  [[nodiscard]] bool has_more(Nanoseconds now) const noexcept;
  void stop() noexcept;
  void count_unserved() noexcept;
  void give_up() noexcept;
  static void on_sweep(void* self) noexcept;
  static void on_arrival(void*) noexcept {}  // The turn that it causes begins what is due.

  CoreContext& context_;
  LoadShared& shared_;
  CoreReport& report_;
  CoreStatistics& statistics_;
  MonotonicClock clock_;
  ChunkPool chunks_;
  IntrusiveList<Stream, FlushTag> flush_list_;
  NetContext net_;
  SystemRandom login_random_;
  KeyDerivation keys_;
  RandomNumbers random_;
  QueryWriter writer_;
  Timer sweep_timer_;
  Timer arrival_timer_;
  std::optional<Arrivals> arrivals_;
  std::vector<int64_t> variables_;
  std::vector<uint64_t> prepared_;
  size_t prepared_words_;
  std::deque<Client> clients_;
  IntrusiveList<Client, ReadyTag> ready_;
  IntrusiveList<Client, ConnectTag> unconnected_;
  uint64_t quota_ = 0;
  int64_t unique_;
  uint32_t connects_under_way_ = 0;
  uint32_t connects_max_;
  uint32_t ended_count_ = 0;
  bool is_stopping_ = false;
  bool has_given_up_ = false;
};

}  // namespace helios::bench
