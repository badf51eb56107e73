#include "orchestrator/trial_commands.h"

#include <algorithm>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/spec_codec.h"

namespace orchestrator {
namespace {

/// What the owning run answers, on stderr; its refusals are the caller's mistakes.
int ask_owner(const std::filesystem::path& database, const std::string& owner, const ControlRequest& request,
              Console& console) {
  const auto socket = control_socket(database);
  const auto answer = ask_run(socket, request);
  if (!answer)
    throw ExitError(kEnvironment, fmt::format("{}: a run is on ({}), but it does not listen at {}; is it on another "
                                              "machine, or has it only begun or nearly ended?",
                                              database.string(), owner, socket.string()));
  if (!answer->done) throw ExitError(kUsage, answer->text);
  console.message(answer->text);
  return kDone;
}

}  // namespace

std::string quoted(const db::TrialRow& trial) { return fmt::format("trial {} \"{}\"", trial.id, trial.name); }

std::vector<db::TrialRow> named_trials(const db::Reader& reader, const std::vector<std::string>& names) {
  std::vector<db::TrialRow> trials;
  for (const auto& name : names) {
    const auto found = reader.find(name);
    if (found.empty())
      throw ExitError(kUsage, fmt::format("{}: no trial {}; `tuneonce results` lists the trials",
                                          reader.file().string(), name));
    if (found.size() > 1) {
      std::string numbers;
      for (const auto& trial : found) numbers += fmt::format(" {}", trial.id);
      throw ExitError(kUsage, fmt::format("several trials are called \"{}\"; say which number:{}", name, numbers));
    }
    const auto same = [&](const auto& trial) { return trial.id == found.front().id; };
    if (std::none_of(trials.begin(), trials.end(), same)) trials.push_back(found.front());
  }
  return trials;
}

std::string retry(db::Store& store, const ControlRequest& request) {
  int retried = 0;
  if (request.all) {
    retried = store.retry_failed();
  } else {
    std::vector<sweeps::TrialKey> keys;
    for (const auto& trial : named_trials(store, request.trials)) {
      if (trial.state != sweeps::TrialState::failed)
        throw ExitError(kUsage, fmt::format("{} is {}; only a failed trial can be tried again", quoted(trial),
                                            sweeps::name(trial.state)));
      keys.push_back(trial.key);
    }
    retried = store.retry(keys);
  }
  if (retried == 0) return "no trial has failed";
  store.record("retry", fmt::format("{} failed trials wait again", retried));
  return fmt::format("{} failed trial{} again", retried, retried == 1 ? " waits" : "s wait");
}

int retry_trials(const std::filesystem::path& database, const ControlRequest& request, Console& console) {
  if (const auto owner = OwnerLock::owner(database)) return ask_owner(database, *owner, request, console);
  const OwnerLock lock(database);
  auto store = db::Store::open(database, spec_codec());
  const auto study = store.study();
  if (!study) throw ExitError(kUsage, fmt::format("{}: holds no study yet", database.string()));
  console.message(fmt::format("{}; go on with: tuneonce run {} --db {}", retry(store, request), study->file,
                              database.string()));
  return kDone;
}

int cancel_trials(const std::filesystem::path& database, const ControlRequest& request, Console& console) {
  const auto owner = OwnerLock::owner(database);
  if (!owner) throw ExitError(kUsage, fmt::format("{}: no run is on, there is nothing to stop", database.string()));
  return ask_owner(database, *owner, request, console);
}

}  // namespace orchestrator
