// The scheduler's dealings with devices: who may use which, whether there is memory, which are lost.
#include <algorithm>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"
#include "orchestrator/output.h"
#include "orchestrator/process_tree.h"
#include "orchestrator/scheduler.h"
#include "sweeps/settings.h"

namespace orchestrator {

using Clock = std::chrono::steady_clock;
using sweeps::FailureClass;

/// False while another trial has the device alone, or no room is known for one more worker.
bool Scheduler::may_work(const Slot& slot) const {
  if (slot.device.uuid.empty()) return true;
  for (const auto& other : slots_)
    if (&other != &slot && other.alone && other.device.device == slot.device.device) return false;
  if (!slot.device.measured) return true;
  const auto known = devices_.find(slot.device.device);
  if (known == devices_.end() || known->second.peak == 0) return false;
  constexpr double kSlack = 1.1;
  return static_cast<double>(known->second.peak) * kSlack * (slot.device.place + 1) <=
         static_cast<double>(known->second.free_at_first.value_or(0));
}

bool Scheduler::others_have_workers(const Slot& slot) const {
  return std::any_of(slots_.begin(), slots_.end(), [&](const Slot& other) {
    return &other != &slot && other.worker && other.device.device == slot.device.device;
  });
}

/// Waits until the other workers of the device have gone. False when the run stops meanwhile.
awaitable<bool> Scheduler::have_device_alone(Slot& slot) {
  for (auto& other : slots_) {
    if (&other == &slot || other.device.device != slot.device.device) continue;
    while (!stopping_ && other.worker) {
      if (other.serving)
        co_await sleep(slot, kLook);  // it lets its worker go by itself
      else
        co_await let_go(other);
    }
  }
  co_return !stopping_;
}

/// Others hold what [resources] memory asks for.
bool Scheduler::lacks_memory(const Slot& slot) const {
  if (slot.device.uuid.empty()) return false;
  const auto memory = gpu_memory(slot.device.uuid);
  return memory && memory->free < options_.memory;
}

/// After a worker its GPU's memory is free again before the next one starts. False when there is no work for
/// it any more.
awaitable<bool> Scheduler::wait_for_device_memory(Slot& slot) {
  if (slot.device.uuid.empty()) co_return true;
  auto& device = devices_[slot.device.device];
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.memory_wait_seconds));
  while (!stopping_ && !slot.retired && !(queue_.empty() && delayed_.empty())) {
    const auto memory = gpu_memory(slot.device.uuid);
    if (!memory) {
      note_gpu_loss(slot);
      throw ExitError(kEnvironment, fmt::format("{} ({}) does not answer", slot.device.device, slot.device.uuid));
    }
    const auto slack = memory->total / 20;
    const auto needed = options_.memory > 0         ? options_.memory
                        : others_have_workers(slot) ? 0
                                                    : device.free_at_first.value_or(memory->free) - slack;
    if (memory->free >= needed) {
      device.waits_for_memory = false;
      co_return true;
    }
    const auto text = fmt::format("{} has {} free, {} are needed", slot.device.device,
                                  short_size(static_cast<std::uintmax_t>(memory->free)),
                                  short_size(static_cast<std::uintmax_t>(needed)));
    if (Clock::now() >= deadline)
      throw ExitError(kEnvironment, fmt::format("{}; waited {:.0f} s in vain, the device gets no more work", text,
                                                options_.memory_wait_seconds));
    if (!std::exchange(device.waits_for_memory, true)) events_.message(text + "; waiting for it");
    co_await sleep(slot, kLook);
  }
  co_return false;
}

/// What the only worker of a device takes of its memory.
void Scheduler::measure(Slot& slot) {
  if (slot.device.uuid.empty() || slot.device.place > 0) return;
  auto& device = devices_[slot.device.device];
  const auto memory = gpu_memory(slot.device.uuid);
  if (others_have_workers(slot) || !memory || !device.free_at_first) return;
  device.peak = std::max(device.peak, *device.free_at_first - memory->free);
  slot.peak_memory = std::max(slot.peak_memory, *device.free_at_first - memory->free);
}

void Scheduler::note_gpu_loss(Slot& slot) {
  constexpr int kMost = 2;
  if (++devices_[slot.device.device].num_losses < kMost) return;
  for (auto& other : slots_)
    if (other.device.device == slot.device.device) other.retired = true;
  events_.message(fmt::format("{} was lost {} times and gets no more work", slot.device.device, kMost));
}

/// Ends a worker that takes more than it may, or the largest before the host has nothing left.
void Scheduler::watch_host_memory() {
  Slot* largest = nullptr;
  std::int64_t most = 0;
  for (auto& slot : slots_) {
    if (!slot.worker || slot.running.empty()) continue;
    measure(slot);
    const auto bytes = resident_bytes(static_cast<pid_t>(slot.worker->pid()), options_.memory > 0);
    if (slot.device.uuid.empty()) slot.peak_memory = std::max(slot.peak_memory, bytes);
    if (bytes > most) largest = &slot, most = bytes;
    if (options_.memory == 0 || !slot.device.uuid.empty() || bytes <= options_.memory) continue;
    slot.ended_for = {FailureClass::oom_host, fmt::format("took {}, [resources] memory = \"{}\"",
                                                          short_size(static_cast<std::uintmax_t>(bytes)),
                                                          sweeps::bytes_text(options_.memory))};
    slot.worker->kill();
  }
  if (!largest || options_.host_reserve == 0 || largest->ended_for) return;
  const auto left = host_memory_left();
  if (left >= options_.host_reserve || most <= left) return;
  largest->ended_for = {FailureClass::oom_host,
                        fmt::format("the host had {} left, [resources] host_reserve = \"{}\"; this worker was the "
                                    "largest with {}",
                                    short_size(static_cast<std::uintmax_t>(left)),
                                    sweeps::bytes_text(options_.host_reserve),
                                    short_size(static_cast<std::uintmax_t>(most)))};
  largest->worker->kill();
}

}  // namespace orchestrator
