#include "sweeps/study_file.h"

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "sweeps/plan.h"
#include "sweeps/settings.h"
#include "tests/support/catch.h"

using namespace sweeps;

namespace {

/// Uses each section once; line numbers matter to the tests below.
constexpr const char* kStudy = R"(schema = 1
name = "small"
seed = 7

[data]
source = "text"
path = "corpus"

[model]
width = 64
depth = 2
head_size = 16
context = 64

[train]
steps = 100
batch = 8
schedule = { kind = "wsd", warmup = 0.05, decay = 0.2 }
init_std = 0.05
eval = { tokens = 4096, every = 0.5 }

[space]
lr = { min = 1e-3, max = 1e-2, count = 3 }
wd = { values = [0.01, 0.1] }

[search]
method = "grid"

[transfer]
rule = "complete-mue"

[[target]]
name = "8e2a1s"
moe = "8e2a1s"
width = 128
steps = 200
drift = true

[drift]
tolerance = "0.1%"
)";

const std::filesystem::path kFile = "/studies/study.toml";

Study parsed(const std::string& text) { return parse_study(text, kFile); }

/// A study with one piece of its text replaced by another.
std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}
std::string edited(const std::string& from, const std::string& to) { return replaced(kStudy, from, to); }
std::string with(const std::string& more) { return std::string(kStudy) + more; }

/// The message of the refusal; fails the test when the study is accepted.
std::string complaint(const std::string& text) {
  try {
    parsed(text);
  } catch (const StudyError& error) {
    return error.what();
  }
  FAIL("the study was accepted");
  return {};
}

#define REFUSED_AT(text, line_column, part)                                          \
  do {                                                                               \
    const std::string message = complaint(text);                                     \
    CHECK_THAT(message, ContainsSubstring("/studies/study.toml:" line_column ": ")); \
    CHECK_THAT(message, ContainsSubstring(part));                                    \
  } while (false)

}  // namespace

TEST_CASE("a study is read with every default filled in", "[sweeps][study_file]") {
  const auto study = parsed(kStudy);
  CHECK(study.name == "small");
  CHECK(study.seed == 7);
  CHECK(study.data.source == DataSource::text);
  CHECK(study.data.path == "/studies/corpus");
  CHECK(study.proxy.shape.vocab == 256);
  CHECK(study.proxy.shape.ffn_width == 64);
  CHECK(study.proxy.steps == 100);
  CHECK(study.schedule == Schedule{ScheduleKind::wsd, 0.05, 0.2});
  CHECK(study.base.init_std == 0.05);
  CHECK(study.base.beta2 == 0.95);
  CHECK(study.eval == EvalSpec{4096, 0.5});
  CHECK(grid_values(study.space.lr) == std::vector{1e-3, 3.162e-3, 1e-2});
  CHECK(grid_values(study.space.wd) == std::vector{0.01, 0.1});
  CHECK(study.search.replicates == 1);
  CHECK(study.rule == models::RuleOptions{});
  REQUIRE(study.targets.size() == 1);
  CHECK(study.targets[0].name == "8e2a1s");
  CHECK(study.targets[0].drift);
  CHECK(study.targets[0].baseline);
  CHECK(study.drift.tolerance_fraction == 0.001);
  CHECK(study.resources.devices == std::vector<std::string>{"auto"});
  CHECK(study.retry.stop_after == 5);
}

TEST_CASE("a target takes from the proxy what it does not say", "[sweeps][study_file]") {
  const auto run = parsed(kStudy).targets[0].run;
  CHECK(run.shape.width == 128);
  CHECK(run.shape.depth == 2);
  CHECK(run.shape.head_size == 16);
  CHECK(run.shape.context == 64);
  CHECK(run.shape.vocab == 256);
  CHECK(run.shape.num_experts == 8);
  CHECK(run.shape.num_active == 2);
  CHECK(run.shape.num_shared == 1);
  CHECK(run.shape.expert_width == 128);
  CHECK(run.steps == 200);
  CHECK(run.batch == 8);
}

TEST_CASE("a dense target has an expansion of its own", "[sweeps][study_file]") {
  const auto study = parsed(edited("moe = \"8e2a1s\"", "expansion = 2.5"));
  CHECK_FALSE(study.targets[0].run.shape.is_moe());
  CHECK(study.targets[0].run.shape.ffn_width == 320);
}

TEST_CASE("the default grid is 7 LRs by 5 WDs", "[sweeps][study_file]") {
  auto text = edited(", count = 3 }", " }");
  text.replace(text.find("{ values = [0.01, 0.1] }"), 24, "{ min = 0.01, max = 1.0 }");
  CHECK(sweep_points(parsed(text)).size() == 35);
}

TEST_CASE("the resolved text reads back as the same study", "[sweeps][study_file]") {
  const std::vector<std::string> studies = {
      kStudy,
      edited("name = \"small\"", "name = \"a \\\"b\\\\ \\t c\""),
      edited("\"0.1%\"", "\"0.0030000001 nats\""),
      edited("\"0.1%\"", "\"0.3%\""),
      edited("source = \"text\"\npath = \"corpus\"", "source = \"teacher\""),
      edited("source = \"text\"\npath = \"corpus\"",
             "source = \"tokens\"\npath = \"t.bin\"\nvalidation_path=\"v.bin\""),
      edited("init_std = 0.05", "clip = 0"),
      edited("method = \"grid\"", "method = \"grid\"\nreplicates = 3\nextensions = 0"),
      edited("method = \"grid\"", "method = \"grid\"\nearly_stopping = false"),
      edited("batch = 8", "batch = 8\nbranches = [0.25, 0.5, 1.0]"),
      edited("rule = \"complete-mue\"", "rule = \"sp\""),
      edited("rule = \"complete-mue\"", "rule = \"mup\"\nwd_width = \"literal\""),
      edited("rule = \"complete-mue\"", "duration_exponent = 0.3\nhead = \"mup\""),
      edited("rule = \"complete-mue\"", "compare = [\"sp\", \"mup\"]\nwd_width = \"literal\""),
      edited("rule = \"complete-mue\"", "rule = \"sp\"\ncompare = [\"complete-mue\"]\nhead = \"mup\""),
      edited("steps = 200", "steps = 200\nrule = \"mup\""),
      edited("moe = \"8e2a1s\"", "moe = \"8e2a\"\nrule = \"mssp\""),
      edited("kind = \"wsd\", warmup = 0.05, decay = 0.2", "kind = \"cosine\""),
      edited("moe = \"8e2a1s\"", "expansion = 2.5\nbaseline = false"),
      with("\n[resources]\ndevices = [\"cuda:0\", \"cuda:2\"]\nworkers_per_device = 2\n"),
      with("\n[resources]\nworkers_per_device = \"auto\"\nmemory = \"1.5 GiB\"\nhost_reserve = \"1MB\"\n"),
      with("\n[resources]\ndevice_share = 0.15\n"),
      with("\n[retry]\ncrash = 0\nstop_after = \"never\"\n"),
      with("\n[retry]\noom_gpu = 3\nbackoff = \"250ms\"\n[disk]\nlog = \"1000B\"\nkeep_free = \"2 TiB\"\n"),
  };
  for (std::string text : studies) {
    if (text.find("\"tokens\"") != std::string::npos)
      text.replace(text.find("context = 64"), 12, "context = 64\nvocab = 50257");
    INFO(text);
    const auto study = parsed(text);
    const auto again = parsed(study.text);
    CHECK(again.text == study.text);
    CHECK(again.hash == study.hash);
    CHECK(plan_sweep(again, 0.05) == plan_sweep(study, 0.05));
    REQUIRE(again.targets.size() == study.targets.size());
    for (std::size_t i = 0; i < again.targets.size(); ++i)
      CHECK(plan_target(again, again.targets[i], study.base) ==
            plan_target(study, study.targets[i], study.base));
    CHECK(again.drift.tolerance_fraction == study.drift.tolerance_fraction);
    CHECK(again.drift.tolerance_nats == study.drift.tolerance_nats);
    CHECK(again.resources.devices == study.resources.devices);
    CHECK(again.resources.memory == study.resources.memory);
    CHECK(again.retry.stop_after == study.retry.stop_after);
    CHECK(again.retry.backoff == study.retry.backoff);
    CHECK(again.disk.log == study.disk.log);
  }
}

TEST_CASE("a scan, a random search and a list read back too", "[sweeps][study_file]") {
  auto scanned = edited("init_std = 0.05\n", "");
  scanned.replace(scanned.find("wd = {"), 0, "init_std = { values = [0.08, 0.02] }\n");
  auto random = edited("method = \"grid\"", "method = \"random\"\nmax_trials = 12");
  random.replace(random.find(", count = 3"), 11, "");
  random.replace(random.find("{ values = [0.01, 0.1] }"), 24, "0.1");
  auto listed = edited("method = \"grid\"", "method = \"list\"\npoints = [[1e-3, 0.1], [2e-3, 0.05]]");
  const auto space = listed.find("[space]");
  listed.replace(space, listed.find("[search]") - space, "");

  CHECK(parsed(scanned).space.init_std == std::vector{0.02, 0.08});
  CHECK(parsed(scanned).space.scan_lr == 3.162e-3);
  CHECK(plan_scan(parsed(scanned)).size() == 6);
  CHECK(sweep_points(parsed(random)).size() == 12);
  CHECK(sweep_points(parsed(listed)).size() == 2);
  CHECK(parsed(listed).space.lr.max == 2e-3);
  for (const auto& text : {scanned, random, listed})
    CHECK(parsed(parsed(text).text).text == parsed(text).text);
}

TEST_CASE("the hash depends on what is asked for, not on how it is written", "[sweeps][study_file]") {
  const auto hash = parsed(kStudy).hash;
  CHECK(hash.size() == 16);
  CHECK(parsed(std::string("# a remark\n") + kStudy).hash == hash);
  CHECK(parsed(edited("count = 3", "count = 3, scale = \"log\"")).hash == hash);
  CHECK(parsed(edited("batch = 8", "batch = 9")).hash != hash);
}

TEST_CASE("a study without targets is a sweep", "[sweeps][study_file]") {
  std::string text = kStudy;
  text.resize(text.find("[[target]]"));
  CHECK(parsed(text).targets.empty());
}

TEST_CASE("a path may start at home, at the root, at the study's folder, or name a fetched corpus",
          "[sweeps][study_file]") {
  const char* home = std::getenv("HOME");
  REQUIRE(home);
  const auto path = [](const std::string& text) {
    return parsed(edited("\"corpus\"", "\"" + text + "\"")).data.path;
  };
  CHECK(path("~/texts/a.txt") == std::string(home) + "/texts/a.txt");
  CHECK(path("/texts/../a.txt") == "/a.txt");
  CHECK(path("../texts") == "/texts");
  CHECK_THAT(path("gcide"), ContainsSubstring("/tuneonce/gcide"));
  CHECK_THAT(path("fashion-mnist"), ContainsSubstring("/tuneonce/fashion-mnist"));
  CHECK(path("./gcide") == "/studies/gcide");
}

TEST_CASE("a tolerance is a share of the loss or an amount", "[sweeps][study_file]") {
  CHECK(parsed(edited("0.1%", "0.25 %")).drift.tolerance_fraction == 0.0025);
  const auto absolute = parsed(edited("0.1%", "0.003 nats"));
  CHECK(absolute.drift.tolerance_nats == 0.003);
}

TEST_CASE("a drift check can be strict", "[sweeps][study_file]") {
  CHECK_FALSE(parsed(edited("0.1%", "0.1%")).drift.strict);
  const auto strict = parsed(edited("tolerance = \"0.1%\"", "tolerance = \"0.1%\"\nstrict = true"));
  CHECK(strict.drift.strict);
  CHECK(parsed(strict.text).drift.strict);
}

TEST_CASE("the nearest known word is found for a slip and not for another word", "[sweeps][settings]") {
  const std::vector<std::string_view> known = {"width", "depth", "head_size"};
  CHECK(nearest("widht", known) == "width");
  CHECK(nearest("headsize", known) == "head_size");
  CHECK(nearest("banana", known) == "");
}

// --- refusals ---

TEST_CASE("a TOML syntax error has its place", "[sweeps][study_file]") {
  REFUSED_AT(edited("seed = 7", "seed = = 7"), "3:8", "");
}

TEST_CASE("a file that is missing or a folder is refused by name", "[sweeps][study_file]") {
  CHECK_THROWS_WITH(load_study("/nowhere/study.toml"),
                    ContainsSubstring("/nowhere/study.toml: cannot be opened"));
  CHECK_THROWS_WITH(load_study("/"), ContainsSubstring("is a folder"));
}

TEST_CASE("an empty study is told to start with the schema", "[sweeps][study_file]") {
  REFUSED_AT("", "1:1", "write schema = 1");
}

TEST_CASE("an unknown schema is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("schema = 1", "schema = 2"), "1:10", "reads schema = 1");
}

TEST_CASE("a study without a name is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("name = \"small\"", ""), "1:1", "lacks \"name\"");
  REFUSED_AT(edited("name = \"small\"", "name = \"a/b\""), "2:8", "slash");
  // Before what only other families need is missed.
  REFUSED_AT("schema = 1\nname = \"a\"\n[model]\nfamily = \"comand\"\n", "4:10", "did you mean \"command\"?");
}

TEST_CASE("a misspelt key comes with the nearest known one", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64", "widht = 64"), "10:1",
             "unknown key \"widht\" in [model]; did you mean \"width\"?");
}

TEST_CASE("an unknown key that is near none comes with the list", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64", "colour = 64"), "10:1", "keys there are family, width");
}

TEST_CASE("a misspelt section comes with the nearest known one", "[sweeps][study_file]") {
  REFUSED_AT(edited("[train]", "[trian]"), "15:2",
             "unknown section \"trian\" in the study; did you mean \"train\"?");
}

TEST_CASE("a misspelt key of an inline table has its own place", "[sweeps][study_file]") {
  REFUSED_AT(edited("warmup = 0.05", "warm_up = 0.05"), "18:28", "did you mean \"warmup\"?");
}

TEST_CASE("a string where a number belongs is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64", "width = \"64\""), "10:9", "is a string");
}

TEST_CASE("a decimal number where a whole one belongs is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("steps = 100", "steps = 1e2"), "16:9", "whole number");
}

TEST_CASE("a number where true or false belongs is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("drift = true", "drift = 1"), "37:9", "true or false");
}

TEST_CASE("a value where a section belongs is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("\n[drift]\ntolerance = \"0.1%\"", "").replace(0, 0, "drift = 3\n"), "1:9",
             "must be a table");
}

TEST_CASE("a date is no value of any key", "[sweeps][study_file]") {
  REFUSED_AT(edited("seed = 7", "seed = 2024-01-01"), "3:8", "a date or time");
}

TEST_CASE("a value that is not finite is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("init_std = 0.05", "init_std = inf"), "19:12", "above 0");
  REFUSED_AT(edited("init_std = 0.05", "init_std = nan"), "19:12", "above 0");
}

TEST_CASE("a negative seed is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("seed = 7", "seed = -7"), "3:8", "at least 0");
}

TEST_CASE("a range whose min is above its max is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("min = 1e-3", "min = 1e-1"), "23:14", "not below max");
}

TEST_CASE("a log range from zero is told to give values", "[sweeps][study_file]") {
  REFUSED_AT(edited("min = 1e-3", "min = 0"), "23:14", "values, not exponents");
}

TEST_CASE("a range in exponents is told to give values", "[sweeps][study_file]") {
  REFUSED_AT(edited("min = 1e-3, max = 1e-2", "min = -3, max = -2"), "23:14", "values, not exponents");
}

TEST_CASE("a range without an end is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("min = 1e-3, ", ""), "23:6", "lacks \"min\"");
}

TEST_CASE("duplicate grid values are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("[0.01, 0.1]", "[0.01, 0.1, 0.01]"), "24:29", "there twice");
}

TEST_CASE("grid values that agree to four digits are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("max = 1e-2, count = 3", "max = 1.0001e-3, count = 30"), "23:45", "same at four digits");
}

TEST_CASE("an empty list of values is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("[0.01, 0.1]", "[]"), "24:17", "empty");
}

TEST_CASE("a grid value of zero is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("[0.01, 0.1]", "[0.0, 0.1]"), "24:18", "above 0");
}

TEST_CASE("count beside explicit values has no effect and is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("[0.01, 0.1] }", "[0.01, 0.1], count = 2 }"), "24:38", "has no effect");
}

TEST_CASE("a sweep without a space is refused", "[sweeps][study_file]") {
  std::string text = kStudy;
  const auto space = text.find("[space]");
  text.erase(space, text.find("[search]") - space);
  REFUSED_AT(text, "1:1", "[space]");
}

TEST_CASE("count with a random search has no effect and is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"random\""), "23:40", "has no effect");
}

TEST_CASE("a random search over explicit values is refused", "[sweeps][study_file]") {
  auto text = edited("method = \"grid\"", "method = \"random\"");
  text.erase(text.find(", count = 3"), 11);
  REFUSED_AT(text, "24:17", "draws from a range");
}

TEST_CASE("points beside a grid have no effect and are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"grid\"\npoints = [[1e-3, 0.1]]"), "28:10",
             "method \"list\"");
}

TEST_CASE("a list without points is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"list\""), "26:1", "points = [[1e-3, 0.1]");
}

TEST_CASE("a list beside a space is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"list\"\npoints = [[1e-3, 0.1]]"), "23:6",
             "has no effect");
}

TEST_CASE("a list point that is no pair, or there twice, is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"list\"\npoints = [[1e-3]]"), "28:11", "pair [LR, WD]");
  REFUSED_AT(edited("method = \"grid\"", "method = \"list\"\npoints = [[1e-3, 0.1], [1e-3, 0.1]]"), "28:24",
             "twice");
}

TEST_CASE("a grid larger than max_trials is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"grid\"\nmax_trials = 5"), "28:14", "6 points");
}

TEST_CASE("plain ranges are searched adaptively unless the study says otherwise", "[sweeps][study_file]") {
  const std::string ranges =
      edited("lr = { min = 1e-3, max = 1e-2, count = 3 }\nwd = { values = [0.01, 0.1] }",
             "lr = { min = 5e-4, max = 3.2e-2 }\nwd = { min = 0.01, max = 1 }");
  const auto study = parsed(replaced(ranges, "[search]\nmethod = \"grid\"\n", ""));
  CHECK(study.search.method == SearchMethod::adaptive);
  CHECK(study.search.start == std::pair(4e-3, 0.1));
  CHECK(study.search.batch == 2);
  CHECK(study.search.stop == StopRule::measure);
  CHECK(study.search.lr_half_width == 0.25);
  CHECK(study.search.confirm == 2);
  CHECK(sweep_points(study).size() == 9);
  CHECK(parsed(study.text).text == study.text);
  CHECK(parsed(kStudy).search.method == SearchMethod::grid);
  CHECK(parsed(kStudy).search.confirm == 0);

  const auto tuned =
      parsed(replaced(ranges, "\"grid\"", "\"adaptive\"\nstop = \"tune\"\nstart = [2e-3, 0.2]"));
  CHECK(tuned.search.stop == StopRule::tune);
  CHECK(tuned.search.start == std::pair(2e-3, 0.2));
  CHECK(parsed(tuned.text).text == tuned.text);
}

TEST_CASE("the adaptive search refuses what it would not use", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"grid\"", "\"adaptive\""), "23:40", "finds its own points");
  const std::string ranges =
      edited("lr = { min = 1e-3, max = 1e-2, count = 3 }\nwd = { values = [0.01, 0.1] }",
             "lr = { min = 1e-3, max = 1e-2 }\nwd = { min = 0.01, max = 1 }");
  REFUSED_AT(replaced(ranges, "\"grid\"", "\"adaptive\""), "23:6", "2 octaves either side");
  const std::string wide = replaced(ranges, "1e-2", "1e-1");
  const auto search = [&](const std::string& more) {
    return replaced(wide, "\"grid\"", "\"adaptive\"" + more);
  };
  REFUSED_AT(search("\nextensions = 2"), "28:14", "has no effect");
  REFUSED_AT(search("\npoints = [[1e-3, 0.1]]"), "28:10", "has no effect");
  REFUSED_AT(search("\nmax_trials = 5"), "28:14", "11");
  REFUSED_AT(search("\nstop = \"tune\"\nlr_half_width = 0.2"), "29:17", "has no effect");
  REFUSED_AT(search("\nstart = [1e-3, 0.1]"), "28:9", "move [search] start");
  REFUSED_AT(search("\nstart = [1e-3]"), "28:9", "a guess of LR and WD");
}

TEST_CASE("stopping trials early by their loss is refused with the reason", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"grid\"", "\"asha\""), "27:10", "ranks learning rates wrongly");
  REFUSED_AT(edited("method = \"grid\"", "method = \"grid\"\nearly_stopping = \"asha\""), "28:18",
             "ranks learning rates wrongly");
}

TEST_CASE("a key of the adaptive search is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("method = \"grid\"", "method = \"grid\"\nlr_half_width = 0.25"), "28:17", "adaptive");
}

TEST_CASE("a model family that nobody knows is refused with those that there are", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64", "family = \"rnn\""), "10:10",
             "is unknown; use one of language_model, diffusion_model, command");
}

namespace {

constexpr const char* kDiffusionStudy = R"(schema = 1
name = "pictures"
[data]
source = "templates"
image_size = 12
[model]
family = "diffusion_model"
patch = 3
width = 64
[train]
eval = { images = 256, every = 0.5 }
[space]
lr = 1e-3
wd = 0.1
[[target]]
name = "4e2a"
moe = "4e2a"
)";

std::string edited_diffusion(const std::string& from, const std::string& to) {
  std::string text = kDiffusionStudy;
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a diffusion study takes the image's size from its source", "[sweeps][study_file]") {
  const auto study = parsed(kDiffusionStudy);
  CHECK(study.data.source == DataSource::templates);
  CHECK(study.data.teacher_seed == 1);  // the study's
  for (const auto& shape : {study.proxy.shape, study.targets.at(0).run.shape}) {
    CHECK(shape.family == models::ModelFamily::diffusion_model);
    CHECK(shape.image_size == 12);
    CHECK(shape.channels == 1);
    CHECK(shape.patch == 3);
    CHECK(shape.context == 16);
  }
  CHECK(study.eval.tokens == 256 * 16);
  CHECK(study.targets[0].run.shape.num_experts == 4);
  CHECK(parsed(study.text).text == study.text);
  CHECK_THAT(study.text, ContainsSubstring("images = 256"));
  const auto pictures =
      parsed(edited_diffusion("\"templates\"", "\"images\"\npath = \"pictures\"\nchannels = 3"));
  CHECK(pictures.data.path == "/studies/pictures");
  CHECK(pictures.proxy.shape.channels == 3);
  CHECK(parsed(pictures.text).text == pictures.text);
  CHECK(pictures.data.holdout == 0);  // the test files
  const auto shared =
      parsed(edited_diffusion("\"templates\"", "\"images\"\npath = \"pictures\"\nholdout = 0.1"));
  CHECK(shared.data.holdout == 0.1);
  CHECK(parsed(shared.text).text == shared.text);
}

TEST_CASE("a source and a model that do not go together are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64", "family = \"diffusion_model\""), "10:10",
             "[data] source \"text\" has tokens; use \"templates\" or \"images\"");
  REFUSED_AT(edited_diffusion("\"diffusion_model\"", "\"language_model\""), "7:10",
             "write family = \"diffusion_model\"");
  REFUSED_AT(edited_diffusion("family = \"diffusion_model\"\n", ""), "6:1",
             "write family = \"diffusion_model\"");
}

TEST_CASE("what a diffusion model does not have is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited_diffusion("patch = 3", "context = 16"), "8:11", "the patches of an image");
  REFUSED_AT(edited_diffusion("patch = 3", "vocab = 16"), "8:9", "no vocabulary");
  REFUSED_AT(edited_diffusion("patch = 3", "patch = 5"), "8:9", "does not divide the image size, 12");
  REFUSED_AT(edited_diffusion("width = 64", "width = 66\nhead_size = 22"), "9:9", "multiple of 4");
  REFUSED_AT(edited_diffusion("images = 256", "tokens = 256"), "11:19", "evaluated on images");
  REFUSED_AT(edited_diffusion("image_size = 12", "path = \"x\""), "5:8", "make their own images");
  REFUSED_AT(edited_diffusion("image_size = 12", "teacher_seed = 2"), "5:16", "has no teacher");
  REFUSED_AT(edited_diffusion("image_size = 12", "holdout = 0.1"), "5:11", "own held-out images");
  REFUSED_AT(edited_diffusion("\"templates\"", "\"images\""), "3:1", "name a file or a folder of images");
}

TEST_CASE("what a language model does not have is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("context = 64", "patch = 2"), "13:9", "only a diffusion model has patches");
  REFUSED_AT(edited("tokens = 4096", "images = 64"), "20:19", "evaluated on tokens");
  REFUSED_AT(edited("path = \"corpus\"", "path = \"corpus\"\nimage_size = 8"), "8:14", "has no images");
}

TEST_CASE("a rule that cannot be trained is refused and its calculator named", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"complete-mue\"", "\"u-mup\""), "30:8", "tuneonce transfer --rule u-mup");
}

TEST_CASE("a target that its rule says nothing about is refused at its key", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"complete-mue\"", "\"completep\""), "34:7", "leave moe out");
  REFUSED_AT(edited("\"complete-mue\"", "\"jiang\""), "34:7", "shared experts");
  REFUSED_AT(edited("rule = \"complete-mue\"", "compare = [\"mup-moe\"]"), "34:7", "\"8e2a1s@mup-moe\"");
  auto narrow = edited("moe = \"8e2a1s\"", "moe = \"8e2a\"\nexpert_width = 64\nrule = \"mssp\"");
  REFUSED_AT(narrow, "35:16", "expert_width must give 128, not 64");
}

TEST_CASE("MSSP's regime is read, kept and refused elsewhere", "[sweeps][study_file]") {
  auto text = edited("rule = \"complete-mue\"", "rule = \"mssp\"\nmssp_regime = 3");
  text.replace(text.find("\"8e2a1s\"\nwidth"), 8, "\"8e2a\"");
  const auto study = parsed(text);
  CHECK(study.targets[0].rule.mssp_regime == 3);
  CHECK(parsed(study.text).text == study.text);
  CHECK_THAT(study.text, ContainsSubstring("mssp_regime = 3"));
  REFUSED_AT(edited("rule = \"complete-mue\"", "mssp_regime = 2"), "30:15", "has no effect");
}

TEST_CASE("an expansion of zero is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("head_size = 16", "head_size = 16\nexpansion = 0"), "13:13", "above 0");
}

TEST_CASE("a misspelt word comes with the nearest known one", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"complete-mue\"", "\"complete-mu\""), "30:8", "did you mean \"complete-mue\"?");
}

TEST_CASE("the teacher takes no path", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"text\"", "\"teacher\""), "7:8", "has no effect");
}

TEST_CASE("text needs a path and takes no teacher seed", "[sweeps][study_file]") {
  REFUSED_AT(edited("path = \"corpus\"", ""), "5:1", "lacks \"path\"");
  REFUSED_AT(edited("path = \"corpus\"", "path = \"corpus\"\nteacher_seed = 1"), "8:16", "has no effect");
}

TEST_CASE("a holdout of nothing or of most is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("path = \"corpus\"", "path = \"corpus\"\nholdout = 0"), "8:11",
             "above 0 and at most 0.5");
  REFUSED_AT(edited("path = \"corpus\"", "path = \"corpus\"\nholdout = 0.6"), "8:11",
             "above 0 and at most 0.5");
}

TEST_CASE("token files need a vocabulary and text takes none", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"text\"", "\"tokens\""), "9:1", "50257");
  REFUSED_AT(edited("context = 64", "context = 64\nvocab = 300"), "14:9", "256 tokens");
}

TEST_CASE("experts in the proxy are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("context = 64", "context = 64\nmoe = \"8e2a\""), "14:7", "[[target]]");
}

TEST_CASE("a head size that does not divide the width is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("head_size = 16", "head_size = 24"), "12:13", "does not divide width 64");
  REFUSED_AT(edited("width = 128", "width = 100"), "35:9", "does not divide width 100");
}

TEST_CASE("an odd head size is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64\ndepth = 2\nhead_size = 16", "width = 63\ndepth = 2\nhead_size = 21"),
             "12:13", "even");
}

TEST_CASE("an expansion that gives no whole width is refused with one that does", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 64", "width = 64\nexpansion = 2.67"), "11:13", "2.671875 would give 171");
}

TEST_CASE("no steps and no batch are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("steps = 100", "steps = 0"), "16:9", "at least 1");
  REFUSED_AT(edited("batch = 8", "batch = 0"), "17:9", "at least 1");
}

TEST_CASE("an evaluation of less than one sequence is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("tokens = 4096", "tokens = 63"), "20:19", "at least the context, 64");
}

TEST_CASE("a schedule longer than the run is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("warmup = 0.05", "warmup = 0.9"), "18:50", "at most 1");
}

TEST_CASE("decay with a cosine schedule has no effect and is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"wsd\"", "\"cosine\""), "18:54", "has no effect");
}

TEST_CASE("a beta of 1 is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("batch = 8", "batch = 8\nadamw = { beta1 = 1.0 }"), "18:19", "below 1");
}

TEST_CASE("an initial std beside its scan has no effect and is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("wd = {", "init_std = { values = [0.1, 0.2] }\nwd = {"), "19:1", "has no effect");
}

TEST_CASE("a start LR without a scan has no effect and is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("wd = {", "scan_lr = 1e-3\nwd = {"), "24:11", "has no effect");
}

TEST_CASE("keys that a rule does not use are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("rule = \"complete-mue\"", "rule = \"sp\"\nwd_width = \"scaled\""), "31:12",
             "has no effect");
  REFUSED_AT(edited("rule = \"complete-mue\"", "rule = \"mup\"\nhead = \"mup\""), "31:8", "has no effect");
}

TEST_CASE("a target may have a rule of its own, with the study's options", "[sweeps][study_file]") {
  const auto study = parsed(edited("steps = 200", "rule = \"mup\""));
  CHECK(study.targets[0].rule.rule == models::Parameterization::mup);
  CHECK(study.rule.rule == models::Parameterization::complete_mue);
  CHECK(is_comparator(study, study.targets[0]));
  const auto options = parsed(edited("rule = \"complete-mue\"", "depth_exponent = 0.5")).targets[0];
  CHECK(options.rule.depth_exponent == 0.5);
}

TEST_CASE("compare adds a copy of each target with a drift check under each rule", "[sweeps][study_file]") {
  const auto study = parsed(edited("rule = \"complete-mue\"", "compare = [\"sp\", \"mup\"]") +
                            "\n[[target]]\nname = \"no-drift\"\n");
  REQUIRE(study.targets.size() == 4);
  CHECK(study.targets[1].name == "8e2a1s@sp");
  CHECK(study.targets[2].name == "8e2a1s@mup");
  CHECK(study.targets[3].name == "no-drift");
  for (const auto i : {1, 2}) {
    const auto& copy = study.targets[static_cast<std::size_t>(i)];
    CHECK(copy.run == study.targets[0].run);
    CHECK(copy.drift);
    CHECK_FALSE(copy.baseline);
    CHECK(is_comparator(study, copy));
  }
  CHECK_FALSE(is_comparator(study, study.targets[0]));
  CHECK_THAT(study.text, ContainsSubstring("compare = [\"sp\", \"mup\"]"));
}

TEST_CASE("a rule to compare with that says nothing is refused", "[sweeps][study_file]") {
  const auto compare = [](const char* list) {
    return edited("rule = \"complete-mue\"", fmt::format("compare = {}", list));
  };
  REFUSED_AT(compare("[\"sp\", \"complete-mue\"]"), "30:18", "the study's own rule");
  REFUSED_AT(compare("[\"sp\", \"sp\"]"), "30:18", "twice");
  REFUSED_AT(compare("[\"mu\"]"), "30:12", "did you mean \"mup\"?");
  REFUSED_AT(compare("\"sp\""), "30:11", "compare = [\"sp\", \"mup\"]");
  std::string no_drift = compare("[\"sp\"]");
  no_drift.replace(no_drift.find("drift = true"), 12, "drift = false");
  REFUSED_AT(no_drift, "30:11", "no target has drift = true");
}

TEST_CASE("an option that only a rule to compare with uses is taken", "[sweeps][study_file]") {
  const auto study =
      parsed(edited("rule = \"complete-mue\"", "rule = \"sp\"\ncompare = [\"mup\"]\nwd_width = \"literal\""));
  CHECK(study.targets[1].rule.wd_width == models::WdWidth::literal);
  REFUSED_AT(edited("rule = \"complete-mue\"", "rule = \"sp\"\ncompare = [\"mup\"]\nhead = \"mup\""), "32:8",
             "has no effect");
}

TEST_CASE("more active experts than experts is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"8e2a1s\"\nwidth", "\"8e9a\"\nwidth"), "34:7", "9 active experts of only 8");
}

TEST_CASE("groups that do not divide the experts are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"8e2a1s\"\nwidth", "\"8e2a3g\"\nwidth"), "34:7", "3 groups do not divide");
}

TEST_CASE("a moe code that is none is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"8e2a1s\"\nwidth", "\"8x2\"\nwidth"), "34:7", "write for example 128e8a1s");
}

TEST_CASE("an expert width of zero is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 128", "expert_width = 0"), "35:16", "at least 1");
}

TEST_CASE("keys of a MoE on a dense target are refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("moe = \"8e2a1s\"", "expert_width = 64"), "34:16", "the target is dense");
}

TEST_CASE("an expansion on a MoE target is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("width = 128", "expansion = 2"), "35:13", "expert_width");
}

TEST_CASE("a target so short that a beta would pass 1 is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("steps = 200", "steps = 5"), "36:9", "target \"8e2a1s\": beta1");
}

TEST_CASE("two targets of one name are refused", "[sweeps][study_file]") {
  REFUSED_AT(with("\n[[target]]\nname = \"8e2a1s\"\n"), "43:8", "names must differ");
}

TEST_CASE("a target without a name, or with one that cannot be typed, is refused", "[sweeps][study_file]") {
  REFUSED_AT(with("\n[[target]]\n"), "42:1", "lacks \"name\"");
  REFUSED_AT(with("\n[[target]]\nname = \"a b\"\n"), "43:8", "letters, digits");
  REFUSED_AT(with("\n[[target]]\nname = \"proxy\"\n"), "43:8", "take another");
}

TEST_CASE("a single target table is told to use two brackets", "[sweeps][study_file]") {
  REFUSED_AT(edited("[[target]]", "[target]"), "32:1", "[[target]]");
}

TEST_CASE("a tolerance without a unit is refused", "[sweeps][study_file]") {
  REFUSED_AT(edited("\"0.1%\"", "0.001"), "40:13", "\"0.003 nats\"");
  REFUSED_AT(edited("\"0.1%\"", "\"0.001\""), "40:13", "\"0.003 nats\"");
  REFUSED_AT(edited("\"0.1%\"", "\"-1%\""), "40:13", "above 0");
}

TEST_CASE("a drift check of fewer runs than its design is refused", "[sweeps][study_file]") {
  REFUSED_AT(with("max_trials = 6\n"), "41:14", "at least 7");
}

TEST_CASE("a device that cannot be one is refused", "[sweeps][study_file]") {
  REFUSED_AT(with("\n[resources]\ndevices = [\"gpu\"]\n"), "43:12", "\"cuda:0\"");
  REFUSED_AT(with("\n[resources]\ndevices = \"cpu\"\n"), "43:11", "no list of devices");
  REFUSED_AT(with("\n[resources]\ndevices = [\"cpu\", \"cpu\"]\n"), "43:19", "workers_per_device");
  REFUSED_AT(with("\n[resources]\ndevices = [\"cpu\"]\nworkers_per_device = \"auto\"\n"), "44:22",
             "for GPUs");
}

TEST_CASE("resources, retries and disk bounds that are not understood are refused", "[sweeps][study_file]") {
  REFUSED_AT(with("\n[resources]\nmemory = \"6 gigs\"\n"), "43:10", "6GiB");
  REFUSED_AT(with("\n[resources]\nmemory = 6\n"), "43:10", "a size in quotes");
  REFUSED_AT(with("\n[resources]\nworkers_per_device = 2\ndevice_share = 0.5\n"), "44:16", "says it already");
  REFUSED_AT(with("\n[resources]\ndevice_share = 1.5\n"), "43:16", "at most 1");
  REFUSED_AT(with("\n[retry]\nbackoff = \"soon\"\n"), "43:11", "30s");
  REFUSED_AT(with("\n[disk]\nlogs = \"1MB\"\n"), "43:1", "did you mean \"log\"");
  REFUSED_AT(with("\n[retry]\nstop_after = \"5 times\"\n"), "43:14", "5 in a row");
}

TEST_CASE("early stopping is on unless it is turned off", "[sweeps][study_file]") {
  CHECK(parsed(kStudy).search.early_stopping);
  CHECK_FALSE(
      parsed(edited("method = \"grid\"", "method = \"grid\"\nearly_stopping = false")).search.early_stopping);
  REFUSED_AT(edited("method = \"grid\"", "method = \"grid\"\nearly_stopping = 1"), "28:18", "early_stopping");
}

TEST_CASE("branches rise to 1.0 and leave the trunk after its warm-up", "[sweeps][study_file][branches]") {
  const auto with = [](const std::string& line) { return edited("batch = 8", "batch = 8\n" + line); };
  CHECK(parsed(kStudy).branches.empty());
  CHECK(parsed(with("branches = [0.25, 0.5, 1]")).branches == std::vector{0.25, 0.5, 1.0});
  const auto study = parsed(with("branches = [0.25, 0.5, 1]"));
  for (const auto& trial : plan_sweep(study, 0.05)) CHECK(trial.branches == study.branches);
  for (const auto& trial : plan_target(study, study.targets[0], study.base)) CHECK(trial.branches.empty());
  CHECK(cost(plan_sweep(study, 0.05)[0]).tokens == 64 * 8 * (100 + 5 + 10));
  REFUSED_AT(with("branches = [0.5, 0.25, 1.0]"), "18:12", "must rise");
  REFUSED_AT(with("branches = [0.5, 0.5, 1.0]"), "18:18", "twice");
  REFUSED_AT(with("branches = [0.25, 0.5]"), "18:12", "last one must be 1.0");
  REFUSED_AT(with("branches = [1.0]"), "18:12", "1.0 alone is no branch");
  REFUSED_AT(with("branches = [0.05, 1.0]"), "18:12",
             "0.05 would decay from step 4, within the warm-up of 5");
  auto linear = with("branches = [0.5, 1.0]");
  const std::string wsd = "kind = \"wsd\", warmup = 0.05, decay = 0.2";
  linear.replace(linear.find(wsd), wsd.size(), "kind = \"linear\"");
  REFUSED_AT(linear, "18:12", "no stable phase");
}
