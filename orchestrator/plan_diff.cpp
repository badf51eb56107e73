#include "orchestrator/plan_diff.h"

#include <set>

#include <fmt/format.h>

#include "orchestrator/study_changes.h"
#include "sweeps/analysis.h"
#include "sweeps/study_file.h"

namespace orchestrator {
namespace {

constexpr std::size_t kMostNames = 10;

struct Trial {
  sweeps::TrialKey key;
  std::string name;
  sweeps::TrialRole role;
};
/// In the order in which they came, each once.
struct Trials {
  std::vector<Trial> all;
  std::set<sweeps::TrialKey> keys;
  void add(const Trial& trial) {
    if (keys.insert(trial.key).second) all.push_back(trial);
  }
};

/// Trials that count for a study as far as it has come, and those that its stage lacks.
struct Asked {
  sweeps::Stage stage = sweeps::Stage::scan;
  Trials kept, missing;
};

Asked asked_for(const sweeps::Study& study, const std::vector<sweeps::TrialResult>& results) {
  const auto analysis = sweeps::analyse(study, results);
  Asked asked{analysis.stage, {}, {}};
  for (const auto& spec : analysis.missing) asked.missing.add({sweeps::trial_key(spec), spec.name, spec.role});
  for (const auto& trial : results)
    if (analysis.asked.contains(trial.key) && !asked.missing.keys.contains(trial.key))
      asked.kept.add({trial.key, trial.spec.name, trial.spec.role});
  return asked;
}

void list(std::vector<std::string>& lines, const std::string& what, const std::vector<std::string>& names) {
  lines.push_back(fmt::format("trials {}: {}", what, names.size()));
  for (std::size_t i = 0; i < names.size() && i < kMostNames; ++i) lines.push_back("  " + names[i]);
  if (names.size() > kMostNames) lines.push_back(fmt::format("  and {} more", names.size() - kMostNames));
}

}  // namespace

std::vector<std::string> plan_diff(const db::StudyRow& before, const sweeps::Study& study,
                                   const std::vector<sweeps::TrialResult>& results) {
  std::vector<std::string> lines;
  for (const auto& change : study_changes(before.text, study.text)) lines.push_back(change);
  if (before.fingerprint != study.data.fingerprint) lines.push_back("the data itself");
  if (lines.empty()) return lines;
  const auto now = asked_for(study, results);
  Asked then;
  try {
    auto old_study = sweeps::parse_study(before.text, before.file);
    old_study.data.fingerprint = before.fingerprint;
    then = asked_for(old_study, results);
  } catch (const std::exception& error) {  // written by an older program, say
    lines.push_back(fmt::format("trials cannot be compared, the stored study is not understood: {}", error.what()));
    return lines;
  }
  std::vector<std::string> added, dropped, open;
  for (const auto& trial : now.missing.all)
    if (!then.missing.keys.contains(trial.key)) added.push_back(trial.name);
  for (const auto* trials : {&then.kept, &then.missing})
    for (const auto& trial : trials->all)
      if (!now.kept.keys.contains(trial.key) && !now.missing.keys.contains(trial.key))
        (sweeps::stage_of(trial.role) > now.stage ? open : dropped).push_back(trial.name);
  list(lines, "added", added);
  lines.push_back(fmt::format("trials kept: {} that have ended, {} that wait", now.kept.all.size(),
                              now.missing.all.size() - added.size()));
  list(lines, "dropped (they stay in the database and count no more)", dropped);
  if (!open.empty())
    list(lines, fmt::format("of later stages, kept or dropped by what comes out of the {}", sweeps::name(now.stage)), open);
  return lines;
}

}  // namespace orchestrator
