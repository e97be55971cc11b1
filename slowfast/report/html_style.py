"""Style sheet and script of a page, and the policy that lets a browser load nothing else."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark;
  --bg: #ffffff; --text: #1b1f24; --soft: #57606a; --rule: #d5dae0; --panel: #f6f8fa; --ours: #e8f1fb;
  --warn: #fff4d6; --warn-edge: #b25e00; --grid: #e4e8ec; --good: #1f6fb2; --bad: #d55e00; --strong: #ffffff;
  --c0: #0072b2; --c1: #d55e00; --c2: #00855f; --c3: #b5489a; --c4: #9a6700; --c5: #2a93cc; --c6: #5b5b5b;
  --c7: #6f4fc0; }
@media (prefers-color-scheme: dark) { :root {
  --bg: #14181d; --text: #e6e9ed; --soft: #a0a9b4; --rule: #38414b; --panel: #1d232a; --ours: #1b3148;
  --warn: #3b2d0c; --warn-edge: #f0b429; --grid: #2a323b; --good: #6bb6f2; --bad: #ff9350; --strong: #10151a;
  --c0: #62b5ee; --c1: #ff9350; --c2: #35cf9f; --c3: #f09fd2; --c4: #ecc14a; --c5: #a5dcff; --c6: #c4c8cc;
  --c7: #bca6f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1180px; background: var(--bg); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1.02rem; margin: 0; display: inline; overflow-wrap: anywhere; }
h4 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .3rem 0 .7rem; max-width: 75ch; }
.lead, .note, .absent, figcaption, footer { color: var(--soft); }
.note, footer { font-size: .87rem; }
.absent { font-style: italic; }
nav { margin: .9rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .92rem; }
a { color: var(--good); }
code { font: .86em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .5rem 0 1.25rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .32rem .8rem .32rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: .25rem; }
thead th { font-weight: 600; vertical-align: bottom; border-bottom: 2px solid var(--soft); }
thead th.group { text-align: center; white-space: nowrap; border-bottom: 1px solid var(--rule); padding-left: .8rem; }
tbody th { font-weight: 500; }
tbody th code { overflow-wrap: normal; }
td code { display: inline-block; min-width: 8ch; max-width: 92ch; }
th.number, td.number { text-align: right; white-space: nowrap; }
thead th.number { white-space: normal; }
td.source { color: var(--soft); font-size: .84rem; }
.std, .delta { color: var(--soft); font-size: .84em; }
.lost { color: var(--bad); font-weight: 700; }
tr.ours > * { background: var(--ours); }
tr.ours > th { font-weight: 700; padding-left: .4rem; }
tr.differs > th { border-left: 4px solid var(--bad); padding-left: .5rem; }
tr.differs > * { background: var(--panel); }
th[aria-sort], th.sorts { cursor: pointer; }
th[aria-sort="ascending"]::after { content: " \\25b2"; }
th[aria-sort="descending"]::after { content: " \\25bc"; }
.warnings { background: var(--warn); border: 2px solid var(--warn-edge); border-radius: 6px;
  padding: .2rem 1.1rem .6rem; margin-top: 1.5rem; }
.warnings h2 { border: 0; margin: .6rem 0 .2rem; padding: 0; color: var(--warn-edge); }
.warnings ul { margin: .2rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.files { font-size: .86rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .2rem 0; }
details.split { border: 1px solid var(--rule); border-radius: 6px; padding: .3rem 1rem; margin: .8rem 0; }
.chip { display: inline-block; margin-left: .6rem; padding: 0 .55rem; border-radius: 1em; background: var(--panel);
  border: 1px solid var(--rule); color: var(--soft); font-size: .82rem; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; }
.charts figcaption { font-weight: 600; color: var(--text); margin: .2rem 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0; margin: .4rem 0 .8rem;
  overflow-wrap: anywhere; }
svg { font-family: inherit; }
svg text { fill: var(--text); font-size: 12px; unicode-bidi: isolate; }
svg.chart { width: 100%; height: auto; display: block; }
svg text.tick { fill: var(--soft); }
svg text.name { fill: var(--text); }
svg text.small { font-size: 9.5px; }
svg text.middle { text-anchor: middle; }
svg text.end { text-anchor: end; }
svg text.axis-title { font-weight: 600; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
.line { stroke-width: 2; stroke-linejoin: round; }
.swatch { width: 36px; height: 14px; vertical-align: -2px; }
.mark { stroke: var(--bg); stroke-width: .8; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); } .s6 { stroke: var(--c6); } .s7 { stroke: var(--c7); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
.f4 { fill: var(--c4); } .f5 { fill: var(--c5); } .f6 { fill: var(--c6); } .f7 { fill: var(--c7); }
.bars { width: 100%; min-width: 720px; table-layout: fixed; }
.bars th:first-child { width: 24%; } .bars .bar-cell { width: 27%; } .bars th.number { width: 8%; }
.bars .class-name { overflow-wrap: anywhere; }
.bar { display: block; width: 100%; height: 13px; margin-top: .3rem; }
.bar-axis { display: block; width: 100%; height: 14px; overflow: visible; }
.bar-box { fill: var(--panel); } .bar-good { fill: var(--good); }
.reference { stroke: var(--text); stroke-dasharray: 3 2; }
.matrix { display: block; }
.heat-good { fill: var(--good); } .heat-bad { fill: var(--bad); }
.heat-image { image-rendering: pixelated; } .heat-frame { fill: none; stroke: var(--rule); }
.heat-legend { width: 340px; max-width: 100%; height: auto; display: block; }
svg text.cell { text-anchor: middle; pointer-events: none; } svg text.cell.strong { fill: var(--strong); }
.matrix rect { stroke: var(--grid); stroke-width: .5; }
.matrix .hover { stroke: none; } .matrix .hover:not(.heat-bad) { fill: transparent; }
  .matrix .hover:hover { stroke: var(--text); stroke-width: 1.5; }
.class-list { columns: 14rem; font-size: .84rem; }
.class-list li { break-inside: avoid; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr));
  gap: 1.1rem 1.5rem; padding: 0; list-style: none; }
.pairs p { margin: 0 0 .35rem; overflow-wrap: anywhere; }
.frames { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
.frame img, .no-frame { display: block; width: 100%; aspect-ratio: 4 / 3; border-radius: 3px;
  background: var(--panel); }
.frame img { object-fit: contain; }
.frame.wrong img, .frame.wrong .no-frame { border-top: 4px solid var(--bad); }
.frame.right img, .frame.right .no-frame { border-top: 4px solid var(--good); }
.no-frame { padding: .8rem; color: var(--soft); font-size: .84rem; font-style: italic; overflow-wrap: anywhere; }
.frame figcaption { font-size: .82rem; line-height: 1.35; margin-top: .2rem; overflow-wrap: anywhere; }
.frame .file { display: block; opacity: .85; font-size: .92em; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .6rem; }
@media (prefers-color-scheme: dark) { .heat-image { filter: brightness(1.55) saturate(.85); } }
@media (max-width: 640px) { body { padding: 1.1rem .9rem 3rem; } details.split { padding: .3rem .6rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; }
  figure, .pairs li, tr, .warnings { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  .scroll { overflow: visible; }
  .matrix { max-width: 100%; height: auto; }
  details::details-content { content-visibility: visible; display: block; } * { print-color-adjust: exact; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells], body = table.tBodies[0];
  const key = (row, n) => { const cell = row.cells[n];
    return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value === "" ? -Infinity
  : +cell.dataset.value; };
  heads.forEach((head, n) => { head.classList.add("sorts"); head.tabIndex = 0; head.title = "sort by this column";
    const sort = () => { const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(key(a, n), key(b, n)))); };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); }); });
}
"""


def content_policy() -> str:
    """The policy of a page: nothing from outside, no script and no style but ours, pictures only as data."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(SCRIPT)}'",
            f"style-src '{_digest(STYLE)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
