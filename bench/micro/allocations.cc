#include "bench/micro/allocations.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace helios::bench {
namespace {

thread_local uint64_t count = 0;

void* allocate_aligned(size_t size, std::align_val_t alignment) {
  ++count;
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<size_t>(alignment), size) != 0) std::abort();
  return memory;
}

}  // namespace

uint64_t allocations_count() noexcept {
  return count;
}

}  // namespace helios::bench

// The names are the linker's.
extern "C" {
void* __real_malloc(size_t size);
void* __real_calloc(size_t items_count, size_t size);
void* __real_realloc(void* memory, size_t size);

void* __wrap_malloc(size_t size) {
  ++helios::bench::count;
  return __real_malloc(size);
}
void* __wrap_calloc(size_t items_count, size_t size) {
  ++helios::bench::count;
  return __real_calloc(items_count, size);
}
void* __wrap_realloc(void* memory, size_t size) {
  ++helios::bench::count;
  return __real_realloc(memory, size);
}
}

// The array and nothrow forms of the library call these.
void* operator new(size_t size) {
  void* memory = std::malloc(size);  // Counted as such.
  if (memory == nullptr) std::abort();
  return memory;
}
void* operator new(size_t size, std::align_val_t alignment) {
  return helios::bench::allocate_aligned(size, alignment);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
