#include "helios/wire/md5_auth.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

constexpr Md5Salt salt = {0x01, 0x00, 0xfe, 0x7f};

TEST_CASE("A stored md5 hash is the one that PostgreSQL stores") {
  CHECK(md5_hash("s\xc3\xa9"
                 "cret",
                 "mT") == "md59431c174ac0381c02cd085c32fd30440");
  CHECK(md5_hash("s\xc3\xa9"
                 "cret",
                 "mt") == "md5d755a8793c34e9e29b24b0adf7951922");
  CHECK(md5_hash("s\xc3\xa9"
                 "cret",
                 "m\xc3\xbcser") == "md5afad0eb118aac09918ad6400b2197925");
}

TEST_CASE("Only md5 and 32 lower-case hexadecimal digits are a stored md5 hash") {
  CHECK(is_md5_hash("md59431c174ac0381c02cd085c32fd30440"));
  CHECK_FALSE(is_md5_hash(""));
  CHECK_FALSE(is_md5_hash("md5"));
  CHECK_FALSE(is_md5_hash("md59431c174ac0381c02cd085c32fd3044"));
  CHECK_FALSE(is_md5_hash("md59431c174ac0381c02cd085c32fd304400"));
  CHECK_FALSE(is_md5_hash("MD59431c174ac0381c02cd085c32fd30440"));
  CHECK_FALSE(is_md5_hash("md59431C174ac0381c02cd085c32fd30440"));
  CHECK_FALSE(is_md5_hash("md59431g174ac0381c02cd085c32fd30440"));
}

TEST_CASE("The md5 answer is the hash of the stored hash's digits and the salt") {
  // python3: 'md5' + md5(md5(b'secretapp').hexdigest().encode() + bytes([1, 0, 254,
  // 127])).hexdigest()
  CHECK(md5_response(md5_hash("secret", "app"), salt) == "md5f62b336cdfacfcecd9a3eaed7b886949");
}

TEST_CASE("An md5 answer is taken for its user, password and salt only") {
  const std::string stored = md5_hash("secret", "app");
  CHECK(md5_response_matches(stored, salt, md5_response(stored, salt)));
  CHECK_FALSE(md5_response_matches(stored, salt, md5_response(md5_hash("Secret", "app"), salt)));
  CHECK_FALSE(md5_response_matches(stored, salt, md5_response(md5_hash("secret", "ap"), salt)));
  CHECK_FALSE(md5_response_matches(stored, salt, md5_response(stored, Md5Salt{1, 0, 0xfe, 0x7e})));
  CHECK_FALSE(md5_response_matches(stored, salt, stored));
  CHECK_FALSE(md5_response_matches(stored, salt, "secret"));
  CHECK_FALSE(md5_response_matches(stored, salt, ""));
}

}  // namespace
}  // namespace helios
