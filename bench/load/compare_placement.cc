#include "load/compare_placement.h"

#include <algorithm>
#include <array>

#include "helios/base/assert.h"
#include "helios/config/nearest.h"

namespace helios::bench {

std::string read_place(std::string_view text, Place& place) {
  constexpr std::array<std::string_view, 3> names = {"one", "two", "free"};
  for (size_t i = 0; i < names.size(); ++i) {
    if (names.at(i) != text) continue;
    place = static_cast<Place>(i);
    return {};
  }
  return "\"" + std::string(text) + "\" is no placement" + suggestion(text, names);
}

Result<Placement> make_placement(Place place, const std::vector<int>& cpus) {
  ASSERT(!cpus.empty());
  Placement placement;
  placement.place = place;
  if (place == Place::free) return placement;
  // Interrupts tend to go to the first CPU.
  placement.pooler_cpus = {cpus.back()};
  placement.load_cpus = {place == Place::one ? cpus.back() : cpus.front()};
  placement.batch_policy = place == Place::one;
  if (place == Place::two && cpus.size() < 2)
    return Error{"--place two needs two CPUs, and this process may use one only: use --place one"};
  return placement;
}

void give_load_cores(Placement& placement, uint32_t pooler_cores_max) {
  if (placement.place == Place::free) placement.load_cores = std::max(pooler_cores_max, 1U);
}

std::string placement_text(const Placement& placement) {
  switch (placement.place) {
    case Place::one:
      return "pooler, load and server on one CPU (number " +
             std::to_string(placement.pooler_cpus.front()) + "), all SCHED_BATCH";
    case Place::two:
      return "the pooler alone on CPU " + std::to_string(placement.pooler_cpus.front()) +
             ", load and server on CPU " + std::to_string(placement.load_cpus.front()) +
             ", SCHED_OTHER";
    case Place::free:
      return "nothing pinned, SCHED_OTHER (heliosproxy pins its own threads)";
  }
  return {};
}

}  // namespace helios::bench
