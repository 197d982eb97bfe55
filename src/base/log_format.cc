#include "base/log_format.h"

#include <cstdio>
#include <cstring>

namespace helios {
namespace {

struct Date {
  int64_t year;
  uint32_t month;
  uint32_t day;
};

// Days since 1970-01-01 to the proleptic Gregorian calendar. gmtime_r would do, but glibc's takes a
// lock.
Date date_of(int64_t days) noexcept {
  days +=
      719'468;  // Days from 0000-03-01: years that begin in March have their leap day at the end.
  const int64_t era = (days >= 0 ? days : days - 146'096) / 146'097;
  const auto day_of_era = static_cast<uint32_t>(days - era * 146'097);
  const uint32_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const uint32_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const uint32_t month_from_march = (5 * day_of_year + 2) / 153;
  const uint32_t day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
  const uint32_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  return {era * 400 + year_of_era + (month <= 2 ? 1 : 0), month, day};
}

const char* name_of(LogLevel level) noexcept {
  switch (level) {
    case LogLevel::error:
      return "error";
    case LogLevel::warning:
      return "warning";
    case LogLevel::info:
      return "info";
    case LogLevel::debug:
      return "debug";
  }
  return "unknown";
}

size_t write_head(char (&buffer)[log_line_size_max], const LogLineHead& head) noexcept {
  int64_t days = head.unix_seconds / 86'400;
  int64_t second_of_day = head.unix_seconds % 86'400;
  if (second_of_day < 0) {
    --days;
    second_of_day += 86'400;
  }
  const Date date = date_of(days);
  char core[16] = "-";
  if (head.core >= 0) snprintf(core, sizeof(core), "%d", head.core);
  const int size =
      snprintf(buffer, sizeof(buffer), "%04lld-%02u-%02uT%02d:%02d:%02d.%03uZ %s core=%s ",
               static_cast<long long>(date.year), date.month, date.day,
               static_cast<int>(second_of_day / 3600), static_cast<int>(second_of_day / 60 % 60),
               static_cast<int>(second_of_day % 60), head.milliseconds, name_of(head.level), core);
  return static_cast<size_t>(size);
}

bool is_control(std::string_view text, size_t index) noexcept {
  const auto byte = static_cast<unsigned char>(text[index]);
  if (byte < 0x20 || byte == 0x7f) return true;
  // U+0080 to U+009F in UTF-8: terminals take some of them for the start of a control sequence.
  if (byte != 0xc2 || index + 1 >= text.size()) return false;
  const auto next = static_cast<unsigned char>(text[index + 1]);
  return next >= 0x80 && next < 0xa0;
}

// How one byte is written: itself or an escape of at most four bytes.
struct Piece {
  char bytes[5];
  size_t size;
};

Piece piece_of(std::string_view text, size_t index) noexcept {
  Piece piece{{text[index]}, 1};
  if (!is_control(text, index)) return piece;
  const auto byte = static_cast<unsigned char>(text[index]);
  const char* name = byte == '\n' ? "\\n" : byte == '\r' ? "\\r" : byte == '\t' ? "\\t" : nullptr;
  piece.size = static_cast<size_t>(
      name != nullptr ? snprintf(piece.bytes, sizeof(piece.bytes), "%s", name)
                      : snprintf(piece.bytes, sizeof(piece.bytes), "\\x%02x", byte));
  return piece;
}

bool is_continuation(char byte) noexcept {
  return (static_cast<unsigned char>(byte) & 0xc0) == 0x80;
}

}  // namespace

size_t write_log_line(char (&buffer)[log_line_size_max], const LogLineHead& head,
                      std::string_view text) noexcept {
  constexpr size_t end = log_line_size_max - 1;  // The newline's place.
  constexpr std::string_view cut_mark = "...";
  size_t size = write_head(buffer, head);
  size_t cut_size = size;  // Where the line ends should it have to be cut: a whole character, with
                           // room for the mark.
  for (size_t i = 0; i < text.size(); ++i) {
    if (size + cut_mark.size() <= end && !is_continuation(text[i])) cut_size = size;
    const Piece piece = piece_of(text, i);
    if (size + piece.size > end) {
      memcpy(buffer + cut_size, cut_mark.data(), cut_mark.size());
      size = cut_size + cut_mark.size();
      break;
    }
    memcpy(buffer + size, piece.bytes, piece.size);
    size += piece.size;
  }
  buffer[size] = '\n';
  return size + 1;
}

}  // namespace helios
