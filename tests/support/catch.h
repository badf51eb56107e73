#pragma once
// One spelling for Catch2 v2 (Debian 12) and v3 (Ubuntu 24.04). Compare with WithinAbs and WithinRel, never
// Approx.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Matchers::ContainsSubstring;
#else
#include <catch2/catch.hpp>
inline auto ContainsSubstring(const std::string& part) { return Catch::Matchers::Contains(part); }
#endif
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
