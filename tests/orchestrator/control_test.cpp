// The control socket of a run: what other processes of the same user may ask, and what everybody else may not.
#include "orchestrator/control.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <future>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include <boost/asio/post.hpp>

#include "db/query.h"
#include "orchestrator/exit_code.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using namespace orchestrator;
using test::Command;
using test::tuneonce;
namespace fs = std::filesystem;

namespace {

constexpr const char* kGoodLine = "{\"command\": \"cancel\", \"trials\": [\"7\"]}\n";

/// A server on a thread of its own; what it was asked and what it logged. To the trial "long" it answers at
/// length.
class Server {
 public:
  explicit Server(const ControlServer::Limits& limits = {.max_line = 64 << 10,
                                                         .max_connections = 64,
                                                         .seconds = 0.5,
                                                         .log_seconds = 60}) {
    server_.emplace(
        context_, file(),
        [this](const ControlRequest& request) {
          ++num_asked;
          if (request.all) return std::string("all");
          return request.trials.front() == "long" ? std::string(1 << 20, 'x') : request.trials.front();
        },
        [this](const std::string& text) { logged.push_back(text); }, limits);
    thread_ = std::thread([this] { context_.run(); });
  }
  ~Server() {
    asio::post(context_, [this] {
      server_.reset();
      context_.stop();
    });
    thread_.join();
  }
  fs::path file() const { return folder / "a.db.d/control.sock"; }
  std::size_t num_connections() {
    std::promise<std::size_t> number;
    asio::post(context_, [&] { number.set_value(server_->num_connections()); });
    return number.get_future().get();
  }
  /// It answers a good request, whatever was done to it.
  bool is_well() {
    const auto answer = ask_run(file(), {ControlRequest::Command::cancel, false, {"7"}});
    return answer && answer->done && answer->text == "7";
  }

  TemporaryFolder folder;
  std::atomic<int> num_asked = 0;
  std::vector<std::string> logged;

 private:
  asio::io_context context_{1};
  std::optional<ControlServer> server_;
  std::thread thread_;
};

/// A client that keeps to no protocol.
class Client {
 public:
  explicit Client(const fs::path& socket) : descriptor_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
    connected = ::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    const timeval patience{20, 0};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Client() { ::close(descriptor_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool send(const std::string& bytes) const {
    return ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }
  void send_no_more() const { ::shutdown(descriptor_, SHUT_WR); }
  /// All that comes until the server closes.
  std::string read() const {
    std::string text;
    char part[4096];
    for (ssize_t size; (size = ::recv(descriptor_, part, sizeof part, 0)) > 0;)
      text.append(part, static_cast<std::size_t>(size));
    return text;
  }
  bool connected = false;

 private:
  int descriptor_;
};

std::string random_bytes(std::mt19937& generator, std::size_t size) {
  std::uniform_int_distribution<int> byte(0, 255);
  std::string bytes(size, '\0');
  for (auto& b : bytes) b = static_cast<char>(byte(generator));
  return bytes;
}

std::int64_t count(const fs::path& database, const std::string& what) {
  try {
    return std::get<std::int64_t>(db::run_query(database, "SELECT count(*) FROM " + what).rows.at(0).at(0));
  } catch (const std::exception&) {  // not there yet
    return -1;
  }
}

std::string text_of(const fs::path& database, const std::string& sql) {
  return std::get<std::string>(db::run_query(database, sql).rows.at(0).at(0));
}

}  // namespace

TEST_CASE("a request goes there and back through its line", "[orchestrator][control]") {
  const ControlRequest request{ControlRequest::Command::retry, false, {"7", "a \"name\"\n"}};
  const auto again = parse_control_request(to_line(request));
  CHECK(again.command == request.command);
  CHECK(again.trials == request.trials);
  CHECK_FALSE(again.all);
  CHECK(parse_control_request("{\"command\":\"cancel\",\"all\":true}").all);
}

TEST_CASE("what is no request is refused with what would be one", "[orchestrator][control]") {
  const auto refused = [](const std::string& line, const std::string& why) {
    INFO(line);
    CHECK_THROWS_WITH(parse_control_request(line), ContainsSubstring(why));
  };
  refused("", "one line of JSON");
  refused("{\"command\": \"cancel\", \"all\": tr", "one line of JSON");
  refused("[1]", "a JSON object");
  refused("{\"command\": \"shutdown\", \"all\": true}", "known: command (cancel, retry)");
  refused("{\"command\": \"cancel\"}", "names trials, or all of them");
  refused("{\"all\": true}", "names its command");
  refused("{\"command\": \"cancel\", \"all\": true, \"trials\": [\"7\"]}", "trials, or all");
  refused("{\"command\": \"cancel\", \"trials\": [7]}", "named by text");
  refused("{\"command\": \"cancel\", \"trials\": \"7\"}", "trials (texts)");
  refused("{\"command\": \"cancel\", \"all\": true, \"x\": 1}", "\"x\": unknown");
  refused("{\"command\": \"cancel\", \"trials\": " + std::string(30'000, '[') + std::string(30'000, ']') + "}",
          "nested");
}

TEST_CASE("the socket is its user's alone and answers a request", "[orchestrator][control]") {
  Server server;
  struct stat status {};
  REQUIRE(::stat(server.file().c_str(), &status) == 0);
  CHECK(S_ISSOCK(status.st_mode));
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(server.is_well());
  const Client client(server.file());
  client.send(kGoodLine);
  CHECK(client.read() == "{\"done\":\"7\"}\n");
}

TEST_CASE("a path longer than an address takes works, too", "[orchestrator][control]") {
  const TemporaryFolder folder;
  const auto socket = folder.path() / std::string(200, 'x') / "control.sock";
  asio::io_context context{1};
  CHECK_FALSE(ask_run(socket, {ControlRequest::Command::cancel, true, {}}));
  std::optional<ControlServer> server;
  server.emplace(context, socket, [](const auto&) { return std::string("done"); }, [](const auto&) {},
                 ControlServer::Limits{});
  std::thread thread([&] { context.run(); });
  const auto answer = ask_run(socket, {ControlRequest::Command::cancel, true, {}});
  CHECK((answer && answer->done));
  asio::post(context, [&] {
    server.reset();
    context.stop();
  });
  thread.join();
  CHECK_FALSE(fs::exists(socket));
}

TEST_CASE("the socket file of a dead run is replaced, any other file is left alone", "[orchestrator][control]") {
  const TemporaryFolder folder;
  const auto socket = folder / "control.sock";
  const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
  REQUIRE(::bind(dead, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  ::close(dead);
  REQUIRE(fs::exists(socket));
  CHECK_FALSE(ask_run(socket, {ControlRequest::Command::cancel, true, {}}));
  asio::io_context context{1};
  const auto start = [&] {
    ControlServer server(context, socket, [](const auto&) { return std::string(); }, [](const auto&) {},
                         ControlServer::Limits{});
    return Client(socket).connected;
  };
  CHECK(start());
  folder.write("control.sock", "somebody's");
  CHECK_THROWS_AS(start(), ExitError);
  CHECK(test::read_text(socket) == "somebody's");
}

TEST_CASE("random bytes harm nothing", "[orchestrator][control]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 generator(seed);
  Server server;
  for (int i = 0; i < 300; ++i) {
    const Client client(server.file());
    REQUIRE(client.connected);
    client.send(random_bytes(generator, generator() % 2000) + (i % 2 ? "\n" : ""));
    client.send_no_more();
    const auto answer = client.read();
    CHECK((answer.empty() || answer.starts_with("{\"error\":")));
  }
  CHECK(server.num_asked == 0);
  CHECK(server.is_well());
}

TEST_CASE("a truncated request is dropped, one that is too long refused, one that is nested deeply refused",
          "[orchestrator][control]") {
  Server server;
  for (const std::size_t size : {1u, 10u, 30u}) {
    const Client client(server.file());
    client.send(std::string(kGoodLine).substr(0, size));
    client.send_no_more();
    CHECK(client.read().empty());
  }
  const Client huge(server.file());
  huge.send(std::string(1 << 20, 'x'));  // as much of it as the kernel takes
  CHECK_THAT(huge.read(), ContainsSubstring("at most 65536 bytes"));
  const Client length(server.file());
  length.send("\xff\xff\xff\xff\xff\xff\xff\x7f\n");
  CHECK_THAT(length.read(), ContainsSubstring("one line of JSON"));
  const Client deep(server.file());
  deep.send(std::string(60'000, '[') + "\n");
  CHECK_THAT(deep.read(), ContainsSubstring("nested"));
  CHECK(server.num_asked == 0);
  CHECK(server.is_well());
}

TEST_CASE("a client that sends a byte now and then, or none, is dropped in time", "[orchestrator][control]") {
  Server server;
  const Client slow(server.file()), silent(server.file());
  const auto start = std::chrono::steady_clock::now();
  bool sent = true;
  for (int i = 0; i < 400 && sent; ++i) {
    sent = slow.send("x");
    ::usleep(50'000);
  }
  CHECK_FALSE(sent);
  CHECK(silent.read().empty());
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
  CHECK(server.is_well());
}

TEST_CASE("a client that does not read its answer is not waited for, however much there is to say",
          "[orchestrator][control]") {
  Server server({.max_line = 64 << 10, .max_connections = 64, .seconds = 60, .log_seconds = 60});
  const Client deaf(server.file());
  deaf.send("{\"command\": \"cancel\", \"trials\": [\"long\"]}\n");
  REQUIRE(test::eventually([&] { return server.num_asked == 1; }));
  CHECK(server.is_well());
  CHECK(test::eventually([&] { return server.num_connections() == 0; }, 10));
}

TEST_CASE("a thousand silent connections keep nobody out", "[orchestrator][control]") {
  Server server({.max_line = 64 << 10, .max_connections = 64, .seconds = 60, .log_seconds = 60});
  std::vector<std::unique_ptr<Client>> clients;
  int connected = 0;
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(std::make_unique<Client>(server.file()));
    connected += clients.back()->connected;
  }
  CHECK(connected == 1000);
  CHECK(server.num_connections() <= 64);
  CHECK(server.is_well());
}

TEST_CASE("another user is refused before anything is read, and that is logged once a minute",
          "[orchestrator][control][faults][F18]") {
  if (::geteuid() != 0) {
    WARN("skipped: only root can become another user");
    return;
  }
  const bool soon = GENERATE(false, true);
  Server server(
      {.max_line = 64 << 10, .max_connections = 64, .seconds = 0.5, .log_seconds = soon ? 0.1 : 60});
  // The file's mode keeps others out already; here it is open, so that the second gate is what is tested.
  fs::permissions(server.folder.path(), fs::perms::all);
  fs::permissions(server.file(), fs::perms::all);
  const auto path = server.file().string();
  const auto as_nobody = [&path] {
    const pid_t child = ::fork();
    if (child == 0) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
      const int descriptor = ::socket(AF_UNIX, SOCK_STREAM, 0);
      if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(1);
      if (::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) ::_exit(2);
      (void)!::write(descriptor, kGoodLine, std::strlen(kGoodLine));
      char byte = 0;
      ::_exit(::read(descriptor, &byte, 1) > 0 ? 3 : 0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  };
  ::signal(SIGPIPE, SIG_IGN);
  const int n = soon ? 2 : test::times(50, 5000);
  for (int i = 0; i < n; ++i) {
    if (soon && i > 0) ::usleep(150'000);  // a minute
    CHECK(as_nobody() == 0);
  }
  CHECK(server.is_well());
  CHECK(server.num_asked == 1);  // by is_well()
  REQUIRE(server.logged.size() == (soon ? 2 : 1));
  CHECK_THAT(server.logged.front(), ContainsSubstring("user 65534 was refused, 1 so far"));
  if (soon) CHECK_THAT(server.logged.back(), ContainsSubstring("user 65534 was refused, 2 so far"));
  fs::permissions(server.file(), fs::perms::owner_read | fs::perms::owner_write);
  CHECK(as_nobody() == 2);
}

// --- with a run ---

TEST_CASE("cancel stops a running trial for good, retry lets it wait again in the same run", "[orchestrator][control]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"},
              // The first trial is still there when it is to be cancelled.
              {{"TUNEONCE_FAKE", "sleep_ms=300 slow=1 dir=" + folder.path().string()}});
  const auto database = folder / "small.db";
  REQUIRE(test::eventually([&] { return count(database, "trial WHERE state = 1") == 1; }));
  const auto name = text_of(database, "SELECT name FROM trial WHERE state = 1");
  const auto cancelled = tuneonce(folder.path(), {"cancel", name});
  INFO(cancelled.err);
  CHECK(cancelled.code == 0);
  CHECK_THAT(cancelled.err, ContainsSubstring("is being stopped"));
  CHECK(test::eventually([&] { return count(database, "trial WHERE state = 4 AND message LIKE 'cancelled: by hand%'") == 1; }));
  CHECK(count(database, "attempt WHERE failure = 6") == 1);
  CHECK(tuneonce(folder.path(), {"cancel", name}).code == 2);  // it has ended
  const auto retried = tuneonce(folder.path(), {"retry", "--failed"});
  INFO(retried.err);
  CHECK(retried.code == 0);
  CHECK_THAT(retried.err, ContainsSubstring("1 failed trial waits again"));
  const auto ended = run.wait(120);
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(count(database, "trial WHERE state = 2") == count(database, "trial"));
  CHECK_FALSE(fs::exists(folder / "small.db.d/control.sock"));
}

TEST_CASE("cancel takes a waiting trial out, and a worker that does not listen is killed",
          "[orchestrator][control][slow]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"},
              {{"TUNEONCE_FAKE", "hang=2 dir=" + folder.path().string()}});
  const auto database = folder / "small.db";
  REQUIRE(test::eventually([&] { return count(database, "trial WHERE state = 1 AND id = 2") == 1; }));
  const auto waiting = tuneonce(folder.path(), {"cancel", "3"});
  CHECK_THAT(waiting.err, ContainsSubstring("will not be started"));
  CHECK(tuneonce(folder.path(), {"cancel", "2"}).code == 0);
  const auto ended = run.wait(120);
  CHECK(ended.code == 1);
  CHECK_THAT(ended.err, ContainsSubstring("2 trials failed") && ContainsSubstring("tuneonce retry --failed"));
  CHECK(count(database, "trial WHERE state = 4 AND id IN (2, 3)") == 2);
  CHECK(count(database, "attempt WHERE trial_id = 3") == 0);
}

TEST_CASE("cancel --all ends the run as Ctrl-C does, and it can go on", "[orchestrator][control]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"}, {{"TUNEONCE_FAKE", "sleep_ms=200"}});
  REQUIRE(test::eventually([&] { return count(folder / "small.db", "trial WHERE state = 1") == 1; }));
  CHECK(tuneonce(folder.path(), {"cancel", "--all"}).code == 0);
  const auto ended = run.wait();
  CHECK(ended.code == 130);
  CHECK_THAT(ended.err, ContainsSubstring("stopped by `tuneonce cancel`; nothing is lost"));
  CHECK(count(folder / "small.db", "trial WHERE state IN (1, 4)") == 0);
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
}

TEST_CASE("retry re-queues exactly the failed trials, or those it is given", "[orchestrator][control]") {
  const TemporaryFolder folder;
  test::write_study(folder.path(), "[retry]\nstop_after = \"never\"\n");
  const auto database = folder / "small.db";
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "fail_name=wd=0.2"}}).code == 1);
  const auto failed = count(database, "trial WHERE state = 4");
  REQUIRE(failed >= 2);
  const auto attempts = count(database, "attempt");
  // By itself a run tries none of them again.
  const auto second = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(second.code == 1);
  CHECK_THAT(second.err, ContainsSubstring("tuneonce retry --failed --db small.db"));
  CHECK(count(database, "attempt") == attempts);
  const auto one = text_of(database, "SELECT CAST(min(id) AS TEXT) FROM trial WHERE state = 4");
  const auto good = text_of(database, "SELECT CAST(min(id) AS TEXT) FROM trial WHERE state = 2");
  const auto refused = tuneonce(folder.path(), {"retry", one, good});
  CHECK(refused.code == 2);
  CHECK_THAT(refused.err, ContainsSubstring("only a failed trial can be tried again"));
  CHECK(count(database, "trial WHERE state = 4") == failed);
  CHECK(tuneonce(folder.path(), {"retry", "99"}).code == 2);
  CHECK(tuneonce(folder.path(), {"retry"}).code == 2);
  CHECK(tuneonce(folder.path(), {"retry", one}).code == 0);
  CHECK(count(database, "trial WHERE state = 0 AND id = " + one) == 1);
  CHECK(tuneonce(folder.path(), {"retry", "--failed"}).code == 0);
  CHECK(count(database, "trial WHERE state = 0") == failed);
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  CHECK(tuneonce(folder.path(), {"cancel", "--all"}).code == 2);  // nothing is on
}

TEST_CASE("a run listens on no TCP port", "[orchestrator][control][faults][F18]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"}, {{"TUNEONCE_FAKE", "sleep_ms=60000"}});
  REQUIRE(test::eventually([&] { return count(folder / "small.db", "trial WHERE state = 1") == 1; }));
  std::set<std::string> sockets;  // inodes of the sockets that the run holds
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(run.pid()) + "/fd")) {
    std::error_code ignored;
    const auto link = fs::read_symlink(entry.path(), ignored).string();
    if (link.starts_with("socket:[")) sockets.insert(link.substr(8, link.size() - 9));
  }
  CHECK(sockets.size() >= 2);  // the worker's channel and the control socket
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"}) {
    std::istringstream lines(test::read_text(table));
    std::string line;
    for (std::getline(lines, line); std::getline(lines, line);) {
      std::istringstream words(line);
      std::string inode;
      for (int i = 0; i < 10; ++i) words >> inode;
      CHECK_FALSE(sockets.contains(inode));
    }
  }
}
