#include "orchestrator/disk_guard.h"

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace orchestrator;

namespace {

void write_bytes(const std::filesystem::path& file, std::size_t bytes) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << std::string(bytes, 'x');
}

struct Study {
  TemporaryFolder folder;
  sweeps::DiskSpec limits;
  std::string trouble() const {
    return DiskGuard(limits, folder / "a.db", folder / "a.db.d").trouble().value_or("");
  }
};

}  // namespace

TEST_CASE("a study within its bounds gives no trouble, before its files are there too", "[orchestrator][disk]") {
  Study study;
  CHECK(study.trouble() == "");
  write_bytes(study.folder / "a.db", 1000);
  CHECK(study.trouble() == "");
}

TEST_CASE("a disk with too little left is full, and the text names folder and bound", "[orchestrator][disk]") {
  Study study;
  study.limits.keep_free = std::int64_t{1} << 60;
  CHECK_THAT(study.trouble(), ContainsSubstring(study.folder.path().string()) && ContainsSubstring("the disk is full") &&
                                  ContainsSubstring("keep_free"));
}

TEST_CASE("checkpoints, and all files of a study together, have their bounds", "[orchestrator][disk]") {
  Study study;
  study.limits.checkpoints = 1000;
  study.limits.study = 3000;
  write_bytes(study.folder / "a.db.d/logs/trial-0001.log", 900);
  write_bytes(study.folder / "a.db.d/checkpoints/1.safetensors", 900);
  write_bytes(study.folder / "a.db", 900);
  CHECK(study.trouble() == "");
  write_bytes(study.folder / "a.db-wal", 900);
  CHECK_THAT(study.trouble(), ContainsSubstring("[disk] study"));
  write_bytes(study.folder / "a.db.d/checkpoints/2.safetensors", 200);
  CHECK_THAT(study.trouble(), ContainsSubstring("[disk] checkpoints"));
}

TEST_CASE("what is written is counted at once when it may have taken the last room", "[orchestrator][disk]") {
  Study study;
  study.limits.study = 1 << 20;
  DiskGuard guard(study.limits, study.folder / "a.db", study.folder / "a.db.d");
  CHECK(!guard.trouble());
  write_bytes(study.folder / "a.db.d/logs/trial-0001.log", 2 << 20);
  CHECK(!guard.trouble());  // counted a moment ago
  CHECK(!guard.has_grown((1 << 20) - 1));
  CHECK(guard.has_grown(1));
  CHECK(guard.trouble().has_value());
}

TEST_CASE("what a failure says tells a full disk from other troubles", "[orchestrator][disk]") {
  CHECK(says_disk_full("cannot write a.safetensors: No space left on device"));
  CHECK(says_disk_full("Disk quota exceeded [a]"));
  CHECK(!says_disk_full("signal 11 (Segmentation fault)"));
}
