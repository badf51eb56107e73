#pragma once

namespace orchestrator {

/// The report's one style sheet: page, tables and the classes that its pictures use, light and dark.
inline constexpr const char* kReportStyle = R"css(
:root { color-scheme: light dark; --bg: #ffffff; --fg: #17222d; --muted: #566574; --line: #d8dfe6; --card: #f4f7f9;
  --good: #17703a; --bad: #b3261e; --warn: #8a5a00; --fit: #1b6fb3; --proxy: #7a8794;
  --t0: #1b6fb3; --t1: #b3541e; --t2: #17703a; --t3: #7b3fa0; --t4: #8a6d00; --t5: #a8326a; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #12181f; --fg: #e3e9ef; --muted: #97a6b5; --line: #2c3742; --card: #1a222b;
    --good: #5cc585; --bad: #f08a80; --warn: #e0b050; --fit: #6db3ee; --proxy: #8392a1;
    --t0: #6db3ee; --t1: #f0a070; --t2: #5cc585; --t3: #c79be6; --t4: #d9bd55; --t5: #ee8fb8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg); font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 24px 28px 64px; }
h1 { margin: 0; font-size: 28px; }
h2 { margin: 44px 0 12px; font-size: 20px; border-bottom: 1px solid var(--line); padding-bottom: 6px; }
h3 { margin: 22px 0 8px; font-size: 16px; }
h3 small { font-weight: normal; color: var(--muted); }
.note, figcaption { color: var(--muted); font-size: 13px; margin: 6px 0; max-width: 95ch; }
.lead { padding: 12px 16px; border-left: 5px solid var(--warn); background: var(--card); font-size: 16px; }
.lead.exit0 { border-color: var(--good); } .lead.exit1, .lead.exit3 { border-color: var(--bad); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.card { background: var(--card); border-radius: 8px; padding: 12px 16px; min-width: 170px; font-size: 13px; color: var(--muted); }
.card .label { font-size: 12.5px; } .card .value { font-size: 21px; color: var(--fg); margin: 2px 0; }
.badge { border-radius: 5px; padding: 1px 8px; font-weight: 600; font-size: 13px; border: 1.5px solid; white-space: nowrap; }
.card .badge { font-size: 17px; }
.badge.pass, .good { color: var(--good); } .badge.drift, .bad { color: var(--bad); } .badge.open { color: var(--warn); }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 5px 11px; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; color: var(--muted); line-height: 1.3; }
td small { color: var(--muted); } th, td.n { white-space: nowrap; }
.wide { overflow-x: auto; }
pre { background: var(--card); padding: 12px 16px; border-radius: 8px; overflow-x: auto; font-size: 12.5px; line-height: 1.45; }
figure { margin: 12px 0; } svg { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 8px; } .samples { gap: 8px 40px; }
img.pixels { display: block; max-width: 100%; image-rendering: pixelated; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 14px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 8px 0; }
svg text { font: 12px system-ui, "Liberation Sans", sans-serif; fill: var(--fg); }
svg text.title { font-weight: 600; font-size: 13.5px; } svg text.axis { fill: var(--muted); }
svg text.small { fill: var(--muted); font-size: 10.5px; } svg text.number { font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg text.state { font-size: 11px; paint-order: stroke; stroke: var(--bg); stroke-width: 4px; }
svg text.mark { font-size: 12px; font-weight: 700; } svg text.mark-diverged { font-size: 16px; font-weight: 700; fill: var(--bad); }
svg .faint { opacity: 0.45; }
.grid { stroke: var(--line); stroke-width: 1; }
.diverged { fill: var(--card); stroke: var(--bad); } .open { fill: none; stroke: var(--line); stroke-dasharray: 4 3; }
.hatch { stroke: var(--bad); stroke-width: 1.2; opacity: 0.75; }
.dot { stroke: var(--bg); stroke-width: 1; } .dot.diverged { stroke: var(--bad); } .dot.open { stroke: var(--proxy); }
.cross-halo { stroke: #000; stroke-width: 5; stroke-linecap: round; } .cross { stroke: #fff; stroke-width: 2.2; stroke-linecap: round; }
.region-halo { fill: none; stroke: #000; stroke-width: 3.6; opacity: 0.75; } .region { fill: none; stroke: #fff; stroke-width: 1.7; }
.ci { fill: var(--fit); opacity: 0.16; } .optimum { stroke: var(--fit); stroke-width: 1.6; }
.fit { fill: none; stroke: var(--fit); stroke-width: 2; }
.point { fill: var(--fg); } .point.faint { fill: var(--proxy); }
.transferred { stroke: var(--t1); stroke-width: 1.5; stroke-dasharray: 5 4; }
.ring { fill: none; stroke: var(--t1); stroke-width: 2.2; } .baseline { fill: var(--bg); stroke: var(--t3); stroke-width: 2; }
.line { fill: none; stroke-width: 1.8; } .line.faint { stroke: var(--proxy); stroke-width: 1; }
.line.best { stroke: var(--fit); } .line.eval { stroke: var(--t1); } .dashed { stroke-dasharray: 5 4; }
.t0 { stroke: var(--t0); } .t1 { stroke: var(--t1); } .t2 { stroke: var(--t2); } .t3 { stroke: var(--t3); } .t4 { stroke: var(--t4); } .t5 { stroke: var(--t5); }
.marker { fill: var(--bg); } .interval { stroke-width: 6; stroke-linecap: round; opacity: 0.55; }
@media print { details { display: none; } }
)css";

}  // namespace orchestrator
