#include "helios/wire/key_derivation.h"

#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "wire/wolfcrypt.h"
// wolfcrypt.h comes first: it chooses the configuration.
#include <wolfssl/wolfcrypt/sha256.h>

namespace helios {

// The two hash states of HMAC after its key blocks. Starting each round from a copy of them takes
// two compressions instead of four. The copies are wc_Sha256Copy: the struct may own memory in some
// builds of wolfSSL.
struct Pbkdf2::State {
  wc_Sha256 inner;
  wc_Sha256 outer;
  wc_Sha256 scratch;
  Sha256Digest block;   // U_i of RFC 8018.
  Sha256Digest result;  // U_1 ^ ... ^ U_i.

  State() noexcept {
    require_crypto(wc_InitSha256(&inner), "PBKDF2");
    require_crypto(wc_InitSha256(&outer), "PBKDF2");
    require_crypto(wc_InitSha256(&scratch), "PBKDF2");
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    wc_Sha256Free(&inner);
    wc_Sha256Free(&outer);
    wc_Sha256Free(&scratch);
    wipe({reinterpret_cast<uint8_t*>(this), sizeof(*this)});
  }

  void set_key(ByteSpan password) noexcept;
  void hmac_into_block(std::initializer_list<ByteSpan> parts) noexcept;
};

namespace {

constexpr size_t hmac_block_size = 64;

void update(wc_Sha256& hash, ByteSpan data) noexcept {
  if (data.empty()) return;
  require_crypto(wc_Sha256Update(&hash, data.data(), static_cast<word32>(data.size())), "PBKDF2");
}

}  // namespace

void Pbkdf2::State::set_key(ByteSpan password) noexcept {
  std::array<uint8_t, hmac_block_size> pad{};
  if (password.size() > pad.size()) {
    const Sha256Digest digest = sha256(password);
    std::copy(digest.begin(), digest.end(), pad.begin());
  } else {
    std::copy(password.begin(), password.end(), pad.begin());
  }
  for (uint8_t& byte : pad) byte ^= 0x36;
  update(inner, pad);
  for (uint8_t& byte : pad) byte ^= 0x36 ^ 0x5c;
  update(outer, pad);
  wipe(pad);
}

void Pbkdf2::State::hmac_into_block(std::initializer_list<ByteSpan> parts) noexcept {
  require_crypto(wc_Sha256Copy(&inner, &scratch), "PBKDF2");
  for (ByteSpan part : parts) update(scratch, part);
  require_crypto(wc_Sha256Final(&scratch, block.data()), "PBKDF2");
  require_crypto(wc_Sha256Copy(&outer, &scratch), "PBKDF2");
  update(scratch, block);
  require_crypto(wc_Sha256Final(&scratch, block.data()), "PBKDF2");
}

Pbkdf2::Pbkdf2() noexcept = default;
Pbkdf2::Pbkdf2(Pbkdf2&&) noexcept = default;
Pbkdf2& Pbkdf2::operator=(Pbkdf2&&) noexcept = default;
Pbkdf2::~Pbkdf2() = default;

void Pbkdf2::start(ByteSpan password, ByteSpan salt, uint32_t rounds) noexcept {
  ASSERT(rounds > 0);
  static constexpr uint8_t first_block[4] = {0, 0, 0, 1};
  state_ = std::make_unique<State>();
  state_->set_key(password);
  state_->hmac_into_block({salt, first_block});
  state_->result = state_->block;
  rounds_left_ = rounds - 1;
}

bool Pbkdf2::step(uint32_t rounds_max) noexcept {
  ASSERT(state_ != nullptr);
  const uint32_t count = std::min(rounds_max, rounds_left_);
  for (uint32_t i = 0; i < count; ++i) {
    state_->hmac_into_block({state_->block});
    for (size_t j = 0; j < state_->result.size(); ++j) state_->result[j] ^= state_->block[j];
  }
  rounds_left_ -= count;
  return rounds_left_ == 0;
}

const Sha256Digest& Pbkdf2::result() const noexcept {
  ASSERT(is_done());
  return state_->result;
}

Sha256Digest pbkdf2(ByteSpan password, ByteSpan salt, uint32_t rounds) noexcept {
  Pbkdf2 derivation;
  derivation.start(password, salt, rounds);
  derivation.step(rounds);
  return derivation.result();
}

// One derivation, from its request until the cache forgets it.
// Invariant: in `jobs_` while not finished, in `ready_` while finished with clients, else in
// `cached_`.
struct KeyJob : ListNode<KeyJobTag> {
  Sha256Digest name;
  Pbkdf2 derivation;  // Given back once finished.
  bool is_finished = false;
  Sha256Digest key;
  IntrusiveList<KeyWait, KeyWaitTag> clients;

  KeyJob() = default;
  KeyJob(const KeyJob&) = delete;
  KeyJob& operator=(const KeyJob&) = delete;
  ~KeyJob() { wipe(key); }
};

KeyDerivation::KeyDerivation(Random& random, size_t cache_entries_max) noexcept
    : cache_entries_max_(cache_entries_max) {
  random.fill(name_key_);
}

KeyDerivation::~KeyDerivation() {
  ASSERT(jobs_.empty());
  ASSERT(ready_.empty());
  while (KeyJob* job = cached_.front()) {
    cached_.remove(*job);
    forget(*job);
  }
  wipe(name_key_);
}

size_t KeyDerivation::NameHash::operator()(const Sha256Digest& name) const noexcept {
  size_t hash;  // The name is an HMAC: any part of it is a good hash.
  std::memcpy(&hash, name.data(), sizeof(hash));
  return hash;
}

void KeyDerivation::request(ByteSpan password, ByteSpan salt, uint32_t rounds, KeyClient& client) {
  ASSERT(rounds > 0);
  ASSERT(!client.is_waiting_for_key());
  std::array<uint8_t, 12>
      sizes;  // Sizes go in, so that moving a byte from password to salt is another name.
  store_be32(sizes.data(), static_cast<uint32_t>(password.size()));
  store_be32(sizes.data() + 4, static_cast<uint32_t>(salt.size()));
  store_be32(sizes.data() + 8, rounds);
  const Sha256Digest name = hmac_sha256(name_key_, {sizes, password, salt});

  std::unique_ptr<KeyJob>& job = by_name_[name];
  if (job == nullptr) {
    job = std::make_unique<KeyJob>();
    job->name = name;
    job->derivation.start(password, salt, rounds);
    jobs_.push_back(*job);
  } else if (job->is_finished && job->clients.empty()) {
    cached_.remove(*job);
    ready_.push_back(*job);
  }
  job->clients.push_back(client.key_wait());
  client.key_wait().job_ = job.get();
  if (job->is_finished) ++waiting_ready_count_;
}

void KeyDerivation::cancel(KeyClient& client) noexcept {
  KeyJob* job = std::exchange(client.key_wait().job_, nullptr);
  if (job == nullptr) return;
  job->clients.remove(client.key_wait());
  if (job->is_finished) --waiting_ready_count_;
  if (!job->clients.empty()) return;
  if (job->is_finished) {
    ready_.remove(*job);
    keep(*job);
  } else {
    jobs_.remove(*job);
    forget(*job);
  }
}

void KeyDerivation::run(uint32_t rounds_budget) noexcept {
  compute(rounds_budget);
  deliver();
}

void KeyDerivation::compute(uint32_t rounds_budget) noexcept {
  while (KeyJob* job = jobs_.front()) {
    const uint32_t before = job->derivation.rounds_left();
    const bool finished = job->derivation.step(rounds_budget);
    const uint32_t used = before - job->derivation.rounds_left();
    rounds_budget -= used;
    rounds_total_ += used;
    if (!finished) return;
    job->key = job->derivation.result();
    job->derivation = Pbkdf2();
    job->is_finished = true;
    waiting_ready_count_ += job->clients.size();
    jobs_.remove(*job);
    ready_.push_back(*job);
  }
}

void KeyDerivation::deliver() noexcept {
  // Counted first: a client that asks for a cached key in its on_key is answered in the next turn.
  // Everything is read anew after each call, because on_key may request and cancel.
  for (size_t left = waiting_ready_count_; left > 0 && !ready_.empty(); --left) {
    KeyJob& job = *ready_.front();
    KeyWait& wait = *job.clients.pop_front();
    wait.job_ = nullptr;
    --waiting_ready_count_;
    Sha256Digest key = job.key;
    if (job.clients.empty()) {
      ready_.remove(job);
      keep(job);
    }
    wait.client_.on_key(key);
    wipe(key);
  }
  DEBUG_ASSERT(!ready_.empty() || waiting_ready_count_ == 0);
}

// Takes a finished job without clients into the cache; the one used longest ago makes room.
void KeyDerivation::keep(KeyJob& job) noexcept {
  ASSERT(job.is_finished);
  ASSERT(job.clients.empty());
  cached_.push_front(job);
  if (cached_.size() > cache_entries_max_) forget(*cached_.pop_back());
}

// Destroys a job that is in no list.
void KeyDerivation::forget(KeyJob& job) noexcept {
  ASSERT(!job.is_linked());
  by_name_.erase(Sha256Digest(job.name));  // A copy: the key of the call dies with the job.
}

}  // namespace helios
