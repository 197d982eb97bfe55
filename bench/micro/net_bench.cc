// The bytes that wait for one socket.
#include <benchmark/benchmark.h>

#include <array>
#include <vector>

#include "bench/micro/meter.h"
#include "helios/net/outbox.h"

namespace helios::bench {
namespace {

// Lends one endless buffer; does no IO. An outbox only counts and releases buffers.
class LendingIo final : public Io {
 public:
  void keep_buffer(BufferRef) noexcept override {
    ++kept;
    ++keeps_count;
  }
  void release_buffer(BufferRef) noexcept override { --kept; }
  [[nodiscard]] uint32_t lent_count(BufferGroup) const noexcept override { return 1; }
  [[nodiscard]] uint32_t buffers_count(BufferGroup) const noexcept override { return 256; }
  void trim_buffers() noexcept override {}

  [[nodiscard]] TargetId attach(IoTarget*) noexcept override { return {}; }
  void detach(TargetId) noexcept override {}
  void start_accept(TargetId, int) noexcept override {}
  void start_recv(TargetId, int, BufferGroup, bool) noexcept override {}
  void start_send(TargetId, int, std::span<const iovec>, SendNotice) noexcept override {}
  void start_connect(TargetId, int, const sockaddr*, socklen_t) noexcept override {}
  void start_poll(TargetId, int) noexcept override {}
  void start_hangup_poll(TargetId, int) noexcept override {}
  void start_cancel(TargetId, OpKind) noexcept override {}
  [[nodiscard]] int open_socket(int) noexcept override { return -1; }
  void tune_socket(int, int) noexcept override {}
  void shutdown_write(int) noexcept override {}
  void close_fd(int) noexcept override {}

  int64_t kept = 0;
  uint64_t keeps_count = 0;
};

size_t size_of(std::span<const iovec> parts) {
  size_t size = 0;
  for (const iovec& part : parts) size += part.iov_len;
  return size;
}

// A small reply: copied, gathered for the send, consumed when it has ended.
void outbox_small(benchmark::State& state) {
  LendingIo io;
  ChunkPool chunks;
  Outbox outbox(chunks, io);
  const std::vector<uint8_t> bytes(70);
  outbox.append(bytes);  // The pool gets its first chunks.
  outbox.clear();
  std::array<iovec, send_parts_max> parts{};
  size_t sent_size = 0;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      outbox.append_received(bytes, {});
      const size_t size = size_of(std::span(parts).first(outbox.gather(parts)));
      outbox.consume(size);
      sent_size += size;
    }
  }
  if (sent_size != state.iterations() * bytes.size()) fail(state, "bytes are missing");
}
BENCHMARK(outbox_small);

// Receive buffers full of rows: borrowed, eight of them in one send.
void outbox_borrowed(benchmark::State& state) {
  constexpr uint64_t pieces_count = 8;
  LendingIo io;
  ChunkPool chunks;
  Outbox outbox(chunks, io);
  const std::vector<uint8_t> bytes(8192);
  std::array<iovec, send_parts_max> parts{};
  const auto round = [&] {
    for (uint16_t i = 0; i < pieces_count; ++i) {
      outbox.append_received(bytes, {i, BufferGroup::backend});
    }
    const size_t size = size_of(std::span(parts).first(outbox.gather(parts)));
    outbox.consume(size);
    return size;
  };
  size_t sent_size = 0;
  const size_t warm_up_size = round();
  {
    Meter meter(state, pieces_count, Allocations::forbidden);
    for (auto _ : state) sent_size += round();
  }
  if (warm_up_size != pieces_count * bytes.size() || sent_size != state.iterations() * warm_up_size)
    fail(state, "bytes are missing");
  if (io.kept != 0 || io.keeps_count != (state.iterations() + 1) * pieces_count)
    fail(state, "buffers were not borrowed and given back");
}
BENCHMARK(outbox_borrowed);

}  // namespace
}  // namespace helios::bench
