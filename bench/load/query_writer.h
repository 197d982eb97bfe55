// Writes what a client sends for one statement, into a buffer that is used again and again.
//
// One core's data.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/wire/writer.h"
#include "load/load.h"
#include "load/script.h"

namespace helios::bench {

class QueryWriter {
 public:
  explicit QueryWriter(QueryMode mode) : mode_(mode) {}

  // The messages of the statement; valid until the next call. `parses`: in the mode `prepared`, the
  // server does not know the statement yet.
  [[nodiscard]] ByteSpan write(const ScriptStatement& statement, std::span<const int64_t> variables,
                               bool parses);

 private:
  void write_simple(const ScriptStatement& statement, std::span<const int64_t> variables);
  void write_parse(const ScriptStatement& statement, std::string_view name);
  void write_bind(const ScriptStatement& statement, std::string_view name,
                  std::span<const int64_t> variables);
  void write_execute();

  QueryMode mode_;
  MessageWriter writer_;
};

}  // namespace helios::bench
