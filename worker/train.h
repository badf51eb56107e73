#pragma once

#include <functional>
#include <set>
#include <vector>

#include "worker/device.h"
#include "worker/protocol.h"

namespace worker {

/// What the orchestrator asked for while trials run.
struct StopRequests {
  bool drain = false;                    // checkpoint everything, end it as cancelled
  std::set<sweeps::TrialKey> cancelled;  // end these as cancelled
};
/// Called between steps and between chunks of an evaluation; must not wait.
using PollRequests = std::function<const StopRequests&()>;
using Emit = std::function<void(const WorkerMessage&)>;

/// Trains trials of equal stack key side by side, one slot each, and ends every one of them with exactly one
/// Ended, after Started, Progress, Curve, Checkpointed and Sampled. What goes wrong becomes Failed with a
/// class (bad data or values: user_error; memory: oom_gpu, oom_host; anything else: crash). Only a device
/// fault is thrown on, with no trial ended by it: the process must end, and its end says so for all of them.
/// Were they ended first, the next trials would already be on their way to a process that can train nothing.
///
/// * The objective is the held-out loss after the last update; Finished holds it with the exact floor where
///   there is one.
/// * Step numbers count updates: the train loss at step s was measured with s updates done, the first at 0;
/// the
///   last evaluation is at `steps`.
/// * A slot whose loss or gradient norm is not finite stops alone: Diverged{step}. So does one whose loss has
///   run away after the warm-up (RunawayWatch), and a trial that ends far worse than a model that has learnt
///   nothing (Feed::unusable_loss).
/// * At the start of each of branch_points() the trunk is kept, the branch decays over the batches the trunk
///   would see next, its held-out loss is sent as Branch, and the trunk goes on bit for bit. The whole run is
///   the last Branch. Steps of a branch appear in no curve; a branch that diverges is the trial's divergence.
/// * A resumed trial first sends its whole curve again (equal points under the new attempt), so the curves of
///   the last attempt are complete; points that an earlier attempt sent beyond its checkpoint come again,
///   too.
/// * A diffusion model of role target draws a sheet of pictures when it has finished: from the same noise
///   whatever the trial, beside the first held-out ones. The same training gives the same sheet.
/// * The checkpoint file is left in place at the end; it belongs to the orchestrator.
void train_stack(const std::vector<Assignment>& assignments, const Device& device, const Emit& emit,
                 const PollRequests& poll);

/// Times steps and a whole evaluation of one trial. Throws what train_stack would report; see failure_of.
Measured measure(const sweeps::TrialSpec& spec, int steps, const Device& device);

/// Trains a trial for a few steps and tells what it saw. The watching changes no bit of the training.
/// Throws what train_stack would report.
Probed probe(const Probe& request, const Device& device);

/// The data checked and described. Throws UserError.
Inspected inspect(const Inspect& request);

/// What an exception means for a trial.
sweeps::Failed failure_of(const std::exception& cause);

/// Whether a GPU failed in a way, other than being out of memory, after which no call of this process is sure
/// to work again (an illegal address, a failed assertion in a kernel).
bool is_device_fault(const std::exception& cause);

}  // namespace worker
