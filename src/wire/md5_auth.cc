#include "helios/wire/md5_auth.h"

#include "helios/base/assert.h"
#include "helios/base/hex.h"
#include "helios/wire/crypto.h"

namespace helios {

namespace {

constexpr std::string_view prefix = "md5";
constexpr size_t hash_size = 35;

std::string with_prefix(std::initializer_list<ByteSpan> parts) {
  return std::string(prefix) + md5_hex(parts);
}

}  // namespace

bool is_md5_hash(std::string_view stored) noexcept {
  return stored.size() == hash_size && stored.starts_with(prefix) &&
         stored.find_first_not_of(hex_digits, prefix.size()) == std::string_view::npos;
}

std::string md5_hash(std::string_view password, std::string_view user) {
  return with_prefix({as_bytes(password), as_bytes(user)});
}

std::string md5_response(std::string_view stored, const Md5Salt& salt) {
  ASSERT(is_md5_hash(stored));
  return with_prefix({as_bytes(stored.substr(prefix.size())), salt});
}

bool md5_response_matches(std::string_view stored, const Md5Salt& salt, std::string_view response) {
  return constant_time_equal(as_bytes(md5_response(stored, salt)), as_bytes(response));
}

}  // namespace helios
