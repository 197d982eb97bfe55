#include "helios/pool/pool_spec.h"

#include <algorithm>

namespace helios {
namespace {

// Length before each text: no two lists of texts have one key.
void append_key(std::string& key, std::string_view text) {
  key += std::to_string(text.size());
  key += ':';
  key += text;
}

}  // namespace

std::string pool_key(std::string_view database, std::string_view user, ParameterList settings) {
  std::sort(settings.begin(), settings.end());
  std::string key;
  append_key(key, database);
  append_key(key, user);
  for (const auto& [name, value] : settings) {
    append_key(key, name);
    append_key(key, value);
  }
  return key;
}

}  // namespace helios
