// What one configuration changes in another, in words for the log. Pure.
#pragma once

#include <string>
#include <vector>

#include "helios/config/config.h"

namespace helios {

// A key and what becomes of it: "max_connections 10 -> 20". Of secrets only that they changed.
struct KeyChange {
  std::string key;
  std::string text;
};

// The keys of [proxy], in the order of the struct.
[[nodiscard]] std::vector<KeyChange> proxy_changes(const ProxyConfig& before,
                                                   const ProxyConfig& after);

// Everything but [proxy]: one line for [pool] and for each node, database and user that was added,
// removed or changed: `node "main": max_connections 100 -> 50`.
[[nodiscard]] std::vector<std::string> entry_changes(const Config& before, const Config& after);

}  // namespace helios
