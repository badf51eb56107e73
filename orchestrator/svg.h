#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace orchestrator {

/// Text as it may stand in HTML and SVG, between tags and in quoted attributes.
std::string escape(std::string_view text);

using Pixel = std::pair<double, double>;
enum class Anchor { start, middle, end };

/// One picture, drawn from back to front. Coordinates are pixels from the upper left corner; `style` names
/// CSS classes of the page, so that colours follow its light and dark themes.
class Svg {
 public:
  /// `label` is what a screen reader says.
  Svg(double width, double height, std::string_view label);

  void line(Pixel from, Pixel to, std::string_view style);
  void rect(Pixel corner, double width, double height, std::string_view style, std::string_view fill = "",
            std::string_view tooltip = "");
  void circle(Pixel centre, double radius, std::string_view style, std::string_view fill = "",
              std::string_view tooltip = "");
  void polyline(const std::vector<Pixel>& points, std::string_view style);
  void polygon(const std::vector<Pixel>& points, std::string_view style);
  void text(Pixel at, Anchor anchor, std::string_view text, std::string_view style = "",
            std::string_view fill = "");
  /// Text that reads upwards, centred on `at`.
  void vertical_text(Pixel at, std::string_view text, std::string_view style);
  /// Diagonal lines inside a rectangle: a cell that diverged.
  void hatch(Pixel corner, double width, double height, std::string_view style);
  void cross(Pixel centre, double arm, std::string_view style);
  /// Another picture inside this one, its upper left corner at `corner`.
  void place(Pixel corner, const Svg& picture);

  std::string str() const;
  /// The same as a file of its own: with the name space and `style`, a CSS sheet.
  std::string file(std::string_view style_sheet) const;

 private:
  std::string element(std::string_view attributes, std::string_view head) const;
  void shape(std::string_view element, const std::string& geometry, std::string_view style,
             std::string_view fill, std::string_view tooltip);

  std::string body_;
  double width_, height_;
  std::string label_;
};

}  // namespace orchestrator
