// The extended protocol's messages as far as they name prepared statements: Parse, Bind, Describe
// and Close.
//
// Reading needs the beginning of a body only, as far as the name. Pure functions; any thread.
// Source: PostgreSQL manual, "Message Formats".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "helios/base/bytes.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"

namespace helios {

// A message with this tag may name a statement.
[[nodiscard]] constexpr bool may_name_statement(uint8_t tag) noexcept {
  switch (tag) {
    case frontend_tag::parse:
    case frontend_tag::bind:
    case frontend_tag::describe:
    case frontend_tag::close:
      return true;
    default:
      return false;
  }
}

struct StatementHead {
  enum class Kind : uint8_t {
    need_more,  // The name has not come to its end.
    unnamed,    // It means the unnamed statement, or a portal.
    named,
  };
  Kind kind = Kind::need_more;
  std::string_view portal;  // Of Bind.
  std::string_view name;
  size_t size = 0;  // With a name: bytes of the body up to its end, its NUL included.
};

// Such a message uses the unnamed statement, or a portal, as its first bytes tell: nearly all
// messages of clients that prepare nothing. False says nothing.
[[nodiscard]] constexpr bool is_plainly_unnamed(uint8_t tag, ByteSpan body) noexcept {
  if (body.empty()) return false;
  if (tag == frontend_tag::parse) return body[0] == 0;
  if (tag == frontend_tag::bind) return body.size() > 1 && body[0] == 0 && body[1] == 0;
  return body[0] != 'S';
}

// `body`: of a message for which may_name_statement(tag), or its beginning. The texts are views
// into it.
[[nodiscard]] StatementHead read_statement_head(uint8_t tag, ByteSpan body) noexcept;

// Parse, with a statement's text and parameter types in one (Statement::content): up to there.
void write_parse_head(MessageWriter& writer, std::string_view name, size_t content_size);
// Bind up to the statement's name; `size` bytes follow.
void write_bind_head(MessageWriter& writer, std::string_view portal, std::string_view name,
                     size_t size);
void write_describe_statement(MessageWriter& writer, std::string_view name);
void write_close_statement(MessageWriter& writer, std::string_view name);

}  // namespace helios
