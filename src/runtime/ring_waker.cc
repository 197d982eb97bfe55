#include "helios/runtime/ring_waker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "helios/base/assert.h"

namespace helios {

WakeTable::WakeTable(CoreId cores_count) : entries_(new Entry[cores_count]), count_(cores_count) {
  for (CoreId i = 0; i < count_; ++i) {
    entries_[i].event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (entries_[i].event_fd < 0) ok_ = false;
  }
}

WakeTable::~WakeTable() {
  for (CoreId i = 0; i < count_; ++i)
    if (entries_[i].event_fd >= 0) close(entries_[i].event_fd);
}

void WakeTable::wake_by_event(CoreId core) noexcept {
  const uint64_t one = 1;
  // The only failure is a counter at its limit, and then the core has a wake-up coming already.
  [[maybe_unused]] const ssize_t written = write(event_fd(core), &one, sizeof(one));
}

int WakeTable::ring_fd(CoreId core) const noexcept {
  ASSERT(core < count_);
  return entries_[core].ring_fd.load(std::memory_order_acquire);
}

void WakeTable::set_ring_fd(CoreId core, int fd) noexcept {
  ASSERT(core < count_);
  entries_[core].ring_fd.store(fd, std::memory_order_release);
}

int WakeTable::event_fd(CoreId core) const noexcept {
  ASSERT(core < count_);
  return entries_[core].event_fd;
}

}  // namespace helios
