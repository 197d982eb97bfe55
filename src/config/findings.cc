#include "config/findings.h"

#include <algorithm>
#include <utility>

namespace helios {

void Findings::error(Place place, std::string_view subject, std::string_view sentence) {
  errors_.push_back(make(place, subject, sentence));
}

void Findings::warning(Place place, std::string_view subject, std::string_view sentence) {
  warnings_.push_back(make(place, subject, sentence));
}

Findings::Finding Findings::make(Place place, std::string_view subject,
                                 std::string_view sentence) const {
  std::string text = text_of(place) + ": ";
  text.append(subject).append(": ").append(sentence);
  return {place, std::move(text)};
}

std::string Findings::text_of(Place place) const {
  return file_name_ + ":" + std::to_string(place.line) + ":" + std::to_string(place.column);
}

std::vector<std::string> Findings::take(std::vector<Finding>& findings) {
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return std::pair(a.place.line, a.place.column) < std::pair(b.place.line, b.place.column);
  });
  std::vector<std::string> texts;
  for (Finding& finding : findings) texts.push_back(std::move(finding.text));
  findings.clear();
  return texts;
}

}  // namespace helios
