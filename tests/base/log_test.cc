#include "helios/base/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "base/log_format.h"
#include "helios/base/assert.h"
#include "helios/base/clock.h"

namespace helios {
namespace {

std::string line_of(LogLineHead head, std::string_view text) {
  char buffer[log_line_size_max];
  return {buffer, write_log_line(buffer, head, text)};
}

// Stderr goes to a pipe of 64 KiB while it lives.
class StderrPipe {
 public:
  StderrPipe() {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    read_fd_ = ends[0];
    saved_fd_ = dup(STDERR_FILENO);
    REQUIRE(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[1]);
  }
  ~StderrPipe() {
    restore();
    close(read_fd_);
  }
  // Afterwards the pipe has no writer left.
  void restore() {
    if (saved_fd_ < 0) return;
    dup2(saved_fd_, STDERR_FILENO);
    close(saved_fd_);
    saved_fd_ = -1;
  }
  // Fills the pipe with empty lines, so that nothing more fits before somebody reads.
  static void fill() {
    const int size = fcntl(STDERR_FILENO, F_GETPIPE_SZ);
    REQUIRE(size > 0);
    const std::string lines(static_cast<size_t>(size), '\n');
    REQUIRE(write(STDERR_FILENO, lines.data(), lines.size()) == size);
  }
  // Reads until there is no writer.
  std::string read_all() const {
    std::string all;
    char buffer[4096];
    for (ssize_t size = 0; (size = read(read_fd_, buffer, sizeof(buffer))) > 0;)
      all.append(buffer, static_cast<size_t>(size));
    return all;
  }
  // Reads until `text` has come.
  std::string read_until(std::string_view text) const {
    std::string all;
    char buffer[4096];
    while (all.find(text) == std::string::npos) {
      const ssize_t size = read(read_fd_, buffer, sizeof(buffer));
      REQUIRE(size > 0);
      all.append(buffer, static_cast<size_t>(size));
    }
    return all;
  }

 private:
  int read_fd_ = -1;
  int saved_fd_ = -1;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    REQUIRE(end != std::string::npos);
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// What the notes about dropped lines add up to, and how many notes there are.
struct Notes {
  uint64_t lines_lost = 0;
  size_t count = 0;
};
Notes notes_of(const std::vector<std::string>& lines) {
  Notes notes;
  for (const std::string& line : lines) {
    unsigned long long lost = 0;
    if (sscanf(line.c_str(), "%*s warning core=%*s %llu log lines dropped", &lost) != 1) continue;
    notes.lines_lost += lost;
    ++notes.count;
  }
  return notes;
}

bool ends_with(const std::string& line, const std::string& end) {
  return line.size() >= end.size() && line.compare(line.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

TEST_CASE("a line has time, level, core and text") {
  CHECK(line_of({1'795'409'281, 123, LogLevel::warning, 1}, "text") ==
        "2026-11-23T04:48:01.123Z warning core=1 text\n");
  CHECK(line_of({0, 7, LogLevel::error, -1}, "") == "1970-01-01T00:00:00.007Z error core=- \n");
}

TEST_CASE("the date is right around leap days and turns of the year") {
  const auto date_at = [](int64_t unix_seconds) {
    return line_of({unix_seconds, 0, LogLevel::info, 0}, "").substr(0, 19);
  };
  CHECK(date_at(951'782'399) == "2000-02-28T23:59:59");
  CHECK(date_at(951'782'400) == "2000-02-29T00:00:00");
  CHECK(date_at(951'868'800) == "2000-03-01T00:00:00");
  CHECK(date_at(1'767'225'599) == "2025-12-31T23:59:59");
  CHECK(date_at(1'767'225'600) == "2026-01-01T00:00:00");
  CHECK(date_at(4'107'542'400) == "2100-03-01T00:00:00");
  CHECK(date_at(-1) == "1969-12-31T23:59:59");
}

TEST_CASE("text of a peer cannot begin a new line or steer a terminal") {
  const std::string line = line_of({0, 0, LogLevel::info, 0},
                                   "user \"a\nb\r\t\x1b[2J\x7f \xc2\x9b"
                                   "31m z\xc3\xa4\"");
  CHECK(std::count(line.begin(), line.end(), '\n') == 1);
  CHECK(ends_with(line,
                  "user \"a\\nb\\r\\t\\x1b[2J\\x7f \\xc2\x9b"
                  "31m z\xc3\xa4\"\n"));
}

TEST_CASE("a zero byte in the text is written as an escape") {
  const std::string line = line_of({0, 0, LogLevel::info, 0}, std::string_view("a\0b", 3));
  CHECK(ends_with(line, " a\\x00b\n"));
}

TEST_CASE("a long line is cut at its limit, whole characters and escapes only") {
  for (size_t size = 900; size < 1100; ++size) {
    const std::string plain = line_of({0, 0, LogLevel::info, 0}, std::string(size, 'a'));
    REQUIRE(plain.size() <= log_line_size_max);
    REQUIRE(plain.back() == '\n');
    const std::string escaped = line_of({0, 0, LogLevel::info, 0}, std::string(size, '\x01'));
    REQUIRE(escaped.size() <= log_line_size_max);
    REQUIRE(ends_with(escaped, "\\x01...\n"));
    std::string wide;
    for (size_t i = 0; i < size; ++i) wide += "\xe2\x82\xac";
    const std::string euros = line_of({0, 0, LogLevel::info, 0}, wide.substr(size % 3 * 3));
    REQUIRE(euros.size() <= log_line_size_max);
    REQUIRE(ends_with(euros, "\xe2\x82\xac...\n"));
  }
  const size_t head = line_of({0, 0, LogLevel::info, 0}, "").size();
  const size_t room = log_line_size_max - head;
  CHECK(ends_with(line_of({0, 0, LogLevel::info, 0}, std::string(room, 'a')), "aaaa\n"));
  CHECK(ends_with(line_of({0, 0, LogLevel::info, 0}, std::string(room + 1, 'a')), "a...\n"));
}

TEST_CASE("a line logged without a writer thread is written at once") {
  StderrPipe pipe;
  set_log_level(LogLevel::info);
  LOG(info, "number %d", 5);
  CHECK(ends_with(pipe.read_until("\n"), " info core=- number 5\n"));
}

TEST_CASE("a line below the level is not written and its arguments are not evaluated") {
  StderrPipe pipe;
  set_log_level(LogLevel::warning);
  int evaluated_count = 0;
  LOG(info, "%d", ++evaluated_count);
  LOG(warning, "%d of two", ++evaluated_count);
  pipe.restore();
  CHECK(lines_of(pipe.read_all()).size() == 1);
  CHECK(evaluated_count == 1);
}

TEST_CASE("lines of many threads arrive whole, in each thread's order, each once") {
  StderrPipe pipe;
  constexpr int threads_count = 4;
  constexpr int lines_count = 300;
  std::string all;
  std::thread reader([&] { all = pipe.read_all(); });
  start_log(LogLevel::info);
  std::vector<std::thread> threads;
  for (int i = 0; i < threads_count; ++i) {
    threads.emplace_back([i] {
      set_current_core(i);
      for (int line = 0; line < lines_count; ++line) LOG(info, "line %d", line);
    });
  }
  for (std::thread& thread : threads) thread.join();
  stop_log();
  pipe.restore();
  reader.join();
  int next[threads_count] = {};
  for (const std::string& line : lines_of(all)) {
    int core = -1;
    int number = -1;
    REQUIRE(sscanf(line.c_str(), "%*s info core=%d line %d", &core, &number) == 2);
    REQUIRE(core >= 0);
    REQUIRE(core < threads_count);
    REQUIRE(number == next[core]);
    ++next[core];
  }
  for (const int count : next) CHECK(count == lines_count);
}

TEST_CASE("a thread goes on when nobody reads stderr, and the lines that were lost are counted") {
  StderrPipe pipe;
  start_log(LogLevel::info);
  const uint64_t lost_before = log_lines_dropped();
  constexpr int lines_count = 20'000;
  // Ends only if no call blocks: the pipe holds 64 KiB and nobody reads.
  std::thread([] {
    set_current_core(0);
    for (int line = 0; line < lines_count; ++line) LOG(info, "line %d", line);
  }).join();
  const uint64_t lost = log_lines_dropped() - lost_before;
  CHECK(lost > 0);
  CHECK(lost < lines_count);
  std::string all;
  std::thread reader([&] { all = pipe.read_all(); });
  stop_log();
  pipe.restore();
  reader.join();
  const std::vector<std::string> lines = lines_of(all);
  CHECK(lines.size() - notes_of(lines).count == lines_count - lost);
}

TEST_CASE("the first line that fits after lost ones tells how many they were") {
  StderrPipe pipe;
  // Else the writer could make room between two of the lines below, and the last ones would fit.
  StderrPipe::fill();
  start_log(LogLevel::info);
  const uint64_t lost_before = log_lines_dropped();
  std::string all;
  std::thread reader;
  std::thread([&] {
    for (int line = 0; line < 5'000; ++line) LOG(info, "line %d", line);
    reader = std::thread([&] { all = pipe.read_all(); });
    // The ring empties while the reader reads; each line that does not fit yet is one more that is
    // lost.
    for (uint64_t before = UINT64_MAX; before != log_lines_dropped();) {
      before = log_lines_dropped();
      LOG(info, "the last line");
    }
  }).join();
  stop_log();
  pipe.restore();
  reader.join();
  const uint64_t lost = log_lines_dropped() - lost_before;
  const std::vector<std::string> lines = lines_of(all);
  REQUIRE(lines.size() >= 2);
  CHECK(lost > 0);
  CHECK(notes_of(lines).lines_lost == lost);
  CHECK(ends_with(lines[lines.size() - 2], " log lines dropped"));
  CHECK(ends_with(lines.back(), "the last line"));
}

TEST_CASE("stopping the log ends although nobody reads stderr") {
  StderrPipe pipe;
  start_log(LogLevel::info);
  std::thread([] {
    for (int line = 0; line < 5'000; ++line) LOG(info, "line %d", line);
  }).join();
  stop_log();
  CHECK(is_logged(LogLevel::info));
}

TEST_CASE("the log can be started again and loses nothing between") {
  StderrPipe pipe;
  for (int round = 0; round < 3; ++round) {
    start_log(LogLevel::info);
    LOG(info, "queued %d", round);
    stop_log();
    LOG(info, "direct %d", round);
  }
  stop_log();
  pipe.restore();
  const std::vector<std::string> lines = lines_of(pipe.read_all());
  REQUIRE(lines.size() == 6);
  CHECK(ends_with(lines[0], "queued 0"));
  CHECK(ends_with(lines[5], "direct 2"));
}

TEST_CASE("a limited line is written ten times a second and then told as a number") {
  StderrPipe pipe;
  set_log_level(LogLevel::info);
  LogLimit limit;
  MonotonicClock clock;
  // A limit whose second lies ahead of now would never fill up: begin with this one's.
  int allowed_count = 0;
  const int64_t second = clock.now() / seconds(1);
  for (int i = 0; i < 100; ++i) allowed_count += log_allowed(limit, 10) ? 1 : 0;
  const int64_t seconds_passed = clock.now() / seconds(1) - second;
  CHECK(allowed_count >= 10);
  CHECK(allowed_count <= 10 * (1 + seconds_passed));
  limit.second = 0;  // As if the second were over.
  limit.dropped = 90;
  CHECK(log_allowed(limit, 10));
  CHECK(limit.dropped == 0);
  CHECK(pipe.read_until("\n").find("90 lines like the next one held back") != std::string::npos);
}

}  // namespace helios
