#include "worker/teacher.h"

#include <cmath>

#include "tests/support/catch.h"

using worker::Teacher;

namespace {

/// p(last token | those before it), from the floor of the whole document and of the document without it.
double probability_of_last(const Teacher& teacher, std::vector<std::uint8_t> document) {
  const auto length = static_cast<std::int64_t>(document.size());
  double nats = teacher.floor(document, length) * static_cast<double>(length - 1);
  document.pop_back();
  if (length > 2) nats -= teacher.floor(document, length - 1) * static_cast<double>(length - 2);
  return std::exp(-nats);
}

std::vector<std::uint8_t> draw(const Teacher& teacher, Teacher::Stream stream, std::uint64_t first,
                               std::int64_t count, std::int64_t length) {
  std::vector<std::uint8_t> tokens(static_cast<std::size_t>(count * length));
  teacher.draw(stream, first, count, length, tokens);
  return tokens;
}

}  // namespace

TEST_CASE("a document of the teacher is the same whoever draws it", "[worker][teacher]") {
  const Teacher teacher(5);
  const auto many = draw(teacher, Teacher::Stream::train, 0, 100, 33);
  const auto one = draw(teacher, Teacher::Stream::train, 77, 1, 33);
  CHECK(std::equal(one.begin(), one.end(), many.begin() + 77 * 33));
  const auto shorter = draw(Teacher(5), Teacher::Stream::train, 77, 1, 12);
  CHECK(std::equal(shorter.begin(), shorter.end(), one.begin()));
  CHECK(draw(teacher, Teacher::Stream::holdout, 77, 1, 33) != one);
  CHECK(draw(Teacher(6), Teacher::Stream::train, 77, 1, 33) != one);
  CHECK(Teacher(6).fingerprint() != teacher.fingerprint());
  CHECK(Teacher(5).fingerprint() == teacher.fingerprint());
}

TEST_CASE("the teacher's probabilities of the next token sum to one", "[worker][teacher]") {
  const Teacher teacher(0);
  std::vector<std::uint8_t> document = {3, 0, 17, 5, 99, 1, 2, 2, 8, 0};
  double total = 0;
  for (int token = 0; token < Teacher::kVocab; ++token) {
    document.back() = static_cast<std::uint8_t>(token);
    total += probability_of_last(teacher, document);
  }
  CHECK_THAT(total, WithinAbs(1, 1e-9));
}

TEST_CASE("the teacher looks back seven tokens and no further", "[worker][teacher]") {
  const Teacher teacher(0);
  const auto base = probability_of_last(teacher, {9, 1, 2, 3, 4, 5, 6, 7, 8});
  CHECK_THAT(probability_of_last(teacher, {50, 1, 2, 3, 4, 5, 6, 7, 8}), WithinRel(base, 1e-9));
  CHECK(std::abs(probability_of_last(teacher, {9, 50, 2, 3, 4, 5, 6, 7, 8}) / base - 1) > 1e-4);
}

TEST_CASE("tokens are drawn with the probabilities that the floor is computed from", "[worker][teacher]") {
  const Teacher teacher(3);
  constexpr int kDocuments = 60000;
  const auto tokens = draw(teacher, Teacher::Stream::train, 0, kDocuments, 2);
  std::vector<double> first(Teacher::kVocab), second(Teacher::kVocab);  // second: after a first token 0
  for (int d = 0; d < kDocuments; ++d) {
    ++first[tokens[static_cast<std::size_t>(2 * d)]];
    if (tokens[static_cast<std::size_t>(2 * d)] == 0) ++second[tokens[static_cast<std::size_t>(2 * d + 1)]];
  }
  double harmonic = 0;
  for (int v = 1; v <= Teacher::kVocab; ++v) harmonic += 1.0 / v;
  double chi_first = 0, chi_second = 0;
  for (int v = 0; v < Teacher::kVocab; ++v) {
    const double prior = kDocuments / harmonic / (v + 1);
    const auto token = static_cast<std::uint8_t>(v);
    const double expected = first[0] * probability_of_last(teacher, {0, token});
    chi_first += std::pow(first[static_cast<std::size_t>(v)] - prior, 2) / prior;
    chi_second += std::pow(second[static_cast<std::size_t>(v)] - expected, 2) / expected;
  }
  // 127 degrees of freedom: 200 is passed by chance once in 30,000; the draw is fixed, so it is passed or
  // not.
  CHECK(chi_first < 200);
  CHECK(chi_second < 200);
}

TEST_CASE("the teacher is well above chance and well below certainty", "[worker][teacher]") {
  for (const std::uint64_t seed : {0, 1, 2}) {
    const Teacher teacher(seed);
    const double floor = teacher.floor(draw(teacher, Teacher::Stream::holdout, 0, 300, 65), 65);
    CHECK(floor > 1.5);
    CHECK(floor < 3.5);
  }
}
