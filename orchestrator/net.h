#pragma once

// Boost 1.74 uses std::exchange in asio/awaitable.hpp without including <utility>.
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace orchestrator {
namespace asio = boost::asio;
using boost::asio::awaitable;
using boost::asio::use_awaitable;

// g++ 12 destroys an aggregate that is made inside a co_await expression twice: give messages a name first.
}  // namespace orchestrator
