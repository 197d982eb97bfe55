#include "helios/wire/crypto.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace helios {
namespace {

std::string hex(ByteSpan bytes) {
  std::string text;
  for (uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

TEST_CASE("SHA-256 gives the digests of FIPS 180-4") {
  CHECK(hex(sha256({})) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256(as_bytes("abc"))) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("HMAC-SHA-256 gives the codes of RFC 4231") {
  const std::vector<uint8_t> short_key(20, 0x0b);
  CHECK(hex(hmac_sha256(short_key, as_bytes("Hi There"))) ==
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  CHECK(hex(hmac_sha256(as_bytes("Jefe"), as_bytes("what do ya want for nothing?"))) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  const std::vector<uint8_t> long_key(131, 0xaa);
  CHECK(hex(hmac_sha256(long_key,
                        as_bytes("Test Using Larger Than Block-Size Key - Hash Key First"))) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST_CASE("HMAC-SHA-256 of parts is that of the whole, and keys may be empty") {
  CHECK(hmac_sha256(as_bytes("k"), {as_bytes("ab"), {}, as_bytes("c")}) ==
        hmac_sha256(as_bytes("k"), as_bytes("abc")));
  CHECK(hex(hmac_sha256({}, ByteSpan{})) ==
        "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST_CASE("MD5 gives the digests of RFC 1321") {
  CHECK(md5_hex({}) == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(md5_hex({as_bytes("message "), as_bytes("digest")}) == "f96b697d7cb7938d525a2f31aaf161d0");
}

TEST_CASE("Base64 has the forms of RFC 4648 and goes both ways") {
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"},
                                                         {"\xff\xfe\xfd", "//79"}};
  for (const auto& [plain, encoded] : vectors) {
    CHECK(base64_encode(as_bytes(plain)) == encoded);
    CHECK(base64_decode(encoded) == plain);
  }
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all += static_cast<char>(i);
    CHECK(base64_decode(base64_encode(as_bytes(all))) == all);
  }
}

TEST_CASE("Base64 that is not exactly what an encoder makes is refused") {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zg===", "=", "====", "Z===", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v\n",
        " Zm9v", "Zm-v", "Zm_v", "Z=9v", "Zm=v", "Zg=a", "Zm9vY"})
    CHECK_MESSAGE(!base64_decode(text).has_value(), text);
  CHECK_FALSE(base64_decode(std::string_view("Zm9\0", 4)).has_value());
  CHECK_FALSE(base64_decode("Zm9\xff").has_value());
}

TEST_CASE("Comparison sees every difference of content and size") {
  const std::string text = "0123456789abcdef";
  CHECK(constant_time_equal(as_bytes(text), as_bytes(text)));
  CHECK(constant_time_equal({}, {}));
  CHECK_FALSE(constant_time_equal(as_bytes(text), as_bytes("0123456789abcde")));
  for (size_t i = 0; i < text.size(); ++i) {
    std::string other = text;
    other[i] = static_cast<char>(other[i] ^ 0x80);
    CHECK_FALSE(constant_time_equal(as_bytes(text), as_bytes(other)));
  }
}

TEST_CASE("Random bytes differ between calls and between threads") {
  std::array<uint8_t, 32> first{};
  std::array<uint8_t, 32> second{};
  std::array<uint8_t, 32> third{};
  random_bytes(first);
  random_bytes(second);
  std::thread([&] { random_bytes(third); }).join();
  CHECK(first != second);
  CHECK(first != third);
  CHECK(second != third);
  random_bytes({});
}

TEST_CASE("Random fills every byte of a buffer larger than the generator's block") {
  std::vector<uint8_t> bytes(100'000);
  random_bytes(bytes);
  std::array<size_t, 256> counts{};
  for (uint8_t byte : bytes) ++counts[byte];
  for (size_t count : counts) {  // 390 expected; a deviation of 200 is ten times the standard one.
    CHECK(count > 190);
    CHECK(count < 590);
  }
}

TEST_CASE("A seeded generator repeats itself and no other seed") {
  std::array<uint8_t, 64> first{};
  std::array<uint8_t, 64> again{};
  std::array<uint8_t, 64> other{};
  SeededRandom(1).fill(first);
  SeededRandom one(1);
  one.fill(MutableByteSpan(again).first(7));  // The pieces do not matter.
  one.fill(MutableByteSpan(again).subspan(7));
  SeededRandom(2).fill(other);
  CHECK(first == again);
  CHECK(first != other);
}

TEST_CASE("Wiping leaves zeros in the whole capacity of a text") {
  std::string text(100, 'x');
  text.resize(40);
  const char* data = text.data();
  wipe(text);
  CHECK(text.empty());
  REQUIRE(text.data() == data);
  REQUIRE(text.capacity() >= 100);
  CHECK(std::all_of(data, data + 100, [](char c) { return c == '\0'; }));  // Still ours to read.
}

TEST_CASE("Wiping touches the bytes it is given and no other") {
  std::vector<uint8_t> bytes(4, 7);
  wipe(MutableByteSpan(bytes).subspan(1, 2));
  CHECK(bytes == std::vector<uint8_t>{7, 0, 0, 7});
  wipe(MutableByteSpan{});
}

TEST_CASE("A secret moves without leaving itself behind") {
  SecretBytes first("secret");
  SecretBytes second = std::move(first);
  CHECK(first.empty());  // NOLINT: the state after a move is what is tested.
  CHECK(second.text() == "secret");
  SecretBytes third("other");
  third = std::move(second);
  CHECK(second.empty());  // NOLINT
  CHECK(third.text() == "secret");
  const SecretBytes copy = third.copy();
  third.clear();
  CHECK(third.empty());
  CHECK(copy.text() == "secret");
  CHECK(SecretBytes().text().empty());
}

}  // namespace
}  // namespace helios
