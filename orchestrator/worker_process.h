#pragma once

#include <filesystem>

#include "orchestrator/launcher.h"

namespace orchestrator {

struct Family;  // the workers that live

/// The program that trains models of a family: $TUNEONCE_WORKER, else tuneonce-worker beside this program, else
/// in ../libexec/tuneonce; of family "command" $TUNEONCE_COMMAND_WORKER, else tuneonce-command there. Throws
/// ExitError{kEnvironment} naming the places looked at.
std::filesystem::path find_worker_program(models::ModelFamily family);

/// Throws ExitError{kUsage}, `study_file` before it, when the program of a command can be found nowhere; one
/// whose name holds a placeholder is not looked for.
void check_program(const sweeps::CommandSpec& command, const std::filesystem::path& study_file);

/// Workers as child processes: one socket on descriptor 3, output through a pipe, a process group of their
/// own that dies with this program (parent-death signal) and is killed when the worker object goes. A GPU worker
/// sees its GPU only, by UUID.
class ProcessLauncher : public Launcher {
 public:
  /// With a mark (process_tree.h) workers carry it and have a control group each where that is allowed
  /// (run_cgroup.h), and what one leaves behind ends with it.
  ProcessLauncher(asio::io_context& context, std::filesystem::path program, std::string mark = "");
  std::unique_ptr<Worker> start(const DeviceSlot& slot) override;
  std::string host() const override;
  std::string program() const override { return program_.string(); }

 private:
  asio::io_context& context_;
  std::filesystem::path program_;
  std::shared_ptr<Family> family_;
};

}  // namespace orchestrator
