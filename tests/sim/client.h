// A simulated client: logs in, works, leaves in any manner, and comes back.
//
// It checks every byte that it receives against what its script says. It acts when its time has
// come and reads when something has arrived; the simulation asks next_time() and calls act().
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "helios/base/clock.h"
#include "tests/sim/script.h"
#include "tests/sim/settings.h"
#include "tests/support/fake_io.h"

namespace helios::sim {

// What a node has made known.
struct Notified {
  std::string payload;
  Nanoseconds at = 0;
};

// The world of a client, which the simulation makes.
class ClientHost {
 public:
  [[nodiscard]] virtual const Settings& settings() const = 0;
  [[nodiscard]] virtual SimNetwork& network() = 0;
  [[nodiscard]] virtual SimRandom& random() = 0;
  [[nodiscard]] virtual Nanoseconds now() = 0;
  // A new connection to the pooler: the client's end of it.
  [[nodiscard]] virtual int connect() = 0;
  // Sends a cancel request on a connection of its own. `key`: the body of BackendKeyData.
  virtual void send_cancel(const std::string& key) = 0;
  // Who leaves does not come back, and no new work is begun.
  [[nodiscard]] virtual bool is_closing_time() = 0;
  // Nothing may go wrong but what clients do themselves.
  [[nodiscard]] virtual bool is_calm() = 0;
  // Those that any core had, or was to have next, at some time since then.
  [[nodiscard]] virtual std::vector<const Configuration*> configurations_since(
      Nanoseconds time) = 0;
  // What was notified in a database on a channel, in order.
  [[nodiscard]] virtual const std::vector<Notified>& notified(size_t database,
                                                              const std::string& channel) = 0;
  // Something that must not be: the first one counts.
  virtual void fail(std::string text) = 0;
  // For the trace.
  virtual void note(const char* what, uint64_t a, uint64_t b = 0, uint64_t c = 0) = 0;

 protected:
  ~ClientHost() = default;
};

class Client {
 public:
  Client(ClientHost& host, uint32_t number, size_t pool);

  // When act() is to be called; `never` when it is finished.
  [[nodiscard]] Nanoseconds next_time() const;
  // Reads what has come, or does one thing of its choice.
  void act();
  // Leaves without a word, and stays away.
  void end();

  [[nodiscard]] bool is_finished() const { return fd_ < 0 && visits_left_ == 0; }
  // Since when it waits for a sign of life of the pooler; `never` when it does not.
  [[nodiscard]] Nanoseconds waits_since() const;
  // Since when it has nothing under way and could be told something; `never` when it has.
  [[nodiscard]] Nanoseconds idle_since() const;
  // Since when it could have been told of the oldest notification that it lacks; `never` when it
  // lacks none, or has something under way.
  [[nodiscard]] Nanoseconds unheard_since() const;
  [[nodiscard]] size_t pool() const { return pool_; }
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] uint64_t replies_count() const { return replies_count_; }
  [[nodiscard]] uint64_t notices_count() const { return notices_count_; }
  // Visits that ended because its database or user was removed, or had its max_clients.
  [[nodiscard]] uint64_t removals_count() const { return removals_count_; }
  [[nodiscard]] uint64_t refusals_count() const { return refusals_count_; }
  // Things that would have kept a backend and were refused.
  [[nodiscard]] uint64_t kept_off_count() const { return kept_off_count_; }
  // Answers that told what the session had set or held, or its own statement.
  [[nodiscard]] uint64_t own_count() const { return own_count_; }
  // Notifications that it was told of.
  [[nodiscard]] uint64_t heard_count() const { return heard_count_; }
  // Answers that were lost with a backend, and transactions.
  [[nodiscard]] uint64_t losses_count() const { return losses_count_; }
  [[nodiscard]] uint64_t lost_blocks_count() const { return lost_blocks_count_; }
  // How often it went without a word in the middle of something.
  [[nodiscard]] uint64_t deaths_count() const { return deaths_count_; }
  // Pieces of what it sent that others followed later.
  [[nodiscard]] uint64_t pieces_count() const { return pieces_count_; }

 private:
  // What it hears on a channel to which it listens, or may listen.
  struct Hearing {
    size_t first = 0;          // The first notification that it may hear.
    size_t needed = SIZE_MAX;  // That it must hear, with all behind it.
    size_t next = 0;           // Behind the last one that it has heard.
    bool has_heard = false;
    bool is_of_block = false;  // It begins to listen when its transaction is committed.
  };
  // Whether `holds(configuration)`, or `holds(limits)` of its pool, was so for any core at some
  // time since then.
  template <typename Holds>
  [[nodiscard]] bool any_since(Nanoseconds time, Holds holds) const;
  template <typename Holds>
  [[nodiscard]] bool any_limits_since(Nanoseconds time, Holds holds) const;
  [[nodiscard]] bool was_user_missing() const;
  [[nodiscard]] bool was_database_missing() const;
  [[nodiscard]] bool is_removal(const std::string& code, const std::string& message);
  void check_refusal(const std::string& message);
  [[nodiscard]] Licence licence() const;
  [[nodiscard]] bool may_be_kept_off() const;
  [[nodiscard]] bool may_be_ended_for_it() const;
  [[nodiscard]] bool is_of_holding(const Reply& reply) const;
  void on_authentication(const test::WireMessage& message);
  [[nodiscard]] bool has_input() const;
  [[nodiscard]] bool may_begin_step() const;
  void fail(const std::string& what);
  void connect();
  void work();
  void send_some();
  void dawdle();
  void die();
  void leave(bool with_goodbye);
  void close(bool by_reset);
  void read();
  void on_end();
  void on_message(const test::WireMessage& message);
  void on_parameter(const test::WireMessage& message);
  void on_error(const test::WireMessage& message);
  void on_notice(const test::WireMessage& message);
  [[nodiscard]] bool is_loss(const std::string& code, const std::string& message) const;
  void on_loss();
  void check_fatal_loss();
  void on_fatal(const std::string& code, const std::string& message);
  void on_ready(char status);
  void on_notification(const test::WireMessage& message);
  void apply(const Reply& reply);
  void discard();
  [[nodiscard]] const std::vector<Notified>& notified(const std::string& channel) const;
  void may_listen(const Reply& reply);
  void begin_listening(const std::string& channel);
  void end_listening(const std::string& channel);
  void end_all_listening();
  void end_block(bool is_committed);

  ClientHost& host_;
  const uint32_t number_;
  const size_t pool_;
  uint32_t visits_left_;
  uint32_t visits_count_ = 0;
  bool reads_slowly_;
  uint64_t replies_count_ = 0;
  uint64_t notices_count_ = 0;
  uint64_t removals_count_ = 0;
  uint64_t refusals_count_ = 0;
  uint64_t kept_off_count_ = 0;
  uint64_t heard_count_ = 0;
  uint64_t own_count_ = 0;
  uint64_t losses_count_ = 0;
  uint64_t lost_blocks_count_ = 0;
  uint64_t deaths_count_ = 0;
  uint64_t pieces_count_ = 0;
  Nanoseconds next_act_;
  Nanoseconds next_read_ = 0;

  // Of this visit.
  int fd_ = -1;
  std::string mark_;
  std::string inbox_;
  std::string outbox_;
  std::deque<Step> script_;
  std::deque<Reply> replies_;  // Begun and not yet complete.
  std::optional<Scriptwriter> writer_;
  SessionFacts facts_;
  std::map<std::string, Hearing> hearings_;  // By channel.
  std::string key_;
  uint32_t units_left_ = 0;
  char status_ = 'I';
  bool is_welcome_ = false;
  bool was_asked_ = false;  // For a password: it gives up.
  bool pipelines_ = false;
  bool has_cancelled_ = false;
  bool has_said_goodbye_ = false;
  bool has_failed_ = false;  // The server's answer under way had an error.
  bool is_told_ = false;     // FATAL has come: nothing may follow.
  bool is_discarded_ = false;
  bool has_lost_block_ = false;  // The transaction has failed for the loss of its backend.
  std::string told_name_;        // Its application_name, as it was told.
  Nanoseconds came_at_ = 0;
  Nanoseconds asked_at_ = 0;  // The begin of the visit, or of what was asked when nothing was due.
  Nanoseconds progress_at_ = 0;
};

}  // namespace helios::sim
