#include "orchestrator/trial_queue.h"

#include "tests/db/database.h"
#include "tests/support/catch.h"

using orchestrator::TrialQueue;

namespace {

db::WaitingTrial waiting(std::int64_t id, std::int64_t steps = 1000, std::int64_t batch = 32) {
  db::WaitingTrial trial{.id = id, .key = {}, .spec = test::trial(-8 - 0.001 * static_cast<double>(id))};
  trial.spec.run.steps = steps;
  trial.spec.run.batch = batch;
  trial.key = sweeps::trial_key(trial.spec);
  return trial;
}
using Ids = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("the longest trials come first, equal ones in the order they were put in", "[orchestrator][queue]") {
  TrialQueue queue;
  for (const auto id : {1, 2, 3}) queue.push(waiting(id));
  queue.push(waiting(4, 3000));
  queue.push(waiting(5, 10));
  CHECK(queue.size() == 5);
  Ids order;
  while (!queue.empty()) order.push_back(queue.take(1).at(0));
  CHECK(order == Ids{4, 1, 2, 3, 5});
}

TEST_CASE("a trial that is tried again goes before its equals, not before longer ones",
          "[orchestrator][queue]") {
  TrialQueue queue;
  for (const auto id : {1, 2}) queue.push(waiting(id));
  auto again = waiting(3);
  again.num_attempts = 1;
  queue.push(again);
  queue.push(waiting(4, 3000));
  CHECK(queue.take(1) == Ids{4});
  CHECK(queue.take(8) == Ids{3, 1, 2});
}

TEST_CASE("a stack takes trials of one kind only, and no more than fit", "[orchestrator][queue]") {
  TrialQueue queue;
  // Twice the batch for half the steps: as long, but not to be stacked.
  for (const auto id : {1, 3, 5}) queue.push(waiting(id));
  for (const auto id : {2, 4}) queue.push(waiting(id, 500, 64));
  CHECK(queue.take(2) == Ids{1, 3});
  CHECK(queue.take(8) == Ids{5});
  CHECK(queue.take(8) == Ids{2, 4});
  CHECK(queue.empty());
}

TEST_CASE("a trial that need not be trained any more leaves the queue", "[orchestrator][queue]") {
  TrialQueue queue;
  for (const auto id : {1, 2, 3}) queue.push(waiting(id));
  CHECK(queue.remove(waiting(2).key));
  CHECK_FALSE(queue.remove(waiting(2).key));
  CHECK(queue.take(8) == Ids{1, 3});
  CHECK_FALSE(queue.remove(waiting(1).key));
}
