#include "worker/data_images.h"

#include <algorithm>
#include <filesystem>

#include "worker/idx.h"

namespace worker {
namespace {

namespace fs = std::filesystem;

constexpr double kDefaultHoldout = 0.02;

/// Files of images, the held-out ones apart.
struct ImageFiles {
  std::vector<fs::path> train, holdout;
};

bool is_test_file(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.starts_with("t10k") || name.starts_with("test");
}

ImageFiles image_files(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status))
    throw UserError("data.path: " + path.string() +
                    " does not exist (`tuneonce data fetch fashion-mnist` gets a data set)");
  if (!fs::is_directory(status)) return {{path}, {}};
  ImageFiles files;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    const fs::path& file = entry->path();
    const std::string name = file.filename().string();
    if (name.starts_with('.') || name.find("idx3-ubyte") == std::string::npos) continue;
    if (file.extension() != ".gz" && fs::exists(file.string() + ".gz"))
      throw UserError(file.string() + ": is there packed and unpacked; remove one of the two");
    (is_test_file(file) ? files.holdout : files.train).push_back(file);
  }
  if (error) throw UserError("cannot read " + path.string() + ": " + error.message());
  if (files.train.empty())
    throw UserError("data.path: no training images in " + path.string() +
                    "; they are files with idx3-ubyte in their names, such as train-images-idx3-ubyte.gz");
  std::sort(files.train.begin(), files.train.end());
  std::sort(files.holdout.begin(), files.holdout.end());
  return files;
}

class ImagesSource : public ImageSource {
 public:
  ImagesSource(const sweeps::DataSpec& spec, const DataNeeds& needs) : pixels_(needs.pixels()) {
    needs_ = needs;
    const ImageFiles files = image_files(spec.path);
    std::string contents;  // fingerprint of every file and how they are split
    for (const auto& file : files.train) append(file, train_, contents);
    if (files.holdout.empty()) {
      split(spec.holdout > 0 ? spec.holdout : kDefaultHoldout);
      contents += " held out " + std::to_string(num_images(heldout_));
    } else {
      if (spec.holdout > 0)
        throw UserError("data.holdout: " + spec.path + " has test images (" +
                        files.holdout.front().filename().string() +
                        "), which are held out; leave holdout out, or name the training file as path");
      contents += " held out ";
      for (const auto& file : files.holdout) append(file, heldout_, contents);
    }
    choose_holdout(spec.path);
    facts_.fingerprint =
        fingerprint_of({reinterpret_cast<const std::uint8_t*>(contents.data()), contents.size()});
    facts_.train_tokens = num_images(train_);
    facts_.holdout_tokens = num_holdout_sequences(needs);
    const std::string side = std::to_string(needs.image_size);
    facts_.description = "images of " + side + "x" + side + ", " + std::to_string(num_images(train_)) +
                         " to train on, " + std::to_string(num_images(heldout_)) +
                         (files.holdout.empty() ? " held out by what they show" : " held out (test files)");
  }

  void train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::span<float> out) override {
    const auto count = static_cast<std::uint64_t>(num_images(train_));
    for (std::int64_t row = 0; row < batch; ++row)
      scale(image(train_, static_cast<std::int64_t>(window_start(seed, step, row, count))),
            out.subspan(static_cast<std::size_t>(row * pixels_)));
  }

  const std::vector<float>& holdout() override { return holdout_; }

 private:
  using Bytes = std::vector<std::uint8_t>;  // [count, S, S]

  std::int64_t num_images(const Bytes& images) const {
    return static_cast<std::int64_t>(images.size()) / pixels_;
  }
  std::span<const std::uint8_t> image(const Bytes& images, std::int64_t index) const {
    return std::span(images).subspan(static_cast<std::size_t>(index * pixels_),
                                     static_cast<std::size_t>(pixels_));
  }
  static void scale(std::span<const std::uint8_t> from, std::span<float> to) {
    std::transform(from.begin(), from.end(), to.begin(),
                   [](std::uint8_t pixel) { return static_cast<float>(pixel) / 127.5f - 1.0f; });
  }

  void append(const fs::path& file, Bytes& to, std::string& contents) {
    const IdxImages images = read_idx_images(file);
    const auto size = needs_.image_size;
    if (images.rows != images.columns || images.rows != size) {
      const std::string found = std::to_string(images.rows) + "x" + std::to_string(images.columns);
      throw UserError(file.string() + ": has images of " + found + ", but the study asks for " +
                      std::to_string(size) + "x" + std::to_string(size) +
                      (images.rows == images.columns
                           ? "; write image_size = " + std::to_string(images.rows) + " in [data]"
                           : "; only square images will do"));
    }
    contents += fingerprint_of(images.pixels);
    to.insert(to.end(), images.pixels.begin(), images.pixels.end());
  }

  void split(double share) {
    Bytes all;
    all.swap(train_);
    for (std::int64_t i = 0; i < num_images(all); ++i) {
      const auto one = image(all, i);
      Bytes& side = is_held_out(one, share) ? heldout_ : train_;
      side.insert(side.end(), one.begin(), one.end());
    }
    if (train_.empty() || heldout_.empty())
      throw UserError(
          "data.holdout: " + std::to_string(num_images(all)) +
          " images leave none to hold out or none to train on; give more of them or another share");
  }

  /// The fixed set that trials are judged on, spread evenly over the held-out images.
  void choose_holdout(const std::string& path) {
    const std::int64_t want = num_holdout_sequences(needs_), have = num_images(heldout_);
    if (want > have)
      throw UserError(path + ": has " + std::to_string(have) + " held-out images, but train.eval asks for " +
                      std::to_string(want) + "; lower train.eval.images");
    holdout_.resize(static_cast<std::size_t>(want * pixels_));
    for (std::int64_t i = 0; i < want; ++i)
      scale(image(heldout_, i * have / want),
            std::span(holdout_).subspan(static_cast<std::size_t>(i * pixels_)));
  }

  std::int64_t pixels_;
  Bytes train_, heldout_;
  std::vector<float> holdout_;
};

}  // namespace

std::shared_ptr<ImageSource> open_images_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  if (spec.path.empty())
    throw UserError("data.path is missing: source = \"images\" needs a file or a folder");
  if (needs.channels != 1)
    throw UserError("data.channels is " + std::to_string(needs.channels) +
                    ", but idx files hold grey images; use channels = 1");
  return std::make_shared<ImagesSource>(spec, needs);
}

}  // namespace worker
