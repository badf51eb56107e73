#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "orchestrator/net.h"

namespace orchestrator {

/// What another process of the same user asks of the run that owns a database: one line of JSON,
/// {"command": "cancel", "trials": ["7", "proxy lr 0.01"]}; or "all": true in place of the trials.
struct ControlRequest {
  enum class Command { cancel, retry };
  Command command = Command::cancel;
  bool all = false;                 // cancel: the run itself; retry: every failed trial
  std::vector<std::string> trials;  // numbers or names
};
/// Throws std::invalid_argument saying what is wrong.
ControlRequest parse_control_request(std::string_view line);
std::string to_line(const ControlRequest& request);

/// {"done": text} or {"error": text}.
struct ControlAnswer {
  bool done = false;
  std::string text;
};

/// `<database>.d/control.sock`, beside the file itself whatever link the path goes through.
std::filesystem::path control_socket(const std::filesystem::path& database);

/// Listens on a unix socket with mode 0600, for one request a connection; nothing of it is on any network. A peer
/// of another user is refused before a byte is read; one that is slow, silent or sends too much is dropped, so that
/// the run never waits for it.
class ControlServer {
 public:
  struct Limits {
    std::size_t max_line = 64 << 10;  // bytes
    std::size_t max_connections = 64;  // the oldest is dropped for one more
    double seconds = 10;               // of a whole conversation
    double log_seconds = 60;           // between messages about refused peers
  };
  /// Carries a request out and says what was done; an exception's what() becomes the error.
  using Handler = std::function<std::string(const ControlRequest&)>;
  using Log = std::function<void(const std::string&)>;

  /// Replaces the socket that a dead run left. Throws ExitError{kEnvironment} where none can be made.
  /// REQUIRES: the caller owns the database.
  ControlServer(asio::io_context& context, const std::filesystem::path& socket, Handler handler, Log log,
                Limits limits);
  ~ControlServer();

  std::size_t num_connections() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::filesystem::path socket_;
};

/// Asks the run that listens at `socket`; nothing when none does. Throws ExitError{kEnvironment} when it does not
/// answer within `seconds`.
std::optional<ControlAnswer> ask_run(const std::filesystem::path& socket, const ControlRequest& request,
                                     double seconds = 15);

}  // namespace orchestrator
