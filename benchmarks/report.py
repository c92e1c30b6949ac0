"""Results as tables and plots in the documents.

python -m benchmarks.report [RESULTS.json ...] [--page docs/benchmarks.md] [--images docs/images]
                            [--summary kernels/README.md] [--models docs/models.md]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, model_page, plots, records, tables
from benchmarks.task_goals import task_goals
from benchmarks.update_readme import replace_block

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
GOALS_BEGIN, GOALS_END = "<!-- goals:begin -->", "<!-- goals:end -->"
MODELS_BEGIN, MODELS_END = "<!-- models:begin -->", "<!-- models:end -->"
Row = Mapping[str, Any]


def block(name: str, rows: Sequence[Row], images: Path, page: Path) -> list[str]:
    """Return the Markdown lines of one device, and draw its plots.

    Args:
        name: File name of the results without its ending.
        rows: Its rows, each with its origin.
        images: Folder of the plots.
        page: The page that the lines are for; plots are linked relative to it.
    """
    rows = [row for row in rows if not model_page.belongs(row)]
    if not rows:
        return []
    lines = [f"## {rows[0]['origin']['device']}", "", *origins(rows), "", *_roofs(rows)]
    lines += _goals(rows, (*goals.GOALS, *task_goals()))
    for kind, draw in (("forward", plots.forward), ("step", plots.step)):
        path = images / f"benchmarks-{name}-{kind}.png"
        if draw(rows, path):
            lines += [f"![{ALT[kind]}]({link(page, images, path.name)})", ""]
    for section in tables.sections(rows):
        lines += tables.markdown(section)
    return lines


def summary(rows: Sequence[Row]) -> list[str]:
    """Return the Markdown lines of what a device's rows say about the goals."""
    rows = [row for row in rows if not model_page.belongs(row)]
    return [*origins(rows), "", *_goals(rows, goals.GOALS)] if rows else []


def models(name: str, rows: Sequence[Row], images: Path, page: Path) -> list[str]:
    """Return the Markdown lines of a device's whole models, and draw their plot; as `block`."""
    rows = [row for row in rows if model_page.belongs(row)]
    if not rows:
        return []
    lines = [f"## {rows[0]['origin']['device']}", "", *origins(rows), ""]
    path = images / f"models-{name}.png"
    if model_page.plot(rows, path):
        lines += [f"![{model_page.ALT}]({link(page, images, path.name)})", ""]
    return [*lines, *model_page.lines(rows)]


def origins(rows: Sequence[Row]) -> list[str]:
    """Return where rows come from, one line each."""
    lines = (f"* {tables.origin_line(r['origin'])}: `{r['origin']['command']}`" for r in rows)
    return list(dict.fromkeys(lines))


def _goals(rows: Sequence[Row], aims: Sequence[goals.Goal]) -> list[str]:
    outcomes = goals.evaluate(rows, aims)
    return tables.markdown(tables.goals_of(outcomes)) if outcomes else []


ALT = {
    "forward": "Useful GFLOP/s of the forward over the number of tokens, ours, peers and roof",
    "step": "Time and peak memory of a training step of masked attention for every provider",
}


def link(page: Path, images: Path, name: str) -> str:
    """Return an image relative to the page, below whose folder or beside which the images lie."""
    depth = len(page.resolve().parent.relative_to(images.resolve().parent).parts)
    relative = Path("/".join([".."] * depth), images.name, name)
    return relative.as_posix().removeprefix("./")


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
    """Rewrite the blocks of the pages named on the command line."""
    parser = argparse.ArgumentParser(description="fill the documents from results")
    parser.add_argument("results", nargs="*", type=Path, help="default: benchmarks/results/*.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--summary", type=Path, default=ROOT / "kernels" / "README.md")
    parser.add_argument("--models", type=Path, default=ROOT / "docs" / "models.md")
    arguments = parser.parse_args(words)
    paths = arguments.results or sorted(records.RESULTS.glob("*.json"))
    if not paths:
        print(f"no results in {records.RESULTS}; run `make bench` first", file=sys.stderr)
        return 2
    try:
        lines: list[str] = []
        short: list[str] = []
        whole: list[str] = []
        for path in paths:
            rows = records.load(path)
            lines += block(path.stem, rows, arguments.images, arguments.page)
            short += summary(rows)
            whole += models(path.stem, rows, arguments.images, arguments.models)
        texts = {
            arguments.page: _filled(arguments.page, lines, BEGIN, END),
            arguments.summary: _filled(arguments.summary, short, GOALS_BEGIN, GOALS_END),
            arguments.models: _filled(arguments.models, whole, MODELS_BEGIN, MODELS_END),
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
