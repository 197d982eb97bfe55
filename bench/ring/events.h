// Edge-triggered events of many sockets.
//
// For one thread. A handler that takes less from a socket than there is hears of the rest only
// when more comes.
#pragma once

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>

namespace helios::bench {

class Events {
 public:
  Events() noexcept : fd_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~Events() { close(fd_); }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // False when the kernel refuses.
  [[nodiscard]] bool add(int fd, uint32_t number) noexcept {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.u32 = number;
    return epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) == 0;
  }
  // The numbers of sockets to look at; empty when none was ready for `timeout_ms`.
  [[nodiscard]] std::span<const epoll_event> wait(int timeout_ms) noexcept {
    int count = 0;
    do {
      count = epoll_wait(fd_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
    } while (count < 0 && errno == EINTR);
    return {events_.data(), static_cast<size_t>(count < 0 ? 0 : count)};
  }

 private:
  int fd_;
  std::array<epoll_event, 1024> events_{};
};

}  // namespace helios::bench
