// What is read of other processes, which may end at any moment.
#include <unistd.h>

#include "tests/support/catch.h"
#include "worker/processes.h"

TEST_CASE("a process that ends while it is read about is not there, and no error", "[processes]") {
  // Its files open and then fail to be read. Address 0 of our own memory is such a file that can be had at will.
  CHECK(worker::read_proc("/proc/self/mem").empty());
  CHECK(worker::find_process(::getpid()));
  CHECK_FALSE(worker::find_process(1 << 30));
}
