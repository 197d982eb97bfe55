#include "helios/base/intrusive_list.h"

#include <doctest/doctest.h>

#include <vector>

namespace helios {
namespace {

struct OldTag;
struct NewTag;
struct Item : ListNode<OldTag>, ListNode<NewTag> {
  explicit Item(int item_number) : number(item_number) {}
  int number;
};
using OldList = IntrusiveList<Item, OldTag>;
using NewList = IntrusiveList<Item, NewTag>;

template <typename List>
std::vector<int> numbers_of(List& list) {
  std::vector<int> numbers;
  for (Item* item = list.front(); item != nullptr; item = list.next(*item))
    numbers.push_back(item->number);
  return numbers;
}

}  // namespace

TEST_CASE("a list keeps the order of its pushes at both ends") {
  Item one(1), two(2), three(3);
  OldList list;
  CHECK(list.empty());
  CHECK(list.front() == nullptr);
  CHECK(list.back() == nullptr);
  list.push_back(two);
  list.push_back(three);
  list.push_front(one);
  CHECK(numbers_of(list) == std::vector<int>{1, 2, 3});
  CHECK(list.back() == &three);
  CHECK(list.size() == 3);
  CHECK(list.pop_back() == &three);
  CHECK(list.pop_front() == &one);
  CHECK(list.pop_front() == &two);
  CHECK(list.pop_front() == nullptr);
  CHECK(list.pop_back() == nullptr);
  CHECK(list.size() == 0);
}

TEST_CASE("an item removed from the middle leaves its neighbours linked and can come back") {
  Item one(1), two(2), three(3);
  OldList list;
  for (Item* item : {&one, &two, &three}) list.push_back(*item);
  list.remove(two);
  CHECK_FALSE(static_cast<ListNode<OldTag>&>(two).is_linked());
  CHECK(numbers_of(list) == std::vector<int>{1, 3});
  list.push_front(two);
  CHECK(numbers_of(list) == std::vector<int>{2, 1, 3});
  while (list.pop_front() != nullptr) {
  }
  CHECK(list.empty());
}

TEST_CASE("an item is in a list of each tag independently") {
  Item one(1), two(2);
  OldList old_list;
  NewList new_list;
  for (Item* item : {&one, &two}) old_list.push_back(*item);
  for (Item* item : {&two, &one}) new_list.push_back(*item);
  old_list.remove(one);
  CHECK(numbers_of(old_list) == std::vector<int>{2});
  CHECK(numbers_of(new_list) == std::vector<int>{2, 1});
  old_list.remove(two);
  new_list.remove(one);
  new_list.remove(two);
  CHECK(new_list.empty());
}

}  // namespace helios
