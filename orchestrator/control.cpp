#include "orchestrator/control.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <list>
#include <stdexcept>

#include <fmt/format.h>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>

#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Socket = asio::local::stream_protocol::socket;

constexpr int kMaxDepth = 3;
constexpr std::size_t kMaxAnswer = 64 << 10;
constexpr auto kAcceptPause = std::chrono::milliseconds(200);

Clock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

[[noreturn]] void throw_errno(const fs::path& socket, const std::string& what) {
  throw ExitError(kEnvironment, fmt::format("{}: {}: {}", socket.string(), what, std::strerror(errno)));
}

/// Names `socket` by way of its open folder: the kernel takes no more than 107 characters.
class Address {
 public:
  explicit Address(const fs::path& socket) : folder_(::open(socket.parent_path().c_str(), O_PATH | O_CLOEXEC)) {
    const auto text = fmt::format("/proc/self/fd/{}/{}", folder_, socket.filename().string());
    address_.sun_family = AF_UNIX;
    std::strncpy(address_.sun_path, text.c_str(), sizeof address_.sun_path - 1);
  }
  ~Address() {
    if (folder_ >= 0) ::close(folder_);
  }
  Address(const Address&) = delete;
  Address& operator=(const Address&) = delete;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address_); }
  static constexpr socklen_t size() { return sizeof(sockaddr_un); }

 private:
  int folder_;
  sockaddr_un address_{};
};

/// A listening descriptor; its file is there with its mode from the first moment.
int listen_at(const fs::path& socket, std::size_t backlog) {
  struct stat found {};
  if (::lstat(socket.c_str(), &found) == 0 && S_ISSOCK(found.st_mode)) ::unlink(socket.c_str());
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) throw_errno(socket, "cannot make a socket");
  const Address address(socket);
  if (::fchmod(descriptor, 0600) != 0 || ::bind(descriptor, address.get(), Address::size()) != 0 ||
      ::listen(descriptor, static_cast<int>(backlog)) != 0) {
    const int error = errno;
    ::close(descriptor);
    errno = error;
    throw_errno(socket, "cannot listen here");
  }
  return descriptor;
}

std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}
std::string to_line(const ControlAnswer& answer) {
  return dump({{answer.done ? "done" : "error", answer.text.substr(0, kMaxAnswer / 2)}});
}

}  // namespace

ControlRequest parse_control_request(std::string_view line) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(line, [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
      if (depth > kMaxDepth) throw std::invalid_argument("a request is not nested as deeply as this");
      return true;
    });
  } catch (const nlohmann::json::exception&) {
    throw std::invalid_argument("a request is one line of JSON");
  }
  if (!json.is_object()) throw std::invalid_argument("a request is a JSON object");
  ControlRequest request;
  bool named = false;
  for (const auto& [key, value] : json.items()) {
    if (key == "command" && (value == "cancel" || value == "retry")) {
      named = true;
      request.command = value == "cancel" ? ControlRequest::Command::cancel : ControlRequest::Command::retry;
    } else if (key == "all" && value.is_boolean()) {
      request.all = value;
    } else if (key == "trials" && value.is_array()) {
      for (const auto& trial : value) {
        if (!trial.is_string()) throw std::invalid_argument("trials are named by text");
        request.trials.push_back(trial);
      }
    } else {
      throw std::invalid_argument(fmt::format("\"{}\": unknown, or not with this value; known: command (cancel, "
                                              "retry), all (true, false), trials (texts)",
                                              key));
    }
  }
  if (!named) throw std::invalid_argument("a request names its command: cancel or retry");
  if (request.all == !request.trials.empty())
    throw std::invalid_argument("a request names trials, or all of them");
  return request;
}

std::string to_line(const ControlRequest& request) {
  nlohmann::json json = {{"command", request.command == ControlRequest::Command::cancel ? "cancel" : "retry"}};
  if (request.all)
    json["all"] = true;
  else
    json["trials"] = request.trials;
  return dump(json);
}

fs::path control_socket(const fs::path& database) {
  return fs::weakly_canonical(database).string() + ".d/control.sock";
}

// --- the run's side ---

namespace {

/// One peer; closed when its time is up or another needs its place.
struct Connection {
  explicit Connection(Socket s) : socket(std::move(s)), timer(socket.get_executor()) {}
  void close() {
    boost::system::error_code ignored;
    socket.close(ignored);
    timer.cancel();
  }
  Socket socket;
  asio::steady_timer timer;
};

bool is_own_user(Socket& socket, uid_t& user) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  user = peer.uid;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

}  // namespace

/// Outlives the server while a connection's coroutine has not noticed.
struct ControlServer::State : std::enable_shared_from_this<State> {
  State(asio::io_context& context, Handler h, Log l, Limits m)
      : acceptor(context), pause(context), handler(std::move(h)), log(std::move(l)), limits(m) {}

  awaitable<void> listen();
  awaitable<void> serve(std::shared_ptr<Connection> connection);
  ControlAnswer answer(std::string_view line) const;
  void refuse(uid_t user);
  void close();

  asio::local::stream_protocol::acceptor acceptor;
  asio::steady_timer pause;
  Handler handler;
  Log log;
  Limits limits;
  std::list<std::shared_ptr<Connection>> connections;  // the oldest first
  std::optional<Clock::time_point> last_log;
  std::int64_t num_refused = 0;
};

awaitable<void> ControlServer::State::listen() {
  const auto self = shared_from_this();
  while (acceptor.is_open()) {
    boost::system::error_code error;
    Socket socket = co_await acceptor.async_accept(asio::redirect_error(use_awaitable, error));
    if (!acceptor.is_open()) co_return;
    if (error) {  // out of descriptors, say
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(asio::redirect_error(use_awaitable, error));
      continue;
    }
    uid_t user = 0;
    if (!is_own_user(socket, user)) {
      refuse(user);
      continue;
    }
    if (connections.size() >= limits.max_connections) {
      connections.front()->close();
      connections.pop_front();
    }
    auto connection = std::make_shared<Connection>(std::move(socket));
    connections.push_back(connection);
    asio::co_spawn(acceptor.get_executor(), serve(std::move(connection)), asio::detached);
  }
}

awaitable<void> ControlServer::State::serve(std::shared_ptr<Connection> connection) {
  const auto self = shared_from_this();
  connection->timer.expires_after(to_duration(limits.seconds));
  connection->timer.async_wait([connection](const boost::system::error_code& error) {
    if (!error) connection->close();
  });
  std::string text;
  boost::system::error_code error;
  co_await asio::async_read_until(connection->socket, asio::dynamic_buffer(text, limits.max_line), '\n',
                                  asio::redirect_error(use_awaitable, error));
  std::string line;
  if (!error)
    line = to_line(answer(std::string_view(text).substr(0, text.find('\n'))));
  else if (error == asio::error::not_found)
    line = to_line(ControlAnswer{false, fmt::format("a request has at most {} bytes", limits.max_line)});
  if (!line.empty() && connection->socket.is_open())
    co_await asio::async_write(connection->socket, asio::buffer(line), asio::redirect_error(use_awaitable, error));
  connection->close();
  connections.remove(connection);
}

ControlAnswer ControlServer::State::answer(std::string_view line) const {
  try {
    return {true, handler(parse_control_request(line))};
  } catch (const std::exception& error) {
    return {false, error.what()};
  }
}

void ControlServer::State::refuse(uid_t user) {
  ++num_refused;
  const auto now = Clock::now();
  if (last_log && now - *last_log < to_duration(limits.log_seconds)) return;
  last_log = now;
  log(fmt::format("control socket: user {} was refused, {} so far; only the run's own user may ask", user, num_refused));
}

void ControlServer::State::close() {
  boost::system::error_code ignored;
  acceptor.close(ignored);
  pause.cancel();
  for (const auto& connection : connections) connection->close();
  connections.clear();
}

ControlServer::ControlServer(asio::io_context& context, const fs::path& socket, Handler handler, Log log,
                             Limits limits)
    : state_(std::make_shared<State>(context, std::move(handler), std::move(log), limits)), socket_(socket) {
  std::error_code error;
  fs::create_directories(socket.parent_path(), error);
  state_->acceptor.assign(asio::local::stream_protocol(), listen_at(socket, limits.max_connections));
  asio::co_spawn(context, state_->listen(), asio::detached);
}

ControlServer::~ControlServer() {
  state_->close();
  ::unlink(socket_.c_str());
}

std::size_t ControlServer::num_connections() const { return state_->connections.size(); }

// --- the other side ---

std::optional<ControlAnswer> ask_run(const fs::path& socket, const ControlRequest& request, double seconds) {
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) throw_errno(socket, "cannot make a socket");
  const std::unique_ptr<const int, void (*)(const int*)> closes(&descriptor, [](const int* d) { ::close(*d); });
  const timeval patience{static_cast<time_t>(seconds), 0};
  ::setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const Address address(socket);
  if (::connect(descriptor, address.get(), Address::size()) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR) return std::nullopt;
    throw_errno(socket, "cannot be asked");
  }
  const auto line = to_line(request);
  if (::send(descriptor, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size()))
    throw_errno(socket, "cannot be asked");
  std::string text;
  std::array<char, 4096> part;
  while (text.find('\n') == std::string::npos && text.size() < kMaxAnswer) {
    const auto size = ::recv(descriptor, part.data(), part.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    text.append(part.data(), static_cast<std::size_t>(size));
  }
  const auto json = nlohmann::json::parse(text, nullptr, false);
  for (const char* kind : {"done", "error"})
    if (json.is_object() && json.contains(kind) && json[kind].is_string())
      return ControlAnswer{std::string_view(kind) == "done", json[kind]};
  throw ExitError(kEnvironment, fmt::format("{}: the run did not answer; try again", socket.string()));
}

}  // namespace orchestrator
