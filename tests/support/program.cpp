#include "tests/support/program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/support/catch.h"

namespace test {
namespace {

namespace fs = std::filesystem;

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_with(Command::Environment changes) {
  changes.try_emplace("TUNEONCE_WORKER", TUNEONCE_FAKE_WORKER);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable; ++variable) {
    const std::string text = *variable;
    const auto name = text.substr(0, text.find('='));
    if (!changes.contains(name) && name != "TUNEONCE_FAKE") variables.push_back(text);
  }
  for (const auto& [name, value] : changes) variables.push_back(name + '=' + value);
  return variables;
}

}  // namespace

Command::Command(const fs::path& folder, const std::vector<std::string>& arguments,
                 const Environment& environment) {
  static int number = 0;
  ++number;
  out_ = folder / ("out-" + std::to_string(number));
  err_ = folder / ("err-" + std::to_string(number));
  std::vector<std::string> words = {TUNEONCE_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  auto variables = environment_with(environment);
  const auto word_pointers = pointers(words);
  const auto variable_pointers = pointers(variables);
  pid_ = ::fork();
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    ::signal(SIGHUP, SIG_DFL);  // the tests themselves may run under nohup
    const int out = ::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int err = ::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(out, 1);
    ::dup2(err, 2);
    if (::chdir(folder.c_str()) == 0)
      ::execve(TUNEONCE_PROGRAM, word_pointers.data(), variable_pointers.data());
    ::_exit(127);
  }
}

Command::~Command() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Command::signal(int number) { REQUIRE(::kill(pid_, number) == 0); }

bool Command::has_ended() const {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid_;
}

Ended Command::wait(double seconds) {
  int status = 0;
  const bool ended = eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }, seconds);
  INFO(read_text(err_));
  REQUIRE(ended);
  pid_ = -1;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_text(out_), read_text(err_)};
}

std::string read_text(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();  // a file in /proc may be gone in mid-read: no exception then
  return std::move(text).str();
}

bool eventually(const std::function<bool()>& condition, double seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::string study_head(const std::string& name, int steps) {
  return "schema = 1\nname = \"" + name + R"("
seed = 1
[data]
source = "teacher"
[model]
width = 64
depth = 2
head_size = 16
context = 32
[train]
batch = 4
steps = )" + std::to_string(steps) + "\n";
}

fs::path write_study(const fs::path& folder, const std::string& extra) {
  const auto file = folder / "small.toml";
  std::ofstream(file) << study_head() << R"([space]
lr = { min = 8e-4, max = 1.28e-2, count = 5 }
wd = { min = 0.05, max = 0.2, count = 3 }
init_std = { values = [0.04, 0.08] }
[[target]]
name = "8e2a"
moe = "8e2a"
drift = true
[[target]]
name = "wide"
moe = "4e2a1s"
width = 96
[drift]
tolerance = "0.2%"
)" << extra;
  return file;
}

std::string results(const fs::path& folder, const std::string& database) {
  const auto ended = tuneonce(
      folder,
      {"query",
       "SELECT trial, name, role, target, lr, wd, init_std, seed, state, loss, excess, steps FROM results",
       database, "--format", "csv"});
  REQUIRE(ended.code == 0);
  return ended.out;
}

}  // namespace test
