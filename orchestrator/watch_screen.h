#pragma once

#include <string>
#include <vector>

#include "orchestrator/standing.h"

namespace orchestrator {

struct Screen {
  int width = 80;  // columns
  int height = 24;  // rows; of long lists the rest is counted
  bool colour = false;  // 24-bit; without, no escape sequence at all
};

/// The screen of `watch`, a pure function: what runs where, when all is done, the best so far, the proxy's sweep as a
/// map of LR x WD, the last failures with their logs. No line is wider than the screen.
std::vector<std::string> draw_watch(const Standing& standing, const Screen& screen);

/// Columns that a line takes on a terminal: code points outside of escape sequences.
int visible_width(std::string_view line);

}  // namespace orchestrator
