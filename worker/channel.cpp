#include "worker/channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <span>

namespace worker {

bool has_channel() {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(kChannelDescriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

void Channel::send(const WorkerMessage& message) {
  const auto frame = encode(message);
  for (std::size_t sent = 0; sent < frame.size();) {
    const ssize_t count = ::send(descriptor_, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw ChannelClosed{};
    sent += static_cast<std::size_t>(count);
  }
}

std::optional<OrchestratorMessage> Channel::receive(bool wait) {
  while (true) {
    if (auto message = take_frame()) return message;
    if (!read_some(wait)) return std::nullopt;
  }
}

std::optional<OrchestratorMessage> Channel::take_frame() {
  if (buffer_.size() < 4) return std::nullopt;
  const std::size_t length = payload_length(std::span(buffer_).first<4>());
  if (buffer_.size() - 4 < length) return std::nullopt;
  auto message = decode_orchestrator_message(std::span(buffer_).subspan(4, length));
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(4 + length));
  return message;
}

bool Channel::read_some(bool wait) {
  std::array<std::uint8_t, 1 << 16> bytes;
  while (true) {
    const ssize_t count = ::recv(descriptor_, bytes.data(), bytes.size(), wait ? 0 : MSG_DONTWAIT);
    if (count > 0) {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + count);
      return true;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && !wait && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    throw ChannelClosed{};
  }
}

}  // namespace worker
