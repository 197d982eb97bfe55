// Messages: finding their ends, building them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/micro/meter.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"

namespace helios::bench {
namespace {

void add_message(std::vector<uint8_t>& bytes, uint8_t tag, size_t body_size) {
  MessageWriter writer(bytes);
  writer.begin(tag);
  for (size_t i = 0; i < body_size; ++i) writer.add_byte(static_cast<uint8_t>(i));
  writer.end();
}

constexpr uint64_t replies_count = 64;
constexpr uint64_t messages_per_reply = 4;

// Answers to one-row queries as they follow each other in a receive buffer: RowDescription,
// DataRow, CommandComplete, ReadyForQuery.
std::vector<uint8_t> small_replies() {
  std::vector<uint8_t> bytes;
  for (uint64_t i = 0; i < replies_count; ++i) {
    add_message(bytes, backend_tag::row_description, 29);
    add_message(bytes, backend_tag::data_row, 11);
    add_message(bytes, backend_tag::command_complete, 9);
    add_message(bytes, backend_tag::ready_for_query, 1);
  }
  return bytes;
}

// Walks the bytes, offered in pieces of this size; returns the number of messages that began.
uint64_t walk(FrameReader& reader, ByteSpan bytes, size_t piece_size) {
  uint64_t count = 0;
  while (!bytes.empty()) {
    ByteSpan input = bytes.first(std::min(piece_size, bytes.size()));
    bytes = bytes.subspan(input.size());
    while (!input.empty()) {
      if (reader.body_left() == 0) {
        if (reader.read_header(input) != FrameStatus::message) break;
        ++count;
        benchmark::DoNotOptimize(reader.header().tag);
      }
      benchmark::DoNotOptimize(reader.take_body(input).size());
    }
  }
  return count;
}

void walk_repeatedly(benchmark::State& state, const std::vector<uint8_t>& bytes, size_t piece_size,
                     uint64_t messages_count) {
  FrameReader reader;
  uint64_t count = 0;
  {
    Meter meter(state, messages_count, Allocations::forbidden);
    for (auto _ : state) count += walk(reader, bytes, piece_size);
  }
  if (count != state.iterations() * messages_count) fail(state, "messages were missed");
  if (!reader.at_boundary()) fail(state, "the stream ends inside a message");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes.size()));
}

// An op is a message.
void frame_reader_small(benchmark::State& state) {
  const std::vector<uint8_t> bytes = small_replies();
  walk_repeatedly(state, bytes, bytes.size(), replies_count * messages_per_reply);
}
BENCHMARK(frame_reader_small);

// The same in pieces of seven bytes, so that most headers and bodies are cut.
void frame_reader_split(benchmark::State& state) {
  walk_repeatedly(state, small_replies(), 7, replies_count * messages_per_reply);
}
BENCHMARK(frame_reader_split);

// One message of 1 MiB in receive buffers of 16 KiB.
void frame_reader_large(benchmark::State& state) {
  std::vector<uint8_t> bytes;
  add_message(bytes, backend_tag::copy_data, 1 << 20);
  walk_repeatedly(state, bytes, 16'384, 1);
}
BENCHMARK(frame_reader_large);

// A Query and a Sync into a buffer that is used again.
void message_writer(benchmark::State& state) {
  std::vector<uint8_t> bytes;
  bytes.reserve(256);
  const std::string query = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
  size_t size = 0;
  {
    Meter meter(state, 2, Allocations::forbidden);
    for (auto _ : state) {
      MessageWriter writer(bytes);
      writer.clear();
      write_query(writer, query);
      write_sync(writer);
      size = writer.bytes().size();
      benchmark::ClobberMemory();
    }
  }
  if (size != 2 * size_t{frame_header_size} + query.size() + 1) fail(state, "wrong size");
}
BENCHMARK(message_writer);

}  // namespace
}  // namespace helios::bench
