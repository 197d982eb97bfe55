// PBKDF2-HMAC-SHA-256 (RFC 8018) in slices, so that a login never holds up its core.
//
// 4,096 rounds take about 2 ms: on a core that also relays queries they are spread over turns.
// Everything here is one core's data. Results are shared: a thousand clients that log in with one
// password cost one derivation. Invariant: a KeyClient waits for at most one key, and on_key comes
// from run() only, never from request().
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "helios/base/bytes.h"
#include "helios/base/intrusive_list.h"
#include "helios/wire/crypto.h"

namespace helios {

// One derivation of 32 bytes. Keeps the keyed hash states, not the password; wiped when destroyed.
class Pbkdf2 {
 public:
  Pbkdf2() noexcept;
  Pbkdf2(Pbkdf2&&) noexcept;
  Pbkdf2& operator=(Pbkdf2&&) noexcept;
  ~Pbkdf2();

  // Forgets any earlier derivation and computes the first round. Requires: rounds > 0.
  void start(ByteSpan password, ByteSpan salt, uint32_t rounds) noexcept;
  // Computes at most `rounds_max` more rounds. True when the result is there.
  // Requires: start was called.
  bool step(uint32_t rounds_max) noexcept;
  [[nodiscard]] bool is_done() const noexcept { return state_ != nullptr && rounds_left_ == 0; }
  [[nodiscard]] uint32_t rounds_left() const noexcept { return rounds_left_; }
  // Requires: is_done().
  [[nodiscard]] const Sha256Digest& result() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
  uint32_t rounds_left_ = 0;
};

// The whole derivation at once. For start-up and tools; a core uses KeyDerivation.
[[nodiscard]] Sha256Digest pbkdf2(ByteSpan password, ByteSpan salt, uint32_t rounds) noexcept;

class KeyDerivation;
struct KeyWaitTag;
struct KeyJobTag;
struct KeyJob;

class KeyClient;

// A client's place in the queue. A member and not a base of KeyClient, so that a client can be in
// other lists.
class KeyWait : public ListNode<KeyWaitTag> {
 public:
  explicit KeyWait(KeyClient& client) noexcept : client_(client) {}

 private:
  friend class KeyClient;
  friend class KeyDerivation;
  KeyClient& client_;
  KeyJob* job_ = nullptr;
};

// Somebody who waits for a key. Must be cancelled, or answered, before it is destroyed (asserted).
class KeyClient {
 public:
  KeyClient(const KeyClient&) = delete;
  KeyClient& operator=(const KeyClient&) = delete;
  // The key is there: SaltedPassword of RFC 5802. May request the next one, cancel others or
  // destroy its object.
  virtual void on_key(const Sha256Digest& salted_password) noexcept = 0;
  [[nodiscard]] bool is_waiting_for_key() const noexcept { return wait_.job_ != nullptr; }
  // For KeyDerivation only.
  [[nodiscard]] KeyWait& key_wait() noexcept { return wait_; }

 protected:
  KeyClient() noexcept : wait_(*this) {}
  ~KeyClient() = default;

 private:
  KeyWait wait_;
};

// A core's queue of derivations and its cache of results. First come, first served.
// Passwords are not kept: jobs and results are named by an HMAC of password, salt and rounds under
// a random key. The queue is bounded by the clients (each waits for one key), the cache by
// `cache_entries_max`.
class KeyDerivation {
 public:
  // About 100 microseconds.
  static constexpr uint32_t rounds_per_turn = 150;

  explicit KeyDerivation(Random& random, size_t cache_entries_max = 1024) noexcept;
  KeyDerivation(const KeyDerivation&) = delete;
  KeyDerivation& operator=(const KeyDerivation&) = delete;
  // Requires: nobody waits.
  ~KeyDerivation();

  // Asks for PBKDF2(password, salt, rounds); on_key comes from a later run(), also when the key is
  // in the cache. `password` is what scram_password() made; it is not needed after the call.
  // Requires: rounds > 0 and `client` waits for nothing. Bounds on rounds and sizes are the
  // caller's.
  void request(ByteSpan password, ByteSpan salt, uint32_t rounds, KeyClient& client);
  // Takes `client` out, if it waits. A derivation that nobody waits for any more is dropped.
  void cancel(KeyClient& client) noexcept;

  // True while run() has something to do: the core must not sleep.
  [[nodiscard]] bool has_work() const noexcept { return !jobs_.empty() || !ready_.empty(); }
  // Computes at most `rounds_budget` rounds, then tells everybody whose key is there.
  void run(uint32_t rounds_budget = rounds_per_turn) noexcept;

  // For statistics and tests.
  [[nodiscard]] size_t jobs_count() const noexcept { return jobs_.size(); }
  [[nodiscard]] size_t cached_count() const noexcept { return cached_.size(); }
  [[nodiscard]] uint64_t rounds_total() const noexcept { return rounds_total_; }

 private:
  struct NameHash {
    size_t operator()(const Sha256Digest& name) const noexcept;
  };
  using JobList = IntrusiveList<KeyJob, KeyJobTag>;

  void compute(uint32_t rounds_budget) noexcept;
  void deliver() noexcept;
  void keep(KeyJob& job) noexcept;
  void forget(KeyJob& job) noexcept;

  Sha256Digest name_key_;
  size_t cache_entries_max_;
  uint64_t rounds_total_ = 0;
  size_t waiting_ready_count_ = 0;  // Clients in `ready_`.
  std::unordered_map<Sha256Digest, std::unique_ptr<KeyJob>, NameHash> by_name_;
  JobList jobs_;    // Not finished, oldest first; each has a client.
  JobList ready_;   // Finished, with clients that were not told yet.
  JobList cached_;  // Finished and told; used last comes first.
};

}  // namespace helios
