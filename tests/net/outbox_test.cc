#include "helios/net/outbox.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "tests/support/fake_io.h"

using namespace helios;

namespace {

// Lends buffers to a test: a target that keeps what it receives.
class Lender final : public IoTarget {
 public:
  explicit Lender(FakeIo& io) : io_(io), id_(io.attach(this)), fd_(io.make_fd()) {
    io_.start_recv(id_, fd_, BufferGroup::client, false);
  }
  ~Lender() {
    io_.start_cancel(id_, OpKind::recv);
    io_.complete_cancel(fd_, OpKind::recv);
    io_.detach(id_);
    io_.close_fd(fd_);
  }
  // The bytes in a lent buffer. The caller releases it.
  std::pair<ByteSpan, BufferRef> lend(const std::string& bytes) {
    io_.complete_recv(fd_, bytes);
    return {data_, buffer_};
  }
  void on_io(const IoEvent& event) noexcept override {
    if (event.res <= 0) return;
    io_.keep_buffer(event.buffer);
    data_ = event.data;
    buffer_ = event.buffer;
  }

 private:
  FakeIo& io_;
  TargetId id_;
  int fd_;
  ByteSpan data_;
  BufferRef buffer_;
};

std::string contents(const Outbox& outbox) {
  std::vector<iovec> parts(10'000);
  size_t count = outbox.gather(parts);
  std::string bytes;
  for (size_t i = 0; i < count; ++i)
    bytes.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  return bytes;
}

size_t pieces_count(const Outbox& outbox) {
  std::vector<iovec> parts(10'000);
  return outbox.gather(parts);
}

std::string random_bytes(SimRandom& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

struct Fixture {
  FakeIo io{16};
  ChunkPool chunks;
};

}  // namespace

TEST_CASE("small pieces share a chunk") {
  Fixture f;
  Outbox outbox(f.chunks, f.io);
  for (int i = 0; i < 100; ++i) outbox.append(as_bytes("0123456789"));
  CHECK(outbox.size() == 1000);
  CHECK(pieces_count(outbox) == 1);
  CHECK(f.chunks.lent_count() == 1);
}

TEST_CASE("an empty outbox holds no memory") {
  Fixture f;
  Outbox outbox(f.chunks, f.io);
  outbox.append(as_bytes(std::string(3 * chunk_size, 'x')));
  CHECK(f.chunks.lent_count() == 4);
  outbox.consume(outbox.size());
  CHECK(outbox.empty());
  CHECK(f.chunks.lent_count() == 0);
  CHECK(outbox.front().empty());
}

TEST_CASE("a large received piece is borrowed and released once") {
  Fixture f;
  Lender lender(f.io);
  Outbox outbox(f.chunks, f.io);
  std::string bytes(2000, 'q');
  auto [data, buffer] = lender.lend(bytes);
  outbox.append_received(data, buffer);
  f.io.release_buffer(buffer);
  CHECK(f.io.lent_count(BufferGroup::client) == 1);
  CHECK(f.chunks.borrowed_count[0] == 1);
  CHECK(outbox.front().data() == data.data());

  outbox.consume(1999);
  CHECK(f.io.lent_count(BufferGroup::client) == 1);
  outbox.consume(1);
  CHECK(f.io.lent_count(BufferGroup::client) == 0);
  CHECK(f.chunks.borrowed_count[0] == 0);
}

TEST_CASE("a small received piece is copied") {
  Fixture f;
  Lender lender(f.io);
  Outbox outbox(f.chunks, f.io);
  auto [data, buffer] = lender.lend(std::string(Outbox::copied_size_max - 1, 's'));
  outbox.append_received(data, buffer);
  f.io.release_buffer(buffer);
  CHECK(f.io.lent_count(BufferGroup::client) == 0);
  CHECK(contents(outbox) == std::string(Outbox::copied_size_max - 1, 's'));
}

TEST_CASE("neighbouring pieces of one buffer are one piece, small ones too") {
  Fixture f;
  Lender lender(f.io);
  Outbox outbox(f.chunks, f.io);
  std::string bytes = std::string(1500, 'a') + std::string(20, 'b') + std::string(2000, 'c');
  auto [data, buffer] = lender.lend(bytes);
  outbox.append_received(data.subspan(0, 1500), buffer);
  outbox.append_received(data.subspan(1500, 20), buffer);
  outbox.append_received(data.subspan(1520), buffer);
  f.io.release_buffer(buffer);
  CHECK(pieces_count(outbox) == 1);
  CHECK(contents(outbox) == bytes);
  outbox.clear();
  CHECK(f.io.lent_count(BufferGroup::client) == 0);
}

TEST_CASE("outboxes never borrow more than half of a group") {
  Fixture f;
  Lender lender(f.io);
  Outbox first(f.chunks, f.io);
  Outbox second(f.chunks, f.io);
  std::string expected;
  for (int i = 0; i < 40; ++i) {
    std::string bytes(2000, static_cast<char>('A' + i));
    auto [data, buffer] = lender.lend(bytes);
    Outbox& outbox = i % 2 == 0 ? first : second;
    outbox.append_received(data, buffer);
    f.io.release_buffer(buffer);
    if (i % 2 == 0) expected += bytes;
    CHECK(f.io.lent_count(BufferGroup::client) <= 8);
  }
  CHECK(f.io.lent_count(BufferGroup::client) == 8);
  CHECK(contents(first) == expected);
}

TEST_CASE("append_all moves the pieces without copying") {
  Fixture f;
  Outbox from(f.chunks, f.io);
  Outbox to(f.chunks, f.io);
  to.append_all(from);
  CHECK(to.empty());
  from.append(as_bytes("world"));
  const uint8_t* place = from.front().data();
  SUBCASE("into an empty outbox") {
    to.append_all(from);
    CHECK(to.front().data() == place);
    CHECK(contents(to) == "world");
  }
  SUBCASE("behind other bytes") {
    to.append(as_bytes("hello "));
    to.append_all(from);
    CHECK(contents(to) == "hello world");
  }
  CHECK(from.empty());
  // Both are usable afterwards.
  from.append(as_bytes("again"));
  to.append(as_bytes("!"));
  CHECK(contents(from) == "again");
  CHECK(contents(to).back() == '!');
}

TEST_CASE("a byte queue tells where its front lies, and gives its buffers back on request") {
  Fixture f;
  Lender lender(f.io);
  Outbox queue(f.chunks, f.io);
  SimRandom random(5);
  std::string expected = "small";
  queue.append(as_bytes(expected));
  CHECK(queue.front_buffer() == nullptr);
  queue.copy_borrowed();
  const std::string large = random_bytes(random, 3000);
  auto [data, buffer] = lender.lend(large);
  queue.append_received(data, buffer);
  f.io.release_buffer(buffer);
  queue.append(as_bytes("end"));
  expected += large + "end";
  queue.consume(5);
  REQUIRE(queue.front_buffer() != nullptr);
  CHECK(queue.front_buffer()->index == buffer.index);
  CHECK(f.io.lent_count(BufferGroup::client) == 1);
  queue.copy_borrowed();
  CHECK(queue.front_buffer() == nullptr);
  CHECK(f.io.lent_count(BufferGroup::client) == 0);
  CHECK(f.chunks.borrowed_count[0] == 0);
  CHECK(queue.size() == expected.size() - 5);
  CHECK((contents(queue) == expected.substr(5)));
}

TEST_CASE("the chunk pool keeps what is needed again and again, and frees the rest") {
  Fixture f;
  constexpr size_t needed_count = 2 * ChunkPool::kept_count;
  const auto need = [&] {
    std::vector<Chunk*> lent;
    for (size_t i = 0; i < needed_count; ++i) lent.push_back(f.chunks.take());
    for (Chunk* chunk : lent) f.chunks.give_back(chunk);
  };
  need();
  for (int i = 0; i < 3; ++i) {
    f.chunks.trim();
    CHECK(f.chunks.free_count() >= needed_count);
    need();
  }
  f.chunks.trim();  // Needed since the last time.
  CHECK(f.chunks.free_count() >= needed_count);
  f.chunks.trim();
  CHECK(f.chunks.free_count() == ChunkPool::kept_count);
  f.chunks.trim();
  CHECK(f.chunks.free_count() == ChunkPool::kept_count);
  CHECK(f.chunks.cold_count() == needed_count - ChunkPool::kept_count);
  need();  // The cold ones again, before new ones.
  CHECK(f.chunks.cold_count() == 0);
}

TEST_CASE("cold chunks hold no memory, and come back as good as new") {
  Fixture f;
  std::vector<Chunk*> lent;
  for (size_t i = 0; i < 3 * ChunkPool::region_chunks; ++i) {
    lent.push_back(f.chunks.take());
    std::fill_n(lent.back()->bytes(), chunk_capacity, uint8_t{1});
  }
  const std::vector<Chunk*> all = lent;
  const auto resident_count = [&] {
    size_t count = 0;
    for (Chunk* chunk : all) {
      unsigned char found = 0;
      REQUIRE(mincore(chunk, chunk_size, &found) == 0);
      count += found & 1;
    }
    return count;
  };
  SimRandom random(7);
  while (!lent.empty()) {  // In any order.
    std::swap(lent[random.below(lent.size())], lent.back());
    f.chunks.give_back(lent.back());
    lent.pop_back();
  }
  f.chunks.trim();
  CHECK(resident_count() == all.size());
  f.chunks.trim();
  CHECK(resident_count() == ChunkPool::kept_count);
  for (size_t i = 0; i < all.size(); ++i) {
    lent.push_back(f.chunks.take());
    std::fill_n(lent.back()->bytes(), chunk_capacity, uint8_t{2});
  }
  CHECK(f.chunks.lent_count() == all.size());
  CHECK(f.chunks.cold_count() == 0);
  CHECK(resident_count() == all.size());
  for (Chunk* chunk : lent) f.chunks.give_back(chunk);
}

TEST_CASE("an outbox equals a string of bytes under random work") {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    SimRandom random(seed);
    Fixture f;
    {
      Lender lender(f.io);
      Outbox outbox(f.chunks, f.io);
      std::string model;
      for (int step = 0; step < 200; ++step) {
        switch (random.below(5)) {
          case 0: {
            std::string bytes = random_bytes(random, random.below(100));
            outbox.append(as_bytes(bytes));
            model += bytes;
            break;
          }
          case 1: {
            std::string bytes = random_bytes(random, random.below(10'000));
            outbox.append(as_bytes(bytes));
            model += bytes;
            break;
          }
          case 2: {  // A received buffer, in several pieces with gaps.
            auto [data, buffer] = lender.lend(random_bytes(random, 1 + random.below(4096)));
            size_t at = 0;
            while (at < data.size()) {
              size_t size = 1 + random.below(data.size() - at);
              if (random.percent(70)) {
                outbox.append_received(data.subspan(at, size), buffer);
                model.append(as_text(data.subspan(at, size)));
              }
              at += size;
            }
            f.io.release_buffer(buffer);
            break;
          }
          case 3: {
            size_t count = random.below(outbox.size() + 1);
            outbox.consume(count);
            model.erase(0, count);
            break;
          }
          case 4: {  // As a byte queue.
            if (random.percent(10)) outbox.copy_borrowed();
            ByteSpan front = outbox.front();
            CHECK(std::equal(front.begin(), front.end(), as_bytes(model).begin()));
            outbox.consume(front.size());
            model.erase(0, front.size());
            break;
          }
        }
        CHECK(outbox.size() == model.size());
        CHECK(f.io.lent_count(BufferGroup::client) <= 8);
      }
      CHECK((contents(outbox) == model));
    }
    CHECK(f.chunks.lent_count() == 0);
    CHECK(f.chunks.borrowed_count[0] == 0);
    CHECK(f.io.lent_count(BufferGroup::client) == 0);
  }
}
