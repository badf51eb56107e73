#pragma once

#include <sys/types.h>

namespace worker {

/// Kills every descendant of this process, those in sessions of their own included, and waits for them, at
/// most some seconds (a process may hang in the kernel). REQUIRES: adopt_orphans(), and nobody else waits for
/// them.
void kill_descendants();

/// This process gets `signal` when `parent` ends; it ends now if that has happened already.
void tie_to_parent(pid_t parent, int signal);

}  // namespace worker
