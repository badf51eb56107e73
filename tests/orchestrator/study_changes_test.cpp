#include "orchestrator/study_changes.h"

#include "tests/support/catch.h"

using orchestrator::study_changes;
using Lines = std::vector<std::string>;

TEST_CASE("equal studies have no changes", "[orchestrator][study_changes]") {
  CHECK(study_changes("a = 1\n[s]\nb = 2\n", "a = 1\n[s]\nb = 2\n").empty());
}

TEST_CASE("a changed key is shown with its section and both values", "[orchestrator][study_changes]") {
  CHECK(study_changes("[train]\nsteps = 1000\nbatch = 8\n", "[train]\nsteps = 2000\nbatch = 8\n") ==
        Lines{"train.steps: 1000 -> 2000"});
}

TEST_CASE("keys that only one study has show a dash, and targets are numbered",
          "[orchestrator][study_changes]") {
  CHECK(study_changes("[[target]]\nname = \"a\"\n", "[[target]]\nname = \"a\"\n[[target]]\nname = \"b\"\n") ==
        Lines{"target.2.name: - -> \"b\""});
  CHECK(study_changes("seed = 1\n", "") == Lines{"seed: 1 -> -"});
}
