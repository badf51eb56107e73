#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// The program `tuneonce` as a person runs it, with the fake worker (or another) and what it printed.
namespace test {

/// Time and memory are then the sanitizer's.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

struct Ended {
  int code = 0;  // exit code, or 128 + signal
  std::string out, err;
};

/// A command that was started; killed if it is still there when this goes.
class Command {
 public:
  using Environment = std::map<std::string, std::string>;
  /// Runs in `folder`. TUNEONCE_WORKER is the fake worker unless `environment` says otherwise.
  Command(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
          const Environment& environment = {});
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  void signal(int number);
  bool has_ended() const;
  /// Waits for its end, at most `seconds`; then fails the test.
  Ended wait(double seconds = 60);
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  std::filesystem::path out_, err_;
};

inline Ended tuneonce(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
                      const Command::Environment& environment = {}) {
  return Command(folder, arguments, environment).wait();
}

std::string read_text(const std::filesystem::path& file);

/// Waits until `condition` holds, looking every few milliseconds; false after `seconds`.
bool eventually(const std::function<bool()>& condition, double seconds = 30);

/// What small studies begin with: a teacher, a tiny model, so many steps.
std::string study_head(const std::string& name = "small", int steps = 40);

/// Writes a study of 5 x 3 proxy trials (and a scan), two targets and one drift check; returns its file.
std::filesystem::path write_study(const std::filesystem::path& folder, const std::string& extra = "");

/// The results table without what may differ between runs: seconds, attempts.
std::string results(const std::filesystem::path& folder, const std::string& database = "small.db");

}  // namespace test
