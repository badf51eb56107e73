// [model] family = "command": a study whose trials the user's own program trains.
#include "sweeps/plan.h"
#include "sweeps/study_file.h"
#include "tests/support/catch.h"

using namespace sweeps;

namespace {

constexpr const char* kStudy = R"(schema = 1
name = "own"
[model]
family = "command"
command = ["python3", "train.py", "--lr", "{lr}", "--config", "{config}"]
width = 64
depth = 2
head_size = 16
[space]
lr = { min = 5e-4, max = 8e-3, count = 5 }
wd = { min = 0.05, max = 0.8, count = 3 }
[[target]]
name = "8e2a"
moe = "8e2a"
)";

Study parsed(std::string text, const std::string& from = "", const std::string& to = "") {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return parse_study(text.replace(at, from.size(), to), "/studies/study.toml");
}
std::string complaint(const std::string& from, const std::string& to) {
  try {
    parsed(kStudy, from, to);
  } catch (const StudyError& error) {
    return error.what();
  }
  FAIL("the study was accepted: " << to);
  return {};
}

constexpr const char* kWidth = "width = 64\n";

}  // namespace

TEST_CASE("a command study is read with its defaults, and its text reads back the same",
          "[sweeps][study_file][command]") {
  const auto study = parsed(kStudy);
  CHECK(study.proxy.shape.family == models::ModelFamily::command);
  CHECK(study.data.source == DataSource::command);
  CHECK(study.data.path.empty());
  CHECK(study.command.words.size() == 6);
  CHECK(study.command.folder == "/studies");
  CHECK(study.command.metric == "val_loss");
  CHECK(study.command.timeout_seconds == 0);
  CHECK(parsed(study.text).text == study.text);

  const auto all = parsed(kStudy, "head_size = 16",
                          "head_size = 16\nvocab = 1000\nmetric = \"loss\"\ntimeout = \"1.5h\"\n"
                          "metric_regex = 'loss \"(\\S+)\"'\n[data]\npath = \"corpus\"");
  CHECK(all.proxy.shape.vocab == 1000);
  CHECK(all.command.timeout_seconds == 5400);
  CHECK(all.command.metric_regex == "loss \"(\\S+)\"");
  CHECK(all.data.path == "/studies/corpus");
  const auto again = parsed(all.text);
  CHECK(again.text == all.text);
  CHECK(again.command == all.command);
}

TEST_CASE("a user's trainer may have an odd head size, ours may not", "[sweeps][study_file][command]") {
  const auto odd =
      parsed(kStudy, "width = 64\ndepth = 2\nhead_size = 16", "width = 60\ndepth = 2\nhead_size = 15");
  CHECK(odd.proxy.shape.head_size == 15);
  auto shape = odd.proxy.shape;
  shape.family = models::ModelFamily::language_model;
  CHECK_THROWS_WITH(models::validate(shape), ContainsSubstring("head_size must be even"));
  CHECK_THAT(complaint("head_size = 16", "head_size = 15"), ContainsSubstring("does not divide width"));
}

TEST_CASE("every trial of a command study carries the command", "[sweeps][study_file][command]") {
  const auto study = parsed(kStudy);
  for (const auto& spec : plan_sweep(study, 0.02)) CHECK(spec.command == study.command);
  const auto target = plan_transferred(study, study.targets.at(0), study.base);
  CHECK(target.command == study.command);
  CHECK(cost(target).flops > cost(plan_sweep(study, 0.02).front()).flops);
}

TEST_CASE(
    "the command line, the metric and the expression are part of a trial's key, folder and timeout are not",
    "[sweeps][trial][command]") {
  auto spec = plan_sweep(parsed(kStudy), 0.02).front();
  const auto key = trial_key(spec);
  spec.command.folder = "/elsewhere";
  spec.command.timeout_seconds = 60;
  CHECK(trial_key(spec) == key);
  for (const auto& change : std::vector<void (*)(CommandSpec&)>{
           [](CommandSpec& c) { c.words.back() = "other"; }, [](CommandSpec& c) { c.words.push_back(""); },
           [](CommandSpec& c) { c.metric = "loss"; }, [](CommandSpec& c) { c.metric_regex = "(.)"; },
           [](CommandSpec& c) {
             c.words = {"python3;word=train.py", "--lr", "{lr}", "--config", "{config}"};
           }}) {
    auto changed = spec;
    change(changed.command);
    CHECK(trial_key(changed) != key);
  }
  // Trials of other families have the keys that they had before there were commands.
  CHECK(trial_key(TrialSpec{}) == "a7e119975ec890615652f7c686a39df4");
  TrialSpec other;
  other.command.words = {"ignored"};
  CHECK(trial_key(other) == trial_key(TrialSpec{}));
}

TEST_CASE("mistakes in a command study are told with their place", "[sweeps][study_file][command]") {
  const struct {
    const char *from, *to, *message;
  } kCases[] = {
      {"\"{lr}\"", "\"{rl}\"",
       "study.toml:5:43: [model] command: unknown placeholder {rl}; known: {lr}, {wd}, {init_std}"},
      {"\"{lr}\"", "\"{lr\"", "without its partner; write {{ for a plain one"},
      {"\"{lr}\"", "0.1", "study.toml:5:43: [model] command: a decimal number among the words"},
      {"[\"python3\"", "[\"\"", "study.toml:5:12: [model] command: no program"},
      {"command = [", "#",
       "[model] lacks \"command\"; write the program and its arguments as a list of strings"},
      {"command = [\"python3\", \"train.py\", \"--lr\", \"{lr}\", \"--config\", \"{config}\"]",
       "command = \"train.py\"",
       "study.toml:5:11: [model] command: write the program and its arguments as a list"},
      {kWidth, "width = 64\nmetric = \"\"\n", "[model] metric: \"\" is no metric's name"},
      {kWidth, "width = 64\nmetric_regex = 'loss'\n",
       "study.toml:7:16: [model] metric_regex: it has no group"},
      {kWidth, "width = 64\nmetric_regex = 'loss ('\n", "metric_regex: it is no regular expression"},
      {kWidth, "width = 64\ntimeout = \"2 hours\"\n",
       "study.toml:7:11: [model] timeout: \"2 hours\" is no duration"},
      {kWidth, "width = 64\ntimeout = 60\n", "it must be a duration in quotes"},
      {kWidth, "width = 64\npatch = 2\n", "patch: has no effect"},
      {"[space]", "[data]\nsource = \"text\"\n[space]",
       "[data] source: has no effect: the program of family \"command\""},
      {"[space]", "[data]\nholdout = 0.1\n[space]", "[data] holdout: has no effect"},
      {"[space]", "[train]\nbranches = [0.5, 1.0]\n[space]", "[train] branches: has no effect"},
      {"family = \"command\"", "family = \"language_model\"", "[data]"},
      {"schema = 1", "schema = 1\ndata.source = \"teacher\"", "[data] source: has no effect"},
  };
  for (const auto& one : kCases) {
    INFO(one.to);
    CHECK_THAT(complaint(one.from, one.to), ContainsSubstring(one.message));
  }
  CHECK_THAT(complaint("family = \"command\"", "family = \"diffusion_model\""), ContainsSubstring("[data]"));
  auto text = std::string(kStudy);
  text.replace(text.find("family = \"command\""), 18, "family = \"language_model\"");
  CHECK_THROWS_WITH(
      parse_study("data.source = \"teacher\"\n" + text, "/studies/study.toml"),
      ContainsSubstring("study.toml:6:11: [model] command: has no effect: only family = \"command\""));
}
