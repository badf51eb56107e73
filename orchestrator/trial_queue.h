#pragma once

#include <array>
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

#include "db/store.h"

namespace orchestrator {

/// Trials that wait for a worker, a few bytes each: the longest first, those that can train side by side
/// together, and those in the order they came. What was tried before goes before its equals: it may have a
/// checkpoint, and a fault that ends every trial shows after a few, not after each has been tried once.
class TrialQueue {
 public:
  void push(const db::WaitingTrial& trial);
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  void clear();
  /// Ids of the next trial and of those that can train beside it, at most `most`. REQUIRES: not empty().
  std::vector<std::int64_t> take(int most);
  /// False when it does not wait here.
  bool remove(const sweeps::TrialKey& key);

 private:
  struct Entry {
    std::int64_t id;
    std::array<std::uint64_t, 2> key;  // the trial's, as numbers
  };
  /// Trials of one stack key need equally long; the stack that came first counts as the longer.
  struct Place {
    double flops;
    std::size_t stack;
    bool operator<(const Place& other) const {
      return flops != other.flops ? flops > other.flops : stack < other.stack;
    }
  };
  std::map<Place, std::deque<Entry>> waiting_;
  std::unordered_map<std::string, std::size_t> stacks_;  // stack key -> order of arrival
  std::size_t size_ = 0;
};

}  // namespace orchestrator
