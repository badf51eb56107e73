#include "orchestrator/svg.h"

#include <algorithm>

#include <fmt/format.h>

namespace orchestrator {
namespace {

std::string coordinates(const std::vector<Pixel>& points) {
  std::string text;
  for (const auto& [x, y] : points) text += fmt::format("{}{:.1f},{:.1f}", text.empty() ? "" : " ", x, y);
  return text;
}

std::string_view name(Anchor anchor) {
  return anchor == Anchor::start ? "start" : anchor == Anchor::middle ? "middle" : "end";
}

std::string fill_attribute(std::string_view fill) {
  return fill.empty() ? "" : fmt::format(" style=\"fill:{}\"", escape(fill));
}

}  // namespace

std::string escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      default: result += c;
    }
  }
  return result;
}

Svg::Svg(double width, double height, std::string_view label)
    : width_(width), height_(height), label_(escape(label)) {}

void Svg::shape(std::string_view element, const std::string& geometry, std::string_view style,
                std::string_view fill, std::string_view tooltip) {
  body_ += fmt::format("<{} {} class=\"{}\"{}", element, geometry, style, fill_attribute(fill));
  body_ += tooltip.empty() ? "/>\n" : fmt::format("><title>{}</title></{}>\n", escape(tooltip), element);
}

void Svg::line(Pixel from, Pixel to, std::string_view style) {
  shape("line",
        fmt::format("x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"", from.first, from.second,
                    to.first, to.second),
        style, "", "");
}

void Svg::rect(Pixel corner, double width, double height, std::string_view style, std::string_view fill,
               std::string_view tooltip) {
  shape("rect",
        fmt::format("x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"", corner.first,
                    corner.second, width, height),
        style, fill, tooltip);
}

void Svg::circle(Pixel centre, double radius, std::string_view style, std::string_view fill,
                 std::string_view tooltip) {
  shape("circle",
        fmt::format("cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"", centre.first, centre.second, radius), style,
        fill, tooltip);
}

void Svg::polyline(const std::vector<Pixel>& points, std::string_view style) {
  if (points.size() > 1) shape("polyline", fmt::format("points=\"{}\"", coordinates(points)), style, "", "");
}

void Svg::polygon(const std::vector<Pixel>& points, std::string_view style) {
  if (points.size() > 2) shape("polygon", fmt::format("points=\"{}\"", coordinates(points)), style, "", "");
}

void Svg::text(Pixel at, Anchor anchor, std::string_view text, std::string_view style,
               std::string_view fill) {
  body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\"{}>{}</text>\n",
                       at.first, at.second, name(anchor), style, fill_attribute(fill), escape(text));
}

void Svg::vertical_text(Pixel at, std::string_view text, std::string_view style) {
  body_ += fmt::format(
      "<text x=\"{0:.1f}\" y=\"{1:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 {0:.1f} {1:.1f})\" "
      "class=\"{2}\">{3}</text>\n",
      at.first, at.second, style, escape(text));
}

void Svg::hatch(Pixel corner, double width, double height, std::string_view style) {
  constexpr double kGap = 7;
  const auto [left, top] = corner;
  // Lines x + y = s, cut at the rectangle.
  for (double s = kGap; s < width + height; s += kGap)
    line({left + std::max(0.0, s - height), top + std::min(s, height)},
         {left + std::min(s, width), top + std::max(0.0, s - width)}, style);
}

void Svg::cross(Pixel centre, double arm, std::string_view style) {
  const auto [x, y] = centre;
  line({x - arm, y}, {x + arm, y}, style);
  line({x, y - arm}, {x, y + arm}, style);
}

void Svg::place(Pixel corner, const Svg& picture) {
  body_ += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">\n{}</g>\n", corner.first, corner.second,
                       picture.body_);
}

std::string Svg::element(std::string_view attributes, std::string_view head) const {
  return fmt::format(
      "<svg{4} viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" role=\"img\" "
      "aria-label=\"{2}\">\n{5}{3}</svg>\n",
      width_, height_, label_, body_, attributes, head);
}

std::string Svg::str() const { return element("", ""); }

std::string Svg::file(std::string_view style_sheet) const {
  return element(" xmlns=\"http://www.w3.org/2000/svg\"", fmt::format("<style>{}</style>\n", style_sheet));
}

}  // namespace orchestrator
