#include "helios/wire/crypto.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "helios/base/assert.h"
#include "helios/base/hex.h"
#include "wire/wolfcrypt.h"
// wolfcrypt.h comes first: it chooses the configuration.
#include <wolfssl/wolfcrypt/md5.h>
#include <wolfssl/wolfcrypt/random.h>
#include <wolfssl/wolfcrypt/sha256.h>

namespace helios {

void require_crypto(int result, const char* what) noexcept {
  if (result == 0) return;
  std::fprintf(stderr,
               "heliosproxy: %s failed in wolfCrypt (error %d); nothing can be secure after this\n",
               what, result);
  std::abort();
}

namespace {

constexpr size_t hmac_block_size = 64;
// What the random generator makes at a time: a key of 16 bytes of its own costs 2 us, four hashes
// each; out of a block it costs next to nothing. wolfCrypt gives at most 64 KiB.
constexpr word32 random_block_size = 1024;

void update(wc_Sha256& hash, ByteSpan data) noexcept {
  if (data.empty()) return;
  require_crypto(wc_Sha256Update(&hash, data.data(), static_cast<word32>(data.size())), "SHA-256");
}

Sha256Digest sha256_of(std::initializer_list<ByteSpan> parts) noexcept {
  wc_Sha256 hash;
  Sha256Digest digest;
  require_crypto(wc_InitSha256(&hash), "SHA-256");
  for (ByteSpan part : parts) update(hash, part);
  require_crypto(wc_Sha256Final(&hash, digest.data()), "SHA-256");
  wc_Sha256Free(&hash);
  return digest;
}

// One generator for each thread: wolfCrypt's is not safe to share.
class Generator {
 public:
  Generator() noexcept { require_crypto(wc_InitRng(&generator_), "starting the random generator"); }
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;
  ~Generator() { wc_FreeRng(&generator_); }

  void fill(MutableByteSpan to) noexcept {
    while (!to.empty()) {
      if (used_ == block_.size()) make_block();
      const size_t size = std::min(to.size(), block_.size() - used_);
      uint8_t* from = block_.data() + used_;
      std::copy_n(from, size, to.data());
      std::fill_n(from, size, uint8_t{0});  // What was given away is nobody else's to read.
      used_ += size;
      to = to.subspan(size);
    }
  }

 private:
  void make_block() noexcept {
    require_crypto(wc_RNG_GenerateBlock(&generator_, block_.data(), random_block_size),
                   "the random generator");
    used_ = 0;
  }

  WC_RNG generator_;
  std::array<uint8_t, random_block_size> block_;
  size_t used_ = random_block_size;  // Of the block: given away.
};

constexpr char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// The value of a base64 digit, or -1.
int base64_value(char digit) noexcept {
  if (digit >= 'A' && digit <= 'Z') return digit - 'A';
  if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
  if (digit >= '0' && digit <= '9') return digit - '0' + 52;
  if (digit == '+') return 62;
  if (digit == '/') return 63;
  return -1;
}

// The 24 bits of four digits, where the last `padding` ones are '='; -1 when a digit is none or
// unused bits are set.
int32_t base64_group(std::string_view digits, size_t padding) noexcept {
  int32_t bits = 0;
  for (size_t i = 0; i < 4; ++i) {
    const int value = i < 4 - padding ? base64_value(digits[i]) : 0;
    if (value < 0) return -1;
    bits = bits << 6 | value;
  }
  const int32_t unused = (1 << (8 * padding)) - 1;
  return (bits & unused) == 0 ? bits : -1;
}

}  // namespace

bool is_slow_cryptography() noexcept {
#ifdef HELIOS_SYSTEM_WOLFSSL
  return true;
#else
  return false;
#endif
}

Sha256Digest sha256(ByteSpan data) noexcept {
  return sha256_of({data});
}

Sha256Digest hmac_sha256(ByteSpan key, std::initializer_list<ByteSpan> parts) noexcept {
  // Written out rather than wc_Hmac: that one refuses an empty key in some builds.
  std::array<uint8_t, hmac_block_size> pad{};
  Sha256Digest short_key;
  if (key.size() > pad.size()) {
    short_key = sha256(key);
    key = short_key;
  }
  std::copy(key.begin(), key.end(), pad.begin());
  for (uint8_t& byte : pad) byte ^= 0x36;

  wc_Sha256 hash;
  Sha256Digest digest;
  require_crypto(wc_InitSha256(&hash), "HMAC");
  update(hash, pad);
  for (ByteSpan part : parts) update(hash, part);
  require_crypto(wc_Sha256Final(&hash, digest.data()), "HMAC");
  wc_Sha256Free(&hash);

  for (uint8_t& byte : pad) byte ^= 0x36 ^ 0x5c;
  digest = sha256_of({pad, digest});
  wipe(pad);
  return digest;
}

std::string md5_hex(std::initializer_list<ByteSpan> parts) {
  wc_Md5 hash;
  std::array<uint8_t, 16> digest;
  require_crypto(wc_InitMd5(&hash), "MD5");
  for (ByteSpan part : parts) {
    if (part.empty()) continue;
    require_crypto(wc_Md5Update(&hash, part.data(), static_cast<word32>(part.size())), "MD5");
  }
  require_crypto(wc_Md5Final(&hash, digest.data()), "MD5");
  wc_Md5Free(&hash);

  std::string text;
  append_hex(text, as_text(digest));
  return text;
}

void random_bytes(MutableByteSpan to) noexcept {
  thread_local Generator generator;
  generator.fill(to);
}

void SeededRandom::fill(MutableByteSpan to) noexcept {
  for (uint8_t& byte : to) {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    byte = static_cast<uint8_t>(mixed >> 56);
  }
}

bool constant_time_equal(ByteSpan left, ByteSpan right) noexcept {
  if (left.size() != right.size()) return false;
  volatile uint8_t difference = 0;  // Volatile: the compiler may not stop at the first difference.
  for (size_t i = 0; i < left.size(); ++i)
    difference = static_cast<uint8_t>(difference | (left[i] ^ right[i]));
  return difference == 0;
}

std::string base64_encode(ByteSpan data) {
  std::string text;
  text.reserve((data.size() + 2) / 3 * 4);
  for (size_t i = 0; i < data.size(); i += 3) {
    const size_t count = std::min<size_t>(3, data.size() - i);
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (j < count ? data[i + j] : 0U);
    for (size_t j = 0; j < 4; ++j)
      text += j <= count ? base64_digits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

std::optional<std::string> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string data;
  data.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const std::string_view digits = text.substr(i, 4);
    size_t padding = 0;
    if (i + 4 == text.size() && digits[3] == '=') padding = digits[2] == '=' ? 2 : 1;
    const int32_t bits = base64_group(digits, padding);
    if (bits < 0) return std::nullopt;
    for (size_t j = 0; j < 3 - padding; ++j)
      data += static_cast<char>(static_cast<uint8_t>(bits >> (16 - 8 * j)));
  }
  return data;
}

void wipe(MutableByteSpan bytes) noexcept {
  if (!bytes.empty()) explicit_bzero(bytes.data(), bytes.size());
}

void wipe(std::string& text) noexcept {
  text.resize(text.capacity());  // Within the capacity: no allocation.
  wipe(MutableByteSpan{reinterpret_cast<uint8_t*>(text.data()), text.size()});
  text.clear();
}

}  // namespace helios
