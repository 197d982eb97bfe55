#include "base/bounded_write.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace helios {
namespace {

enum class Room { yes, no, unknown };

Room wait_for_room(int fd, Nanoseconds timeout) noexcept {
  pollfd entry{fd, POLLOUT, 0};
  const int wait_ms = static_cast<int>(std::clamp<Nanoseconds>(timeout / 1'000'000, 0, 60'000));
  const int count = poll(&entry, 1, wait_ms);
  if (count < 0) return Room::unknown;
  // An error or a hang-up lets the write come, which then says what is wrong.
  return count > 0 ? Room::yes : Room::no;
}

}  // namespace

WriteOutcome write_bounded(int fd, std::string_view& text, Nanoseconds timeout) noexcept {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + timeout;
  while (!text.empty()) {
    const Room room = wait_for_room(fd, deadline - clock.now());
    if (room == Room::yes) {
      const ssize_t written = write(fd, text.data(), std::min(text.size(), write_piece_max));
      if (written > 0) {
        text.remove_prefix(static_cast<size_t>(written));
        continue;
      }
      if (written < 0 && errno != EAGAIN && errno != EINTR) return WriteOutcome::failed;
    }
    if (clock.now() >= deadline) return WriteOutcome::timed_out;
  }
  return WriteOutcome::done;
}

}  // namespace helios
