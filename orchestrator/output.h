#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "db/query.h"

namespace orchestrator {

enum class Format { table, json, jsonl, csv };
/// Throws ExitError{kUsage} listing the known names.
Format parse_format(std::string_view text);

/// Rows for stdout, ending in a newline. `table` is for people: aligned, numbers with 6 digits, "-" for NULL.
/// The others are for programs: numbers read back to the same double, NULL is null or empty; json is an array
/// of objects, jsonl one object a line, csv has a header (RFC 4180).
std::string format_table(const db::Table& table, Format format);

/// Bytes for people, three digits: "1.5 GiB".
std::string short_size(std::uintmax_t bytes);

/// One row: values inside of others under dotted names, as in "disk.free_bytes" and "running.0.step".
db::Table flatten(const nlohmann::ordered_json& object);

}  // namespace orchestrator
