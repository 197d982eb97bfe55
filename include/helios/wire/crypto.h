// The few cryptographic primitives that logging in needs, all from wolfCrypt.
//
// Pure functions and small values; any thread may call them. A failure inside wolfCrypt (out of
// memory, no entropy) is not an input error and nobody can go on after it: the process stops with a
// sentence. wolfSSL's headers define many short macro names, so only .cc files include them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "helios/base/bytes.h"

namespace helios {

// The output of SHA-256. (Not named Sha256: wolfSSL has a macro of that name.)
using Sha256Digest = std::array<uint8_t, 32>;

// True when the distribution's wolfSSL is linked: compiled without assembly, several times slower.
[[nodiscard]] bool is_slow_cryptography() noexcept;

[[nodiscard]] Sha256Digest sha256(ByteSpan data) noexcept;

// HMAC-SHA-256 (RFC 2104) of the parts one after the other. Any key length.
[[nodiscard]] Sha256Digest hmac_sha256(ByteSpan key,
                                       std::initializer_list<ByteSpan> parts) noexcept;
[[nodiscard]] inline Sha256Digest hmac_sha256(ByteSpan key, ByteSpan data) noexcept {
  return hmac_sha256(key, {data});
}

// MD5 of the parts one after the other, as 32 lower-case hexadecimal digits. For PostgreSQL's md5
// login only.
[[nodiscard]] std::string md5_hex(std::initializer_list<ByteSpan> parts);

// Fills `to` with bytes that nobody can predict. Each thread has a generator of its own, seeded by
// the kernel.
void random_bytes(MutableByteSpan to) noexcept;

// Where salts, nonces and cancel keys come from: the seam that tests and the simulator replace.
class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableByteSpan to) noexcept = 0;
};

// random_bytes behind the seam. Has no state: one object may serve all threads.
class SystemRandom final : public Random {
 public:
  void fill(MutableByteSpan to) noexcept override { random_bytes(to); }
};

// The same bytes for the same seed (SplitMix64). For tests and the simulator, never for secrets.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed) noexcept : state_(seed) {}
  void fill(MutableByteSpan to) noexcept override;

 private:
  uint64_t state_;
};

// True when both have the same size and content. The time taken depends on the sizes only.
[[nodiscard]] bool constant_time_equal(ByteSpan left, ByteSpan right) noexcept;

// Base64 of RFC 4648 section 4, with padding and without line breaks.
[[nodiscard]] std::string base64_encode(ByteSpan data);
// The bytes, or nothing when `text` is not exactly what base64_encode makes: no white space, full
// padding, unused bits zero.
[[nodiscard]] std::optional<std::string> base64_decode(std::string_view text);

// Overwrites the bytes in a way that the compiler may not drop.
void wipe(MutableByteSpan bytes) noexcept;
// Overwrites the text's whole capacity and empties it.
void wipe(std::string& text) noexcept;

// A secret on the heap, overwritten when it is given back. Moves, and copies only on request.
class SecretBytes {
 public:
  SecretBytes() noexcept = default;
  explicit SecretBytes(ByteSpan bytes) : bytes_(new uint8_t[bytes.size()]), size_(bytes.size()) {
    if (!bytes.empty()) std::memcpy(bytes_.get(), bytes.data(), bytes.size());
  }
  explicit SecretBytes(std::string_view text) : SecretBytes(as_bytes(text)) {}
  SecretBytes(SecretBytes&& other) noexcept
      : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
  SecretBytes& operator=(SecretBytes&& other) noexcept {
    if (this == &other) return *this;
    clear();
    bytes_ = std::move(other.bytes_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  ~SecretBytes() { clear(); }

  [[nodiscard]] ByteSpan bytes() const noexcept { return {bytes_.get(), size_}; }
  [[nodiscard]] std::string_view text() const noexcept { return as_text(bytes()); }
  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] SecretBytes copy() const { return SecretBytes(bytes()); }
  void clear() noexcept {
    wipe(MutableByteSpan{bytes_.get(), size_});
    bytes_.reset();
    size_ = 0;
  }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t size_ = 0;
};

}  // namespace helios
