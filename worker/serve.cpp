#include "worker/serve.h"

#include <deque>
#include <utility>

#include "worker/train.h"

namespace worker {
namespace {

/// One conversation. Requests that come while something runs wait their turn; stops do not.
class Session {
 public:
  Session(Channel& channel, const Device& device) : channel_(channel), device_(device) {}

  void run() {
    channel_.send(Hello{.build = TUNEONCE_VERSION,
                        .device = device_.name,
                        .device_name = device_.description,
                        .memory_bytes = device_.memory_bytes,
                        .threads = 1,
                        .slots = device_.slots});
    while (!stop_.drain || !waiting_.empty()) {
      if (waiting_.empty()) take(*channel_.receive(true));
      if (waiting_.empty()) continue;
      const OrchestratorMessage next = std::move(waiting_.front());
      waiting_.pop_front();
      std::visit([this](const auto& message) { carry_out(message); }, next);
    }
  }

 private:
  void take(OrchestratorMessage message) {
    if (const auto* cancel = std::get_if<Cancel>(&message)) {
      stop_.cancelled.insert(cancel->trial);
    } else if (std::holds_alternative<Drain>(message)) {
      stop_.drain = true;
    } else {
      for (const auto* assign = std::get_if<Assign>(&message); const auto& assignment : trials_of(assign)) {
        stop_.cancelled.erase(assignment.trial);  // an old Cancel does not meet a new attempt
      }
      waiting_.push_back(std::move(message));
    }
  }
  static const std::vector<Assignment>& trials_of(const Assign* assign) {
    static const std::vector<Assignment> none;
    return assign ? assign->trials : none;
  }

  const StopRequests& poll() {
    while (auto message = channel_.receive(false)) take(std::move(*message));
    return stop_;
  }

  void carry_out(const Assign& assign) {
    train_stack(
        assign.trials, device_, [this](const WorkerMessage& message) { channel_.send(message); },
        [this]() -> const StopRequests& { return poll(); });
  }
  void carry_out(const Inspect& request) {
    answer([&] { return inspect(request); });
  }
  void carry_out(const Measure& request) {
    answer([&] { return measure(request.spec, request.steps, device_); });
  }
  void carry_out(const Probe& request) {
    answer([&] { return probe(request, device_); });
  }
  void carry_out(const Cancel&) {}  // taken before
  void carry_out(const Drain&) {}

  template <class Question>
  void answer(const Question& question) {
    WorkerMessage reply;
    try {
      reply = question();
    } catch (const std::exception& cause) {
      if (is_device_fault(cause)) throw;
      const auto failed = failure_of(cause);
      reply = Refused{failed.failure, failed.message};
    }
    channel_.send(reply);
  }

  Channel& channel_;
  const Device& device_;
  std::deque<OrchestratorMessage> waiting_;
  StopRequests stop_;
};

}  // namespace

void serve(Channel& channel, const Device& device) { Session(channel, device).run(); }

}  // namespace worker
