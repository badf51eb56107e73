#include "worker/safetensors.h"

#include <cstring>
#include <fstream>
#include <random>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "worker/data.h"

using namespace worker;

namespace {

const std::vector<float> kWeights = {1, -2, 3.5f, 0, 1e-30f, 6};
const std::vector<std::int64_t> kSteps = {1, 2, -3};

std::vector<std::byte> sample_file() {
  const TemporaryFolder folder;
  write_safetensors(folder / "a",
                    {{"weights", {Dtype::f32, {2, 3}, std::as_bytes(std::span(kWeights))}},
                     {"steps", {Dtype::i64, {3}, std::as_bytes(std::span(kSteps))}},
                     {"none", {Dtype::f64, {0}, {}}}},
                    {{"trial", "k\"1"}});
  std::ifstream input(folder / "a", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(input)), {});
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A file with this header and `data` zero bytes.
std::vector<std::byte> handmade(const std::string& header, std::size_t data) {
  std::vector<std::byte> bytes(8 + header.size() + data);
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

/// The same with a right checksum.
std::vector<std::byte> sealed(const std::string& tensors, std::size_t data) {
  const std::string start = R"({"__metadata__":{"xxh3":")";
  auto bytes = handmade(start + std::string(32, '0') + "\"}" + tensors + "}", data);
  const auto digits = fingerprint_of({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  std::memcpy(bytes.data() + 8 + start.size(), digits.data(), digits.size());
  return bytes;
}

}  // namespace

TEST_CASE("a safetensors file holds what was put in", "[worker][safetensors]") {
  const Safetensors file(sample_file());
  CHECK(file.metadata("trial") == "k\"1");
  const auto& weights = file.at("weights");
  CHECK(weights.dtype == Dtype::f32);
  CHECK(weights.shape == std::vector<std::int64_t>{2, 3});
  REQUIRE(weights.data.size() == 24);
  CHECK(std::memcmp(weights.data.data(), kWeights.data(), 24) == 0);
  CHECK(std::memcmp(file.at("steps").data.data(), kSteps.data(), 24) == 0);
  CHECK(file.at("none").data.empty());
  CHECK_THROWS_AS(file.at("other"), SafetensorsError);
  CHECK_THROWS_AS(file.metadata("other"), SafetensorsError);
}

TEST_CASE("any flipped bit and any cut is noticed", "[worker][safetensors]") {
  const auto whole = sample_file();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      auto bytes = whole;
      bytes[i] ^= static_cast<std::byte>(1 << bit);
      INFO("byte " << i << " bit " << bit);
      REQUIRE_THROWS_AS(Safetensors(std::move(bytes)), SafetensorsError);
    }
  }
  for (std::size_t size = 0; size < whole.size(); ++size) {
    REQUIRE_THROWS_AS(Safetensors({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}),
                      SafetensorsError);
  }
  auto longer = whole;
  longer.push_back(std::byte{0});
  CHECK_THROWS_AS(Safetensors(std::move(longer)), SafetensorsError);
}

TEST_CASE("hostile headers are refused", "[worker][safetensors]") {
  for (const char* header : {"", "[]", "{", "null", "{}", R"({"__metadata__":5})",
                             R"({"__metadata__":{"xxh3":5}})", R"({"__metadata__":{"xxh3":"short"}})",
                             R"({"__metadata__":{"xxh3":"00000000000000000000000000000000"}})"}) {
    INFO(header);
    CHECK_THROWS_AS(Safetensors(handmade(header, 8)), SafetensorsError);
  }
  auto bytes = handmade("{}", 0);
  const std::uint64_t huge = ~0ULL;
  std::memcpy(bytes.data(), &huge, 8);
  CHECK_THROWS_AS(Safetensors(std::move(bytes)), SafetensorsError);
  CHECK_THROWS_AS(Safetensors(handmade(std::string(100000, '['), 0)), SafetensorsError);
}

TEST_CASE("tensors that lie about their place are refused though the checksum is right",
          "[worker][safetensors]") {
  CHECK_NOTHROW(Safetensors(sealed(R"(,"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]})", 16)));
  const char* bad[] = {
      R"(,"a":{"dtype":"F32","shape":[4],"data_offsets":[0,15]})",    // size and place disagree
      R"(,"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]})",    // beyond the end
      R"(,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})",     // bytes of nobody
      R"(,"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]})",    // backwards
      R"(,"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]})",   // negative
      R"(,"a":{"dtype":"F32","shape":[4.5],"data_offsets":[0,16]})",  // broken
      R"(,"a":{"dtype":"F31","shape":[4],"data_offsets":[0,16]})",    // unknown type
      R"(,"a":{"dtype":"F32","shape":[4611686018427387908,4],"data_offsets":[0,16]})",  // product overflows
      R"(,"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,16]})",   // above int64
      R"(,"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]})",
      R"(,"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"more":1})",
      R"(,"a":5)",
  };
  for (const char* tensors : bad) {
    INFO(tensors);
    CHECK_THROWS_AS(Safetensors(sealed(tensors, 16)), SafetensorsError);
  }
}
