#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace orchestrator {

/// A control group (cgroup v2) of one run, and one within it for each worker, where the kernel and the user's
/// rights allow that: whatever a worker starts, with whatever session, group or environment, is in its group and
/// ends with it. Without, marks and process groups do what they can (process_tree.h).

/// Where the group of the run with this mark is, or would be: beneath this process's own. Empty where control
/// groups of version 2 are not mounted.
std::filesystem::path run_cgroup(const std::string& mark);

/// The runs that have one there.
std::vector<std::string> marks_of_run_cgroups();

/// Makes a group, the run's or one within it; false where that is not allowed.
bool make_cgroup(const std::filesystem::path& group);

/// Kills all that is in the group or within its groups, waits at most `seconds` until they are gone, and removes
/// it. Nothing happens where there is none.
void end_cgroup(const std::filesystem::path& group, double seconds = 5);

}  // namespace orchestrator
