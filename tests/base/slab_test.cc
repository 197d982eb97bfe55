#include "helios/base/slab.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <unordered_map>
#include <vector>

namespace helios {
namespace {

struct Counted {
  explicit Counted(int counted_value, int* counter) : value(counted_value), alive(counter) {
    ++*alive;
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*alive; }
  int value;
  int* alive;
};

struct alignas(64) Wide {
  char byte = 0;
};

}  // namespace

TEST_CASE("a slab that is full makes nothing until an object is freed") {
  int alive = 0;
  Slab<Counted> slab(2);
  Counted* one = slab.make(1, &alive);
  Counted* two = slab.make(2, &alive);
  CHECK(slab.full());
  CHECK(slab.make(3, &alive) == nullptr);
  CHECK(alive == 2);
  slab.free(one);
  CHECK(alive == 1);
  CHECK_FALSE(slab.full());
  Counted* three = slab.make(3, &alive);
  REQUIRE(three != nullptr);
  CHECK(three->value == 3);
  slab.free(two);
  slab.free(three);
  CHECK(slab.used_count() == 0);
  CHECK(alive == 0);
}

TEST_CASE("an id finds its object and nothing else after the slot was used again") {
  int alive = 0;
  Slab<Counted> slab(4);
  Counted* first = slab.make(1, &alive);
  const SlabId id = slab.id_of(first);
  CHECK(slab.find(id) == first);
  slab.free(first);
  CHECK(slab.find(id) == nullptr);
  CHECK(slab.at(id.index) == nullptr);
  Counted* second = slab.make(2, &alive);
  CHECK(slab.id_of(second).index == id.index);
  CHECK(slab.find(id) == nullptr);
  CHECK(slab.at(id.index) == second);
  CHECK_FALSE(slab.id_of(second) == id);
  slab.free(second);
}

TEST_CASE("an id that was never given out finds nothing") {
  Slab<int> slab(4);
  CHECK(slab.find(SlabId{}) == nullptr);
  CHECK(slab.find(SlabId{0, 0}) == nullptr);
  CHECK(slab.find(SlabId{4, 0}) == nullptr);
  CHECK(slab.at(3) == nullptr);
}

TEST_CASE("the slot freed last is used first") {
  Slab<int> slab(8);
  std::vector<int*> objects;
  for (int i = 0; i < 4; ++i) objects.push_back(slab.make(i));
  const uint32_t early = slab.id_of(objects[0]).index;
  const uint32_t late = slab.id_of(objects[2]).index;
  slab.free(objects[0]);
  slab.free(objects[2]);
  int* next = slab.make(10);
  int* after_next = slab.make(11);
  CHECK(slab.id_of(next).index == late);
  CHECK(slab.id_of(after_next).index == early);
  for (int* object : {next, after_next, objects[1], objects[3]}) slab.free(object);
}

TEST_CASE("objects are aligned as their type asks") {
  Slab<Wide> slab(3);
  std::vector<Wide*> objects;
  for (int i = 0; i < 3; ++i) objects.push_back(slab.make());
  for (Wide* object : objects) {
    CHECK(reinterpret_cast<uintptr_t>(object) % 64 == 0);
    slab.free(object);
  }
}

TEST_CASE("a visit may free the object that it is given") {
  Slab<int> slab(8);
  for (int i = 0; i < 6; ++i) REQUIRE(slab.make(i) != nullptr);
  std::vector<int> seen;
  slab.for_each([&](int& value) {
    seen.push_back(value);
    if (value % 2 == 0) slab.free(&value);
  });
  CHECK(seen == std::vector<int>{0, 1, 2, 3, 4, 5});
  CHECK(slab.used_count() == 3);
  slab.for_each([&](int& value) { slab.free(&value); });
  CHECK(slab.used_count() == 0);
}

// Pages of the range that are in memory.
size_t resident_pages(const void* from, const void* to) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(from) / 4096 * 4096;
  const size_t count = (reinterpret_cast<uintptr_t>(to) - begin) / 4096 + 1;
  std::vector<unsigned char> pages(count);
  REQUIRE(mincore(reinterpret_cast<void*>(begin), count * 4096, pages.data()) == 0);
  return static_cast<size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return page & 1; }));
}

TEST_CASE("a slab that was full gives its pages back, and new objects stay close together") {
  struct Large {
    explicit Large(int n) : number(n) {}
    int number;
    char rest[496];
  };
  constexpr int count = 5000;
  Slab<Large> slab(count);
  std::vector<Large*> objects;
  for (int i = 0; i < count; ++i) objects.push_back(slab.make(i));
  const Large* first = objects.front();
  const Large* last = objects.back();
  CHECK(resident_pages(first, last) > count / 9);
  std::vector<SlabId> ids;
  for (Large* object : objects) ids.push_back(slab.id_of(object));
  // All but one of a hundred leave, in no order.
  std::mt19937 random(3);
  std::shuffle(objects.begin(), objects.end(), random);
  for (size_t i = 50; i < objects.size(); ++i) slab.free(objects[i]);
  CHECK(resident_pages(first, last) < count / 9 * 7 / 10);
  for (size_t i = 0; i < 50; ++i) slab.free(objects[i]);
  CHECK(resident_pages(first, last) <= 8);
  // Nobody of a former life is found again, whatever became of the page.
  objects.clear();
  for (int i = 0; i < count; ++i) objects.push_back(slab.make(i));
  for (const SlabId id : ids) CHECK(slab.find(id) == nullptr);
  for (Large* object : objects) slab.free(object);
  // A few are where the first ones were.
  Large* next = slab.make(1);
  CHECK(slab.id_of(next).index < 32);
  slab.free(next);
}

TEST_CASE("a random history of a slab agrees with a map of living ids") {
  std::mt19937 random(7);
  int alive = 0;
  // Large, so that it is a slab of many blocks.
  struct Padded : Counted {
    using Counted::Counted;
    char rest[3000];
  };
  Slab<Padded> slab(32);
  std::vector<std::pair<SlabId, int>> living;
  std::vector<SlabId> dead;
  for (int step = 0; step < 20'000; ++step) {
    // It fills and empties again and again.
    if (random() % 8 < (step / 100 % 2 == 0 ? 6U : 2U)) {
      Padded* object = slab.make(step, &alive);
      REQUIRE((object == nullptr) == (living.size() == 32));
      if (object != nullptr) living.emplace_back(slab.id_of(object), step);
    } else if (!living.empty()) {
      const size_t victim = random() % living.size();
      Padded* object = slab.find(living[victim].first);
      REQUIRE(object != nullptr);
      REQUIRE(object->value == living[victim].second);
      slab.free(object);
      dead.push_back(living[victim].first);
      living[victim] = living.back();
      living.pop_back();
    }
    REQUIRE(alive == static_cast<int>(living.size()));
    if (!dead.empty()) REQUIRE(slab.find(dead[random() % dead.size()]) == nullptr);
  }
  for (const auto& [id, value] : living) slab.free(slab.find(id));
}

}  // namespace helios
