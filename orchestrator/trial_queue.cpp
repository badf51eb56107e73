#include "orchestrator/trial_queue.h"

#include <algorithm>
#include <charconv>

#include "sweeps/plan.h"

namespace orchestrator {
namespace {

std::array<std::uint64_t, 2> as_numbers(const sweeps::TrialKey& key) {
  std::array<std::uint64_t, 2> numbers{};
  if (key.size() == 32)
    for (std::size_t i = 0; i < 2; ++i)
      std::from_chars(key.data() + 16 * i, key.data() + 16 * (i + 1), numbers[i], 16);
  return numbers;
}

}  // namespace

void TrialQueue::push(const db::WaitingTrial& trial) {
  const auto stack = stacks_.try_emplace(sweeps::stack_key(trial.spec), stacks_.size()).first->second;
  auto& entries = waiting_[{sweeps::cost(trial.spec).flops, stack}];
  const Entry entry{trial.id, as_numbers(trial.key)};
  trial.num_attempts > 0 ? entries.push_front(entry) : entries.push_back(entry);
  ++size_;
}

void TrialQueue::clear() { *this = {}; }

std::vector<std::int64_t> TrialQueue::take(int most) {
  const auto longest = waiting_.begin();
  auto& entries = longest->second;
  std::vector<std::int64_t> ids;
  do {
    ids.push_back(entries.front().id);
    entries.pop_front();
  } while (!entries.empty() && static_cast<int>(ids.size()) < most);
  if (entries.empty()) waiting_.erase(longest);
  size_ -= ids.size();
  return ids;
}

bool TrialQueue::remove(const sweeps::TrialKey& key) {
  const auto wanted = as_numbers(key);
  for (auto place = waiting_.begin(); place != waiting_.end(); ++place) {
    auto& entries = place->second;
    const auto it = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == wanted; });
    if (it == entries.end()) continue;
    entries.erase(it);
    if (entries.empty()) waiting_.erase(place);
    --size_;
    return true;
  }
  return false;
}

}  // namespace orchestrator
