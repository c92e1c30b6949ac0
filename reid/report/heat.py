"""A table whose cells are shaded by their value: numbers first, colour as a help."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

CSS = """
.beside { display: flex; flex-wrap: wrap; gap: 14px 44px; }
table.heat { width: auto; font-size: 14px; border-collapse: separate; border-spacing: 2px; }
table.heat th, table.heat td, table.heat th:first-child { border: 0; text-align: center;
  padding: 5px 7px; vertical-align: middle; font-weight: 600; }
table.heat td { min-width: 46px; border-radius: 3px; font-weight: 400;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
table.heat td small { color: inherit; font-size: 11px; opacity: 0.85; }
table.heat td.void { color: var(--muted); background: var(--wash); }
table.heat th[scope=row] { text-align: right; white-space: nowrap; }
table.heat caption { text-align: left; font-weight: 600; padding: 0 0 6px; }
table.heat.dense { font-size: 12px; }
table.heat.dense td { min-width: 34px; padding: 4px 3px; }
@media print { table.heat { font-size: 11px; break-inside: avoid; } .beside { gap: 10px 24px; } }
"""

# from almost white to a dark blue, light enough in between for dark ink
_STOPS = np.array([[247, 251, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]])
_LIGHT_INK_FROM = 0.62
_DENSE_FROM = 11


def heat_table(
    title: str,
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    corner: str,
    void: str = "-",
) -> str:
    """Return a table of percentages, each with the count it stands on below it.

    Args:
        title: What the numbers are.
        values: (R, C) percent; NaN where there is nothing to show.
        counts: (R, C) what stands in small figures.
        rows: (R) names.
        columns: (C) names.
        corner: What rows and columns are.
        void: What an empty cell says.
    """
    style = "heat dense" if len(columns) >= _DENSE_FROM else "heat"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    parts = [
        f'<div class="scroll"><table class="{style}"><caption>{escape(title)}</caption>',
        f"<thead><tr><th>{escape(corner)}</th>{head}</tr></thead><tbody>",
    ]
    for name, line, numbers in zip(rows, values, counts, strict=True):
        cells = "".join(_cell(v, int(n), void) for v, n in zip(line, numbers, strict=True))
        parts.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    parts.append("</tbody></table></div>")
    return "".join(parts)


def _cell(value: float, count: int, void: str) -> str:
    if not np.isfinite(value):
        return f'<td class="void">{escape(void)}</td>'
    share = float(np.clip(value / 100.0, 0.0, 1.0))
    place = share * (len(_STOPS) - 1)
    channels = [np.interp(place, np.arange(len(_STOPS)), _STOPS[:, c]) for c in range(3)]
    ground = "#" + "".join(f"{round(float(channel)):02x}" for channel in channels)
    ink = "#fff" if share >= _LIGHT_INK_FROM else "#1f2328"
    return f'<td style="background:{ground};color:{ink}">{value:.1f}<small>{count:,}</small></td>'
