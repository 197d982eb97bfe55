// A doubly linked list whose links live in its elements: no allocation, O(1) removal.
//
// An element derives from ListNode<Tag> once for each list it can be in (the tag tells them apart).
// The list owns nothing. One core's data: never shared between threads. Invariant: a node is in at
// most one list of its tag; it is not in a list when it is destroyed.
#pragma once

#include <cstddef>

#include "helios/base/assert.h"

namespace helios {

template <typename Tag>
class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { ASSERT(!is_linked()); }

  [[nodiscard]] bool is_linked() const noexcept { return next_ != nullptr; }

 private:
  template <typename T, typename OtherTag>
  friend class IntrusiveList;
  ListNode* next_ = nullptr;
  ListNode* previous_ = nullptr;
};

template <typename T, typename Tag>
class IntrusiveList {
  using Node = ListNode<Tag>;

 public:
  IntrusiveList() noexcept { head_.next_ = head_.previous_ = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    ASSERT(empty());
    head_.next_ = head_.previous_ = nullptr;
  }

  [[nodiscard]] bool empty() const noexcept { return head_.next_ == &head_; }
  [[nodiscard]] size_t size() const noexcept { return count_; }

  // The first or last element; nullptr when empty.
  [[nodiscard]] T* front() noexcept { return empty() ? nullptr : element(head_.next_); }
  [[nodiscard]] T* back() noexcept { return empty() ? nullptr : element(head_.previous_); }
  // The element behind `item`; nullptr at the end.
  [[nodiscard]] T* next(T& item) noexcept {
    Node* node = static_cast<Node&>(item).next_;
    return node == &head_ ? nullptr : element(node);
  }

  // The element before `item`; nullptr at the beginning.
  [[nodiscard]] T* previous(T& item) noexcept {
    Node* node = static_cast<Node&>(item).previous_;
    return node == &head_ ? nullptr : element(node);
  }

  // Behind `place`, which is in this list; nullptr: at the beginning.
  void insert_behind(T* place, T& item) noexcept {
    insert_before(place == nullptr ? *head_.next_ : *static_cast<Node&>(*place).next_, item);
  }
  void push_back(T& item) noexcept { insert_before(head_, item); }
  void push_front(T& item) noexcept { insert_before(*head_.next_, item); }

  T* pop_front() noexcept {
    T* item = front();
    if (item != nullptr) remove(*item);
    return item;
  }
  T* pop_back() noexcept {
    T* item = back();
    if (item != nullptr) remove(*item);
    return item;
  }

  // Requires: `item` is in this list.
  void remove(T& item) noexcept {
    Node& node = item;
    ASSERT(node.is_linked());
    ASSERT(count_ > 0);
    node.previous_->next_ = node.next_;
    node.next_->previous_ = node.previous_;
    node.next_ = node.previous_ = nullptr;
    --count_;
  }

 private:
  static T* element(Node* node) noexcept { return static_cast<T*>(node); }
  void insert_before(Node& place, T& item) noexcept {
    Node& node = item;
    ASSERT(!node.is_linked());
    node.next_ = &place;
    node.previous_ = place.previous_;
    place.previous_->next_ = &node;
    place.previous_ = &node;
    ++count_;
  }

  Node head_;
  size_t count_ = 0;
};

}  // namespace helios
