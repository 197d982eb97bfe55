#include "helios/wire/saslprep.h"

#include <doctest/doctest.h>

#include <memory>

#include "helios/wire/key_derivation.h"
#include "helios/wire/scram.h"

namespace helios {
namespace {

// The prepared form, or "refused" or "not UTF-8".
std::string prepare(std::string_view text) {
  SecretBytes to;
  switch (saslprep(text, to)) {
    case SaslprepResult::prepared:
      return std::string(to.text());
    case SaslprepResult::invalid_utf8:
      CHECK(to.empty());
      return "not UTF-8";
    case SaslprepResult::prohibited:
      CHECK(to.empty());
      return "refused";
  }
  return "?";
}

TEST_CASE("SASLprep maps the examples of RFC 4013") {
  CHECK(prepare("I\u00adX") == "IX");
  CHECK(prepare("user") == "user");
  CHECK(prepare("USER") == "USER");
  CHECK(prepare("\u00aa") == "a");
  CHECK(prepare("\u2168") == "IX");
  CHECK(prepare("\u0627\u0031") == "refused");
}

TEST_CASE("SASLprep leaves ASCII alone, control characters too") {
  CHECK(prepare("") == "");
  CHECK(prepare("\x07") == "\x07");
  CHECK(prepare("a b\tc\x7f~") == "a b\tc\x7f~");
}

TEST_CASE("SASLprep maps spaces to a space and drops what is invisible") {
  CHECK(prepare("a\u00a0b\u3000c") == "a b c");
  CHECK(prepare("a\u200bb") == "a b");
  CHECK(prepare("a\u200d\ufeff\ufe0fb") == "ab");
}

TEST_CASE("SASLprep composes, decomposes and orders marks") {
  CHECK(prepare("pa\u0308ss") == "p\u00e4ss");
  CHECK(prepare("\ufb01n") == "fin");
  CHECK(prepare("\u1e9b\u0323") == "\u1e69");
  CHECK(prepare("a\u0301\u0323") == "\u1ea1\u0301");  // Dot below composes, acute stays.
  CHECK(prepare("\u212b") == "\u00c5");               // Angstrom sign.
  CHECK(prepare("\u0958") == "\u0915\u093c");         // Excluded from composition.
  CHECK(prepare("a\u0315\u0300\u05ae\u0062") == "\u00e0\u05ae\u0315\u0062");
  CHECK(prepare("\u1100\u1161\u11a8") == "\uac01");  // Hangul.
  CHECK(prepare("\uac00\u11a8") == "\uac01");
  CHECK(prepare("\uac01\u11a8") == "\uac01\u11a8");
  CHECK(prepare("\u1100\u0300\u1161") == "\u1100\u0300\u1161");  // Blocked by the mark.
  CHECK(prepare("\U0001d7ff") == "9");                           // Mathematical digit.
  CHECK(prepare("\uff21\uff22") == "AB");
}

TEST_CASE("SASLprep refuses what RFC 4013 prohibits or Unicode 3.2 does not know") {
  for (const char* text : {"\u00e4\x07", "\u0080", "\u200e", "\u2028", "\ue000", "\ufffd", "\u2ff0",
                           "\u0340", "\ufdd0", "\U000e0001", "\U0010fffd", "\u0221", "\U0001f600"})
    CHECK_MESSAGE(prepare(text) == "refused", text);
  CHECK(prepare("\u00ad") == "refused");  // Nothing left.
}

TEST_CASE("SASLprep takes right-to-left text alone and closed at both ends") {
  CHECK(prepare("\u0627\u0628") == "\u0627\u0628");
  CHECK(prepare("\u06271\u0628") == "\u06271\u0628");
  CHECK(prepare("\u0627a\u0628") == "refused");
  CHECK(prepare("1\u0627") == "refused");
}

TEST_CASE("SASLprep refuses bytes that are not UTF-8") {
  for (const char* text :
       {"\x80", "\xc3", "\xc3(", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80", "\xff", "a\xe2\x82", "\xe2\x82("})
    CHECK_MESSAGE(prepare(text) == "not UTF-8", text);
  CHECK(prepare(std::string_view("\xc3\xa4\0\xc3\xa4", 5)) == "refused");  // U+0000.
}

TEST_CASE("A password without a prepared form is used as it is") {
  CHECK(scram_password("pa\u0308ss").text() == "p\u00e4ss");
  CHECK(scram_password("\xff\xfe").text() == "\xff\xfe");
  CHECK(scram_password("\u0627\u0031").text() == "\u0627\u0031");
  CHECK(scram_password("\u00ad").text() == "\u00ad");
}

TEST_CASE("SASLprep reads no byte outside its text, whatever the text") {
  SeededRandom random(4013);
  for (int round = 0; round < 20'000; ++round) {
    std::array<uint8_t, 2> header;
    random.fill(header);
    const size_t size = header[0] % 24;
    // Exactly as large as the text: the address sanitizer sees a byte too many.
    const std::unique_ptr<uint8_t[]> bytes(new uint8_t[size]);
    random.fill({bytes.get(), size});
    if (header[1] % 2 == 0)  // Half of them mostly well-formed.
      for (size_t i = 0; i < size; ++i)
        bytes[i] = i % 2 == 0 ? (bytes[i] & 0x1f) | 0xc2 : (bytes[i] & 0x3f) | 0x80;
    const std::string_view text = as_text({bytes.get(), size});
    SecretBytes to;
    const SaslprepResult result = saslprep(text, to);
    if (result != SaslprepResult::prepared) CHECK(to.empty());
    if (size > 0) CHECK_FALSE(scram_password(text).empty());
  }
}

TEST_CASE("PostgreSQL 15 hashes the same form of a password") {
  const std::pair<const char*, const char*> stored[] = {
      {"secret",
       "SCRAM-SHA-256$4096:1EwowNOmil4HIEN2SWQ9Og==$"
       "xRGWK7/lXqNFysiTvdocahryFZ5s8aa03nnBW1TtrTw=:LhzoQ/em6VRyZTMdDuFHy0U4VrVoq4K/TAHaBT8ebbk="},
      {"I\u00adX",
       "SCRAM-SHA-256$4096:N0sZEzlFFkJS8pc9qhHSzg==$"
       "ZDzxrZv/J2Wc8WTvbluyG2+LJP7rBBPZZHv/NZQKGOU=:A2/vA0RmYg0If3aobxzBLXYoj+D4yh7hHRPV560lf8M="},
      {"pass\u00a0word",
       "SCRAM-SHA-256$4096:JPk0sSUvGgwcRRQanBOWhg==$"
       "rJaleypbB1TMW3kL/ddYt+27YScalXE4rhjQVLwVZns=:PAFE3wN6poqrVh6t6vHAPWdZzmFgrmcotU5rwBZdCIw="},
      {"p\u00e4ssw\u00f6rd",
       "SCRAM-SHA-256$4096:1J8lg3yUfEhwGPzOQ+9Vvg==$"
       "sgLIj/Cod4LrbZDfgzyIEV+tJ6tcD9qVR59UuNszAJ8=:9yxA/ufCrfzVbYRfXjQjMEZOBjw3679K5JI3wiu6BXc="},
      {"pa\u0308ssw\u00f6rd",
       "SCRAM-SHA-256$4096:9Neie5W8T10bdKSkbM0XfQ==$"
       "le0azWlmQjB1zSF1k2XnbKZL5uK6GE/6Jz7LU/ji/Tc=:RNIkBQsIEXR1qou7iuvXMCMAStdgvfNceLAvc8YD/ww="},
      {"\u1100\u1161\u11a8",
       "SCRAM-SHA-256$4096:vXJKPyj9BsAeYuRzA6UXaw==$"
       "HIKD8R37fzLgk74gWQlSrm1YwJ8a86T1qLy39LgF29A=:kzF6dIWCmTAyjfhsizLewyUhVLzyPLKI4rmCGKGOPIM="},
      {"\u0221x",
       "SCRAM-SHA-256$4096:uWkkYPg3xNX8Mh3apd6V+g==$"
       "wCRf7sMPce9kroEoizhDfjvF6CHCQpjn71fgSfkY47k=:RILj8cTopR0NLo0GBynQyXVvPuV0uNyN5U0amth7oGU="},
      {"\U0001f600",
       "SCRAM-SHA-256$4096:wHEKo/lTIjQj8vw9Twsh2g==$"
       "a6dgF2SZEicGQay2S6RDzaCUbQT9RjmIbsuupXVTE78=:grYZ6vWlvIPubxEz0y7n8dfetNxtBMNCdFmMrkUvINc="},
      {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
       "SCRAM-SHA-256$4096:FYFbnIRKftlc7SbMW5Ohmw==$"
       "f5cB3iwizTyfa2qsKGR4H9fbYJr236Hw1vfhT5aqiyk=:v9ASx2DYQTRiwF+tmzcfVPUVqBdkla4yADokQ+/ogWI="},
      {"\u0340x",
       "SCRAM-SHA-256$4096:WcJ/ueKpoLgA574a5FimTw==$"
       "c8ZsNTZi8ogj20twQuGvPdgainBDoWn81iABsrYsKyU=:dJuHAqTifnwtAOSJIgmf8XOw50rQadoLoDDkl9poqu4="},
  };
  for (const auto& entry :
       stored) {  // No structured binding: clang 14's lambdas cannot capture one.
    const char* password = entry.first;
    const auto verifier = parse_scram_verifier(entry.second);
    REQUIRE(verifier.has_value());
    const SecretBytes prepared = scram_password(password);
    const ByteSpan salt = as_bytes(verifier->salt);
    const Sha256Digest key = pbkdf2(prepared.bytes(), salt, verifier->rounds);
    CHECK_MESSAGE(verifier_from(key, salt, verifier->rounds) == *verifier, password);
  }
}

}  // namespace
}  // namespace helios
