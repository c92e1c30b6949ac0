"""One HTML page that needs nothing else: pictures inside, no scripts, no other files."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_CSS = """
:root { --ink: #1f2328; --muted: #5f6670; --rule: #dfe3e8; --wash: #f6f7f9; --link: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 56px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 10px; letter-spacing: -0.01em; }
h2 { font-size: 22px; line-height: 1.3; margin: 52px 0 12px; padding-top: 22px;
  border-top: 1px solid var(--rule); }
p { margin: 0 0 12px; max-width: 76ch; }
.lead { color: var(--muted); }
code { font: 0.88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: var(--wash); padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
dl.findings { margin: 0; display: grid; grid-template-columns: 13em 1fr; gap: 10px 24px; }
dl.findings dt { font-weight: 600; }
dl.findings dd { margin: 0; max-width: 68ch; }
.scroll { overflow-x: auto; margin: 8px 0 10px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid var(--ink); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td { white-space: nowrap; }
th.wrap, td.wrap { text-align: left; white-space: normal; overflow-wrap: break-word; }
table.close td { padding-top: 3px; padding-bottom: 3px; }
td small { display: block; color: var(--muted); font-size: 13px; }
tr.quiet td { color: var(--muted); }
tr.group td { border-top: 2px solid var(--rule); }
table.plain td, table.plain th { text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
table.plain td:first-child { width: 15em; color: var(--muted); }
figure { margin: 14px 0 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption, .note { color: var(--muted); font-size: 15px; max-width: 84ch; margin-top: 8px; }
footer { font-size: 15px; }
@media (max-width: 720px) {
  main { padding: 24px 16px 40px; }
  h1 { font-size: 26px; }
  h2 { margin-top: 36px; }
  dl.findings { grid-template-columns: 1fr; gap: 2px; }
  dl.findings dd { margin-bottom: 12px; }
  table { font-size: 13.5px; }
  th, td { padding: 6px 7px; }
  td.wrap { min-width: 15em; }
  table.close td.wrap { min-width: 8em; }
  figure .scroll img { max-width: none; width: 760px; }
}
@media print {
  body { font-size: 13px; }
  main { max-width: none; padding: 0; }
  table { font-size: 11.5px; }
  h2, figure, tr, dt, dd { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  figure img { max-height: 230mm; }
}
"""


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: What it says.
        small: A second, smaller line; empty for none.
        strong: Bold.
        wrap: Left-aligned words that may break over lines.
    """

    text: str
    small: str = ""
    strong: bool = False
    wrap: bool = False


@dataclass(frozen=True)
class Line:
    """A table line.

    Attributes:
        cells: One per column; a string is a plain cell.
        style: Class names: `quiet` greys the line, `group` rules it off from the one above.
    """

    cells: Sequence[Cell | str]
    style: str = ""


def table(
    head: Sequence[Cell | str], lines: Sequence[Line], *, plain: bool = False, close: bool = False
) -> str:
    """Return a table; every text is escaped.

    Args:
        head: Column headings; none for a table without head.
        lines: Its lines.
        plain: Left-aligned words instead of numbers.
        close: Lines closer to each other, for long tables.
    """
    styles = " ".join(name for name, wanted in (("plain", plain), ("close", close)) if wanted)
    opening = f'<table class="{styles}">' if styles else "<table>"
    parts = [f'<div class="scroll">{opening}']
    if head:
        parts.append("<thead><tr>" + "".join(_cell(cell, "th") for cell in head))
        parts.append("</tr></thead>")
    parts.append("<tbody>")
    for line in lines:
        style = f' class="{escape(line.style)}"' if line.style else ""
        parts.append(f"<tr{style}>" + "".join(_cell(cell) for cell in line.cells) + "</tr>")
    parts.append("</tbody></table></div>")
    return "".join(parts)


def settings_table(values: dict[str, Any]) -> str:
    """Return a two-column table of names and values; nested dictionaries are flattened."""
    lines = [Line([name, text]) for name, text in _flatten("", values)]
    return table([], lines, plain=True)


def picture(png: bytes, alt: str, caption: str) -> str:
    """Return a figure with the PNG inside the page.

    Args:
        png: The picture.
        alt: What it shows, for those who cannot see it.
        caption: What one sees and how to read it.
    """
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><div class="scroll"><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
        f"</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def section(title: str, *bodies: str) -> str:
    """Return a heading with what belongs below it; the bodies are HTML already."""
    return f"<section><h2>{escape(title)}</h2>{''.join(bodies)}</section>"


def paragraph(words: str, style: str = "") -> str:
    """Return an escaped paragraph."""
    return f'<p class="{escape(style)}">{escape(words)}</p>' if style else f"<p>{escape(words)}</p>"


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Return a list of headings with their text."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in pairs)
    return f'<dl class="findings">{items}</dl>'


def page(title: str, header: str, sections: Sequence[str], footer: str, *, style: str = "") -> str:
    """Return the whole page; all arguments but the title are HTML already.

    Args:
        title: Heading and title of the page.
        header: What stands below the heading.
        sections: As `section` returns them.
        footer: What stands at the end.
        style: CSS of what only this page holds.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}{style}</style></head>\n<body><main>"
        f"<header><h1>{escape(title)}</h1>{header}</header>\n"
        + "\n".join(sections)
        + f"\n<footer>{footer}</footer></main></body></html>\n"
    )


def _cell(cell: Cell | str, tag: str = "td") -> str:
    if isinstance(cell, str):
        return f"<{tag}>{escape(cell)}</{tag}>"
    words = f"<strong>{escape(cell.text)}</strong>" if cell.strong else escape(cell.text)
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    style = ' class="wrap"' if cell.wrap else ""
    return f"<{tag}{style}>{words}{small}</{tag}>"


def _flatten(prefix: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            found += _flatten(f"{path}.", value)
        else:
            found.append((path, str(value)))
    return found
