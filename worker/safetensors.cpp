#include "worker/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>

#include <nlohmann/json.hpp>

#include "worker/data.h"

namespace worker {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxHeaderBytes = 100u << 20;
constexpr std::size_t kChecksumDigits = 32;
const std::string kChecksumKey = "xxh3";
const std::string kNoChecksum(kChecksumDigits, '0');

std::string_view name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return "F32";
    case Dtype::f64: return "F64";
    case Dtype::i64: return "I64";
    case Dtype::u8: return "U8";
  }
  throw std::logic_error("name: unknown Dtype");
}

[[noreturn]] void broken(const std::string& what) { throw SafetensorsError("safetensors: " + what); }

std::string checksum(std::span<const std::byte> bytes) {
  return fingerprint_of({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

void check_header_length(std::uint64_t length, std::size_t file_size) {
  if (length > kMaxHeaderBytes) broken("a header beyond 100 MiB");
  if (length > file_size - sizeof length) broken("shorter than its header");
}

/// Where the digits of the checksum stand in the header's text.
std::size_t checksum_place(std::string_view file, const std::string& digits) {
  const std::string field = "\"" + kChecksumKey + "\":\"" + digits + "\"";
  const auto found = file.find(field);
  if (found == std::string_view::npos) broken("no checksum");
  return found + kChecksumKey.size() + 4;
}

[[noreturn]] void fail(const fs::path& file, const char* doing) {
  throw std::runtime_error(std::string("cannot ") + doing + " " + file.string() + ": " +
                           std::strerror(errno));
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

void write_all(const Descriptor& output, std::span<const std::byte> bytes, const fs::path& file) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(output.fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(file, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void replace_file(const fs::path& file, std::span<const std::byte> bytes, const fs::path& keep_as) {
  const fs::path partial = file.string() + ".partial";
  try {
    const Descriptor output{::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    if (output.fd < 0) fail(partial, "write");
    write_all(output, bytes, partial);
    if (::fsync(output.fd) != 0) fail(partial, "sync");
    if (!keep_as.empty() && ::rename(file.c_str(), keep_as.c_str()) != 0 && errno != ENOENT) fail(file, "rename");
    if (::rename(partial.c_str(), file.c_str()) != 0) fail(file, "replace");
  } catch (...) {
    ::unlink(partial.c_str());
    throw;
  }
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const Descriptor directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.fd < 0 || ::fsync(directory.fd) != 0) fail(folder, "sync");
}

void append(std::vector<std::byte>& out, const void* data, std::size_t size) {
  const auto* start = static_cast<const std::byte*>(data);
  out.insert(out.end(), start, start + size);
}

std::size_t size_or_broken(const json& value, const char* what) {
  if (!value.is_number_unsigned()) broken(std::string(what) + " is not a whole number");
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    broken(std::string(what) + " is too large");
  }
  return static_cast<std::size_t>(number);
}

Dtype parse_dtype(const json& value) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::i64, Dtype::u8}) {
    if (value.is_string() && value.get_ref<const std::string&>() == name(dtype)) return dtype;
  }
  broken("unknown dtype");
}

struct Placed {
  SafeTensor tensor;
  std::size_t begin = 0;
  std::size_t end = 0;
};

Placed parse_tensor(const json& entry, std::span<const std::byte> data) {
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets") || !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    broken("a tensor has other fields than dtype, shape, data_offsets");
  }
  Placed placed;
  placed.tensor.dtype = parse_dtype(entry["dtype"]);
  std::size_t bytes = bytes_of(placed.tensor.dtype);
  for (const json& value : entry["shape"]) {
    const std::size_t size = size_or_broken(value, "a size");
    if (__builtin_mul_overflow(bytes, size, &bytes)) broken("a shape overflows");
    placed.tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  placed.begin = size_or_broken(entry["data_offsets"][0], "an offset");
  placed.end = size_or_broken(entry["data_offsets"][1], "an offset");
  if (placed.begin > placed.end || placed.end > data.size()) broken("an offset lies outside the file");
  if (placed.end - placed.begin != bytes) broken("shape and offsets disagree");
  placed.tensor.data = data.subspan(placed.begin, bytes);
  return placed;
}

/// Tensors must tile the data: no gap, no overlap.
void check_tiling(std::vector<std::pair<std::size_t, std::size_t>> ranges, std::size_t size) {
  std::sort(ranges.begin(), ranges.end());
  std::size_t end = 0;
  for (const auto& [from, to] : ranges) {
    if (from != end) broken("tensors overlap or leave a gap");
    end = to;
  }
  if (end != size) broken("bytes that belong to no tensor");
}

}  // namespace

std::size_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return 4;
    case Dtype::f64:
    case Dtype::i64: return 8;
    case Dtype::u8: return 1;
  }
  throw std::logic_error("bytes_of: unknown Dtype");
}

std::string write_safetensors(const fs::path& file, const std::map<std::string, SafeTensor>& tensors,
                              std::map<std::string, std::string> metadata, const fs::path& keep_as) {
  metadata[kChecksumKey] = kNoChecksum;
  json header = {{"__metadata__", metadata}};
  std::size_t offset = 0;
  for (const auto& [tensor_name, tensor] : tensors) {
    header[tensor_name] = {{"dtype", name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.data.size()}}};
    offset += tensor.data.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  std::vector<std::byte> bytes;
  bytes.reserve(8 + text.size() + offset);
  const std::uint64_t length = text.size();
  append(bytes, &length, 8);
  append(bytes, text.data(), text.size());
  for (const auto& entry : tensors) append(bytes, entry.second.data.data(), entry.second.data.size());

  const std::string digits = checksum(bytes);
  const auto place = 8 + checksum_place(text, kNoChecksum);
  std::memcpy(bytes.data() + place, digits.data(), digits.size());
  replace_file(file, bytes, keep_as);
  return digits;
}

Safetensors::Safetensors(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {
  std::uint64_t length = 0;
  if (bytes_.size() < sizeof length) broken("shorter than its header");
  std::memcpy(&length, bytes_.data(), sizeof length);
  check_header_length(length, bytes_.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + sizeof length, length);

  const json header = json::parse(text, nullptr, false);
  if (!header.is_object()) broken("the header is not a JSON object");
  if (const auto found = header.find("__metadata__"); found != header.end()) {
    if (!found->is_object()) broken("the metadata is not an object");
    for (const auto& [key, value] : found->items()) {
      if (!value.is_string()) broken("metadata that is not text");
      metadata_[key] = value;
    }
  }
  const std::string digits = metadata(kChecksumKey);
  if (digits.size() != kChecksumDigits) broken("no checksum");
  const auto place = sizeof length + checksum_place(text, digits);
  std::memcpy(bytes_.data() + place, kNoChecksum.data(), kChecksumDigits);
  if (checksum(bytes_) != digits) broken("the checksum does not match");

  const auto data = std::span<const std::byte>(bytes_).subspan(sizeof length + length);
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  for (const auto& [tensor_name, entry] : header.items()) {
    if (tensor_name == "__metadata__") continue;
    Placed placed = parse_tensor(entry, data);
    ranges.emplace_back(placed.begin, placed.end);
    tensors_.emplace(tensor_name, std::move(placed.tensor));
  }
  check_tiling(std::move(ranges), data.size());
}

Safetensors Safetensors::read(const fs::path& file) {
  std::ifstream input(file, std::ios::binary | std::ios::ate);
  if (!input) broken("cannot open " + file.string());
  const auto size = static_cast<std::streamoff>(input.tellg());
  if (size < 0) broken("cannot read " + file.string());
  // Before room is made for all of it.
  std::uint64_t length = 0;
  input.seekg(0);
  if (!input.read(reinterpret_cast<char*>(&length), sizeof length)) broken("shorter than its header");
  check_header_length(length, static_cast<std::size_t>(size));
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  input.seekg(0);
  if (!input.read(reinterpret_cast<char*>(bytes.data()), size)) broken("cannot read " + file.string());
  return Safetensors(std::move(bytes));
}

const SafeTensor& Safetensors::at(const std::string& tensor_name) const {
  const auto found = tensors_.find(tensor_name);
  if (found == tensors_.end()) broken("no tensor " + tensor_name);
  return found->second;
}

const std::string& Safetensors::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) broken("no " + key + " in the metadata");
  return found->second;
}

}  // namespace worker
