#include "helios/runtime/buffer_ring.h"

#include <doctest/doctest.h>
#include <liburing.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "helios/base/assert.h"
#include "helios/base/pages.h"

namespace helios {
namespace {

// A buffer group on a plain io_uring. Completions are made by hand: what the kernel fills is the
// ring's test.
struct Scene {
  explicit Scene(uint32_t count, uint32_t size = 64) {
    REQUIRE(io_uring_queue_init(4, &ring, 0) == 0);
    auto made = BufferRing::create(ring, {3, count, size});
    REQUIRE(made.ok());
    buffers = std::move(made).value();
  }
  ~Scene() { io_uring_queue_exit(&ring); }

  io_uring ring{};
  std::unique_ptr<BufferRing> buffers;
};

TEST_CASE("at first every buffer is the kernel's") {
  Scene scene(8);
  CHECK(scene.buffers->count() == 8);
  CHECK(scene.buffers->group_id() == 3);
  CHECK(scene.buffers->available_count() == 8);
  CHECK(scene.buffers->lent_count() == 0);
}

TEST_CASE("a lent buffer is counted until its last reference is gone") {
  Scene scene(2);
  const ByteSpan data = scene.buffers->lend(1, 10);
  CHECK(data.size() == 10);
  CHECK(scene.buffers->lent_count() == 1);
  CHECK(scene.buffers->available_count() == 1);
  scene.buffers->keep(1);
  scene.buffers->keep(1);
  scene.buffers->release(1);
  scene.buffers->release(1);
  CHECK(scene.buffers->lent_count() == 1);
  scene.buffers->release(1);
  CHECK(scene.buffers->lent_count() == 0);
  CHECK(scene.buffers->available_count() == 2);
}

TEST_CASE("buffers do not overlap and each has its whole size") {
  Scene scene(4, 100);
  ByteSpan data[4];
  for (uint16_t i = 0; i < 4; ++i) data[i] = scene.buffers->lend(i, 100);
  for (int i = 1; i < 4; ++i) CHECK(data[i].data() == data[i - 1].data() + 100);
  for (uint16_t i = 0; i < 4; ++i) scene.buffers->release(i);
}

// The kernel's part is played by real receives: what is given back must come out again.
class Receiver {
 public:
  explicit Receiver(Scene& scene) : scene_(scene) {
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds_) == 0);
  }
  ~Receiver() {
    close(fds_[0]);
    close(fds_[1]);
  }
  // The buffer that the kernel chose, or -ENOBUFS.
  int receive() {
    REQUIRE(write(fds_[1], "x", 1) == 1);
    io_uring_sqe* sqe = io_uring_get_sqe(&scene_.ring);
    io_uring_prep_recv(sqe, fds_[0], nullptr, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 3;
    REQUIRE(io_uring_submit_and_wait(&scene_.ring, 1) == 1);
    io_uring_cqe* cqe = nullptr;
    REQUIRE(io_uring_peek_cqe(&scene_.ring, &cqe) == 0);
    const int res = cqe->res;
    const auto index = static_cast<uint16_t>(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    io_uring_cqe_seen(&scene_.ring, cqe);
    if (res < 0) {
      char unread = 0;
      REQUIRE(read(fds_[0], &unread, 1) == 1);
      return res;
    }
    data = scene_.buffers->lend(index, static_cast<uint32_t>(res));
    CHECK(as_text(data) == "x");
    return index;
  }

  ByteSpan data;  // What came last.

 private:
  Scene& scene_;
  int fds_[2];
};

TEST_CASE("the kernel gets the buffers that were released, the last one first, once published") {
  Scene scene(4, 64);
  Receiver receiver(scene);
  for (int i = 0; i < 4; ++i) CHECK(receiver.receive() == i);
  CHECK(receiver.receive() == -ENOBUFS);
  // Enough rounds for the 16-bit tail to come round.
  for (int i = 0; i < 16'500; ++i) {
    for (const int index : {2, 0, 3, 1}) scene.buffers->release(static_cast<uint16_t>(index));
    if (i == 0) CHECK(receiver.receive() == -ENOBUFS);
    scene.buffers->publish();
    for (const int index : {1, 3, 0, 2}) REQUIRE(receiver.receive() == index);
  }
  for (uint16_t i = 0; i < 4; ++i) scene.buffers->release(i);
}

TEST_CASE("the kernel has few of many buffers, so that the same ones are used again") {
  Scene scene(1024, 32 * 1024);
  CHECK(scene.buffers->published_min() == 8);
  Receiver receiver(scene);
  for (int i = 0; i < 5000; ++i) {
    const int index = receiver.receive();
    REQUIRE(index >= 0);
    REQUIRE(index < static_cast<int>(scene.buffers->published_min()));
    scene.buffers->release(static_cast<uint16_t>(index));
    scene.buffers->publish();
  }
}

TEST_CASE("a receive that finds none makes the kernel get more, and a quiet time fewer again") {
  Scene scene(256, 8 * 1024);
  CHECK(scene.buffers->published_min() == 32);
  Receiver receiver(scene);
  std::vector<uint16_t> lent;
  for (int i = 0; i < 100; ++i) {
    int index = receiver.receive();
    if (index == -ENOBUFS) {
      scene.buffers->on_starved(1);
      scene.buffers->publish();
      index = receiver.receive();
    }
    REQUIRE(index >= 0);
    lent.push_back(static_cast<uint16_t>(index));
  }
  CHECK(scene.buffers->published_target() == 128);
  for (const uint16_t index : lent) scene.buffers->release(index);
  for (uint32_t i = 0; i < 4 * BufferRing::review_interval; ++i) scene.buffers->publish();
  CHECK(scene.buffers->published_target() == scene.buffers->published_min());
  // All of them can be had even so.
  scene.buffers->on_starved(1);
  scene.buffers->publish();
  CHECK(scene.buffers->published_target() == 2 * scene.buffers->published_min());
}

TEST_CASE("a few large messages that find none do not make the kernel get more") {
  Scene scene(256, 128 * 1024);
  CHECK(scene.buffers->published_min() == BufferRing::published_count_min);
  const auto take_all = [&](uint32_t size, size_t starved_count) {
    for (uint16_t i = 0; i < BufferRing::published_count_min; ++i)
      (void)scene.buffers->lend(i, size);
    scene.buffers->on_starved(starved_count);
    for (uint16_t i = BufferRing::published_count_min; i > 0; --i)
      scene.buffers->release(static_cast<uint16_t>(i - 1));
    scene.buffers->publish();
  };
  take_all(100'000, BufferRing::published_count_min);
  CHECK(scene.buffers->published_target() == BufferRing::published_count_min);
  SUBCASE("many do, whatever keeps them waiting") {
    take_all(100'000, BufferRing::published_count_min + 1);
  }
  SUBCASE("small ones do") {
    take_all(1000, 1);
  }
  CHECK(scene.buffers->published_target() == 2 * BufferRing::published_count_min);
}

// Pages that are there. Requires: `memory` is a page's address.
size_t resident_count(const uint8_t* memory, size_t size) {
  std::vector<unsigned char> found(size / page_size);
  REQUIRE(mincore(const_cast<uint8_t*>(memory), size, found.data()) == 0);
  return static_cast<size_t>(
      std::count_if(found.begin(), found.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

TEST_CASE("buffers that are not used give their memory back, and serve again") {
  constexpr uint32_t size = 2 * page_size;
  Scene scene(64, size);
  Receiver receiver(scene);
  std::vector<uint16_t> lent;
  for (int i = 0; i < 32; ++i) lent.push_back(static_cast<uint16_t>(receiver.receive()));
  const uint8_t* memory = receiver.data.data() - lent.back() * size;
  CHECK(resident_count(memory, 64 * size) == 32);
  for (const uint16_t index : lent) scene.buffers->release(index);
  scene.buffers->trim();  // They were used since the last time.
  CHECK(resident_count(memory, 64 * size) == 32);
  scene.buffers->trim();
  CHECK(resident_count(memory, 64 * size) == 0);
  scene.buffers->publish();
  for (int i = 0; i < 32; ++i) CHECK(receiver.receive() >= 0);
  CHECK(resident_count(memory, 64 * size) == 32);
}

TEST_CASE("a group that is taken is refused with a text that names the call") {
  Scene scene(2);
  auto again = BufferRing::create(scene.ring, {3, 2, 64});
  REQUIRE_FALSE(again.ok());
  CHECK(again.error().find("io_uring_register(PBUF_RING)") != std::string::npos);
  CHECK(again.error().find("EEXIST") != std::string::npos);
}

}  // namespace
}  // namespace helios
