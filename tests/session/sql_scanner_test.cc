#include "helios/session/sql_scanner.h"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace helios {
namespace {

// "w:select n:1 s:;": each token with a letter for its kind.
std::string tokens_of(std::string_view text, bool standard_strings = true) {
  constexpr std::string_view letters = ".wqsen:?";
  SqlScanner scanner(text, standard_strings);
  std::string all;
  for (;;) {
    const SqlToken token = scanner.next();
    if (token.kind == SqlTokenKind::end) break;
    if (!all.empty()) all += ' ';
    if (token.kind != SqlTokenKind::symbol) {
      all += letters[static_cast<size_t>(token.kind)];
      if (token.kind != SqlTokenKind::unsure) all += ':';
    }
    all += token.text;
    if (token.kind == SqlTokenKind::unsure) break;
  }
  return all;
}

}  // namespace

TEST_CASE("words, numbers and symbols are told apart") {
  CHECK(tokens_of("").empty());
  CHECK(tokens_of(" \t\n\f\v\r ").empty());
  CHECK(tokens_of("SELECT 1;") == "w:SELECT n:1 ;");
  CHECK(tokens_of("select a.b,$12+foo$1 from _x9") ==
        "w:select w:a . w:b , n:$12 + w:foo$1 w:from w:_x9");
  CHECK(tokens_of("1.5e10 1and") == "n:1.5 w:e10 n:1 w:and");
  CHECK(tokens_of("a::text[]") == "w:a : : w:text [ ]");
  CHECK(tokens_of("gr\xc3\xb6\xc3\x9f"
                  "e set") ==
        "w:gr\xc3\xb6\xc3\x9f"
        "e w:set");
  CHECK(tokens_of(std::string_view("a\0b", 3)) == "w:a");
}

TEST_CASE("comments of both kinds do not count, and nest") {
  CHECK(tokens_of("a -- set x\nb") == "w:a w:b");
  CHECK(tokens_of("a -- set x\rb") == "w:a w:b");
  CHECK(tokens_of("a -- to the end") == "w:a");
  CHECK(tokens_of("a/* ; */b") == "w:a w:b");
  CHECK(tokens_of("a/* /* ; */ ' */b") == "w:a w:b");
  CHECK(tokens_of("a/*/ ; */b") == "w:a w:b");
  CHECK(tokens_of("a/**/b") == "w:a w:b");
  CHECK(tokens_of("a*/*;*/b") == "w:a * w:b");
  CHECK(tokens_of("a/* -- */b") == "w:a w:b");
  CHECK(tokens_of("a -- /*\nb") == "w:a w:b");
  CHECK(tokens_of("a/* never closed") == "w:a ?");
  CHECK(tokens_of("a/* /* once */ b") == "w:a ?");
  CHECK(tokens_of("a/*/") == "w:a ?");
  CHECK(tokens_of("a / * b") == "w:a / * w:b");
  CHECK(tokens_of("a - - b-") == "w:a - - w:b -");
}

TEST_CASE("literals end where the server ends them") {
  CHECK(tokens_of("'a;b' c") == "s:a;b w:c");
  CHECK(tokens_of("'it''s' c") == "s:it''s w:c");
  CHECK(tokens_of("'' c") == "s: w:c");
  CHECK(tokens_of("'a\\' c") == "s:a\\ w:c");
  CHECK(tokens_of("'a\\' c'", false) == "e:a\\' c");
  CHECK(tokens_of("'a\\\\' c", false) == "e:a\\\\ w:c");
  CHECK(tokens_of("e'a\\'b''c' d") == "e:a\\'b''c w:d");
  CHECK(tokens_of("E'\\\\'") == "e:\\\\");
  CHECK(tokens_of("n'x' N'x\\' B'01' x'1F'") == "s:x s:x\\ s:01 s:1F");
  CHECK(tokens_of("n'x\\''", false) == "e:x\\'");
  CHECK(tokens_of("b'01\\'", false) == "s:01\\");
  CHECK(tokens_of("'never closed") == "?");
  CHECK(tokens_of("'closed''") == "?");
  CHECK(tokens_of("E'a\\") == "?");
  CHECK(tokens_of("E'a\\'") == "?");
  // The backslash may belong to the letter before it, in some encodings.
  CHECK(tokens_of("E'\x83\\'; set x") == "?");
  CHECK(tokens_of("'\x83\\'; set x") == "s:\x83\\ ; w:set w:x");
}

TEST_CASE("dollar quotes end at their own tag") {
  CHECK(tokens_of("$$a;b'$$ c") == "s:a;b' w:c");
  CHECK(tokens_of("$x$ $$ $y$ $x$ c") == "s: $$ $y$  w:c");
  CHECK(tokens_of("$x1_$a$x1_$") == "s:a");
  CHECK(tokens_of("$x$ a $X$ b $x$") == "s: a $X$ b ");
  CHECK(tokens_of("$1$2") == "n:$1 n:$2");
  CHECK(tokens_of("a$$b$$") == "w:a$$b$$");
  CHECK(tokens_of("$ a") == "$ w:a");
  CHECK(tokens_of("$a b") == "$ w:a w:b");
  CHECK(tokens_of("$$ open") == "?");
  CHECK(tokens_of("$a$ $$") == "?");
  CHECK(tokens_of("$") == "$");
}

TEST_CASE("quoted names keep what is in them") {
  CHECK(tokens_of("\"a;b\" c") == "q:a;b w:c");
  CHECK(tokens_of("\"a\"\"b\"") == "q:a\"\"b");
  CHECK(tokens_of("\"a'\" 'b\"'") == "q:a' s:b\"");
  CHECK(tokens_of("\"open") == "?");
  CHECK(tokens_of("\"open\"\"") == "?");
  CHECK(tokens_of("U&\"\\0073et\"") == "?");
  CHECK(tokens_of("u&'\\0027'") == "?");
  CHECK(tokens_of("u & x") == "w:u & w:x");
  CHECK(tokens_of("u&x") == "w:u & w:x");
}

// Any bytes: it ends, within the text (the sanitizer looks), and says the same twice.
TEST_CASE("no text breaks the scanner") {
  constexpr std::string_view pieces[] = {"'",  "\"", "$",  "$a$", "$$", "/*", "*/", "--", "\n",
                                         "\\", ";",  "E'", "U&",  "a",  "1",  " ",  "(",  "\x83"};
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string made;
    for (size_t i = random() % 12; i > 0; --i) {
      if (random() % 8 == 0) {
        made += static_cast<char>(random());
      } else {
        made += pieces[random() % std::size(pieces)];
      }
    }
    // Exactly as long as the text, so that one byte beyond is seen.
    const std::unique_ptr<char[]> exact(new char[made.size()]);
    std::copy(made.begin(), made.end(), exact.get());
    const std::string_view text(exact.get(), made.size());
    const bool standard = random() % 2 == 0;
    SqlScanner scanner(text, standard);
    size_t count = 0;
    while (true) {
      const SqlToken token = scanner.next();
      if (token.kind == SqlTokenKind::end) break;
      ++count;
      if (token.kind == SqlTokenKind::unsure) break;
      CHECK(token.text.data() >= text.data());
      CHECK(token.text.data() + token.text.size() <= text.data() + text.size());
    }
    CHECK(count <= text.size() + 1);
    CHECK(scanner.next().kind == SqlTokenKind::end);
    CHECK(tokens_of(text, standard) == tokens_of(text, standard));
  }
}

}  // namespace helios
