#include "orchestrator/png.h"

#include <zlib.h>

#include <vector>

#include "tests/support/catch.h"

using orchestrator::base64;
using orchestrator::png;

namespace {

std::uint32_t number(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

struct Chunk {
  std::string type, data;
};
/// The chunks of a file whose signature and checksums are right.
std::vector<Chunk> chunks(std::string_view file) {
  REQUIRE(file.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  std::vector<Chunk> chunks;
  for (std::size_t at = 8; at < file.size();) {
    const auto size = number(file, at);
    const auto body = file.substr(at + 4, 4 + size);
    const auto sum = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
    CHECK(number(file, at + 8 + size) == sum);
    chunks.push_back({std::string(body.substr(0, 4)), std::string(body.substr(4))});
    at += 12 + size;
  }
  return chunks;
}

std::string inflated(const std::string& data, std::size_t size) {
  std::string bytes(size, '\0');
  uLongf length = size;
  REQUIRE(uncompress(reinterpret_cast<Bytef*>(bytes.data()), &length,
                     reinterpret_cast<const Bytef*>(data.data()), data.size()) == Z_OK);
  bytes.resize(length);
  return bytes;
}

}  // namespace

TEST_CASE("a PNG holds its size, its kind and every pixel", "[orchestrator][png]") {
  const std::vector<std::uint8_t> grey = {0, 1, 2, 253, 254, 255};
  const auto file = chunks(png(3, 2, 1, grey));
  REQUIRE(file.size() == 3);
  CHECK(file[0].type == "IHDR");
  CHECK(number(file[0].data, 0) == 3);
  CHECK(number(file[0].data, 4) == 2);
  CHECK(file[0].data.substr(8) == std::string("\x08\0\0\0\0", 5));
  CHECK(file[1].type == "IDAT");
  CHECK(inflated(file[1].data, 100) == std::string("\0\0\1\2\0\xfd\xfe\xff", 8));
  CHECK(file[2].type == "IEND");
  CHECK(chunks(png(2, 1, 3, grey))[0].data[9] == 2);
}

TEST_CASE("pixels that do not fill the picture are our own mistake", "[orchestrator][png]") {
  const std::vector<std::uint8_t> grey = {0, 1, 2};
  CHECK_THROWS_AS(png(2, 2, 1, grey), std::logic_error);
  CHECK_THROWS_AS(png(1, 1, 2, grey), std::logic_error);
}

TEST_CASE("base64 writes the examples of its standard", "[orchestrator][png]") {
  CHECK(base64("").empty());
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foo") == "Zm9v");
  CHECK(base64("foobar") == "Zm9vYmFy");
  CHECK(base64("\xff\xfe") == "//4=");
}
