#include "helios/session/block_end.h"

#include "helios/session/sql_scanner.h"

namespace helios {
namespace {

// Nothing follows from this token on, but semicolons.
bool is_over(SqlScanner& scanner, SqlToken token) {
  while (token.is_symbol(';')) token = scanner.next();
  return token.kind == SqlTokenKind::end;
}

// The words behind the command: [WORK | TRANSACTION] [AND NO CHAIN], and nothing more.
bool is_plain_end(SqlScanner& scanner) {
  SqlToken token = scanner.next();
  if (token.is_word("work") || token.is_word("transaction")) token = scanner.next();
  if (token.is_word("and")) {
    if (!scanner.next().is_word("no") || !scanner.next().is_word("chain")) return false;
    token = scanner.next();
  }
  return is_over(scanner, token);
}

// TRANSACTION 'name'.
bool is_prepare_transaction(SqlScanner& scanner) {
  if (!scanner.next().is_word("transaction")) return false;
  const SqlToken name = scanner.next();
  if (name.kind != SqlTokenKind::string && name.kind != SqlTokenKind::escaped) return false;
  return is_over(scanner, scanner.next());
}

}  // namespace

BlockEnd read_block_end(std::string_view text) noexcept {
  SqlScanner scanner(text);
  SqlToken first = scanner.next();
  while (first.is_symbol(';')) first = scanner.next();
  if (first.kind == SqlTokenKind::end) return BlockEnd::nothing;
  if (first.is_word("rollback") || first.is_word("abort"))
    return is_plain_end(scanner) ? BlockEnd::rollback : BlockEnd::none;
  if (first.is_word("commit") || first.is_word("end"))
    return is_plain_end(scanner) ? BlockEnd::commit : BlockEnd::none;
  if (first.is_word("prepare") && is_prepare_transaction(scanner)) return BlockEnd::commit;
  return BlockEnd::none;
}

}  // namespace helios
