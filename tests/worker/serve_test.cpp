#include "worker/serve.h"

#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/worker/tiny_trial.h"

using namespace worker;

namespace {

/// A worker in a thread and the orchestrator's end of its channel.
class Conversation {
 public:
  Conversation() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    descriptor_ = ends[0];
    worker_ = std::thread([this, end = ends[1]] {
      Channel channel(end);
      const Device device;
      try {
        serve(channel, device);
        end_ = "served";
      } catch (const ChannelClosed&) {
        end_ = "closed";
      } catch (const ProtocolError& error) {
        end_ = error.what();
      }
      ::close(end);
    });
  }
  ~Conversation() { finish(); }

  void say(const OrchestratorMessage& message) { write(encode(message)); }
  void write(const std::vector<std::uint8_t>& bytes) {
    REQUIRE(::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  WorkerMessage hear() {
    const auto length = read(4);
    return decode_worker_message(read(payload_length(std::span(length).first<4>())));
  }
  template <class T>
  T hear_a() {
    while (true) {
      const auto message = hear();
      if (const auto* wanted = std::get_if<T>(&message)) return *wanted;
    }
  }
  /// Hangs up, waits for the worker and says how it ended.
  std::string finish() {
    if (descriptor_ >= 0) ::shutdown(descriptor_, SHUT_RDWR), ::close(descriptor_);
    descriptor_ = -1;
    if (worker_.joinable()) worker_.join();
    return end_;
  }
  std::string wait() {
    worker_.join();
    return end_;
  }

 private:
  std::vector<std::uint8_t> read(std::size_t count) {
    std::vector<std::uint8_t> bytes(count);
    for (std::size_t done = 0; done < count;) {
      const ssize_t got = ::recv(descriptor_, bytes.data() + done, count - done, 0);
      REQUIRE(got > 0);
      done += static_cast<std::size_t>(got);
    }
    return bytes;
  }

  int descriptor_ = -1;
  std::string end_;
  std::thread worker_;
};

/// Trains until it is stopped.
sweeps::TrialSpec endless_trial() {
  auto spec = tiny_trial();
  spec.run.steps = spec.proxy.steps = 1 << 30;
  spec.eval.every = 0;
  return spec;
}

}  // namespace

TEST_CASE("a worker says hello, trains what it is given and goes when drained", "[worker][serve]") {
  Conversation talk;
  const auto hello = std::get<Hello>(talk.hear());
  CHECK(hello.protocol == kProtocolVersion);
  CHECK(hello.device == "cpu");
  CHECK(hello.slots == 1);
  for (const double lr : {1e-2, 5e-3}) {
    auto spec = tiny_trial();
    spec.base.lr = lr;
    const auto assignment = assignment_of(spec);
    talk.say(Assign{{assignment}});
    CHECK(std::get<Started>(talk.hear()).trial == assignment.trial);
    CHECK(std::holds_alternative<sweeps::Finished>(talk.hear_a<Ended>().outcome));
  }
  talk.say(Drain{});
  CHECK(talk.wait() == "served");
}

TEST_CASE("a worker inspects data and measures a trial", "[worker][serve]") {
  Conversation talk;
  talk.hear_a<Hello>();
  talk.say(Inspect{tiny_trial().data, 16, 128, 1024});
  const auto inspected = std::get<Inspected>(talk.hear());
  CHECK(inspected.fingerprint.size() == 32);
  CHECK(inspected.holdout_tokens == 1024);
  talk.say(Measure{tiny_trial(), 2});
  CHECK(std::get<Measured>(talk.hear()).seconds_per_step > 0);

  auto missing = tiny_trial().data;
  missing.source = sweeps::DataSource::tokens;
  missing.path = "/no/such.bin";
  talk.say(Inspect{missing, 16, 128, 1024});
  const auto refused = std::get<Refused>(talk.hear());
  CHECK(refused.failure == sweeps::FailureClass::user_error);
  CHECK_THAT(refused.message, ContainsSubstring("/no/such.bin"));
}

TEST_CASE("a cancel and a drain act while a trial runs", "[worker][serve]") {
  const TemporaryFolder folder;
  Conversation talk;
  auto first = assignment_of(endless_trial());
  talk.say(Assign{{first}});
  talk.hear_a<Started>();
  talk.say(Cancel{"a trial of nobody"});
  talk.say(Cancel{first.trial});
  CHECK(std::get<sweeps::Failed>(talk.hear_a<Ended>().outcome).failure == sweeps::FailureClass::cancelled);

  auto second = first;  // the same trial again: the old cancel is over
  second.attempt = 2;
  second.checkpoint = (folder / "c").string();
  talk.say(Assign{{second}});
  CHECK(talk.hear_a<Started>().attempt == 2);
  talk.say(Drain{});
  CHECK(talk.hear_a<Checkpointed>().file == second.checkpoint);
  CHECK(std::get<sweeps::Failed>(talk.hear_a<Ended>().outcome).failure == sweeps::FailureClass::cancelled);
  CHECK(talk.wait() == "served");
  CHECK(std::filesystem::exists(second.checkpoint));
}

TEST_CASE("a trial that waits behind another is cancelled with a drain", "[worker][serve]") {
  Conversation talk;
  const auto running = assignment_of(endless_trial()), waiting = assignment_of(tiny_trial());
  talk.say(Assign{{running}});
  talk.hear_a<Started>();
  talk.say(Assign{{waiting}});
  talk.say(Drain{});
  CHECK(talk.hear_a<Ended>().trial == running.trial);
  const auto ended = talk.hear_a<Ended>();
  CHECK(ended.trial == waiting.trial);
  CHECK(std::get<sweeps::Failed>(ended.outcome).failure == sweeps::FailureClass::cancelled);
  CHECK(talk.wait() == "served");
}

TEST_CASE("a worker stops within its trial when nobody listens any more", "[worker][serve]") {
  Conversation talk;
  talk.say(Assign{{assignment_of(endless_trial())}});
  talk.hear_a<Started>();
  CHECK(talk.finish() == "closed");
}

TEST_CASE("a worker refuses garbage on its channel", "[worker][serve]") {
  Conversation talk;
  talk.hear_a<Hello>();
  talk.write({3, 0, 0, 0, 1, 2, 3});
  CHECK_THAT(talk.wait(), ContainsSubstring("frame"));
  Conversation other;
  other.hear_a<Hello>();
  other.write({255, 255, 255, 255});
  CHECK_THAT(other.wait(), ContainsSubstring("above the limit of 64 MiB"));
}
