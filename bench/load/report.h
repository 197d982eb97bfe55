// What came out of a load, for programs (JSON) and for people (a table).
#pragma once

#include <string>

#include "load/json_writer.h"
#include "load/load.h"

namespace helios::bench {

// One object; the keys are those of json_keys_help.
[[nodiscard]] std::string json_of(const LoadOptions& options, const LoadSummary& summary);
[[nodiscard]] std::string table_of(const LoadOptions& options, const LoadSummary& summary);
extern const char* const json_keys_help;

// The fields of a usage, into the object that is open.
void write_usage(JsonWriter& json, const ProcessUsage& usage);
// An object with this key.
void write_latency(JsonWriter& json, const char* key, const LatencySummary& latency);
// The list "errors".
void write_errors(JsonWriter& json, const LoadSummary& summary);
[[nodiscard]] std::string error_lines(const LoadSummary& summary);
// Of a PSS that may be unknown: "PSS 12.3 MiB".
[[nodiscard]] std::string show_pss(uint64_t pss, bool has_pss);
// "12.3 MiB".
[[nodiscard]] std::string show_bytes(uint64_t bytes);
[[nodiscard]] const char* name_of(QueryMode mode) noexcept;

}  // namespace helios::bench
