"""The pieces of a self-contained HTML page: one file, pictures inline, light and dark, wide and narrow."""

import base64
import io
import re
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

LONGEST = 14  # letters that a column of a phone's table has room for

CSS = """
:root { color-scheme: light dark; --page:#f5f6f8; --card:#ffffff; --text:#1f2430; --faint:#5b6270; --line:#e3e6eb;
  --base:#8a6d1f; --elastic:#2563eb; --fine:#0f766e; --coarse:#b45309; --good:#15803d;
  --bad:#b42318; }
@media (prefers-color-scheme: dark) { :root { --page:#0f1116; --card:#171a21; --text:#e6e8ee; --faint:#9aa1ad;
  --line:#2b303a; --base:#d9b44a; --elastic:#6ea8ff; --fine:#2dd4bf; --coarse:#fb923c; --good:#4ade80;
  --bad:#f97066; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--text); font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust:100%; }
main { max-width:1120px; margin:0 auto; padding:28px 18px 56px; }
h1 { font-size:1.9rem; line-height:1.2; margin:.2em 0 .35em; letter-spacing:-.01em; }
h2 { font-size:1.25rem; margin:0 0 .4em; }
p { margin:.35em 0 .8em; max-width:92ch; }
.lead { font-size:1.06rem; }
.faint, figcaption, .note { color:var(--faint); font-size:.9rem; }
section { background:var(--card); border:1px solid var(--line); border-radius:14px; padding:20px 22px; margin:18px 0; }
.verdict { border-left:5px solid var(--elastic); }
.verdict strong { font-size:1.12rem; }
.scroll { overflow-x:auto; }
.lead { max-width:none; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th, td { padding:7px 10px; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap; }
th:first-child, td:first-child { text-align:left; padding-left:0; }
thead th { color:var(--faint); font-weight:600; font-size:.86rem; }
tbody tr:last-child td { border-bottom:0; }
.base { color:var(--base); font-weight:600; } .elastic { color:var(--elastic); font-weight:600; }
.pair table { font-size:.9rem; } .pair th, .pair td { padding:7px 6px; white-space:normal; }
.pair { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap:18px;
  align-items:start; }
figure { margin:0; } figure img { width:100%; height:auto; display:block; } figcaption { margin-top:4px; }
.strip { display:grid; grid-template-columns:88px 1fr; gap:8px 12px; align-items:center; }
.strip .size { color:var(--faint); font-size:.88rem; text-align:right; }
.tiles { display:grid; grid-template-columns:repeat(auto-fill, minmax(64px, 1fr)); grid-template-rows:auto;
  grid-auto-rows:0; gap:0 5px; overflow:hidden; }
.tiles.many { grid-auto-rows:auto; gap:5px; }
.tiles.photos { grid-template-columns:repeat(auto-fill, minmax(140px, 1fr)); grid-auto-rows:auto; gap:14px 12px; }
.tiles.photos img { object-fit:contain; background:var(--page); } .tiles figcaption { overflow-wrap:anywhere; }
.tiles img { width:100%; aspect-ratio:1; border-radius:6px; display:block; }
.examples { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap:14px; }
.example { display:flex; gap:12px; border:1px solid var(--line); border-radius:12px; padding:10px; }
.example img { width:104px; height:104px; border-radius:8px; flex:none; }
.example .side { flex:1; min-width:0; display:flex; flex-direction:column; justify-content:space-between; }
.example .said { font-size:.84rem; line-height:1.4; }
.bars { display:flex; height:64px; gap:3px; position:relative; }
.bars::after { content:""; position:absolute; left:0; right:0; top:50%; border-top:1px solid var(--faint); opacity:.6; }
.bars i { flex:1; position:relative; }
.bars b { position:absolute; left:0; right:0; border-radius:2px; }
.bars .up { background:var(--fine); bottom:50%; } .bars .down { background:var(--coarse); top:50%; }
.right { color:var(--good); } .wrong { color:var(--bad); }
dl { display:grid; grid-template-columns:max-content 1fr; gap:4px 16px; margin:0; font-size:.92rem; }
dt { color:var(--faint); } dd { margin:0; overflow-wrap:anywhere; }
.chart { width:100%; height:auto; display:block; touch-action:manipulation; }
.chart .grid { stroke:var(--line); } .chart .axis { fill:var(--faint); font-size:12px; }
.chart .run { fill:none; stroke-width:1.8; opacity:.75; } .chart .bar { stroke-width:3; opacity:.8; }
.chart .run.base, .chart .bar.base { stroke:var(--base); }
.chart .run.elastic, .chart .bar.elastic { stroke:var(--elastic); }
.chart .dot.base { fill:var(--base); } .chart .dot.elastic { fill:var(--elastic); } .chart .dot { cursor:pointer; }
.chart .dot:focus { outline:2px solid var(--text); }
.picking .chart [data-seed]:not(.picked) { opacity:.12; } .chart .picked.run { stroke-width:3; opacity:1; }
.chart .picked.dot { stroke:var(--text); stroke-width:1; }
#tip { position:fixed; z-index:2; pointer-events:none; background:var(--text); color:var(--page); padding:4px 9px;
  border-radius:7px; font-size:.84rem; max-width:260px; display:none; }
.seeds { display:flex; flex-wrap:wrap; gap:6px; margin:0 0 .6em; align-items:center; font-size:.9rem; }
.seeds button { font:inherit; color:inherit; background:none; border:1px solid var(--line); border-radius:999px;
  padding:2px 12px; cursor:pointer; }
.seeds button[aria-pressed=true] { border-color:var(--elastic); color:var(--elastic); }
.button { display:inline-block; border:1px solid var(--elastic); color:var(--elastic); border-radius:999px;
  padding:6px 18px; text-decoration:none; font-weight:600; }
.button:hover { background:var(--elastic); color:var(--card); }
code { font-family:ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size:.92em; }
@media (max-width:560px) { h1 { font-size:1.5rem; } section { padding:16px 14px; } main { padding:16px 10px 40px; }
  .strip { grid-template-columns:1fr; } .strip .size { text-align:left; margin-top:4px; }
  .tiles { grid-template-columns:repeat(6, 1fr); }
  .tiles.photos { grid-template-columns:repeat(3, 1fr); gap:10px 8px; }
  .example img { width:88px; height:88px; } dl { grid-template-columns:1fr; } dd { margin-bottom:6px; }
  table { font-size:.82rem; } th, td { padding:6px 3px; white-space:normal; }
  td.long { overflow-wrap:anywhere; min-width:6.2em; }
  thead th { font-size:.7rem; }
  .pair table { font-size:.78rem; } .pair thead th { font-size:.66rem; } .pair th, .pair td { padding:6px 2px; }
  .tiles figcaption { font-size:.78rem; line-height:1.3; } }
@media print { section { break-inside:avoid; } }
"""

SCRIPT = """
(() => {
  const tip = document.getElementById("tip"), buttons = [...document.querySelectorAll(".seeds button")];
  let pinned = null;
  const pick = (seed) => {
    document.body.classList.toggle("picking", seed !== null);
    for (const mark of document.querySelectorAll(".chart [data-seed]"))
      mark.classList.toggle("picked", mark.dataset.seed === seed);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.pick === seed));
  };
  const pin = (seed) => { pinned = pinned === seed ? null : seed; pick(pinned); };
  const say = (mark, x, y) => {
    tip.textContent = mark.dataset.tip;
    tip.style.display = "block";
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = Math.max(4, y - tip.offsetHeight - 10) + "px";
  };
  const hush = () => { tip.style.display = "none"; pick(pinned); };
  for (const mark of document.querySelectorAll(".chart [data-tip], .chart [data-seed]")) {
    const seed = mark.dataset.seed ?? null;
    mark.addEventListener("pointerenter", (event) => {
      if (mark.dataset.tip) say(mark, event.clientX, event.clientY);
      if (seed !== null) pick(seed);
    });
    mark.addEventListener("pointerleave", hush);
    mark.addEventListener("focus", () => { const at = mark.getBoundingClientRect(); say(mark, at.x, at.y); });
    mark.addEventListener("blur", hush);
    if (seed !== null) mark.addEventListener("click", () => pin(seed));
  }
  for (const button of buttons) button.addEventListener("click", () => pin(button.dataset.pick));
})();
"""


def page(title: str, sections: Sequence[str], charts: bool = False) -> str:
    """A whole HTML document. charts: with the script that charts of `svg.py` answer to the pointer by."""
    script = f'<div id="tip" role="status"></div>\n<script>{SCRIPT}</script>\n' if charts else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + f"\n</main>\n{script}</body>\n</html>\n"
    )


def section(identity: str, heading: str, *content: str, kind: str = "") -> str:
    """A card with a heading and an id to link to."""
    return (
        f'<section id="{identity}" class="{kind}">\n<h2>{escape(heading)}</h2>\n' + "\n".join(content) + "\n</section>"
    )


def seed_buttons(seeds: Sequence[int]) -> str:
    """Buttons that pick the runs of one seed in all charts of the page."""
    found = "".join(f'<button type="button" data-pick="{seed}" aria-pressed="false">{seed}</button>' for seed in seeds)
    return f'<div class="seeds"><span>Follow one seed through all charts:</span>{found}</div>'


def figure(svg: str, caption: str) -> str:
    """A chart that is part of the page (`svg.py`)."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def data_uri(kind: str, content: bytes) -> str:
    """`content` within the page itself; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def chart(
    light: bytes, dark: bytes, alt: str, caption: str, kind: str = "image/svg+xml", widest: int | None = None
) -> str:
    """A chart that follows the page's colours. kind: the media type of both; widest: pixels that it is shown in."""
    limit = "" if widest is None else f' style="max-width:{widest}px"'
    return (
        f'<figure><picture><source srcset="{data_uri(kind, dark)}" media="(prefers-color-scheme: dark)">'
        f'<img src="{data_uri(kind, light)}" alt="{escape(alt)}"{limit}></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def picture(image: np.ndarray, alt: str) -> str:
    """An image (3, H, W) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "JPEG", quality=92, subsampling=0)
    return f'<img src="{data_uri("image/jpeg", buffer.getvalue())}" alt="{escape(alt)}" width="64" height="64">'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> str:
    """`kinds`: the class of each row's first cell. All text is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + _cell(row[0], kind) + "".join(_cell(cell) for cell in row[1:]) + "</tr>"
        for row, kind in zip(rows, kinds, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def breakable(text: str) -> str:
    """Escaped text that a narrow page breaks after `_`, `-` and `/`, as it does after a space."""
    return re.sub(r"(?<=[^\W_])([_/-]+)(?=\w)", r"\1<wbr>", escape(text))


def _cell(text: str, kind: str = "") -> str:
    """A cell of a table; `long` where a word of it is longer than a phone's column is wide."""
    longest = max(map(len, re.split(r"[\s_/-]+", text)))
    kinds = " ".join(filter(None, (kind, "long" if longest > LONGEST else "")))
    return f'<td class="{kinds}">{breakable(text)}</td>' if kinds else f"<td>{breakable(text)}</td>"


def paragraph(text: str, kind: str = "") -> str:
    """Escaped text."""
    return f'<p class="{kind}">{escape(text)}</p>'


def bars(values: np.ndarray, names: Sequence[str], limit: float = 3.0) -> str:
    """One bar a value around zero, cut at `limit`: up for positive, down for negative values."""
    parts = []
    for value, name in zip(values, names, strict=True):
        height = 50 * min(abs(float(value)), limit) / limit
        side = "up" if value > 0 else "down"
        parts.append(f'<i title="{escape(name)}: {value:+.2f}"><b class="{side}" style="height:{height:.1f}%"></b></i>')
    text = ", ".join(f"{name} {value:+.1f}" for name, value in zip(names, values, strict=True))
    return f'<div class="bars" role="img" aria-label="scale policy: {escape(text)}">{"".join(parts)}</div>'
