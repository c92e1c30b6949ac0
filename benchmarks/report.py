"""Results as tables and plots in the documents.

python -m benchmarks.report [RESULTS.json ...] [--page docs/benchmarks.md] [--images docs/images]
                            [--summary kernels/README.md]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, plots, records, tables
from benchmarks.update_readme import replace_block

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
GOALS_BEGIN, GOALS_END = "<!-- goals:begin -->", "<!-- goals:end -->"
Row = Mapping[str, Any]


def block(name: str, rows: Sequence[Row], images: Path, page: Path) -> list[str]:
    """Return the Markdown lines of one device, and draw its plots.

    Args:
        name: File name of the results without its ending.
        rows: Its rows, each with its origin.
        images: Folder of the plots.
        page: The page that the lines are for; plots are linked relative to it.
    """
    lines = [f"## {rows[0]['origin']['device']}", "", *_origins(rows), "", *_roofs(rows)]
    lines += _goals(rows)
    for kind, draw in (("forward", plots.forward), ("step", plots.step)):
        path = images / f"benchmarks-{name}-{kind}.png"
        if draw(rows, path):
            relative = Path("/".join([".."] * _depth(page, images)), images.name, path.name)
            lines += [f"![{ALT[kind]}]({relative.as_posix().removeprefix('./')})", ""]
    for section in tables.sections(rows):
        lines += tables.markdown(section)
    return lines


def summary(rows: Sequence[Row]) -> list[str]:
    """Return the Markdown lines of what a device's rows say about the goals."""
    return [*_origins(rows), "", *_goals(rows)]


def _origins(rows: Sequence[Row]) -> list[str]:
    lines = (f"* {tables.origin_line(r['origin'])}: `{r['origin']['command']}`" for r in rows)
    return list(dict.fromkeys(lines))


def _goals(rows: Sequence[Row]) -> list[str]:
    outcomes = goals.evaluate(rows)
    return tables.markdown(tables.goals_of(outcomes)) if outcomes else []


ALT = {
    "forward": "Useful GFLOP/s of the forward over the number of tokens, ours, peers and roof",
    "step": "Time and peak memory of a training step of masked attention for every provider",
}


def _depth(page: Path, images: Path) -> int:
    """Return how far above the page the parent of the images is."""
    return len(page.resolve().parent.relative_to(images.resolve().parent).parts)


def _roofs(rows: Sequence[Row]) -> list[str]:
    found = {row["dtype"]: row["roof"] for row in rows if "roof" in row}
    body = [
        [
            dtype,
            tables.number(roof["gflops"]),
            roof["product"],
            tables.number(roof["copy_gbytes"]),
            tables.number(roof["fill_gbytes"]),
        ]
        for dtype, roof in sorted(found.items())
    ]
    head = ["dtype", "GFLOP/s", "best product", "copy GB/s", "fill GB/s"]
    return tables.markdown(tables.Section("measured roof", head, body))


def main(words: Sequence[str] | None = None) -> int:
    """Rewrite the block of the page named on the command line."""
    parser = argparse.ArgumentParser(description="fill docs/benchmarks.md from results")
    parser.add_argument("results", nargs="*", type=Path, help="default: benchmarks/results/*.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--summary", type=Path, default=ROOT / "kernels" / "README.md")
    arguments = parser.parse_args(words)
    paths = arguments.results or sorted(records.RESULTS.glob("*.json"))
    if not paths:
        print(f"no results in {records.RESULTS}; run `make bench` first", file=sys.stderr)
        return 2
    try:
        lines: list[str] = []
        short: list[str] = []
        for path in paths:
            rows = records.load(path)
            lines += block(path.stem, rows, arguments.images, arguments.page)
            short += summary(rows)
        texts = {
            arguments.page: _filled(arguments.page, lines, BEGIN, END),
            arguments.summary: _filled(arguments.summary, short, GOALS_BEGIN, GOALS_END),
        }
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for place, text in texts.items():
        place.write_text(text, encoding="utf-8")
        print(f"rewrote {place}")
    return 0


def _filled(place: Path, lines: Sequence[str], begin: str, end: str) -> str:
    return replace_block(place.read_text(encoding="utf-8"), "\n".join(lines).rstrip(), begin, end)


if __name__ == "__main__":
    sys.exit(main())
