"""HTML of the report page: one self-contained file, no script, no outside reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

STYLE = """
:root { --ink:#1d2126; --soft:#5c6670; --paper:#f6f7f8; --card:#fff; --line:#dfe3e7; --accent:#1f6fb4; color-scheme:light dark }
@media (prefers-color-scheme:dark) {
  :root { --ink:#e8eaed; --soft:#9aa4ae; --paper:#15181b; --card:#1e2226; --line:#32383e; --accent:#6db3ef }
}
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink); font:15px/1.55 system-ui,"Segoe UI",Roboto,Helvetica,sans-serif }
main { max-width:1240px; margin:0 auto; padding:36px 24px 72px }
h1 { font-size:30px; font-weight:650; letter-spacing:-.02em; margin:0; overflow-wrap:anywhere }
h2 { font-size:19px; font-weight:620; margin:46px 0 4px }
p { margin:0 0 14px; color:var(--soft); max-width:78ch }
.cards { display:flex; flex-wrap:wrap; gap:12px; margin:22px 0 8px }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:10px 16px; min-width:130px }
.card b { display:block; font-size:20px; font-weight:620; font-variant-numeric:tabular-nums }
.card span { color:var(--soft); font-size:13px }
.grid { display:grid; gap:12px; align-items:start }
figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:10px; overflow:hidden }
figure img { display:block; width:100%; height:auto }
figcaption { padding:7px 11px 8px; font-size:13px; line-height:1.4 }
figcaption i { font-style:normal; color:var(--soft) }
.check { background:repeating-conic-gradient(#0001 0 25%,#0000 0 50%) 0 0/16px 16px }
table { border-collapse:collapse; font-size:14px; width:100%; background:var(--card); border:1px solid var(--line) }
td, th { text-align:left; padding:5px 12px; border-bottom:1px solid var(--line); font-weight:400; vertical-align:top }
td.number { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; width:6em }
td.bar { width:45% } td.bar div { background:var(--accent); height:9px; border-radius:5px; margin-top:7px; min-width:2px }
details { margin-top:14px } summary { cursor:pointer; font-weight:560; padding:6px 0 }
code { font:13px ui-monospace,Consolas,monospace }
@media (max-width:760px) { .grid { grid-template-columns:repeat(2,minmax(0,1fr)) !important } }
"""


@dataclass(frozen=True)
class Figure:
    """source: data URI; title: caption; note: smaller words after it."""

    source: str
    title: str
    note: str = ""

    def html(self) -> str:
        note = f" <i>{escape(self.note)}</i>" if self.note else ""
        alternative = escape(self.title, quote=True)
        caption = f"<figcaption>{escape(self.title)}{note}</figcaption>"
        return f'<figure><img src="{self.source}" alt="{alternative}">{caption}</figure>'


def section(title: str, text: str, *parts: str) -> str:
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{''.join(parts)}</section>\n"


def grid(figures: Iterable[Figure], columns: int) -> str:
    """Figures side by side, all columns of one width."""
    inside = "".join(figure.html() for figure in figures)
    return f'<div class="grid" style="grid-template-columns:repeat({columns},minmax(0,1fr));margin-bottom:12px">{inside}</div>'


def cards(numbers: Mapping[str, str]) -> str:
    """Headline numbers: label to value."""
    inside = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for label, value in numbers.items()
    )
    return f'<div class="cards">{inside}</div>'


def bars(seconds: Mapping[str, float]) -> str:
    """A table of durations with bars in proportion."""
    longest = max(seconds.values(), default=0.0) or 1.0
    rows = "".join(
        f'<tr><th>{escape(name)}</th><td class="number">{value:.2f} s</td>'
        f'<td class="bar"><div style="width:{100 * value / longest:.1f}%"></div></td></tr>'
        for name, value in seconds.items()
    )
    return f"<table>{rows}</table>"


def table(rows: Mapping[str, object], summary: str) -> str:
    """Names and values, folded away under a summary line."""
    lines = "".join(
        f"<tr><th><code>{escape(str(k))}</code></th><td><code>{escape(str(v))}</code></td></tr>"
        for k, v in rows.items()
    )
    return f"<details><summary>{escape(summary)}</summary><table>{lines}</table></details>"


def page(title: str, body: str) -> bytes:
    """A whole page; `body` is trusted HTML made by the functions above."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    ).encode()
