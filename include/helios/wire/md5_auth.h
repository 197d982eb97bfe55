// PostgreSQL's md5 login (protocol chapter "Message Flow", AuthenticationMD5Password). Old and
// weak; kept because servers and password files still have it.
//
// A stored hash is "md5" + hex(md5(password + user)); the answer to a challenge is
// "md5" + hex(md5(hex(md5(password + user)) + salt)). Pure functions; any thread.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "helios/base/bytes.h"

namespace helios {

using Md5Salt = std::array<uint8_t, 4>;

// True for "md5" followed by 32 hexadecimal digits in lower case: what PostgreSQL takes for a
// stored hash.
[[nodiscard]] bool is_md5_hash(std::string_view stored) noexcept;

// The stored form of a password.
[[nodiscard]] std::string md5_hash(std::string_view password, std::string_view user);

// What a client must answer to `salt`. Requires: is_md5_hash(stored).
[[nodiscard]] std::string md5_response(std::string_view stored, const Md5Salt& salt);

// True when `response` (without its closing zero byte) answers `salt`. Takes the same time for
// every wrong answer. Requires: is_md5_hash(stored).
[[nodiscard]] bool md5_response_matches(std::string_view stored, const Md5Salt& salt,
                                        std::string_view response);

}  // namespace helios
