// Memory that goes back to the kernel while its addresses are kept.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>

#include "helios/base/assert.h"

namespace helios {

// What our blocks are made of. Where the kernel's pages are larger, nothing is given back.
constexpr size_t page_size = 4096;

// The pages of anonymous memory are given back; when touched again they are there anew, zeroed.
// Requires: whole pages.
inline void release_pages(void* memory, size_t size) noexcept {
  ASSERT(size % page_size == 0);
  if (static_cast<size_t>(sysconf(_SC_PAGESIZE)) != page_size) return;
  const int error = madvise(memory, size, MADV_DONTNEED);
  ASSERT(error == 0);
}

}  // namespace helios
