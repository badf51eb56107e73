#include "orchestrator/report_samples.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "orchestrator/png.h"
#include "orchestrator/svg.h"

namespace orchestrator {
namespace {

using sweeps::SampleSheet;

constexpr std::int64_t kGap = 1;  // pixels between pictures
constexpr std::uint8_t kGapGrey = 128;
constexpr double kSheetWidth = 500;  // CSS pixels, about

std::int64_t num_pictures(const SampleSheet& sheet, const std::vector<std::uint8_t>& pictures) {
  return static_cast<std::int64_t>(pictures.size()) / sheet.picture_bytes();
}

/// A whole number of screen pixels per pixel, so that all are equally large.
std::string figure(const SampleSheet& sheet, const std::vector<std::uint8_t>& pictures, std::int64_t count,
                   std::int64_t columns, const std::string& label, const std::string& caption) {
  const std::int64_t width = columns * (sheet.width + kGap) - kGap;
  const auto scale = std::max<std::int64_t>(1, std::llround(kSheetWidth / static_cast<double>(width)));
  return fmt::format(
      "<figure><img class=\"pixels\" width=\"{}\" alt=\"{}\" src=\"data:image/png;base64,{}\"/>"
      "<figcaption>{}</figcaption></figure>\n",
      width * scale, escape(label), base64(contact_sheet(sheet, pictures, count, columns)), caption);
}

std::string target_samples(const sweeps::TargetAnalysis& target, const SampleSheet& sheet) {
  const auto num_drawn = num_pictures(sheet, sheet.drawn);
  const auto columns = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(num_drawn))));
  const auto num_real = std::min(columns, num_pictures(sheet, sheet.real));
  const std::string& name = target.spec.name;
  std::string html = fmt::format("<div><h3>{}</h3>\n", escape(name));
  html += figure(sheet, sheet.drawn, num_drawn, columns, fmt::format("pictures drawn by {}", name),
                 fmt::format("Drawn by {}: {} pictures, none left out.", escape(name), num_drawn));
  if (num_real > 0)
    html += figure(sheet, sheet.real, num_real, columns, "held-out pictures",
                   "For comparison: the first of the held-out pictures, which no trial was trained on.");
  return html + "</div>\n";
}

}  // namespace

std::string contact_sheet(const SampleSheet& sheet, const std::vector<std::uint8_t>& pictures,
                          std::int64_t count, std::int64_t columns) {
  const std::int64_t rows = (count + columns - 1) / columns;
  const std::int64_t width = columns * (sheet.width + kGap) - kGap;
  const std::int64_t height = rows * (sheet.height + kGap) - kGap;
  const std::int64_t colours = sheet.channels == 3 ? 3 : 1;
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(width * height * colours), kGapGrey);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t left = i % columns * (sheet.width + kGap), top = i / columns * (sheet.height + kGap);
    for (std::int64_t c = 0; c < colours; ++c)
      for (std::int64_t y = 0; y < sheet.height; ++y)
        for (std::int64_t x = 0; x < sheet.width; ++x) {
          const auto from = ((i * sheet.channels + c) * sheet.height + y) * sheet.width + x;
          const auto to = ((top + y) * width + left + x) * colours + c;
          pixels[static_cast<std::size_t>(to)] = pictures[static_cast<std::size_t>(from)];
        }
  }
  return png(width, height, colours, pixels);
}

std::string samples_section(const sweeps::Analysis& analysis, const Samples& samples) {
  std::string html;
  for (const auto& target : analysis.targets) {
    if (!target.transferred) continue;
    const auto found = samples.find(target.transferred->key);
    if (found != samples.end()) html += target_samples(target, found->second);
  }
  if (html.empty()) return html;
  return "<p class=\"note\">Each target, trained at the transferred point, draws from the same fixed noise: "
         "what "
         "its loss looks like.</p>\n<div class=\"row samples\">\n" +
         html + "</div>\n";
}

}  // namespace orchestrator
