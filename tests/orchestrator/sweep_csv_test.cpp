// Sweeps from CSV files: what is taken, and what is refused with its place.
#include "orchestrator/sweep_csv.h"

#include <string>

#include "orchestrator/exit_code.h"
#include "orchestrator/output.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace orchestrator;
using sweeps::TrialState;

namespace {

CsvSweep parsed(const std::string& text) { return parse_sweep_csv(text, "runs/sweep.csv"); }

/// The states of the runs, one letter each.
std::string states(const CsvSweep& sweep) {
  std::string letters;
  for (const auto& trial : sweep.trials) letters += sweeps::name(trial.state).front();
  return letters;
}

/// The message of the refusal; fails the test when the text is accepted.
std::string complaint(const std::string& text) {
  try {
    parsed(text);
  } catch (const ExitError& error) {
    CHECK(error.code == kUsage);
    return error.what();
  }
  FAIL("accepted: " << text);
  return {};
}

#define REFUSED(text, place, part)                                  \
  do {                                                              \
    const std::string message = complaint(text);                    \
    CHECK_THAT(message, ContainsSubstring("runs/sweep.csv" place)); \
    CHECK_THAT(message, ContainsSubstring(part));                   \
  } while (false)

}  // namespace

TEST_CASE("columns of a sweep stand in any order and case among others", "[orchestrator][sweep_csv]") {
  const auto sweep =
      parsed("run,Loss, WD ,note,LR\na,2.5,0.1,\"x, \"\"y\"\"\nz\",1e-3\nb,2.25,+0.2,,0.002\n");
  REQUIRE(sweep.trials.size() == 2);
  CHECK(sweep.name == "sweep");
  CHECK(sweep.num_seeds == 1);
  CHECK(sweep.trials[0].spec.base.lr == 1e-3);
  CHECK(sweep.trials[0].spec.base.wd == 0.1);
  CHECK(sweep.trials[0].loss == 2.5);
  CHECK(sweep.trials[1].spec.base.wd == 0.2);
  CHECK(states(sweep) == "cc");
}

TEST_CASE("a byte order mark, CRLF, blank lines and a missing last newline change nothing",
          "[orchestrator][sweep_csv]") {
  const auto sweep = parsed("\xEF\xBB\xBFlr,wd,loss\r\n\r\n0.001,0.1,2.5\r\n  \n0.002,0.1,\"2.25\"");
  REQUIRE(sweep.trials.size() == 2);
  CHECK(sweep.trials[1].loss == 2.25);
}

TEST_CASE("a loss that is no finite number is a run that diverged", "[orchestrator][sweep_csv]") {
  std::string text = "lr,wd,loss\n";
  for (const char* loss : {"", "nan", "NaN", "inf", "-Inf", "NA", "n/a", "None", "null"})
    text += std::string("0.1,0.1,") + loss + "\n";
  const auto sweep = parsed(text);
  CHECK(states(sweep) == "ddddddddd");
  CHECK_FALSE(sweep.trials.front().loss);
}

TEST_CASE("a status decides whether a loss counts", "[orchestrator][sweep_csv]") {
  const auto sweep = parsed(
      "lr,wd,loss,status\n"
      "1,1,2.5,complete\n2,1,2.5,DONE\n3,1,2.5,finished\n4,1,2.5,ok\n5,1,2.5,\n"
      "6,1,2.5,diverged\n7,1,,complete\n8,1,,\n"
      "9,1,2.5,failed\n10,1,2.5,pruned\n11,1,,waiting\n12,1,2.5,running\n13,1,,crashed\n");
  CHECK(states(sweep) == "cccccdddfpwrf");
  for (std::size_t i = 5; i < sweep.trials.size(); ++i) CHECK_FALSE(sweep.trials[i].loss);
}

TEST_CASE("seeds are words, and equal ones share a block", "[orchestrator][sweep_csv]") {
  const auto sweep = parsed("lr,wd,loss,seed\n1,1,2,10758982223172148169\n2,1,2,-7\n3,1,2,-7\n4,1,2,s1\n");
  CHECK(sweep.num_seeds == 3);
  CHECK(sweep.trials[1].spec.seed == sweep.trials[2].spec.seed);
  CHECK(sweep.trials[0].spec.seed != sweep.trials[1].spec.seed);
}

TEST_CASE("missing columns are listed with what was found", "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("learning_rate,wd,val_loss\n", ":1: ", "no column lr, loss; found: learning_rate, wd, val_loss");
  REFUSED("lr,loss\n1,2\n", ":1: ", "add wd with the one value");
  REFUSED("lr;wd;loss\n0,1;0,1;2,5\n", ":1: ", "separated by commas");
  std::string wide = "c0";
  for (int i = 1; i < 40; ++i) wide += ",c" + std::to_string(i);
  REFUSED(wide + "\n", ":1: ", "c19 and 20 more;");
}

TEST_CASE("a column that is there twice is refused with both places",
          "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,LR,loss\n", ":1: ", "columns 1 \"lr\" and 3 \"LR\"");
  REFUSED("lr,wd,loss,status,state\n", ":1: ", "columns 4 \"status\" and 5 \"state\"");
  CHECK(parsed("x,x,lr,wd,loss\n1,2,3,4,5\n").trials.size() == 1);
}

TEST_CASE("a cell that is no number is refused with its line", "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss\n1e-3,0.1,2\nfast,0.1,2\n", ":3: ", "lr is \"fast\"; write a number");
  REFUSED("lr,wd,loss\n1e-3,,2\n", ":2: ", "wd is \"\"");
  REFUSED("lr,wd,loss\n1e-3,0.1,2.5x\n", ":2: ", "loss is \"2.5x\"; write a number, or nan");
  REFUSED("lr,wd,loss\n\"0,001\",0.1,2\n", ":2: ", "lr is \"0,001\"");
  REFUSED("lr,wd,loss\ninf,0.1,2\n", ":2: ", "lr is \"inf\"");
  REFUSED("lr,wd,loss,note\n1,0.1,2,\"a\nb\"\nx,1,2,3\n", ":4: ", "lr is \"x\"");
}

TEST_CASE("LR of zero or less and a negative WD are refused", "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss\n0,0.1,2\n", ":2: ", "lr is 0; it must be above 0");
  REFUSED("lr,wd,loss\n-7.5,0.1,2\n", ":2: ", "not its logarithm");
  REFUSED("lr,wd,loss\n1e-3,-0.1,2\n", ":2: ", "wd is -0.1; it must be above 0");
}

TEST_CASE("a WD of zero has no logarithm, and what would work is said",
          "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss\n1e-3,0,2\n", ":2: ", "no logarithm");
  REFUSED("lr,wd,loss\n1e-3,0.0,2\n", ":2: ", "LR alone is fitted");
}

TEST_CASE("a row of another length is refused", "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss\n1e-3,0.1\n", ":2: ", "2 cells, where the header has 3");
  REFUSED("lr,wd,loss\n0,001,0.1,2\n",
          ":2: ", "4 cells, where the header has 3; text or a number with a comma");
}

TEST_CASE("quotes that do not close are refused where they open", "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss,note\n1,1,2,\"a\n2,1,2,b\n", ":2: ", "never closed");
  REFUSED("lr,wd,loss,note\n1,1,2,\"a\"b\n", ":2: ", "\"b\" after a closing quote");
}

TEST_CASE("an unknown status is named with the known ones", "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss,status\n1,1,2,exploded\n",
          ":2: ", "status \"exploded\" is unknown; known: complete, diverged");
}

TEST_CASE("a run that is there twice is refused, unless seeds are not known",
          "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("lr,wd,loss,seed\n1,1,2,a\n1,1,2,b\n1,1,2,a\n", ":4: ", "the same lr, wd and seed as line 2");
  CHECK(parsed("lr,wd,loss\n1,1,2\n1,1,2.1\n").trials.size() == 2);
  CHECK(states(parsed("lr,wd,loss,seed,status\n1,1,,a,failed\n1,1,2,a,complete\n")) == "fc");
}

TEST_CASE("rows of several models of one table of results are refused",
          "[orchestrator][sweep_csv][bad_input]") {
  const std::string head = "role,target,init_std,lr,wd,loss\n";
  REFUSED(
      head + "scan,,0.1,1,1,2\nproxy,,0.1,2,1,2\nscan,,0.2,1,1,2\n", ":4: ",
      "another sweep (proxy at init_std 0.2) than the rows above (proxy at init_std 0.1); take one, as with "
      "tuneonce query \"SELECT * FROM results WHERE target IS NULL AND init_std = 0.1\" --format csv");
  REFUSED(head + "target,a,1,1,1,2\ndrift,b,1,1,1,2\n", ":3: ", "WHERE target = 'a' AND role != 'check'");
  REFUSED(head + "target,a,1,1,1,2\ncheck,a,1,1,1,2\n", ":3: ", "(check a) than the rows above (target a)");
  CHECK(parsed(head + "target,a,1,1,1,2\ndrift,a,1,1,1,2\n").trials.size() == 2);
}

TEST_CASE("an empty file, a header alone and a file that is no text are refused",
          "[orchestrator][sweep_csv][bad_input]") {
  REFUSED("", ": ", "is empty; the first line names the columns");
  REFUSED("\n \n", ": ", "is empty");
  REFUSED("lr,wd,loss\n", ": ", "a header and no runs");
  REFUSED(std::string("SQLite format 3\0 ...", 20), ": ", "not plain UTF-8 text");
}

TEST_CASE("a CSV file that is missing or a folder is refused by name",
          "[orchestrator][sweep_csv][bad_input]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_sweep_csv(folder / "none.csv"),
                    ContainsSubstring("none.csv: there is no such file"));
  CHECK_THROWS_WITH(read_sweep_csv(folder.path()), ContainsSubstring("is a folder"));
}

TEST_CASE("what the program writes as CSV it reads again", "[orchestrator][sweep_csv]") {
  db::Table table;
  table.columns = {"name", "lr", "wd", "seed", "state", "loss"};
  table.rows = {
      {std::string("a, \"b\"\nc"), 0.1 + 0.2, 1e-3, std::int64_t{-5}, std::string("complete"), 2.0 / 3},
      {std::string("d"), 1.0, 2.0, std::int64_t{-5}, std::string("pruned"), db::Value()}};
  const auto sweep = parsed(format_table(table, Format::csv));
  CHECK(sweep.trials[0].spec.base.lr == 0.1 + 0.2);
  CHECK(sweep.trials[0].loss == 2.0 / 3);
  CHECK(states(sweep) == "cp");
}
