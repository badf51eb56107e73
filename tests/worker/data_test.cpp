#include "worker/data.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "worker/data_text.h"

using namespace worker;
using sweeps::DataSource;
using sweeps::DataSpec;

namespace {

DataSpec text_spec(const std::string& path, double holdout = 0.2) {
  return {
      .source = DataSource::text, .path = path, .validation_path = {}, .holdout = holdout, .fingerprint = {}};
}
DataSpec tokens_spec(const std::string& path, double holdout = 0.1) {
  return {.source = DataSource::tokens,
          .path = path,
          .validation_path = {},
          .holdout = holdout,
          .fingerprint = {}};
}
constexpr DataNeeds kTextNeeds{8, 256, 64};
constexpr DataNeeds kTokenNeeds{8, 1000, 64};

/// Documents that can be told apart, of about ten bytes each.
std::string documents(int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i) text += "word" + std::to_string(i) + " is it.\n\n";
  return text;
}

std::vector<std::int64_t> batch_of(TokenSource& source, std::uint64_t seed, std::int64_t step,
                                   std::int64_t rows) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(rows * (source.needs().context + 1)));
  source.train_batch(seed, step, rows, out);
  return out;
}

std::string raw16(int count, int modulus) {
  std::vector<std::uint16_t> tokens(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i)
    tokens[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(i % modulus);
  return bytes_of_values<std::uint16_t>(tokens);
}
std::string header(std::int32_t magic, std::int32_t count) {
  std::vector<std::int32_t> numbers(256);
  numbers[0] = magic, numbers[1] = 1, numbers[2] = count;
  return bytes_of_values<std::int32_t>(numbers);
}

}  // namespace

TEST_CASE("a training batch is a function of seed and step alone", "[worker][data]") {
  const TemporaryFolder folder;
  const auto check = [](const DataSpec& spec, const DataNeeds& needs) {
    const auto source = open_source(spec, needs);
    const auto batch = batch_of(*source, 1, 1000, 4);
    CHECK(batch_of(*source, 1, 0, 4) != batch);
    CHECK(batch_of(*source, 2, 1000, 4) != batch);
    CHECK(batch_of(*source, 1, 1000, 4) == batch);
  };
  check({.source = DataSource::teacher, .path = {}, .validation_path = {}, .fingerprint = {}}, {8, 128, 64});
  check(text_spec(folder.write("a.txt", documents(0, 500))), kTextNeeds);
  check(tokens_spec(folder.write("a.bin", raw16(5000, 997))), kTokenNeeds);
}

TEST_CASE("documents are held out by what they say, not by where they stand", "[worker][data]") {
  TextParts forward, backward;
  std::string reversed;
  for (int i = 999; i >= 0; --i) reversed += documents(i, 1);
  split_documents(documents(0, 1000), 0.2, forward);
  split_documents(reversed, 0.2, backward);
  CHECK(forward.num_documents == 1000);
  CHECK(forward.holdout.size() == backward.holdout.size());
  CHECK(forward.train.size() == backward.train.size());
  const double share =
      static_cast<double>(forward.holdout.size()) / static_cast<double>(documents(0, 1000).size());
  CHECK(share > 0.15);
  CHECK(share < 0.25);
  // A document more moves no other document to the other side.
  TextParts more;
  split_documents("A new first one.\n\n" + documents(0, 1000), 0.2, more);
  const auto ends_with = [](const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
  };
  CHECK(ends_with(more.train, forward.train));
  CHECK(ends_with(more.holdout, forward.holdout));
}

TEST_CASE("blank lines and form feeds separate documents, single newlines do not", "[worker][data]") {
  const auto count = [](const std::string& text) {
    TextParts parts;
    split_documents(text, 0.5, parts);
    CHECK(parts.train.size() + parts.holdout.size() <= text.size());
    return parts.num_documents;
  };
  CHECK(count("one\nstill one\n\ntwo\n \t\r\nthree\n\n\n\nfour") == 4);
  CHECK(count("one\ftwo\n\f\nthree") == 3);
  CHECK(count("\n\n\none\n\n") == 1);
  CHECK(count("") == 0);
  CHECK(count("\n\n\n") == 0);
}

TEST_CASE("the same document twice never lies on both sides", "[worker][data]") {
  TextParts parts;
  split_documents(documents(0, 100) + documents(0, 100) + "word5 is it.", 0.3, parts);
  const auto in = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  for (int i = 0; i < 100; ++i) {
    const std::string words = "word" + std::to_string(i) + " is";
    CHECK(in(parts.train, words) != in(parts.holdout, words));
  }
}

TEST_CASE("held-out sequences come from the held-out part and cover all of it", "[worker][data]") {
  const TemporaryFolder folder;
  const auto path = folder.write("a.bin", raw16(5000, 997));
  const auto source = open_source(tokens_spec(path), kTokenNeeds);  // held out: positions 4500 to 4999
  CHECK(source->facts().train_tokens == 4500);
  CHECK(source->facts().holdout_tokens == 500);
  const auto& sequences = source->holdout();
  REQUIRE(sequences.size() == 8 * 9);
  CHECK(sequences[0] == 4500 % 997);
  CHECK(sequences[7 * 9] == (4500 + 7 * (499 / 8)) % 997);
  for (std::size_t i = 0; i + 1 < 9; ++i) CHECK(sequences[i + 1] == sequences[i] + 1);
}

TEST_CASE("training never touches the held-out tail", "[worker][data]") {
  const TemporaryFolder folder;
  std::vector<std::uint16_t> tokens(1000, 7);
  std::fill(tokens.begin() + 900, tokens.end(), 8);
  const auto source =
      open_source(tokens_spec(folder.write("a.bin", bytes_of_values<std::uint16_t>(tokens))), kTokenNeeds);
  for (std::int64_t step = 0; step < 200; ++step) {
    for (const auto token : batch_of(*source, 1, step, 8)) REQUIRE(token == 7);
  }
}

TEST_CASE("token files with a header are read, of 16 and of 32 bits", "[worker][data]") {
  const TemporaryFolder folder;
  std::vector<std::uint32_t> wide(3000);
  std::iota(wide.begin(), wide.end(), 70000);
  const DataNeeds needs{8, 80000, 64};
  const auto wide_source = open_source(
      tokens_spec(folder.write("wide.bin", header(20240801, 3000) + bytes_of_values<std::uint32_t>(wide))),
      needs);
  CHECK(wide_source->facts().train_tokens == 2700);
  CHECK(wide_source->holdout()[0] == 72700);
  const auto narrow = open_source(
      tokens_spec(folder.write("narrow.bin", header(20240520, 3000) + raw16(3000, 500))), kTokenNeeds);
  CHECK(narrow->holdout()[0] == 2700 % 500);
}

TEST_CASE("a folder with train.bin and val.bin needs no split", "[worker][data]") {
  const TemporaryFolder folder;
  folder.write("train.bin", raw16(1000, 5));
  folder.write("val.bin", raw16(100, 3));
  const auto source = open_source(tokens_spec(folder.path().string()), kTokenNeeds);
  CHECK(source->facts().train_tokens == 1000);
  CHECK(source->facts().holdout_tokens == 100);
  const auto with_path = tokens_spec((folder / "train.bin").string());
  auto explicit_path = with_path;
  explicit_path.validation_path = (folder / "val.bin").string();
  CHECK(open_source(explicit_path, kTokenNeeds)->facts().fingerprint == source->facts().fingerprint);
  CHECK(open_source(with_path, kTokenNeeds)->facts().fingerprint != source->facts().fingerprint);
}

TEST_CASE("a validation file with the training tokens is refused", "[worker][data]") {
  const TemporaryFolder folder;
  auto spec = tokens_spec(folder.write("a.bin", raw16(1000, 5)));
  spec.validation_path = folder.write("copy.bin", raw16(1000, 5));
  CHECK_THROWS_WITH(open_source(spec, kTokenNeeds),
                    ContainsSubstring("copy.bin") && ContainsSubstring("nothing would be held out"));
}

TEST_CASE("token files that are not what they should be are refused by name", "[worker][data]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& contents, const std::string& why) {
    const auto path = folder.write("bad.bin", contents);
    CHECK_THROWS_WITH(open_source(tokens_spec(path), kTokenNeeds),
                      ContainsSubstring(why) && ContainsSubstring("bad.bin"));
  };
  refused(raw16(1000, 500) + "x", "not a whole number of 16-bit tokens");
  refused(raw16(3000, 1001), "has token 1000, beyond model.vocab = 1000");
  refused(header(20240520, 2999) + raw16(3000, 500), "promises 2999 tokens, the file holds 3000");
  refused(header(20240520, -1) + raw16(3000, 500), "promises -1");
  refused(header(20240801, 3000) + raw16(3001, 500), "not a whole number of 32-bit tokens");
  refused(header(20240520, 0).substr(0, 512), "cut off in its header");
  refused("", "has no tokens");
  refused(raw16(100, 50), "held-out part has 10 tokens");
  CHECK_THROWS_WITH(open_source(tokens_spec((folder / "none.bin").string()), kTokenNeeds),
                    ContainsSubstring("none.bin does not exist"));
}

TEST_CASE("texts that cannot be trained on are refused by name", "[worker][data]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& contents, const DataNeeds& needs, const std::string& why) {
    const auto path = folder.write("bad.txt", contents);
    CHECK_THROWS_WITH(open_source(text_spec(path), needs),
                      ContainsSubstring(why) && ContainsSubstring("bad.txt"));
  };
  refused("", kTextNeeds, "the text is empty");
  refused("\n\n \n", kTextNeeds, "the text is empty");
  refused(std::string(10000, 'a'), kTextNeeds, "one byte repeated (97)");
  refused(documents(0, 100), {100000, 256, 64}, "model.context = 100000 is longer than the text");
  refused(documents(0, 100), {8, 256, 100000}, "held-out part has");
  refused("A single document without a blank line.\n" + std::string(1000, 'x'), kTextNeeds,
          "the text is one document");
  CHECK_THROWS_WITH(open_source(text_spec((folder / "none").string()), kTextNeeds),
                    ContainsSubstring("does not exist"));
  const auto good = folder.write("good.txt", documents(0, 500));
  CHECK_THROWS_WITH(open_source(text_spec(good), {8, 128, 64}), ContainsSubstring("use vocab = 256"));
  CHECK_THROWS_WITH(open_source(text_spec(""), kTextNeeds), ContainsSubstring("data.path is missing"));
  std::filesystem::create_directories(folder / "empty");
  CHECK_THROWS_WITH(open_source(text_spec((folder / "empty").string()), kTextNeeds),
                    ContainsSubstring("no files in"));
}

TEST_CASE("a folder of texts is read in the order of its paths, hidden files left out", "[worker][data]") {
  const TemporaryFolder folder;
  folder.write("t/b.txt", documents(250, 250));
  folder.write("t/a/x.txt", documents(0, 250));
  const auto source = open_source(text_spec((folder / "t").string()), kTextNeeds);
  CHECK_THAT(source->facts().description, ContainsSubstring("2 files, 500 documents"));
  folder.write("t/.hidden", "secret");
  folder.write("t/.git/x", "secret");
  CHECK(open_source(text_spec((folder / "t").string()), kTextNeeds)->facts().fingerprint ==
        source->facts().fingerprint);
}

TEST_CASE("a source is opened once, and again when its file changes", "[worker][data]") {
  const TemporaryFolder folder;
  auto spec = text_spec(folder.write("a.txt", documents(0, 500)));
  const auto first = open_source(spec, kTextNeeds);
  CHECK(open_source(spec, kTextNeeds) == first);
  spec.fingerprint = first->facts().fingerprint;
  CHECK(open_source(spec, kTextNeeds) == first);
  folder.write("a.txt", documents(1, 500));
  CHECK_THROWS_WITH(open_source(spec, kTextNeeds), ContainsSubstring("not what the study was planned with"));
  spec.fingerprint.clear();
  CHECK(open_source(spec, kTextNeeds)->facts().fingerprint != first->facts().fingerprint);
}

TEST_CASE("the teacher's source holds other documents out than it trains on", "[worker][data]") {
  const auto source = open_source(
      {.source = DataSource::teacher, .path = {}, .validation_path = {}, .fingerprint = {}}, {64, 128, 4096});
  CHECK(source->holdout().size() == 64 * 65);
  REQUIRE(source->floor().has_value());
  std::set<std::vector<std::int64_t>> held_out;
  for (int i = 0; i < 64; ++i) {
    held_out.emplace(source->holdout().begin() + i * 65, source->holdout().begin() + (i + 1) * 65);
  }
  const auto batch = batch_of(*source, 1, 0, 64);
  for (int i = 0; i < 64; ++i) {
    CHECK(
        !held_out.contains(std::vector<std::int64_t>(batch.begin() + i * 65, batch.begin() + (i + 1) * 65)));
  }
  CHECK_THROWS_AS(open_source(DataSpec{}, DataNeeds{64, 100, 4096}), UserError);
}
