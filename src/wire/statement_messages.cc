#include "helios/wire/statement_messages.h"

#include "helios/base/assert.h"
#include "helios/wire/body_reader.h"

namespace helios {
namespace {

void write_for_statement(MessageWriter& writer, uint8_t tag, std::string_view name) {
  writer.begin(tag);
  writer.add_byte('S');
  writer.add_text(name);
  writer.end();
}

}  // namespace

[[gnu::hot]] StatementHead read_statement_head(uint8_t tag, ByteSpan body) noexcept {
  ASSERT(may_name_statement(tag));
  StatementHead head;
  BodyReader reader(body);
  if (tag == frontend_tag::bind) {
    if (!reader.read_text(head.portal)) return head;
  } else if (tag != frontend_tag::parse) {
    uint8_t kind = 0;
    if (!reader.read_byte(kind)) return head;
    if (kind != 'S') {
      head.kind = StatementHead::Kind::unnamed;
      return head;
    }
  }
  if (!reader.read_text(head.name)) return head;
  head.kind = head.name.empty() ? StatementHead::Kind::unnamed : StatementHead::Kind::named;
  head.size = body.size() - reader.left().size();
  return head;
}

void write_parse_head(MessageWriter& writer, std::string_view name, size_t content_size) {
  writer.begin(frontend_tag::parse);
  writer.add_text(name);
  writer.end_before(content_size);
}

void write_bind_head(MessageWriter& writer, std::string_view portal, std::string_view name,
                     size_t size) {
  writer.begin(frontend_tag::bind);
  writer.add_text(portal);
  writer.add_text(name);
  writer.end_before(size);
}

void write_describe_statement(MessageWriter& writer, std::string_view name) {
  write_for_statement(writer, frontend_tag::describe, name);
}

void write_close_statement(MessageWriter& writer, std::string_view name) {
  write_for_statement(writer, frontend_tag::close, name);
}

}  // namespace helios
