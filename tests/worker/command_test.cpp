// The program tuneonce-command with small shell scripts as trainers.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <map>

#include <nlohmann/json.hpp>

#include "sweeps/command_line.h"
#include "sweeps/transfer.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"
#include "worker/metric_report.h"
#include "worker/protocol.h"

using namespace worker;
using sweeps::Diverged;
using sweeps::Failed;
using sweeps::FailureClass;
using sweeps::Finished;
using test::eventually;
using test::read_text;

namespace {

/// The worker as the orchestrator starts it; killed when it goes.
class CommandWorker {
 public:
  CommandWorker(const TemporaryFolder& folder, const std::string& device = "cpu",
                const char* visible = nullptr)
      : log_(folder / "log") {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
      ::dup2(log, 1);
      ::dup2(log, 2);
      const int channel = ::fcntl(ends[1], F_DUPFD, 16);
      ::dup2(channel, kChannelDescriptor);
      ::close(channel);
      if (visible) ::setenv("CUDA_VISIBLE_DEVICES", visible, 1);
      ::execl(TUNEONCE_COMMAND, TUNEONCE_COMMAND, "--device", device.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    channel_ = ends[0];
    hello = std::get<Hello>(receive());
  }
  ~CommandWorker() {
    ::close(channel_);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  void send(const OrchestratorMessage& message) {
    const auto frame = encode(message);
    REQUIRE(::send(channel_, frame.data(), frame.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(frame.size()));
  }

  WorkerMessage receive() {
    std::array<std::uint8_t, 4> length{};
    read(length.data(), length.size());
    std::vector<std::uint8_t> payload(payload_length(length));
    read(payload.data(), payload.size());
    return decode_worker_message(payload);
  }

  /// Keeps what it is told until the trial has ended.
  sweeps::Outcome outcome() {
    while (true) {
      const auto message = receive();
      if (const auto* curve = std::get_if<Curve>(&message))
        for (std::size_t i = 0; i < curve->steps.size(); ++i)
          curves[curve->metric].emplace_back(curve->steps[i], curve->values[i]);
      num_progress += std::holds_alternative<Progress>(message);
      if (const auto* ended = std::get_if<Ended>(&message)) return ended->outcome;
    }
  }
  sweeps::Outcome run(const Assignment& assignment) {
    send(Assign{{assignment}});
    return outcome();
  }

  pid_t pid() const { return pid_; }
  std::string log() const { return read_text(log_); }

  Hello hello;
  std::map<std::string, std::vector<std::pair<std::int64_t, double>>> curves;
  int num_progress = 0;

 private:
  void read(void* bytes, std::size_t size) {
    auto* at = static_cast<char*>(bytes);
    while (size > 0) {
      pollfd readable{channel_, POLLIN, 0};
      REQUIRE(::poll(&readable, 1, 60'000) == 1);
      const auto got = ::read(channel_, at, size);
      REQUIRE(got > 0);
      at += got;
      size -= static_cast<std::size_t>(got);
    }
  }

  std::filesystem::path log_;
  pid_t pid_ = -1;
  int channel_ = -1;
};

Assignment assignment(const TemporaryFolder& folder, std::vector<std::string> words) {
  Assignment a;
  a.spec.name = "proxy lr=0.001 wd=0.1";
  a.spec.run.shape.family = models::ModelFamily::command;
  a.spec.proxy = a.spec.run;
  a.spec.data.source = sweeps::DataSource::command;
  a.spec.run.steps = a.spec.proxy.steps = 40;
  a.spec.seed = (1ULL << 40) + 17;
  a.spec.command.words = std::move(words);
  a.spec.command.folder = folder.path().string();
  a.trial = sweeps::trial_key(a.spec);
  a.checkpoint = folder / "trial.safetensors";
  return a;
}
/// A trainer that is a shell script, with more words of its own.
Assignment script(const TemporaryFolder& folder, const std::string& text,
                  std::vector<std::string> words = {}) {
  folder.write("train.sh", text);
  words.insert(words.begin(), {"sh", "train.sh"});
  return assignment(folder, words);
}

sweeps::Outcome outcome_of(const std::string& text) {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  return worker.run(script(folder, text));
}

using Points = std::vector<std::pair<std::int64_t, double>>;

bool is_gone(pid_t pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }

pid_t pid_in(const std::filesystem::path& file) {
  REQUIRE(eventually([&] { return read_text(file).ends_with("\n"); }));
  return std::stoi(read_text(file));
}

}  // namespace

TEST_CASE("a command's metrics come as JSON lines of its output, the last one is the loss",
          "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  CHECK(worker.hello.protocol == kProtocolVersion);
  CHECK(worker.hello.slots == 1);
  const auto outcome =
      worker.run(script(folder,
                        "echo hello; echo '{\"step\": 10, \"train_loss\": 4.5}';"
                        "echo '{\"step\": 10, \"val_loss\": 3.5, \"note\": \"info\"}';"
                        "echo '{\"some\": 7}'; printf '{\"step\": 20, \"val_loss\": 3.25}'"));
  REQUIRE(std::holds_alternative<Finished>(outcome));
  CHECK(std::get<Finished>(outcome).loss == 3.25);
  CHECK(std::get<Finished>(outcome).steps == 20);  // all that it spoke of
  CHECK(worker.curves["train_loss"] == Points{{10, 4.5}});
  CHECK(worker.curves["eval_loss"] == Points{{10, 3.5}, {20, 3.25}});
  CHECK(worker.curves.size() == 2);
  CHECK_THAT(worker.log(), ContainsSubstring("hello\n") && ContainsSubstring("tuneonce: runs sh train.sh\n"));
}

TEST_CASE("a command that counts no steps has taken them all", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  const auto outcome =
      worker.run(script(folder, "echo '{\"step\": 10, \"val_loss\": 3.5}'; echo '{\"val_loss\": 3.25}'"));
  REQUIRE(std::holds_alternative<Finished>(outcome));
  CHECK(std::get<Finished>(outcome).steps == 40);
  CHECK(worker.curves["eval_loss"] == Points{{10, 3.5}, {40, 3.25}});
}

TEST_CASE("a command's metrics come by the named pipe, whatever it prints", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  auto a = script(folder,
                  "echo '{\"step\":5,\"loss\":2.5}' > \"$1\"; echo no report > $1;"
                  "echo '{\"step\":40,\"loss\":2.25}' > $TUNEONCE_METRICS",
                  {"{metrics}"});
  a.spec.command.metric = "loss";
  const auto outcome = worker.run(a);
  REQUIRE(std::holds_alternative<Finished>(outcome));
  CHECK(std::get<Finished>(outcome).loss == 2.25);
  CHECK(worker.curves["eval_loss"] == Points{{5, 2.5}, {40, 2.25}});
  CHECK_THAT(worker.log(), ContainsSubstring("no report on the metrics pipe: no report"));
}

TEST_CASE("a command's metric is found by a regular expression in its log", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  auto a =
      script(folder, "printf 'iter 7/40\\rstep 10: val_loss=3.5, lr 1e-3\\nstep 20: val_loss=3.125,\\n' >&2");
  a.spec.command.metric_regex = R"(step (?<step>\d+): val_loss=(?<value>[-\w.]+))";
  const auto outcome = worker.run(a);
  REQUIRE(std::holds_alternative<Finished>(outcome));
  CHECK(std::get<Finished>(outcome).loss == 3.125);
  CHECK(worker.curves["eval_loss"] == Points{{10, 3.5}, {20, 3.125}});
}

TEST_CASE("a metric that is not finite ends the trial as diverged at its step, and the program with it",
          "[worker][command]") {
  for (const char* value : {"NaN", "\"nan\"", "Infinity", "-Infinity", "\"inf\"", "null"}) {
    INFO(value);
    const auto outcome = outcome_of(
        "echo '{\"step\": 10, \"val_loss\": 3.5}'; echo '{\"step\": 20, \"val_loss\": " + std::string(value) +
        "}'; sleep 300");
    REQUIRE(std::holds_alternative<Diverged>(outcome));
    CHECK(std::get<Diverged>(outcome).step == 20);
  }
}

TEST_CASE("how a command ends says whether it is tried again", "[worker][command]") {
  const struct {
    const char* text;
    FailureClass failure;
    const char* message;
  } kCases[] = {
      {"echo all is well", FailureClass::user_error, "reported no \"val_loss\""},
      {"echo 'bad flag' >&2; exit 64", FailureClass::user_error, "bad flag (exit code 64)"},
      {"exit 78", FailureClass::user_error, "exit code 78; it printed nothing"},
      {"exit 2", FailureClass::user_error, "exit code 2"},
      {"no_such_program_of_ours", FailureClass::user_error, "exit code 127"},
      {"echo '{\"step\":1,\"val_loss\":1}'; exit 1", FailureClass::crash, "exit code 1"},
      {"exit 79", FailureClass::crash, "exit code 79"},
      {"kill -SEGV $$", FailureClass::crash, "signal 11"},
      {"exit 139", FailureClass::crash, "signal 11"},
      {"kill -KILL $$", FailureClass::worker_lost, "signal 9"},
      {"exit 137", FailureClass::worker_lost, "signal 9"},
      {"echo 'RuntimeError: CUDA out of memory. Tried to allocate'; exit 1", FailureClass::oom_gpu,
       "CUDA out"},
      {"echo 'torch.OutOfMemoryError: x'; exit 1", FailureClass::oom_gpu, "OutOfMemoryError"},
  };
  for (const auto& one : kCases) {
    INFO(one.text);
    const auto outcome = outcome_of(one.text);
    REQUIRE(std::holds_alternative<Failed>(outcome));
    CHECK(name(std::get<Failed>(outcome).failure) == name(one.failure));
    CHECK_THAT(std::get<Failed>(outcome).message, ContainsSubstring(one.message));
  }
}

TEST_CASE("a command that cannot be run is the user's error, and the worker goes on", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  const auto outcome = worker.run(assignment(folder, {"./no-such-trainer"}));
  REQUIRE(std::holds_alternative<Failed>(outcome));
  CHECK(std::get<Failed>(outcome).failure == FailureClass::user_error);
  CHECK_THAT(std::get<Failed>(outcome).message,
             ContainsSubstring("./no-such-trainer: cannot be run: No such file"));
  CHECK(std::holds_alternative<Finished>(worker.run(script(folder, "echo '{\"val_loss\": 1}'"))));
}

TEST_CASE("placeholders, variables and the configuration say the same", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  auto a = script(folder,
                  "printf '%s|' \"$@\" > words; cp $TUNEONCE_CONFIG config.json;"
                  "echo $TUNEONCE_TRIAL $TUNEONCE_ATTEMPT $TUNEONCE_CHECKPOINT_DIR > variables;"
                  "test -d $TUNEONCE_CHECKPOINT_DIR && echo '{\"val_loss\": 1}'",
                  {"{lr}", "wd={wd}", "{{{init_std}}}", "{seed}", "{steps}", "{attempt}", "{target}",
                   "{checkpoint_dir}"});
  auto& shape = a.spec.run.shape;
  shape.width = 256;
  shape.ffn_width = 0;
  shape.num_experts = 8, shape.num_active = 2, shape.num_shared = 1, shape.expert_width = 128;
  a.spec.target = "8e2a1s";
  a.attempt = 3;
  CHECK(spec_from_json(to_json(a.spec)) == a.spec);
  REQUIRE(std::holds_alternative<Finished>(worker.run(a)));
  const auto checkpoint = a.checkpoint + ".dir/checkpoint";
  CHECK(read_text(folder / "words") == "0.001|wd=0.1|{0.02}|17|40|3|8e2a1s|" + checkpoint + "|");
  CHECK(read_text(folder / "variables") == a.trial + " 3 " + checkpoint + "\n");

  const auto config = nlohmann::json::parse(read_text(folder / "config.json"));
  CHECK(config["shape"]["moe"] == "8e2a1s");
  CHECK(config["shape"]["expert_width"] == 128);
  CHECK(config["seed"] == 17);
  CHECK(config["attempt"] == 3);
  CHECK(config["checkpoint_dir"] == checkpoint);
  CHECK(config["eval"]["every_steps"] == 4);
  const auto table = sweeps::transfer("8e2a1s", a.spec.run, a.spec.proxy, a.spec.base, a.spec.rule);
  CHECK(config["branch_scale"] == table.branch_scale);
  CHECK(config["route_scale"] == table.route_scale);
  REQUIRE(config["groups"].size() == table.rows.size());
  for (const auto& row : table.rows) {
    INFO(models::name(row.group));
    const auto& group = config["groups"].at(std::string(models::name(row.group)));
    CHECK(group["lr"] == row.lr);
    CHECK(group["init_std"] == row.init_std);
    CHECK(group["wd"] == (row.decays ? row.wd : 0));
    CHECK(group["betas"][1] == row.beta2);
    CHECK(group["forward"] == row.factor.forward);
  }
}

TEST_CASE("a command sees its slot's GPU and no other", "[worker][command]") {
  const struct {
    const char *device, *visible, *seen;
  } kCases[] = {{"cpu", nullptr, ""},
                {"cuda:2", nullptr, "2"},
                {"cuda:1", "4,5", "5"},
                {"cuda:0", "GPU-abc", "GPU-abc"}};
  for (const auto& one : kCases) {
    const TemporaryFolder folder;
    CommandWorker worker(folder, one.device, one.visible);
    CHECK(worker.hello.device == one.device);
    worker.run(script(folder, "echo \"[$CUDA_VISIBLE_DEVICES]\" > seen; echo '{\"val_loss\": 1}'"));
    CHECK(read_text(folder / "seen") == "[" + std::string(one.seen) + "]\n");
  }
}

TEST_CASE("a cancelled command leaves no process behind, in a session of its own or deaf to SIGTERM",
          "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  const auto a = script(folder,
                        "setsid sh -c 'trap \"\" TERM; echo $$ > own_session; sleep 300; sleep 300' & "
                        "(trap '' TERM; echo child; sleep 300) & echo $! > child; wait");
  worker.send(Assign{{a}});
  const pid_t own_session = pid_in(folder / "own_session"), child = pid_in(folder / "child");
  worker.send(Cancel{a.trial});
  const auto outcome = worker.outcome();
  REQUIRE(std::holds_alternative<Failed>(outcome));
  CHECK(std::get<Failed>(outcome).failure == FailureClass::cancelled);
  CHECK(is_gone(own_session));
  CHECK(is_gone(child));
  CHECK(std::holds_alternative<Finished>(worker.run(script(folder, "echo '{\"val_loss\": 1}'"))));
}

TEST_CASE("when the worker is killed, all that its command started is gone soon", "[worker][command]") {
  for (const bool channel_only : {false, true}) {
    const TemporaryFolder folder;
    auto worker = std::make_unique<CommandWorker>(folder);
    worker->send(Assign{{script(folder,
                                "setsid sh -c 'echo $$ > own_session; sleep 300; sleep 300' & "
                                "sleep 300 & echo $! > child; wait")}});
    const pid_t own_session = pid_in(folder / "own_session"), child = pid_in(folder / "child");
    if (channel_only)
      worker.reset();  // the orchestrator is gone
    else
      REQUIRE(::kill(worker->pid(), SIGKILL) == 0);
    CHECK(eventually([&] { return is_gone(own_session) && is_gone(child); }));
  }
}

TEST_CASE("a drained command may save itself, and its next attempt finds the same folder",
          "[worker][command]") {
  const TemporaryFolder folder;
  const std::string text =
      "cd \"$TUNEONCE_CHECKPOINT_DIR\"; if [ -e step ]; then echo \"{\\\"step\\\": $(cat step), "
      "\\\"val_loss\\\": "
      "$TUNEONCE_ATTEMPT}\"; exit 0; fi; trap 'echo 30 > step; exit 0' TERM; echo ready > ready; sleep 300 & "
      "wait";
  auto a = script(folder, text);
  {
    CommandWorker worker(folder);
    worker.send(Assign{{a}});
    REQUIRE(eventually([&] { return read_text(a.checkpoint + ".dir/checkpoint/ready") == "ready\n"; }));
    worker.send(Drain{});
    const auto outcome = worker.outcome();
    REQUIRE(std::holds_alternative<Failed>(outcome));
    CHECK(std::get<Failed>(outcome).failure == FailureClass::cancelled);
    CHECK(eventually([&] { return ::waitpid(worker.pid(), nullptr, WNOHANG) == worker.pid(); }));
  }
  CommandWorker worker(folder);
  a.attempt = 2;
  const auto outcome = worker.run(a);
  REQUIRE(std::holds_alternative<Finished>(outcome));
  CHECK(std::get<Finished>(outcome).loss == 2);
  CHECK(worker.curves["eval_loss"].front() == std::pair<std::int64_t, double>{30, 2});
}

TEST_CASE("a command that takes longer than its timeout is stalled", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  auto a = script(folder, "while true; do echo busy; sleep 0.1; done");
  a.spec.command.timeout_seconds = 0.5;
  const auto outcome = worker.run(a);
  REQUIRE(std::holds_alternative<Failed>(outcome));
  CHECK(std::get<Failed>(outcome).failure == FailureClass::stalled);
  CHECK_THAT(std::get<Failed>(outcome).message, ContainsSubstring("timeout of 0.5 s"));
}

TEST_CASE("a silent command shows no sign of life, a printing one does", "[worker][command]") {
  for (const bool silent : {true, false}) {
    const TemporaryFolder folder;
    CommandWorker worker(folder);
    // The first sign is its start.
    worker.run(script(
        folder, silent ? "sleep 3; exit 1" : "for i in $(seq 30); do echo $i; sleep 0.1; done; exit 1"));
    INFO(worker.num_progress);
    CHECK((silent ? worker.num_progress <= 1 : worker.num_progress >= 2));
  }
}

TEST_CASE("a command's data is known by the names and sizes of its files", "[worker][command]") {
  const TemporaryFolder folder;
  CommandWorker worker(folder);
  sweeps::DataSpec data{
      .source = sweeps::DataSource::command, .path = {}, .validation_path = {}, .fingerprint = {}};
  const auto asked = [&] {
    worker.send(Inspect{.data = data});
    return worker.receive();
  };
  CHECK(std::get<Inspected>(asked()).fingerprint == "none");
  data.path = folder / "corpus";
  CHECK_THAT(std::get<Refused>(asked()).message, ContainsSubstring("corpus: there is no file"));
  folder.write("corpus/a/b.txt", "some text");
  const auto first = std::get<Inspected>(asked()).fingerprint;
  CHECK(std::get<Inspected>(asked()).fingerprint == first);
  folder.write("corpus/a/b.txt", "some text more");
  CHECK(std::get<Inspected>(asked()).fingerprint != first);
  worker.send(Measure{});
  CHECK_THAT(std::get<Refused>(worker.receive()).message, ContainsSubstring("no step that could be timed"));
}

TEST_CASE("lines of a log: JSON reports and what are none", "[worker][command]") {
  const auto report = [](const char* line) { return parse_json_report(line, "val_loss"); };
  REQUIRE(report(R"(  {"step": 3.0, "val_loss": "1.5", "ok": true, "list": [1]})"));
  CHECK(report(R"(  {"step": 3.0, "val_loss": "1.5"})")->step == 3);
  CHECK(report(R"({"step": 3, "val_loss": "1.5", "ok": true})")->values.size() == 1);
  CHECK(report(R"({"val_loss": NaN, "text": "is NaN \" Infinity"})")->values.size() == 1);
  CHECK(std::isinf(report(R"({"val_loss": -Infinity})")->values.at(0).second));
  for (const char* line :
       {"", "val_loss 3", "{", "{\"a\": 1}", "[1]", "{\"step\": 1", "{step: 1}", "{'val_loss': 1}"})
    CHECK_FALSE(report(line));
  const std::string deep(30'000, '[');
  CHECK_FALSE(report(("{\"step\":" + deep).c_str()));
}

TEST_CASE("lines are cut at line ends and carriage returns, in whatever pieces they come",
          "[worker][command]") {
  std::vector<std::string> lines;
  const auto keep = [&](std::string_view line) { lines.emplace_back(line); };
  LineSplitter splitter;
  for (const char* piece : {"a", "b\nc\r\n", "\n", "d"}) splitter.feed(piece, keep);
  splitter.finish(keep);
  CHECK(lines == std::vector<std::string>{"ab", "c", "d"});
  splitter.feed(std::string(1 << 20, 'x') + "\n", keep);
  CHECK(lines.back().size() == LineSplitter::kMaxBytes);
}

TEST_CASE("a metric's pattern finds value and step by name or by place", "[sweeps][command]") {
  using sweeps::MetricPattern;
  const auto by_name = MetricPattern(R"(s=(?P<step>\d+) (?:x|y) [(](?<value>\S+))").find("at s=12 y (3.5");
  REQUIRE(by_name);
  CHECK(by_name->value == "3.5");
  CHECK(by_name->step == 12);
  const auto by_place = MetricPattern(R"(loss (\S+) at (\d+))").find("loss nan at 7");
  REQUIRE(by_place);
  CHECK(by_place->value == "nan");
  CHECK(by_place->step == 7);
  CHECK_FALSE(MetricPattern("loss (\\S+)").find("loss (\\S+)")->step);
  CHECK_FALSE(MetricPattern("loss (\\d+)").find("loss: none"));
  for (const char* bad :
       {"loss", "loss (", "(?<step>\\d+)", "(?<loss>.)", "(?<value>.)(?<value>.)", "(?<value"})
    CHECK_THROWS_AS(MetricPattern(bad), std::invalid_argument);
}

TEST_CASE("braces of a command's words are placeholders or doubled", "[sweeps][command]") {
  const auto expand = [](const char* word) {
    return sweeps::expand(word, [](std::string_view name) { return "<" + std::string(name) + ">"; });
  };
  CHECK(expand("--lr={lr}") == "--lr=<lr>");
  CHECK(expand("{{lr}} {{{wd}}} plain") == "{lr} {<wd>} plain");
  CHECK(expand("") == "");
  for (const char* bad : {"{", "}", "{lr", "lr}", "{l{r}}", "{}"}) {
    INFO(bad);
    CHECK_THROWS_AS(expand(bad), std::invalid_argument);
  }
  CHECK_THROWS_WITH(expand("{rl}"), ContainsSubstring("unknown placeholder {rl}; known: {lr}, {wd}"));
}
