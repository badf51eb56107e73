#include "orchestrator/owner_lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "orchestrator/exit_code.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace orchestrator;

TEST_CASE("a second owner is refused and told who the first is", "[orchestrator][owner_lock]") {
  const TemporaryFolder folder;
  const OwnerLock first(folder / "a.db");
  const auto me = "pid " + std::to_string(::getpid()) + " on " + host_name();
  CHECK(OwnerLock::owner(folder / "a.db") == me);
  try {
    const OwnerLock second(folder / "a.db");
    FAIL("two owners");
  } catch (const ExitError& error) {
    CHECK(error.code == kOwned);
    CHECK_THAT(error.what(), ContainsSubstring(me));
  }
}

TEST_CASE("asking for the owner makes no file, and nobody owns what nobody locked",
          "[orchestrator][owner_lock]") {
  const TemporaryFolder folder;
  CHECK_FALSE(OwnerLock::owner(folder / "a.db"));
  CHECK(std::filesystem::is_empty(folder.path()));
  { const OwnerLock lock(folder / "a.db"); }
  CHECK_FALSE(OwnerLock::owner(folder / "a.db"));
}

TEST_CASE("the lock of a killed owner is free", "[orchestrator][owner_lock]") {
  const TemporaryFolder folder;
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const OwnerLock lock(folder / "a.db");
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(1);
  }
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(OwnerLock::owner(folder / "a.db") == "pid " + std::to_string(child) + " on " + host_name());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK_NOTHROW(OwnerLock(folder / "a.db"));
}

TEST_CASE("who has just taken a lock and not yet written his name is waited for",
          "[orchestrator][owner_lock]") {
  const std::string left = GENERATE("", "the dead");
  const TemporaryFolder folder;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  const OwnerLock first(folder / "a.db");
  const auto name = *OwnerLock::owner(folder / "a.db");
  folder.write("a.db.lock", left.empty() ? "" : "pid " + std::to_string(dead) + " on " + host_name());
  std::thread late([&] {
    ::usleep(100'000);
    folder.write("a.db.lock", name);
  });
  CHECK(OwnerLock::owner(folder / "a.db") == name);
  late.join();
}

TEST_CASE("a link to a database leads to the same lock", "[orchestrator][owner_lock]") {
  const TemporaryFolder folder;
  std::ofstream(folder / "a.db") << "x";
  std::filesystem::create_symlink(folder / "a.db", folder / "link.db");
  const OwnerLock first(folder / "a.db");
  CHECK_THROWS_AS(OwnerLock(folder / "link.db"), ExitError);
}
