#include "worker/data_images.h"

#include <zlib.h>

#include <algorithm>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "worker/idx.h"

using namespace worker;

namespace {

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

/// `count` images of 2x2, each with its own number in two pixels.
std::string idx(int first, int count, std::uint32_t rows = 2, std::uint32_t columns = 2) {
  std::string bytes = big_endian(0x803) + big_endian(static_cast<std::uint32_t>(count)) + big_endian(rows) +
                      big_endian(columns);
  for (int i = first; i < first + count; ++i) {
    std::string image(rows * columns, '\0');
    image[0] = static_cast<char>(i / 256), image[1] = static_cast<char>(i % 256);
    image.back() = '\xff';
    bytes += image;
  }
  return bytes;
}

std::string packed(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto file = folder / "a.gz";
  const gzFile output = gzopen(file.c_str(), "wb");
  REQUIRE(gzwrite(output, bytes.data(), static_cast<unsigned>(bytes.size())) ==
          static_cast<int>(bytes.size()));
  REQUIRE(gzclose(output) == Z_OK);
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

sweeps::DataSpec images_spec(const std::string& path, double holdout = 0) {
  return {.source = sweeps::DataSource::images,
          .path = path,
          .validation_path = {},
          .holdout = holdout,
          .fingerprint = {}};
}
/// One patch an image, four held-out images of 2x2.
constexpr DataNeeds kNeeds{.context = 1, .vocab = 0, .eval_tokens = 4, .image_size = 2, .channels = 1};

std::vector<float> batch_of(ImageSource& source, std::uint64_t seed, std::int64_t step, std::int64_t rows) {
  std::vector<float> out(static_cast<std::size_t>(rows * source.needs().pixels()));
  source.train_batch(seed, step, rows, out);
  return out;
}

/// The numbers of images of idx().
std::set<int> numbers(const std::vector<float>& images) {
  const auto byte = [](float pixel) { return static_cast<int>(std::lround((pixel + 1) * 127.5f)); };
  std::set<int> found;
  for (std::size_t at = 0; at < images.size(); at += 4)
    found.insert(256 * byte(images[at]) + byte(images[at + 1]));
  return found;
}

}  // namespace

TEST_CASE("an idx file is read to the last pixel, packed or not", "[worker][data][images]") {
  const TemporaryFolder folder;
  for (const auto& file : {folder.write("a-idx3-ubyte", idx(256, 3, 2, 3)),
                           folder.write("b-idx3-ubyte.gz", packed(idx(256, 3, 2, 3)))}) {
    const auto images = read_idx_images(file);
    CHECK(images.count == 3);
    CHECK(images.rows == 2);
    CHECK(images.columns == 3);
    CHECK(images.pixels ==
          std::vector<std::uint8_t>{1, 0, 0, 0, 0, 255, 1, 1, 0, 0, 0, 255, 1, 2, 0, 0, 0, 255});
  }
}

TEST_CASE("a file that holds no images says what it is instead", "[worker][data][images]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& bytes, const std::string& text, const std::string& name = "x") {
    const auto file = folder.write(name, bytes);
    CHECK_THROWS_WITH(read_idx_images(file), ContainsSubstring(file) && ContainsSubstring(text));
  };
  const std::string whole = idx(0, 5);
  refused("", "is not an idx file: 0 bytes");
  refused("\x89PNG and more", "it begins with 0x89504e47");
  refused(big_endian(0x801) + big_endian(5) + "12345", "holds labels");
  refused(big_endian(0xd03) + whole.substr(4), "another kind (0x00000d03)");
  refused(whole.substr(0, 12), "within its header");
  refused(whole.substr(0, whole.size() - 1), "is cut short: its header says 5 images of 2x2, and 19 bytes");
  refused(whole + "x", "is too long");
  refused(idx(0, 0), "has no pixels: 0 images");
  refused(big_endian(0x803) + big_endian(~0u) + big_endian(~0u) + big_endian(~0u), "is cut short");
  refused(whole, "not a sound gzip file", "x.gz");
  refused(packed(whole).substr(0, packed(whole).size() - 9), "not a sound gzip file", "x.gz");
  std::string damaged = packed(whole);
  damaged[damaged.size() - 5] ^= 1;  // of the checksum
  refused(damaged, "not a sound gzip file", "x.gz");
  CHECK_THROWS_AS(read_idx_images(folder / "none"), UserError);
}

TEST_CASE("pixels go from -1 to 1", "[worker][data][images]") {
  const TemporaryFolder folder;
  const auto source = open_image_source(images_spec(folder.write("x", idx(7, 1000))), kNeeds);
  const auto batch = batch_of(*source, 1, 0, 8);
  CHECK(*std::max_element(batch.begin(), batch.end()) == 1);
  CHECK(*std::min_element(batch.begin(), batch.end()) == -1);
  for (std::size_t at = 0; at < batch.size(); at += 4) CHECK(batch[at + 3] == 1);
}

TEST_CASE("test files are held out, all others trained on", "[worker][data][images]") {
  const TemporaryFolder folder;
  folder.write("train-images-idx3-ubyte.gz", packed(idx(0, 100)));
  folder.write("t10k-images-idx3-ubyte", idx(500, 8));
  folder.write("train-labels-idx1-ubyte", "no images");
  const auto source = open_image_source(images_spec(folder.path().string()), kNeeds);
  CHECK(numbers(source->holdout()) == std::set<int>{500, 502, 504, 506});
  const auto seen = numbers(batch_of(*source, 1, 0, 1000));
  CHECK(seen.size() > 90);
  CHECK(*seen.rbegin() < 100);
  CHECK(source->facts().train_tokens == 100);
  CHECK(source->facts().description == "images of 2x2, 100 to train on, 8 held out (test files)");
  CHECK_THROWS_WITH(open_image_source(images_spec(folder.path().string(), 0.1), kNeeds),
                    ContainsSubstring("t10k-images-idx3-ubyte") && ContainsSubstring("leave holdout out"));
}

TEST_CASE("without test files a share is held out by what images show", "[worker][data][images]") {
  const TemporaryFolder folder;
  auto needs = kNeeds;
  needs.eval_tokens = 150;
  const auto held_out = [&](const std::string& name, const std::string& bytes) {
    return numbers(open_image_source(images_spec(folder.write(name, bytes), 0.2), needs)->holdout());
  };
  const std::string both = idx(0, 500) + idx(0, 500).substr(16);
  const auto once = held_out("once", idx(0, 1000));
  // Each image twice, in one file of 1000: still on one side.
  std::string twice = both;
  twice.replace(4, 4, big_endian(1000));
  const auto source = open_image_source(images_spec(folder.write("twice", twice), 0.2), needs);
  const auto apart = numbers(source->holdout());
  for (const int image : numbers(batch_of(*source, 3, 0, 5000))) CHECK_FALSE(apart.contains(image));
  CHECK(once.size() == 150);
  CHECK(source->facts().train_tokens > 750);
  CHECK(source->facts().train_tokens < 850);
}

TEST_CASE("a batch of images is a function of seed and step alone", "[worker][data][images]") {
  const TemporaryFolder folder;
  const auto source = open_image_source(images_spec(folder.write("x", idx(0, 1000))), kNeeds);
  const auto batch = batch_of(*source, 1, 30, 4);
  CHECK(batch_of(*source, 1, 31, 4) != batch);
  CHECK(batch_of(*source, 2, 30, 4) != batch);
  CHECK(batch_of(*source, 1, 30, 4) == batch);
}

TEST_CASE("other images or another split are another fingerprint, another place is not",
          "[worker][data][images]") {
  const TemporaryFolder folder;
  const auto fingerprint = [&](const std::string& name, const std::string& bytes, double holdout = 0) {
    return open_image_source(images_spec(folder.write(name, bytes), holdout), kNeeds)->facts().fingerprint;
  };
  const auto one = fingerprint("a", idx(0, 1000));
  CHECK(fingerprint("b", idx(0, 1000)) == one);
  CHECK(fingerprint("c.gz", packed(idx(0, 1000))) == one);
  CHECK(fingerprint("d", idx(1, 1000)) != one);
  CHECK(fingerprint("a", idx(0, 1000), 0.3) != one);
}

TEST_CASE("images that the study does not fit are refused with what would", "[worker][data][images]") {
  const TemporaryFolder folder;
  const auto refused = [](const std::string& path, DataNeeds needs, const std::string& text,
                          double holdout = 0) {
    CHECK_THROWS_WITH(open_image_source(images_spec(path, holdout), needs), ContainsSubstring(text));
  };
  const auto file = folder.write("x", idx(0, 1000));
  auto needs = kNeeds;
  needs.image_size = 28;
  refused(file, needs, "has images of 2x2, but the study asks for 28x28; write image_size = 2 in [data]");
  refused(folder.write("wide", idx(0, 10, 2, 3)), kNeeds, "only square images will do");
  needs = kNeeds;
  needs.channels = 3;
  refused(file, needs, "use channels = 1");
  needs = kNeeds;
  needs.eval_tokens = 900;
  refused(file, needs, "lower train.eval.images");
  refused("", kNeeds, "data.path is missing");
  refused((folder / "none").string(), kNeeds, "tuneonce data fetch fashion-mnist");
  refused(folder.write("same", idx(0, 1)), kNeeds, "none to hold out or none to train on");
  const TemporaryFolder empty;
  refused(empty.path().string(), kNeeds, "no training images in");
  folder.write("both/x-idx3-ubyte", idx(0, 10));
  folder.write("both/x-idx3-ubyte.gz", packed(idx(0, 10)));
  refused((folder / "both").string(), kNeeds, "packed and unpacked; remove one");
}
