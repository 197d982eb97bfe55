#include "helios/config/nearest.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace helios {

size_t edit_distance(std::string_view from, std::string_view to) {
  // Three rows of the distance table are enough: a swap looks two rows back.
  std::vector<size_t> older(to.size() + 1);
  std::vector<size_t> above(to.size() + 1);
  std::vector<size_t> row(to.size() + 1);
  for (size_t j = 0; j <= to.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= from.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= to.size(); ++j) {
      const size_t change = above[j - 1] + (from[i - 1] == to[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, change});
      const bool is_swap = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
      if (is_swap) row[j] = std::min(row[j], older[j - 2] + 1);
    }
    std::swap(older, above);
    std::swap(above, row);
  }
  return above[to.size()];
}

std::string_view nearest_name(std::string_view wanted, std::span<const std::string_view> known) {
  // A key of a thousand letters is no typing mistake, and the table would be large.
  constexpr size_t wanted_size_max = 64;
  if (wanted.size() > wanted_size_max) return {};
  std::string_view nearest;
  size_t best = std::max<size_t>(2, wanted.size() / 3) + 1;
  for (const std::string_view name : known) {
    const size_t distance = edit_distance(wanted, name);
    // Nothing of the name is left when every letter is changed: no help to anybody.
    if (distance >= best || distance >= name.size()) continue;
    best = distance;
    nearest = name;
  }
  return nearest;
}

std::string suggestion(std::string_view wanted, std::span<const std::string_view> known) {
  const std::string_view nearest = nearest_name(wanted, known);
  if (!nearest.empty()) return "; did you mean \"" + std::string(nearest) + "\"?";
  constexpr size_t listed_count_max = 40;
  if (known.empty() || known.size() > listed_count_max) return {};
  std::string text = "; known: ";
  for (const std::string_view name : known) {
    if (name != known.front()) text += ", ";
    text += name;
  }
  return text;
}

}  // namespace helios
