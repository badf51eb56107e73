#include "orchestrator/data_fetch.h"

#include <filesystem>
#include <fstream>

#include "sweeps/corpora.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using orchestrator::clean_gcide;
namespace fs = std::filesystem;

TEST_CASE("the dictionary's own description is left out", "[orchestrator][data]") {
  const std::string raw =
      "00-database-info\n   This file is part of the GNU version.\nand some loose lines.\n"
      "Abandon \\A*ban\"don\\, v. t.\n   1. To cast or drive out; to banish; to expel; to reject.\n";
  CHECK(clean_gcide(raw) ==
        "Abandon \\A*ban\"don\\, v. t. 1. To cast or drive out; to banish; to expel; to reject.\n\n");
}

TEST_CASE("all senses of a headword make one document, a paragraph a line, without source tags",
          "[orchestrator][data]") {
  const std::string raw =
      "Abbey \\Ab\"bey\\, n.\n   1. A monastery or society\n      of persons. [Obs.]\n      [1913 "
      "Webster]\n\n"
      "   2. The church of a monastery. [WordNet 1.5 +PJC]\n"
      "Abbey \\Ab\"bey\\, v.\n   To dwell in an abbey for a while.\n"
      "Abbot \\Ab\"bot\\, n.\n   The superior or head of an abbey, a man.\n";
  CHECK(clean_gcide(raw) ==
        "Abbey \\Ab\"bey\\, n. 1. A monastery or society of persons. [Obs.]\n2. The church of a monastery.\n"
        "Abbey \\Ab\"bey\\, v. To dwell in an abbey for a while.\n\n"
        "Abbot \\Ab\"bot\\, n. The superior or head of an abbey, a man.\n\n");
}

TEST_CASE("a cross reference of a few bytes is no document", "[orchestrator][data]") {
  CHECK(clean_gcide("Aba \\A\"ba\\, n.\n   See {Abb}.\n").empty());
}

TEST_CASE("an unknown corpus is refused with the known ones", "[orchestrator][data]") {
  CHECK_THROWS_WITH(orchestrator::fetch_corpus("wikipedia", "/nonexistent"),
                    ContainsSubstring("known: gcide, fashion-mnist"));
}

TEST_CASE("a corpus that is there is not fetched again", "[orchestrator][data]") {
  const fs::path cache = fs::temp_directory_path() / "tuneonce_fetch_test";
  fs::remove_all(cache);
  fs::create_directories(cache / "gcide");
  std::ofstream(cache / "gcide" / "gcide.txt") << "kept\n";
  const auto corpus = orchestrator::fetch_corpus("gcide", cache);
  CHECK_FALSE(corpus.fetched);
  CHECK(corpus.bytes == 5);
  fs::remove_all(cache);
}

TEST_CASE("every corpus that a study may name is there to be fetched", "[orchestrator][data]") {
  const TemporaryFolder cache;
  std::ofstream(cache / "file") << "no folder\n";
  for (const auto name : sweeps::kCorpora)  // known names get as far as the folder that cannot be made
    CHECK_THROWS_AS(orchestrator::fetch_corpus(name, cache / "file"), fs::filesystem_error);
}

TEST_CASE("half a corpus is not there", "[orchestrator][data]") {
  const TemporaryFolder cache;
  fs::create_directories(cache / "fashion-mnist");
  std::ofstream(cache / "fashion-mnist" / "train-images-idx3-ubyte.gz") << "kept";
  std::ofstream(cache / "fashion-mnist" / "download") << "in the way of a download\n";
  CHECK_THROWS_AS(orchestrator::fetch_corpus("fashion-mnist", cache.path()), fs::filesystem_error);
  std::ofstream(cache / "fashion-mnist" / "t10k-images-idx3-ubyte.gz") << "kept too";
  CHECK(orchestrator::fetch_corpus("fashion-mnist", cache.path()).bytes == 12);
}
