// Devices that are shared, run out of memory or go; processes, memory and disk that workers take.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "db/query.h"
#include "orchestrator/run_cgroup.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::Changes;
using test::check_finishes;
using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;
using test::Random;
namespace fs = std::filesystem;

namespace {

constexpr int kCancel = -1;  // beside the numbers of signals

/// Four GPUs of 24 GiB, 1 GiB of each in use; what else the variable says stands in `file`.
test::Command::Environment gpus(const fs::path& file = {}) {
  test::Command::Environment variables = {{"LD_LIBRARY_PATH", TUNEONCE_FAKE_NVML_FOLDER}};
  if (!file.empty()) variables["TUNEONCE_FAKE_NVML"] = file.string();
  return variables;
}

std::set<std::string> texts(const DisturbedSweep& sweep, const std::string& sql) {
  std::set<std::string> values;
  for (const auto& row : db::run_query(sweep.database(), sql).rows)
    values.insert(std::get<std::string>(row.at(0)));
  return values;
}

/// Most attempts that were under way on one device at once.
std::int64_t most_at_once(const DisturbedSweep& sweep) {
  return sweep
      .numbers(
          "SELECT max(n) FROM (SELECT count(*) AS n FROM attempt AS a JOIN attempt AS b ON "
          "b.device_uuid = a.device_uuid AND b.started <= a.started AND b.ended > a.started GROUP BY "
          "a.trial_id, a.number)")
      .at(0);
}

/// The file that gpus() reads, as a whole.
void set_gpus(const DisturbedSweep& sweep, const std::string& lines) {
  std::ofstream(sweep.file("gpus.new")) << lines;
  fs::rename(sweep.file("gpus.new"), sweep.file("gpus"));
}

/// One of 24 GiB.
std::string gpu_line(const std::string& uuid, int used_mib, const std::string& state = "ok") {
  return fmt::format("{} Fake 24576 {} {}\n", uuid, used_mib, state);
}

/// SIGKILL to a worker that trains on this GPU.
void kill_worker_on(const DisturbedSweep& sweep, const std::string& uuid) {
  REQUIRE(eventually([&] {
    const auto pids =
        sweep.numbers("SELECT worker_pid FROM attempt WHERE state = 1 AND device_uuid = '" + uuid + "'");
    return !pids.empty() && ::kill(static_cast<pid_t>(pids[0]), SIGKILL) == 0;
  }));
}

}  // namespace

TEST_CASE("requirement 8: of four GPUs those that were asked for are used, one trial at a time, and noted",
          "[faults][requirement]") {
  const DisturbedSweep sweep;
  const auto ended = sweep.run(
      {.behaviour = "sleep_ms=20 devices=1", .workers = 0, .more = {"--gpus", "0,2"}, .environment = gpus()});
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
  CHECK(texts(sweep, "SELECT device_uuid FROM attempt") == std::set<std::string>{"GPU-fake-0", "GPU-fake-2"});
  CHECK(most_at_once(sweep) == 1);
  // What is noted is what its worker saw.
  std::set<std::string> seen;
  std::istringstream lines(test::read_text(sweep.file("devices")));
  for (std::string line; std::getline(lines, line);) seen.insert(line);
  CHECK(seen == texts(sweep, "SELECT worker_pid || ' ' || device_uuid FROM attempt"));
}

TEST_CASE("requirement 9: several trials share a GPU by share or by memory, GPU by GPU",
          "[faults][requirement]") {
  const auto [lines, most] = GENERATE(table<const char*, int>(
      {{"device_share = 0.3", 3}, {"memory = \"6GiB\"\nworkers_per_device = \"auto\"", 4}}));
  CAPTURE(lines);
  const DisturbedSweep sweep(Changes{{"[retry]", std::string("[resources]\n") + lines + "\n[retry]"}});
  const auto ended = sweep.run({.behaviour = fmt::format("crowd={}", 2 * most),
                                .workers = 0,
                                .more = {"--gpus", "1,3"},
                                .environment = gpus()});
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.count("attempt") == 25);
  CHECK(texts(sweep, "SELECT device_uuid FROM attempt") == std::set<std::string>{"GPU-fake-1", "GPU-fake-3"});
  CHECK(most_at_once(sweep) == most);
}

TEST_CASE("requirement 9: without a known need a GPU takes as many as the first one's memory shows",
          "[faults][requirement]") {
  const DisturbedSweep sweep(Changes{{"[retry]", "[resources]\nworkers_per_device = \"auto\"\n[retry]"}});
  set_gpus(sweep, gpu_line("GPU-a", 1024));
  const auto run =
      sweep.start({.behaviour = "crowd=3", .workers = 0, .environment = gpus(sweep.file("gpus"))});
  REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 1; }));
  set_gpus(sweep, gpu_line("GPU-a", 1024 + 6 * 1024));  // 3 x 1.1 x 6 GiB fit into 23
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(most_at_once(sweep) == 3);
}

TEST_CASE(
    "requirement 10: three cells that run out of GPU memory are tried once more, alone, the others finish",
    "[faults][F12][requirement]") {
  // At once; half-way; while the last checkpoint is written, so that there is the one of two steps before.
  const auto [step, more, resumed] =
      GENERATE(table<int, const char*, int>({{0, "", 0}, {10, "", 10}, {18, "oom_saving=1", 16}}));
  CAPTURE(step);
  const DisturbedSweep sweep(Changes{{"[retry]", "[resources]\nworkers_per_device = 2\n[retry]"}});
  const auto ended =
      sweep.run({.behaviour = fmt::format("sleep_ms=40 oom_name=lr=0.0032_wd=0.07,lr=0.0064_wd=0.07,"
                                          "lr=0.0128_wd=0.07 oom_times=2 oom_step={} {}",
                                          step, more),
                 .workers = 0,
                 .more = {"--gpus", "0,2"},
                 .environment = gpus()});
  INFO(ended.err);
  CHECK(ended.code == 1);
  check_invariants(sweep);
  CHECK(sweep.count("trial WHERE state = 2") == 22);
  CHECK(sweep.count("trial WHERE state = 4") == 3);
  CHECK(sweep.count("attempt WHERE failure = 1") == 6);
  CHECK(sweep.count(fmt::format("attempt WHERE failure = 1 AND number = 2 AND first_step = {}", resumed)) ==
        3);
  CHECK(sweep.count(
            "attempt AS a JOIN attempt AS b ON b.device_uuid = a.device_uuid AND b.trial_id != a.trial_id "
            "AND b.started < a.ended AND b.ended > a.started WHERE a.number = 2") == 0);
  const auto report = test::read_text(sweep.file("five.html"));
  const auto results = sweep.command({"results", "five.db", "--format", "csv"}).out;
  for (const auto& name : texts(sweep, "SELECT name FROM trial WHERE state = 4")) {
    CHECK_THAT(ended.err, ContainsSubstring(name + "\" failed: oom_gpu"));
    const auto row = report.find("<td>" + name + "</td>");
    REQUIRE(row != report.npos);
    CHECK_THAT(report.substr(row, report.find("</tr>", row) - row),
               ContainsSubstring("failed<br><small>oom_gpu"));
    const auto line = results.find("," + name + ",");
    REQUIRE(line != results.npos);
    CHECK_THAT(results.substr(line, results.find('\n', line) - line), ContainsSubstring(",failed,"));
  }
  check_finishes(sweep, 3);
}

TEST_CASE("requirement 10: a worker that takes more of the host's memory than it may is told from a crash",
          "[faults][requirement]") {
  const DisturbedSweep sweep(
      Changes{{"[retry]", "[resources]\nmemory = \"64MiB\"\n[retry]\noom_host = 0\nstop_after = \"never\""}});
  const auto ended =
      sweep.run({.behaviour = "eat_mib=400 eat_name=lr=0.0032_wd=0.07 sleep_ms=1500", .workers = 25});
  INFO(ended.err);
  CHECK(ended.code == 1);
  check_invariants(sweep);
  CHECK(sweep.count("trial WHERE state = 4") == 1);
  CHECK(sweep.count("attempt WHERE failure = 2") == 1);
  CHECK(sweep.count("attempt WHERE failure IS NOT NULL") == 1);
}

TEST_CASE(
    "a GPU that is lost while a run is on costs its trials an attempt and is left out, the other goes on",
    "[faults][F12]") {
  GENERATE(range(0, test::times(4, 20)));
  const DisturbedSweep sweep;
  set_gpus(sweep, gpu_line("GPU-a", 1024) + gpu_line("GPU-b", 1024));
  const auto run =
      sweep.start({.behaviour = "sleep_ms=100", .workers = 0, .environment = gpus(sweep.file("gpus"))});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 4; }));
  set_gpus(sweep, gpu_line("GPU-a", 1024) + gpu_line("GPU-b", 1024, "lost"));
  kill_worker_on(sweep, "GPU-b");  // it dies with it, as CUDA's do
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt WHERE failure = 7 AND device_uuid = 'GPU-b'") == 1);
  CHECK(sweep.count("attempt WHERE failure IS NOT NULL") == 1);
  CHECK_THAT(ended.err, ContainsSubstring("cuda:1 (GPU-b) does not answer"));
}

TEST_CASE("a GPU that fails one trial gets another, one that fails two gets none although it answers",
          "[faults][F12]") {
  const int times = GENERATE(1, 2);
  CAPTURE(times);
  const DisturbedSweep sweep;
  set_gpus(sweep, gpu_line("GPU-a", 1024) + gpu_line("GPU-b", 1024));
  const auto ended = sweep.run({.behaviour = fmt::format("sleep_ms=50 fault_gpu=GPU-b fault_times={}", times),
                                .workers = 0,
                                .environment = gpus(sweep.file("gpus"))});
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt WHERE failure = 7 AND device_uuid = 'GPU-b'") == times);
  CHECK(sweep.count("attempt WHERE failure IS NOT NULL") == times);
  CHECK((sweep.count("attempt WHERE state = 2 AND device_uuid = 'GPU-b'") > 0) == (times == 1));
  CHECK((ended.err.find("cuda:1 was lost 2 times and gets no more work") != ended.err.npos) == (times == 2));
}

TEST_CASE("requirement 11: after a worker the next one waits until its GPU's memory is free again",
          "[faults][requirement]") {
  const DisturbedSweep sweep;
  set_gpus(sweep, gpu_line("GPU-a", 1024));
  const auto run =
      sweep.start({.behaviour = "sleep_ms=50", .workers = 0, .environment = gpus(sweep.file("gpus"))});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 2; }));
  set_gpus(sweep, gpu_line("GPU-a", 20 * 1024));
  kill_worker_on(sweep, "GPU-a");
  REQUIRE(
      eventually([&] { return sweep.said("cuda:0 has 4 GiB free, 21.8 GiB are needed; waiting for it"); }));
  const auto attempts = sweep.count("attempt");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // some looks at it
  CHECK(sweep.count("attempt") == attempts);
  CHECK_FALSE(run->has_ended());
  set_gpus(sweep, gpu_line("GPU-a", 1024));
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 26);
}

TEST_CASE("requirement 11: a GPU whose memory does not come back gets no more work",
          "[faults][requirement]") {
  const bool another = GENERATE(false, true);
  CAPTURE(another);
  const DisturbedSweep sweep;
  const std::string other = another ? gpu_line("GPU-b", 1024) : "";
  set_gpus(sweep, gpu_line("GPU-a", 1024) + other);
  const auto run = sweep.start({.behaviour = "sleep_ms=100",
                                .workers = 0,
                                .more = {"--memory-timeout", "1"},
                                .environment = gpus(sweep.file("gpus"))});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 2; }));
  set_gpus(sweep, gpu_line("GPU-a", 20 * 1024) + other);
  kill_worker_on(sweep, "GPU-a");
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == (another ? 0 : 6));
  CHECK_THAT(ended.err, ContainsSubstring("waited 1 s in vain, the device gets no more work"));
  check_invariants(sweep);
  CHECK(sweep.count("attempt WHERE failure IS NOT NULL") == 1);
  CHECK(sweep.count("attempt WHERE device_uuid = 'GPU-a' AND started > "
                    "(SELECT ended FROM attempt WHERE failure IS NOT NULL)") == 0);
  check_finishes(sweep);
}

TEST_CASE("a GPU whose memory others hold from the start gets no trial, and the other all of them",
          "[faults][F12]") {
  // The time is up while there is work, and when all is done by the other.
  const auto [pace, timeout, in_vain] = GENERATE(
      table<const char*, const char*, bool>({{"sleep_ms=400", "0.5", true}, {"sleep_ms=20", "60", false}}));
  CAPTURE(timeout);
  const DisturbedSweep sweep(Changes{{"[retry]", "[resources]\nmemory = \"6GiB\"\n[retry]"}});
  set_gpus(sweep, gpu_line("GPU-a", 20 * 1024) + gpu_line("GPU-b", 1024));
  const auto ended = sweep.run({.behaviour = pace,
                                .workers = 0,
                                .more = {"--memory-timeout", timeout},
                                .environment = gpus(sweep.file("gpus"))});
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  const auto told = ended.err.find("cuda:0 has 4 GiB free, 6 GiB are needed; waiting for it");
  CHECK(told != ended.err.npos);
  CHECK(ended.err.find("waiting for it", told + 60) == ended.err.npos);  // once, though four wait there
  CHECK((ended.err.find("in vain") != ended.err.npos) == in_vain);
  CHECK(texts(sweep, "SELECT device_uuid FROM attempt") == std::set<std::string>{"GPU-b"});
}

TEST_CASE(
    "requirement 11: no descendant of a worker outlives the end, Ctrl-C, a cancel or kill -9 of the "
    "orchestrator",
    "[faults][requirement]") {
  const int number = GENERATE(0, SIGINT, SIGKILL, kCancel);
  CAPTURE(number);
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = fmt::format("children=3 sleep_ms={}", number ? 60000 : 0)});
  if (number) {
    REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 2; }));
    CHECK(sweep.processes().size() >= 9);  // two workers, their six children, the orchestrator
    if (number == kCancel)
      CHECK(sweep.command({"cancel", "--all", "--db", "five.db"}).code == 0);
    else
      run->signal(number);
  }
  CHECK(run->wait().code == (number == kCancel ? 130 : number == 0 ? 0 : 128 + number));
  const auto children = test::read_text(sweep.file("children"));
  CHECK(std::count(children.begin(), children.end(), '\n') >= 6);
  check_invariants(sweep, number == SIGKILL);
}

TEST_CASE("requirement 11: nor does one with an empty environment, where control groups are allowed",
          "[faults][requirement]") {
  const auto probe = orchestrator::run_cgroup(fmt::format("test-{}", ::getpid()));
  if (!orchestrator::make_cgroup(probe)) {
    WARN("skipped: no control group can be made here");
    return;
  }
  orchestrator::end_cgroup(probe);
  const int number = GENERATE(0, SIGINT, SIGKILL);
  CAPTURE(number);
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = fmt::format("strays=3 sleep_ms={}", number ? 60000 : 0)});
  const auto strays = [&] {
    std::istringstream list(test::read_text(sweep.file("children")));
    return std::vector<pid_t>(std::istream_iterator<pid_t>(list), {});
  };
  if (number) {
    REQUIRE(eventually([&] { return strays().size() == 6; }));  // of two workers
    for (const pid_t pid : strays()) CHECK(::kill(pid, 0) == 0);
    REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 2; }));
    run->signal(number);
  }
  run->wait();
  CHECK(strays().size() >= 6);
  CHECK(eventually([&] { return std::ranges::all_of(strays(), [](pid_t pid) { return ::kill(pid, 0) != 0; }); }, 5));
  CHECK(eventually(
      [&] {
        return std::ranges::none_of(orchestrator::marks_of_run_cgroups(), [&](const std::string& mark) {
          return mark.find(fmt::format(":{}.", run->pid())) != mark.npos;
        });
      },
      5));
  check_invariants(sweep, number == SIGKILL);
}

TEST_CASE("requirement 12: logs stay under their bound while workers print without end",
          "[faults][requirement]") {
  const DisturbedSweep sweep(Changes{{"[disk]", "[disk]\nlog = \"1MiB\""}});
  const auto ended = sweep.run({.behaviour = "print_mib=5"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  std::map<std::string, std::uintmax_t> sizes;
  for (const auto& entry : fs::directory_iterator(sweep.file("five.db.d") / "logs"))
    sizes[entry.path().filename().string().substr(0, 10)] += entry.file_size();
  CHECK(sizes.size() == 25);
  for (const auto& [trial, size] : sizes) {
    CAPTURE(trial);
    CHECK(size > 300'000);
    CHECK(size <= (1 << 20) + 65536);
  }
}

TEST_CASE("requirement 12: what workers print stops at the bound of the whole study",
          "[faults][requirement]") {
  const DisturbedSweep sweep(Changes{{"[disk]", "[disk]\nstudy = \"2MiB\""}});
  const auto ended = sweep.run({.behaviour = "print_mib=100"});
  INFO(ended.err);
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("more than [disk] study = \"2MiB\""));
  check_invariants(sweep);
  std::uintmax_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(sweep.folder()))
    if (entry.is_regular_file() && entry.path().string().find("five.db") != std::string::npos)
      total += entry.file_size();
  CHECK(total > 2'000'000);
  CHECK(total < (2 << 20) + (256 << 10));
  // Full is full: nothing is started any more.
  CHECK(sweep.count("event WHERE kind = 'stopped'") == 1);
  CHECK(sweep.count("attempt WHERE started > (SELECT time FROM event WHERE kind = 'stopped')") == 0);
  CHECK(sweep.count("trial WHERE state = 0") >= 23);
}

TEST_CASE("requirement 12: a sweep of a thousand trials prints fifty lines at most",
          "[faults][requirement][slow]") {
  const DisturbedSweep sweep(Changes{
      {"lr = { values = [8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2] }",
       "lr = { min = 8e-4, max = 1.28e-2, count = 40 }"},
      {"wd = { values = [0.05, 0.07, 0.1, 0.14, 0.2] }", "wd = { min = 0.05, max = 0.2, count = 25 }"},
      {"extensions = 0", "extensions = 0\nmax_trials = 1000"}});
  const auto ended = sweep.start()->wait(1200);
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(sweep.count("attempt") == 1000);
  CHECK(sweep.count("trial WHERE state = 2") == 1000);
  CHECK(std::count(ended.out.begin(), ended.out.end(), '\n') +
            std::count(ended.err.begin(), ended.err.end(), '\n') <=
        50);
  check_invariants(sweep);
}
