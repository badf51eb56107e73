// What a person reads stays quick at 10,000 trials with 100 curve points each. tests/bench/read.sh prints the figures.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using test::tuneonce;
namespace fs = std::filesystem;

namespace {

/// The quickest of five: a loaded machine is not what is tested.
double seconds(const fs::path& folder, const std::vector<std::string>& words) {
  double quickest = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    REQUIRE(tuneonce(folder, words).code == 0);
    quickest = std::min(quickest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return quickest;
}

/// Five times the goals of tests/bench/read.sh, and as much for a screen as for all rows.
void check_quick(const fs::path& folder, const std::string& database) {
  CAPTURE(database);
  CHECK(seconds(folder, {"results", database, "--format", "csv"}) < 5);
  CHECK(seconds(folder, {"best", database}) < 0.25);
  CHECK(seconds(folder, {"status", database}) < 5);
  CHECK(seconds(folder, {"watch", "--once", database}) < 5);
}

}  // namespace

TEST_CASE("ten thousand trials are read quickly while a run is on, after it died, and from a copy",
          "[orchestrator][commands][slow]") {
  const TemporaryFolder folder;
  const auto database = folder / "a.db";
  auto store = test::store_with(database, {test::trial(-9)});
  test::run_sql(database, test::read_text(TUNEONCE_SOURCE_DIR "/tests/support/ten_thousand_trials.sql"));
  const auto csv = tuneonce(folder.path(), {"results", "a.db", "--format", "csv"}).out;
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 10'001);
  CHECK_THAT(tuneonce(folder.path(), {"query", "SELECT count(*) AS n FROM curves WHERE trial = 77", "a.db", "--json"}).out,
             ContainsSubstring("\"n\": 100\n"));

  fs::create_directories(folder / "dead");
  fs::create_directories(folder / "copy");
  // As a killed run leaves them. Not by this process: closing its copies would end the locks of its own connection.
  REQUIRE(std::system(("cp '" + folder.path().string() + "'/a.db* '" + (folder / "dead").string() + "'").c_str()) == 0);
  check_quick(folder.path(), "dead/a.db");

  test::run_sql(database, "PRAGMA wal_checkpoint(TRUNCATE)");
  REQUIRE(std::system(("cp '" + database.string() + "' '" + (folder / "copy").string() + "'").c_str()) == 0);
  fs::permissions(folder / "copy/a.db", fs::perms::owner_read);
  fs::permissions(folder / "copy", fs::perms::owner_read | fs::perms::owner_exec);
  check_quick(folder.path(), "copy/a.db");
  fs::permissions(folder / "copy", fs::perms::owner_all);

  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 0; !done; ++i) {
      store.record("test", "entry " + std::to_string(i));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  check_quick(folder.path(), "a.db");
  done = true;
  writer.join();
}
