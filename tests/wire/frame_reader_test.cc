#include "helios/wire/frame_reader.h"

#include <doctest/doctest.h>

#include <utility>

#include "wire/wire_support.h"

namespace helios {
namespace {

using namespace std::string_literals;
using test::ExactBytes;
using test::InputMaker;
using test::message;
using test::string_of;

using Messages = std::vector<std::pair<uint8_t, std::string>>;

const Messages sample = {{'Q', std::string("select 1\0", 9)},
                         {'S', ""},
                         {'d', std::string(300, 'x')},
                         {'H', ""},
                         {0xff, "z"}};

std::string bytes_of(const Messages& messages) {
  std::string bytes;
  for (const auto& [tag, body] : messages) bytes += message(static_cast<char>(tag), body);
  return bytes;
}

// Reads on with one more piece of the stream and adds to what was read.
FrameStatus read_piece(FrameReader& reader, std::string_view piece, Messages& messages) {
  const ExactBytes copy(piece);
  ByteSpan input = copy.span();
  while (!input.empty()) {
    if (reader.body_left() == 0) {
      const FrameStatus status = reader.read_header(input);
      if (status != FrameStatus::message) return status;
      messages.emplace_back(reader.header().tag, "");
    }
    messages.back().second += string_of(reader.take_body(input));
  }
  return FrameStatus::need_more;
}

FrameStatus status_of_length(uint32_t length, uint32_t body_size_max = frame_body_size_limit) {
  uint8_t bytes[5] = {'d'};
  store_be32(bytes + 1, length);
  FrameReader reader;
  reader.set_body_size_max(body_size_max);
  ByteSpan input(bytes);
  return reader.read_header(input);
}

TEST_CASE("a stream cut at any two places gives the same messages") {
  const std::string stream = bytes_of(sample);
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      FrameReader reader;
      Messages messages;
      read_piece(reader, std::string_view(stream).substr(0, first), messages);
      read_piece(reader, std::string_view(stream).substr(first, second - first), messages);
      read_piece(reader, std::string_view(stream).substr(second), messages);
      REQUIRE(messages == sample);
      REQUIRE(reader.at_boundary());
    }
  }
}

TEST_CASE("a stream that comes byte by byte gives the same messages") {
  FrameReader reader;
  Messages messages;
  for (const char c : bytes_of(sample)) {
    read_piece(reader, std::string_view(&c, 1), messages);
  }
  CHECK(messages == sample);
  CHECK(reader.at_boundary());
}

TEST_CASE("a reader tells at every byte whether it stands between two messages") {
  const std::string stream = message('Q', "ab");
  FrameReader reader;
  Messages messages;
  CHECK(reader.at_boundary());
  for (uint32_t i = 0; i < stream.size(); ++i) {
    read_piece(reader, std::string_view(stream).substr(i, 1), messages);
    CHECK(reader.held_header_size() == (i < 4 ? i + 1 : 0));
    CHECK(reader.body_left() == (i < 4 ? 0 : 6 - i));
    CHECK(reader.at_boundary() == (i == 6));
  }
}

TEST_CASE("the raw header is the five bytes as they came, in pieces or not") {
  const std::string stream = message('D', "abc");
  for (size_t cut = 0; cut < 5; ++cut) {
    FrameReader reader;
    Messages messages;
    read_piece(reader, std::string_view(stream).substr(0, cut), messages);
    read_piece(reader, std::string_view(stream).substr(cut), messages);
    CHECK(string_of(reader.raw_header()) == stream.substr(0, 5));
    CHECK(reader.header().body_size == 3);
  }
}

TEST_CASE("a body is taken no further than its end") {
  const std::string stream = message('d', "abcdef") + "Z";
  ByteSpan input = as_bytes(stream);
  FrameReader reader;
  REQUIRE(reader.read_header(input) == FrameStatus::message);
  CHECK(string_of(reader.take_body(input)) == "abcdef");
  CHECK(string_of(input) == "Z");
  CHECK(reader.take_body(input).empty());
}

TEST_CASE("a length below four, negative or above the limit is malformed") {
  for (const uint32_t length : {0u, 1u, 2u, 3u, 0x80000000u, 0xfffffffcu, 0xffffffffu}) {
    CHECK(status_of_length(length) == FrameStatus::malformed);
  }
  CHECK(status_of_length(4) == FrameStatus::message);
  CHECK(status_of_length(0x7fffffff) == FrameStatus::message);
  CHECK(status_of_length(104, 100) == FrameStatus::message);
  CHECK(status_of_length(105, 100) == FrameStatus::malformed);
  CHECK(status_of_length(3, 100) == FrameStatus::malformed);
  CHECK(status_of_length(0x80000000, 0xffffffff) == FrameStatus::malformed);
}

TEST_CASE("a malformed header leaves no body to take") {
  FrameReader reader;
  Messages messages;
  CHECK(read_piece(reader, std::string_view("Q\0\0\0\3", 5), messages) == FrameStatus::malformed);
  CHECK(reader.body_left() == 0);
}

TEST_CASE("a reset reader starts again in the middle of a header or body") {
  for (const size_t cut : {1, 4, 5, 6}) {
    FrameReader reader;
    Messages messages;
    read_piece(reader, std::string_view(message('Q', "abc")).substr(0, cut), messages);
    CHECK_FALSE(reader.at_boundary());
    reader.reset();
    CHECK(reader.at_boundary());
    messages.clear();
    read_piece(reader, bytes_of(sample), messages);
    CHECK(messages == sample);
  }
}

// Reads on with one more piece and counts the bytes of headers and bodies that were taken.
FrameStatus count_piece(FrameReader& reader, ByteSpan piece, size_t& taken_size) {
  while (!piece.empty()) {
    if (reader.body_left() == 0) {
      const FrameStatus status = reader.read_header(piece);
      if (status != FrameStatus::message) return status;
      taken_size += frame_header_size;
    }
    taken_size += reader.take_body(piece).size();
  }
  return FrameStatus::need_more;
}

TEST_CASE("random bytes are walked without losing or inventing one") {
  InputMaker maker(1);
  const std::string legal = bytes_of({{'P', "abcdef"}, {'S', ""}, {'Q', "x"}});
  for (int i = 0; i < test::random_inputs_count; ++i) {
    const ExactBytes copy(maker.next(legal));
    FrameReader reader;
    reader.set_body_size_max(100);
    ByteSpan left = copy.span();
    size_t taken_size = 0;
    FrameStatus status = FrameStatus::need_more;
    while (!left.empty() && status == FrameStatus::need_more) {
      const ByteSpan piece = left.first(1 + maker.below(left.size()));
      left = left.subspan(piece.size());
      status = count_piece(reader, piece, taken_size);
    }
    if (status == FrameStatus::malformed) continue;
    REQUIRE(taken_size + reader.held_header_size() == copy.span().size());
  }
}

TEST_CASE("the assembler gives whole messages wherever the stream is cut") {
  const std::string stream = bytes_of(sample);
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      MessageAssembler assembler(300);
      Messages messages;
      for (const auto& [from, to] :
           {std::pair<size_t, size_t>{0, first}, {first, second}, {second, stream.size()}}) {
        const ExactBytes copy(std::string_view(stream).substr(from, to - from));
        ByteSpan input = copy.span();
        while (assembler.feed(input) == FrameStatus::message) {
          messages.emplace_back(assembler.tag(), string_of(assembler.body()));
          REQUIRE(assembler.at_boundary());
        }
        REQUIRE(input.empty());
      }
      REQUIRE(messages == sample);
    }
  }
}

TEST_CASE("a message that came whole is not copied") {
  const std::string stream = message('p', "secret");
  ByteSpan input = as_bytes(stream);
  MessageAssembler assembler(100);
  REQUIRE(assembler.feed(input) == FrameStatus::message);
  CHECK(assembler.body().data() == as_bytes(stream).data() + 5);
}

TEST_CASE("the assembler stops behind a message and leaves what follows") {
  const std::string stream = message('p', "one") + message('Q', "two");
  ByteSpan input = as_bytes(stream);
  MessageAssembler assembler(100);
  REQUIRE(assembler.feed(input) == FrameStatus::message);
  CHECK(string_of(input) == message('Q', "two"));
}

TEST_CASE("a body above the assembler's bound is malformed before it comes, and stays so") {
  const std::string stream = message('p', std::string(101, 'x')).substr(0, 5);
  ByteSpan input = as_bytes(stream);
  MessageAssembler assembler(100);
  CHECK(assembler.feed(input) == FrameStatus::malformed);
  const std::string legal = message('p', "x");
  input = as_bytes(legal);
  CHECK(assembler.feed(input) == FrameStatus::malformed);
}

TEST_CASE("the assembler survives random bytes in random pieces") {
  InputMaker maker(2);
  const std::string legal = bytes_of({{'p', "abcdef"}, {'p', std::string(40, 'x')}});
  for (int i = 0; i < test::random_inputs_count; ++i) {
    std::string bytes = maker.next(legal);
    MessageAssembler assembler(64);
    FrameStatus status = FrameStatus::need_more;
    while (!bytes.empty() && status != FrameStatus::malformed) {
      const ExactBytes copy(std::string_view(bytes).substr(0, 1 + maker.below(bytes.size())));
      bytes.erase(0, copy.span().size());
      ByteSpan input = copy.span();
      do {
        status = assembler.feed(input);
        if (status == FrameStatus::message) REQUIRE(assembler.body().size() <= 64);
      } while (status == FrameStatus::message);
      if (status == FrameStatus::need_more) REQUIRE(input.empty());
    }
  }
}

TEST_CASE("alike messages are dropped up to the first that is other, cut or malformed") {
  const std::string row = "D\0\0\0\6ab"s;
  const auto rest_behind = [&](const std::string& end) {
    const std::string bytes = row + row + row + end;
    ByteSpan input = as_bytes(bytes);
    FrameReader reader;
    reader.set_body_size_max(100);
    REQUIRE(reader.read_header(input) == FrameStatus::message);
    (void)reader.take_body(input);
    reader.skip_alike(input);
    CHECK(reader.header().tag == 'D');
    CHECK(reader.at_boundary());
    return std::string(as_text(input));
  };
  for (const std::string& end : {""s, "C\0\0\0\4"s, "D"s, "D\0\0\0"s, "D\0\0\0\6"s, "D\0\0\0\6a"s,
                                 "D\0\0\0\3"s, "D\0\0\0\x69"s, "D\xff\xff\xff\xff"s}) {
    CAPTURE(end);
    CHECK(rest_behind(end) == end);
  }
  CHECK(rest_behind(row + "D\0\0\0\4"s) == "");
  CHECK(rest_behind(row + "Z"s) == "Z");
}

}  // namespace
}  // namespace helios
