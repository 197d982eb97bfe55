// A queue of plain values from one thread to one other thread.
//
// The producer stages values and publishes them together; the consumer takes them in order. Neither
// ever waits. Nobody owns more than his side: stage, publish and the values' memory before they are
// published belong to the producer; take, release_taken and the memory of published values to the
// consumer. Invariant: 0 <= staged - head <= capacity, in wrapping arithmetic; each published value
// is taken once, in order.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace helios {

// Two cache lines: the adjacent-line prefetcher of x86 fetches them in pairs.
constexpr size_t cache_padding = 128;

template <typename T, uint32_t capacity>
class SpscRing {
  static_assert(capacity > 0);
  static_assert((capacity & (capacity - 1)) == 0);
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  // The memory of the values is left untouched: a ring that is not used costs no page.
  SpscRing() noexcept {}
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Producer. Puts a value behind the others, invisible until `publish`. False when the ring is
  // full.
  [[nodiscard]] bool stage(const T& value) noexcept {
    if (staged_ - known_head_ == capacity) {
      // Acquire, partner of release_taken: the consumer has read what we overwrite.
      known_head_ = head_.load(std::memory_order_acquire);
      if (staged_ - known_head_ == capacity) return false;
    }
    std::memcpy(place_of(staged_), &value, sizeof(T));
    ++staged_;
    return true;
  }

  // Producer. Shows what was staged to the consumer; false when nothing was.
  bool publish() noexcept {
    // Our own word: nobody else writes it.
    if (tail_.load(std::memory_order_relaxed) == staged_) return false;
    // Sequentially consistent, which includes release: the producer loads the consumer's `sleeping`
    // word next, the consumer stores that word and loads this one next. One of the two must see the
    // other's store.
    tail_.store(staged_, std::memory_order_seq_cst);
    return true;
  }

  // Consumer. Takes the oldest published value; false when there is none. Its place can be used
  // again after release_taken.
  [[nodiscard]] bool take(T& value) noexcept {
    if (taken_ == known_tail_) {
      // Acquire, partner of publish: the values up to there are written.
      known_tail_ = tail_.load(std::memory_order_acquire);
      if (taken_ == known_tail_) return false;
    }
    std::memcpy(&value, place_of(taken_), sizeof(T));
    ++taken_;
    return true;
  }

  // Consumer. Gives the places of the taken values back to the producer.
  void release_taken() noexcept {
    // Relaxed: our own word. Release, partner of stage: what we read is read.
    if (head_.load(std::memory_order_relaxed) != taken_)
      head_.store(taken_, std::memory_order_release);
  }

  // Consumer. True when a value waits; for the check before a sleep (see publish).
  [[nodiscard]] bool has_values() const noexcept {
    return tail_.load(std::memory_order_seq_cst) != taken_;
  }

 private:
  unsigned char* place_of(uint32_t index) noexcept {
    return bytes_ + size_t{index & (capacity - 1)} * sizeof(T);
  }

  // Indices run freely and wrap. Each side's private words are apart from the word that it shows
  // the other side: staging must not take the line away from a consumer that polls.
  alignas(cache_padding) std::atomic<uint32_t> tail_{0};  // Producer writes, consumer reads.
  alignas(cache_padding) uint32_t staged_ = 0;            // Producer's.
  uint32_t known_head_ = 0;  // Producer's: the head when it last looked.
  alignas(cache_padding) std::atomic<uint32_t> head_{0};  // Consumer writes, producer reads.
  alignas(cache_padding) uint32_t taken_ = 0;             // Consumer's.
  uint32_t known_tail_ = 0;  // Consumer's: the tail when it last looked.
  alignas(cache_padding) unsigned char bytes_[sizeof(T) * capacity];
};

}  // namespace helios
