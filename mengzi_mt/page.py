"""Pages: the look that HTML pages share, and text that is safe in them. One file each, nothing loaded from outside.

Pages have no script, but for those that say so: theirs is allowed by its hash, and no other runs.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from typing import Any

NOTHING = "—"


def escape(value: Any) -> str:
    """Any value as text that is safe between tags and inside quoted attributes; None is a dash, a list is joined with slashes."""
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return " / ".join(escape(item) for item in value)
    return html.escape(str(value), quote=True)


def chinese(value: Any) -> str:
    """An escaped text marked as Chinese, so that browsers choose Chinese glyph forms for it."""
    return f'<span lang="zh-Hans">{escape(value)}</span>'


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is missing or not a finite number."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def count(value: Any) -> str:
    """A whole number with thousands separators."""
    known = finite(value)
    return NOTHING if known is None else f"{known:,.0f}"


def embedded_json(name: str, value: Any) -> str:
    """A value as JSON in the page, for its script: ``JSON.parse(document.getElementById(name).textContent)``.

    No text in it can end the element; a lone surrogate becomes its escape.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text.encode("utf-8", "backslashreplace").decode()}</script>'


def policy(script: str = "", connect: bool = False) -> str:
    """What a page may load and run: its own style, its own script, and where ``connect`` is set, answers of its own server."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}'" if script else ""
    return f"default-src 'none'; style-src 'unsafe-inline'{allowed}" + ("; connect-src 'self'" if connect else "")


def document(title: str, style: str, body: str, language: str = "en", script: str = "", connect: bool = False) -> str:
    """A whole page: wide and narrow screens, light and dark.

    Args:
        title: the page's title, as text.
        style: rules beyond the shared ones.
        body: HTML.
        language: of the page, for ``lang``.
        script: the page's own, the only one that may run.
        connect: whether it may ask the server that it came from.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing in the file may load or run, whatever a dataset's text contains.
        '<meta http-equiv="Content-Security-Policy" '
        f'content="{policy(script, connect)}">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLESHEET}{style}</style>\n</head>\n<body>\n{body}\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


STYLESHEET = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --panel: #ffffff; --ink: #1f2328; --soft: #5f6872; --line: #dfe2e6;
  --accent: 43 98 150; --accent-ink: #1f5587; --on-accent: #ffffff; --gold: #a3abb4; --majority: #b06a12;
  --warn-paper: #fff4dc; --warn-line: #d9a441; --warn-ink: #6b4705;
  --loud-paper: #b3401f; --loud-ink: #ffffff; --right: #2c7a4b; --wrong: #b3401f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --panel: #1b1f24; --ink: #e3e6ea; --soft: #9aa4af; --line: #30363d;
    --accent: 110 170 226; --accent-ink: #8fc0ee; --on-accent: #0d1621; --gold: #6d7783; --majority: #e0a458;
    --warn-paper: #33290f; --warn-line: #8f6d1f; --warn-ink: #f0d492;
    --loud-paper: #a23b1d; --right: #6cc492; --wrong: #f0906f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Micro Hei", sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
h4 { font-size: .8rem; font-weight: 600; color: var(--soft); margin: 1.25rem 0 .4rem; }
p { margin: .4rem 0; }
a { color: var(--accent-ink); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin-top: 2.75rem; }
section.task { border-top: 1px solid var(--line); padding-top: 1.5rem; }
code, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK SC",
  monospace; font-size: .9em; }
.soft { color: var(--soft); }
.small { font-size: .85rem; }
.banner { background: var(--loud-paper); color: var(--loud-ink); padding: .9rem 1.1rem; border-radius: 6px; margin: 0 0 1.25rem; }
.banner strong { display: block; font-size: 1.1rem; }
.caution { background: var(--warn-paper); color: var(--warn-ink); border-left: 4px solid var(--warn-line);
  border-radius: 0 6px 6px 0; padding: .6rem .9rem; margin: .9rem 0; overflow-wrap: anywhere; }
.caution ul { margin: .2rem 0 0; padding-left: 1.2rem; }
.caution a { color: inherit; text-decoration: underline; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1px; margin: 1.25rem 0 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.facts div { background: var(--panel); padding: .7rem .9rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-size: 1.05rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.facts .lead dd { font-size: 1.5rem; font-weight: 600; line-height: 1.3; }
.pill { display: inline-block; border: 1px solid var(--line); border-radius: 1em; padding: 0 .6em; font-size: .78rem;
  color: var(--soft); white-space: nowrap; vertical-align: .1em; }
.pill.warn { background: var(--warn-paper); border-color: var(--warn-line); color: var(--warn-ink); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 600; font-size: .8rem; color: var(--soft); text-align: left; vertical-align: bottom; }
th, td { padding: .4rem .6rem; }
table.wide { width: 100%; }
table.wide td, table.wide th { border-bottom: 1px solid var(--line); }
table.wide td { vertical-align: top; }
table.wide th:first-child, table.wide td:first-child { padding-left: 0; }
.n { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; }
td.name .soft { display: block; font-size: .85rem; }
svg { display: block; }
svg .axis { stroke: var(--line); stroke-width: 1; }
details { border: 1px solid var(--line); border-radius: 6px; background: var(--panel); margin: .6rem 0; }
summary { cursor: pointer; padding: .5rem .9rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
details > .inside { padding: 0 .9rem .9rem; }
details.more { border: 0; background: none; margin: .2rem 0 0; }
details.more > summary { padding: .2rem 0; font-size: .85rem; color: var(--accent-ink); }
table.bars { width: 100%; font-size: .85rem; }
table.bars td, table.bars th { padding: .1rem .4rem; }
table.bars th:first-child { padding-left: 0; }
table.bars td:first-child { padding-left: 0; max-width: 9rem; overflow-wrap: anywhere; }
table.bars td.bar { width: 55%; }
table.bars svg { width: 100%; height: .85rem; }
.scroll { overflow-x: auto; }
dl.plain { display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: .2rem 1.2rem;
  margin: 0; font-size: .92rem; }
dl.plain dt { color: var(--soft); }
dl.plain dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 3rem; }
@media (max-width: 56rem) {
  body { padding: 1.2rem 1rem 3rem; }
  table.wide, table.wide tbody { display: block; }
  table.wide thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.wide tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .35rem .8rem; padding: .8rem 0;
    border-bottom: 1px solid var(--line); }
  table.wide td { display: block; border: 0; padding: 0; text-align: left; white-space: normal; max-width: none; }
  table.wide td[data-label]::before { content: attr(data-label); display: block; font-size: .75rem; font-weight: 400;
    color: var(--soft); }
  table.wide td.name, table.wide td.full { grid-column: 1 / -1; }
  table.wide td.full { order: 1; }
  table.wide td.full:empty, table.wide td.spare { display: none; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .facts .lead { grid-column: 1 / -1; }
}
@media print {
  body { max-width: none; padding: 0; }
}
"""
