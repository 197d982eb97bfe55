#include "server/call_counter.h"

#include <atomic>

#include "helios/base/assert.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HELIOS_ALLOCATOR_HOOKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HELIOS_ALLOCATOR_HOOKS 1
#endif
#endif

#ifdef HELIOS_ALLOCATOR_HOOKS
#include <cstddef>
// Of sanitizer/allocator_interface.h, which GCC does not bring.
extern "C" int __sanitizer_install_malloc_and_free_hooks(
    void (*on_malloc)(const volatile void* block, size_t size),
    void (*on_free)(const volatile void* block));
#else
#include <dlfcn.h>
#include <pthread.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#endif

namespace {

// Relaxed: a test reads them when the answers to its queries are there, and asks for equality only.
std::atomic<uint64_t> allocations_count{0};
std::atomic<uint64_t> locks_count{0};
std::atomic<uint64_t> wall_clock_reads_count{0};
std::atomic<int64_t> wall_clock_ahead_seconds{0};

void note(std::atomic<uint64_t>& count) noexcept {
  if (helios::current_core() >= 0) count.fetch_add(1, std::memory_order_relaxed);
}

void note_allocation() noexcept {
  note(allocations_count);
}

}  // namespace

namespace helios::test {

CoreCalls core_calls() noexcept {
  return {allocations_count.load(std::memory_order_relaxed),
          locks_count.load(std::memory_order_relaxed),
          wall_clock_reads_count.load(std::memory_order_relaxed)};
}

CoreCalls core_calls_since(const CoreCalls& before) noexcept {
  const CoreCalls now = core_calls();
  return {now.allocations - before.allocations, now.locks - before.locks,
          now.wall_clock_reads - before.wall_clock_reads};
}

void move_wall_clock(int64_t seconds) noexcept {
  ASSERT(counts_everything());
  wall_clock_ahead_seconds.fetch_add(seconds, std::memory_order_relaxed);
}

}  // namespace helios::test

#ifdef HELIOS_ALLOCATOR_HOOKS

namespace {

void on_malloc(const volatile void*, size_t) {
  note_allocation();
}
void on_free(const volatile void*) {}

[[maybe_unused]] const int hooks_installed =
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);

}  // namespace

bool helios::test::counts_everything() noexcept {
  return false;
}

#else

bool helios::test::counts_everything() noexcept {
  return true;
}

// operator new of the C++ library ends in these as well.
extern "C" {

void* __libc_malloc(size_t size) noexcept;
void* __libc_calloc(size_t count, size_t size) noexcept;
void* __libc_realloc(void* block, size_t size) noexcept;
void* __libc_memalign(size_t alignment, size_t size) noexcept;

void* malloc(size_t size) noexcept {
  note_allocation();
  return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) noexcept {
  note_allocation();
  return __libc_calloc(count, size);
}

void* realloc(void* block, size_t size) noexcept {
  note_allocation();
  return __libc_realloc(block, size);
}

void* reallocarray(void* block, size_t count, size_t size) noexcept {
  size_t total = 0;
  if (__builtin_mul_overflow(count, size, &total)) {
    errno = ENOMEM;
    return nullptr;
  }
  return realloc(block, total);
}

void* memalign(size_t alignment, size_t size) noexcept {
  note_allocation();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) noexcept {
  return memalign(alignment, size);
}

int posix_memalign(void** block, size_t alignment, size_t size) noexcept {
  void* made = memalign(alignment, size);
  if (made == nullptr) return ENOMEM;
  *block = made;
  return 0;
}

}  // extern "C"

namespace {

// The C library's own function behind one that is defined here. Looked up at the first call, which
// may come before any constructor has run.
template <typename Function>
Function* find_own(std::atomic<Function*>& known, const char* name) noexcept {
  Function* found = known.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
    known.store(found, std::memory_order_relaxed);
  }
  return found;
}

using MutexFunction = int(pthread_mutex_t*);
using RwlockFunction = int(pthread_rwlock_t*);
using SpinFunction = int(pthread_spinlock_t*);
using WaitFunction = int(pthread_cond_t*, pthread_mutex_t*);
using ClockFunction = int(clockid_t, timespec*);
using DayFunction = int(timeval*, void*);
using TimeFunction = time_t(time_t*);

std::atomic<MutexFunction*> own_mutex_lock{nullptr};
std::atomic<MutexFunction*> own_mutex_trylock{nullptr};
std::atomic<RwlockFunction*> own_rwlock_rdlock{nullptr};
std::atomic<RwlockFunction*> own_rwlock_wrlock{nullptr};
std::atomic<SpinFunction*> own_spin_lock{nullptr};
std::atomic<WaitFunction*> own_cond_wait{nullptr};
std::atomic<ClockFunction*> own_clock_gettime{nullptr};
std::atomic<DayFunction*> own_gettimeofday{nullptr};
std::atomic<TimeFunction*> own_time{nullptr};

}  // namespace

extern "C" {

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  note(locks_count);
  return find_own(own_mutex_lock, "pthread_mutex_lock")(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  note(locks_count);
  return find_own(own_mutex_trylock, "pthread_mutex_trylock")(mutex);
}

int pthread_rwlock_rdlock(pthread_rwlock_t* lock) noexcept {
  note(locks_count);
  return find_own(own_rwlock_rdlock, "pthread_rwlock_rdlock")(lock);
}

int pthread_rwlock_wrlock(pthread_rwlock_t* lock) noexcept {
  note(locks_count);
  return find_own(own_rwlock_wrlock, "pthread_rwlock_wrlock")(lock);
}

int pthread_spin_lock(pthread_spinlock_t* lock) noexcept {
  note(locks_count);
  return find_own(own_spin_lock, "pthread_spin_lock")(lock);
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  note(locks_count);
  return find_own(own_cond_wait, "pthread_cond_wait")(condition, mutex);
}

int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const int result = find_own(own_clock_gettime, "clock_gettime")(clock, now);
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return result;
  note(wall_clock_reads_count);
  if (result == 0) now->tv_sec += wall_clock_ahead_seconds.load(std::memory_order_relaxed);
  return result;
}

int gettimeofday(timeval* now, void* zone) noexcept {
  note(wall_clock_reads_count);
  const int result = find_own(own_gettimeofday, "gettimeofday")(now, zone);
  if (result == 0) now->tv_sec += wall_clock_ahead_seconds.load(std::memory_order_relaxed);
  return result;
}

time_t time(time_t* now) noexcept {
  note(wall_clock_reads_count);
  const time_t shown = find_own(own_time, "time")(nullptr) +
                       wall_clock_ahead_seconds.load(std::memory_order_relaxed);
  if (now != nullptr) *now = shown;
  return shown;
}

}  // extern "C"

#endif
