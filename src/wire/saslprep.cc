#include "helios/wire/saslprep.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "helios/base/assert.h"

namespace helios {

namespace {

struct CodeRange {
  char32_t first;
  char32_t last;
};
struct CombiningRange {
  char32_t first;
  char32_t last;
  uint8_t combining_class;
};
struct SingleForm {
  char32_t first;
  char32_t last;
  char32_t form;
};
struct LongForm {
  char32_t code;
  uint16_t offset;
  uint16_t size;
};
struct Composition {
  char32_t first;
  char32_t second;
  char32_t composed;
};

#include "wire/saslprep_tables.inc"

// Hangul syllables follow a formula (Unicode 3.12) instead of tables.
constexpr char32_t hangul_base = 0xac00;
constexpr char32_t hangul_l_base = 0x1100;
constexpr char32_t hangul_v_base = 0x1161;
constexpr char32_t hangul_t_base = 0x11a7;
constexpr char32_t hangul_l_count = 19;
constexpr char32_t hangul_v_count = 21;
constexpr char32_t hangul_t_count = 28;
constexpr char32_t hangul_count = hangul_l_count * hangul_v_count * hangul_t_count;
constexpr size_t form_size_max = 18;  // The longest compatibility decomposition, of U+FDFA.

// The entry of a sorted table whose range holds `code`; nullptr if there is none.
template <typename Range, size_t size>
const Range* find_range(const Range (&table)[size], char32_t code) noexcept {
  const Range* entry =
      std::lower_bound(std::begin(table), std::end(table), code,
                       [](const Range& range, char32_t wanted) { return range.last < wanted; });
  return entry != std::end(table) && entry->first <= code ? entry : nullptr;
}

// Characters of a password: wiped when it goes. Never grows beyond its first reservation, so no
// copy stays behind.
class CodeText {
 public:
  explicit CodeText(size_t size_max) { codes_.reserve(size_max); }
  CodeText(const CodeText&) = delete;
  CodeText& operator=(const CodeText&) = delete;
  ~CodeText() {
    wipe({reinterpret_cast<uint8_t*>(codes_.data()), codes_.size() * sizeof(char32_t)});
  }
  void add(char32_t code) noexcept {
    ASSERT(codes_.size() < codes_.capacity());
    codes_.push_back(code);
  }
  [[nodiscard]] std::vector<char32_t>& codes() noexcept { return codes_; }
  [[nodiscard]] size_t size() const noexcept { return codes_.size(); }

 private:
  std::vector<char32_t> codes_;
};

// The character at the front of `text`, which is dropped from it; nothing when it is not valid
// UTF-8.
std::optional<char32_t> take_code(std::string_view& text) noexcept {
  static constexpr char32_t code_min[] = {0, 0, 0x80, 0x800,
                                          0x10000};  // By length: no longer than needed.
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  size_t size;
  char32_t code;
  if (byte(0) < 0x80) {
    size = 1;
    code = byte(0);
  } else if ((byte(0) & 0xe0) == 0xc0) {
    size = 2;
    code = byte(0) & 0x1f;
  } else if ((byte(0) & 0xf0) == 0xe0) {
    size = 3;
    code = byte(0) & 0x0f;
  } else if ((byte(0) & 0xf8) == 0xf0) {
    size = 4;
    code = byte(0) & 0x07;
  } else {
    return std::nullopt;
  }
  if (text.size() < size) return std::nullopt;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return std::nullopt;
    code = code << 6 | (byte(i) & 0x3f);
  }
  if (code < code_min[size] || code > 0x10ffff) return std::nullopt;
  if (code >= 0xd800 && code <= 0xdfff) return std::nullopt;
  text.remove_prefix(size);
  return code;
}

void add_utf8(std::vector<uint8_t>& to, char32_t code) {
  const auto add = [&to](char32_t byte) { to.push_back(static_cast<uint8_t>(byte)); };
  if (code < 0x80) return add(code);
  if (code < 0x800) {
    add(0xc0 | code >> 6);
  } else {
    if (code < 0x10000) {
      add(0xe0 | code >> 12);
    } else {
      add(0xf0 | code >> 18);
      add(0x80 | (code >> 12 & 0x3f));
    }
    add(0x80 | (code >> 6 & 0x3f));
  }
  add(0x80 | (code & 0x3f));
}

// Step 1 of RFC 4013: other spaces become a space, some characters vanish. False when not UTF-8.
// A zero width space (U+200B) is in both tables; PostgreSQL makes it a space.
bool map_text(std::string_view text, CodeText& to) noexcept {
  while (!text.empty()) {
    const std::optional<char32_t> code = take_code(text);
    if (!code) return false;
    if (find_range(spaces, *code) != nullptr) {
      to.add(' ');
    } else if (find_range(nothings, *code) == nullptr) {
      to.add(*code);
    }
  }
  return true;
}

void decompose_hangul(char32_t index, CodeText& to) noexcept {
  to.add(hangul_l_base + index / (hangul_v_count * hangul_t_count));
  to.add(hangul_v_base + index / hangul_t_count % hangul_v_count);
  if (index % hangul_t_count != 0) to.add(hangul_t_base + index % hangul_t_count);
}

void decompose(char32_t code, CodeText& to) noexcept {
  if (code >= hangul_base && code < hangul_base + hangul_count)
    return decompose_hangul(code - hangul_base, to);
  if (const SingleForm* single = find_range(single_forms, code))
    return to.add(single->form + (code - single->first));
  const LongForm* form =
      std::lower_bound(std::begin(long_forms), std::end(long_forms), code,
                       [](const LongForm& entry, char32_t wanted) { return entry.code < wanted; });
  if (form == std::end(long_forms) || form->code != code) return to.add(code);
  for (size_t i = 0; i < form->size; ++i) to.add(form_texts[form->offset + i]);
}

uint8_t combining_class(char32_t code) noexcept {
  const CombiningRange* range = find_range(combining_ranges, code);
  return range == nullptr ? 0 : range->combining_class;
}

// Canonical order: within each run of marks by combining class, equal ones as they came.
void order_marks(std::vector<char32_t>& codes) {
  const auto is_mark = [](char32_t code) { return combining_class(code) != 0; };
  const auto comes_before = [](char32_t left, char32_t right) {
    return combining_class(left) < combining_class(right);
  };
  auto run = codes.begin();
  while (run != codes.end()) {
    run = std::find_if(run, codes.end(), is_mark);
    const auto run_end = std::find_if_not(run, codes.end(), is_mark);
    std::stable_sort(run, run_end, comes_before);
    run = run_end;
  }
}

// What the two characters become together; 0 when nothing.
char32_t compose_pair(char32_t first, char32_t second) noexcept {
  if (first - hangul_l_base < hangul_l_count && second - hangul_v_base < hangul_v_count)
    return hangul_base +
           ((first - hangul_l_base) * hangul_v_count + (second - hangul_v_base)) * hangul_t_count;
  const bool is_lv =
      first - hangul_base < hangul_count && (first - hangul_base) % hangul_t_count == 0;
  if (is_lv && second > hangul_t_base && second < hangul_t_base + hangul_t_count)
    return first + (second - hangul_t_base);
  const Composition* entry = std::lower_bound(
      std::begin(compositions), std::end(compositions), Composition{first, second, 0},
      [](const Composition& left, const Composition& right) {
        return left.first != right.first ? left.first < right.first : left.second < right.second;
      });
  if (entry == std::end(compositions)) return 0;
  return entry->first == first && entry->second == second ? entry->composed : 0;
}

// Canonical composition (Unicode 3.11, D117), in place.
void compose(std::vector<char32_t>& codes) noexcept {
  constexpr size_t none = ~size_t{0};
  size_t starter = none;
  size_t count = 0;
  int last_class = -1;  // Of the character before, when it stands between the starter and this one.
  for (const char32_t code : codes) {
    const int code_class = combining_class(code);
    const bool is_blocked = last_class >= code_class;
    const char32_t composed =
        starter == none || is_blocked ? 0 : compose_pair(codes[starter], code);
    if (composed != 0) {
      codes[starter] = composed;
      continue;
    }
    if (code_class == 0) starter = count;
    last_class = code_class == 0 ? -1 : code_class;
    codes[count++] = code;
  }
  wipe({reinterpret_cast<uint8_t*>(codes.data() + count),
        (codes.size() - count) * sizeof(char32_t)});
  codes.resize(count);
}

// RFC 3454 section 6: right-to-left text holds no left-to-right character and begins and ends
// right-to-left.
bool has_valid_direction(const std::vector<char32_t>& codes) noexcept {
  const auto is_right = [](char32_t code) { return find_range(right_to_left, code) != nullptr; };
  const auto is_left = [](char32_t code) { return find_range(left_to_right, code) != nullptr; };
  if (std::none_of(codes.begin(), codes.end(), is_right)) return true;
  return std::none_of(codes.begin(), codes.end(), is_left) && is_right(codes.front()) &&
         is_right(codes.back());
}

bool is_prohibited(const std::vector<char32_t>& codes) noexcept {
  return std::any_of(codes.begin(), codes.end(),
                     [](char32_t code) { return find_range(refused, code) != nullptr; });
}

bool is_ascii(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

SaslprepResult saslprep(std::string_view text, SecretBytes& to) {
  to.clear();
  if (is_ascii(
          text)) {  // Nothing changes. PostgreSQL does not look for control characters here either.
    to = SecretBytes(text);
    return SaslprepResult::prepared;
  }
  CodeText mapped(text.size());
  if (!map_text(text, mapped)) return SaslprepResult::invalid_utf8;
  if (mapped.size() == 0) return SaslprepResult::prohibited;

  // RFC 4013 looks at the normal form here. PostgreSQL looks at the text before, so U+0340 is
  // refused though its normal form U+0300 is not; what counts is that both ends hash the same
  // bytes.
  if (is_prohibited(mapped.codes()) || !has_valid_direction(mapped.codes()))
    return SaslprepResult::prohibited;

  CodeText normal(mapped.size() * form_size_max);
  for (const char32_t code : mapped.codes()) decompose(code, normal);
  order_marks(normal.codes());
  compose(normal.codes());

  std::vector<uint8_t> bytes;
  bytes.reserve(normal.size() * 4);
  for (const char32_t code : normal.codes()) add_utf8(bytes, code);
  to = SecretBytes(ByteSpan(bytes));
  wipe(MutableByteSpan(bytes));
  return SaslprepResult::prepared;
}

SecretBytes scram_password(std::string_view password) {
  SecretBytes prepared;
  if (saslprep(password, prepared) == SaslprepResult::prepared) return prepared;
  return SecretBytes(password);
}

}  // namespace helios
