"""The frame of every report: one HTML file with its styles and pictures inside.

It reads at 420 px and in print, light or dark as the reader prefers, and fetches nothing.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence

from poyo_edge.reports.words import explained

REPORT_HTML = "report.html"

_LIGHT = """
--paper: #ffffff; --ink: #1b1f24; --quiet: #57606a; --line: #d5dae0; --soft: #f4f6f8;
--good: #0a6b3d; --bad: #b42318;
--s0: #c2410c; --s1: #2563eb; --s2: #047857; --s3: #7c3aed; --s4: #6b7280; --s5: #be185d;
"""
_DARK = """
--paper: #14171b; --ink: #e8eaed; --quiet: #a4adb8; --line: #39414b; --soft: #1d2228;
--good: #5fd39b; --bad: #ff8a7a;
--s0: #ff9a57; --s1: #7fb0ff; --s2: #4fd1a1; --s3: #c3a6ff; --s4: #a4adb8; --s5: #ff8fc0;
"""
_STYLE = (
    f":root {{ color-scheme: light dark; {_LIGHT} }}"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}"
    f"@media print {{ :root {{ color-scheme: light; {_LIGHT} }} }}"
    """
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 68rem; margin: 0 auto; padding: 1.2rem 1rem 3rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .3rem 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; padding-top: .9rem;
     border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead { font-size: 1.05rem; } .quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
nav { font-size: .92rem; margin: .6rem 0; } nav a { color: inherit; display: block; }
.pictures { display: grid; gap: 1rem 1.6rem; margin: .8rem 0;
            grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
figure { margin: 0; max-width: 30rem; break-inside: avoid; }
figure > strong { display: block; font-size: .95rem; margin-bottom: .2rem; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
.key { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .2rem 0 0; padding: 0;
       list-style: none; font-size: .88rem; }
.key svg { display: inline-block; width: 30px; height: 12px; margin-right: .3rem; }
table { border-collapse: collapse; margin: .6rem 0 .9rem; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0;
         border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; } thead .n { white-space: normal; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl.words { margin: .5rem 0 1rem; padding: .6rem .9rem; background: var(--soft);
           border-left: 3px solid var(--line); font-size: .9rem; max-width: 46rem; }
dl.words dt { font-weight: 600; } dl.words dd { margin: 0 0 .45rem; }
dl.words dd:last-child { margin-bottom: 0; }
.pairs th { font-weight: 500; color: var(--quiet); width: 13rem; }
@media (max-width: 640px) {
  td, th { overflow-wrap: anywhere; }
  .rows thead { position: absolute; left: -9999px; }
  .rows tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .rows td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0;
             text-align: right; white-space: normal; }
  .rows td::before { content: attr(data-head); color: var(--quiet); text-align: left; }
  .rows, .rows tbody { display: block; width: 100%; max-width: 26rem; }
  .rows td:first-child { font-weight: 600; text-align: left; }
  .rows td:first-child::before { content: none; }
  .pairs th, .pairs td { display: block; width: auto; padding: .1rem 0; }
  .pairs th { border: 0; }
}
@media print {
  body { font-size: 10.5pt; max-width: none; padding: 0; } h2 { break-after: avoid; }
  tr, dl.words > div { break-inside: avoid; } nav { display: none; }
  .pictures { grid-template-columns: repeat(2, 1fr); }
}
"""
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One question, what the answer is, and what it rests on."""

    question: str
    answer: str = ""
    """A sentence or two in plain text."""
    body: str = ""
    """HTML that this module or ``chart`` made."""
    words: Sequence[str] = ()
    """Keys of ``words.WORDS`` that stand in it: they are explained here."""


def page(title: str, lead: str, sections: Iterable[Section]) -> str:
    """The whole file.

    Args:
        title: what the report is of.
        lead: the result, in a sentence of plain text.
        sections: in the order in which a reader asks.
    """
    parts = list(sections)
    links = "".join(
        f'<a href="#q{i}">{html.escape(part.question)}</a>' for i, part in enumerate(parts)
    )
    body = "".join(_section(i, part) for i, part in enumerate(parts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>'
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def _section(number: int, part: Section) -> str:
    answer = f"<p>{html.escape(part.answer)}</p>" if part.answer else ""
    words = _words(part.words)
    return (
        f'<section id="q{number}"><h2>{html.escape(part.question)}</h2>{answer}{part.body}{words}'
        f"</section>"
    )


def _words(names: Sequence[str]) -> str:
    if not names:
        return ""
    entries = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(explained(name))}</dd></div>"
        for name in names
    )
    return f'<dl class="words">{entries}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text; ``kind`` is "quiet", "good" or "bad"."""
    marked = f' class="{kind}"' if kind else ""
    return f"<p{marked}>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """Of a part within a section."""
    return f"<h3>{html.escape(text)}</h3>"


def bullets(items: Sequence[str]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>" if items else ""


def pairs(values: Mapping[str, object]) -> str:
    """Names and what they are; lists have a line for each, and what is empty is "none"."""
    rows = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{_cell(value)}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="pairs">{rows}</table>'


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def small(value: float) -> str:
    """A number that may be very small, as people write it."""
    digits, _, power = f"{value:.1e}".partition("e")
    if value == 0 or -3 <= int(power) <= 3:
        return f"{value:.3g}"
    return f"{digits}\u00a0×\u00a010{str(int(power)).translate(_RAISED)}"


def rows(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table whose rows become cards on a narrow screen; all but the first column are numbers."""
    top = "".join(
        f"<th scope=col{_number(i)}>{html.escape(one)}</th>" for i, one in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td{_number(i)} data-head="{html.escape(name, quote=True)}">{_cell(value)}</td>'
            for i, (name, value) in enumerate(zip(head, line, strict=True))
        )
        + "</tr>"
        for line in lines
    )
    return f'<table class="rows"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A cell that says whether something holds."""

    text: str
    good: bool


def _number(column: int) -> str:
    return ' class="n"' if column else ""


def _cell(value: object) -> str:
    if isinstance(value, Mark):
        return f'<span class="{"good" if value.good else "bad"}">{html.escape(value.text)}</span>'
    if isinstance(value, (list, tuple)):
        return "<br>".join(html.escape(str(item)) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return html.escape(str(value)) if value not in ("", None) else "–"
