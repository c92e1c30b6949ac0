"""A reproduced table of the paper beside the paper's own figures: Markdown, HTML and JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid.errors import UserError
from reid.report import html
from reid.report.paper import PAPER_TABLES, PaperRow, PaperTable
from reid.report.style import write_atomic

_PAPER_EPOCHS = 200
_INIT = {
    "pretrained": "ImageNet weights, as the paper",
    "scratch": "from random weights with AdamW, unlike the paper, which starts from ImageNet",
    "mini": "the small backbone that comes with the package, unlike the paper's DeiT-S and ViT-B "
    "from ImageNet weights",
}
_REQUIRED = ("table", "data", "generated", "epochs", "init", "rows")


def write_table(record: Mapping[str, Any], out_dir: str | os.PathLike[str]) -> str:
    """Write `<table>.md`, `<table>.html` and `<table>.json` with our rows beside the paper's.

    Args:
        record: `table` (table1 to table7), `data` (name), `generated` (bool), `epochs`, `init`
            and `rows`; each row has `name`, `label`, `rank1`, `mAP` in percent and, where
            measured, `images_per_second`, `rank1_interval` and `mAP_interval`. `counts`,
            `optimiser`, `seed`, `device`, `date`, `git_revision`, `command` and `versions` are
            printed when present.
        out_dir: Folder; made when missing.

    Returns:
        The Markdown.

    Raises:
        UserError: An unknown table or a record that lacks a field.
    """
    missing = [name for name in _REQUIRED if name not in record]
    if missing:
        raise UserError(f"the record lacks {', '.join(missing)}; a table needs {_REQUIRED}")
    name = record["table"]
    if name not in PAPER_TABLES:
        raise UserError(f"unknown table {name!r}; choose one of {', '.join(PAPER_TABLES)}")
    paper = PAPER_TABLES[name]
    head, lines = side_by_side(paper, record["rows"])
    title = f"Table {paper.number}: {paper.title}"
    statements = caveats(paper, record)
    origin = _origin(record)
    markdown = _markdown(title, statements, head, lines, origin)
    folder = Path(out_dir)
    write_atomic(folder / f"{name}.md", markdown)
    write_atomic(folder / f"{name}.html", _page(title, statements, head, lines, origin))
    payload = {
        "title": title,
        "statements": statements,
        "columns": head,
        "lines": lines,
        "paper": {
            "data": paper.data,
            "columns": paper.columns,
            "rows": [{"key": r.key, "label": r.label, "values": r.values} for r in paper.rows],
        },
        "record": dict(record),
    }
    write_atomic(folder / f"{name}.json", json.dumps(payload, indent=2) + "\n")
    return markdown


def side_by_side(
    paper: PaperTable, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Return the heading and the lines: the paper's rows with ours beside, then only-ours.

    Args:
        paper: The printed table.
        rows: Our rows.
    """
    ours = {row["name"]: row for row in rows}
    timed = any(row.get("images_per_second") for row in rows)
    paper_dense = next((row for row in paper.rows if row.key == "dense"), None)
    ratio = paper.speed is not None and paper_dense is not None and timed and "dense" in ours
    head = ["row", *(f"paper: {column}" for column in paper.columns)]
    if ratio:
        head.append("paper: ratio")
    head += ["here: rank-1", "here: mAP"]
    head += ["here: img/s"] if timed else []
    head += ["here: ratio"] if ratio else []

    def line(label: str, printed: PaperRow | None, own: Mapping[str, Any] | None) -> list[str]:
        cells = [label]
        values = printed.values if printed else (None,) * len(paper.columns)
        for index, value in enumerate(values):
            cells.append(_number(value, digits=0 if index == paper.speed else 1))
        if ratio:
            cells.append(_ratio(printed, paper_dense, paper.speed))
        cells += [_score(own, "rank1"), _score(own, "mAP")]
        rate = own.get("images_per_second") if own else None
        cells += [_number(rate, digits=0)] if timed else []
        if ratio:
            dense = ours["dense"].get("images_per_second")
            cells.append(_number(rate / dense if rate and dense else None, digits=2))
        return cells

    printed_keys = {row.key for row in paper.rows if row.key}
    lines = [line(row.label, row, ours.get(row.key) if row.key else None) for row in paper.rows]
    lines += [
        line(f"{row['label']} (only here)", None, row)
        for row in rows
        if row["name"] not in printed_keys
    ]
    return head, lines


def caveats(paper: PaperTable, record: Mapping[str, Any]) -> list[str]:
    """Return what must be said before the figures are read."""
    data, epochs, init = str(record["data"]), record["epochs"], str(record["init"])
    if record["generated"]:
        found = [
            f"The rows marked here are on {data}: drawn figures, generated by this package. The "
            f"paper's are on {paper.data}. The two are NOT comparable as numbers; at most the "
            "order of the rows and the ratios of speed are."
        ]
    elif "".join(c for c in data.lower() if c.isalnum()) in paper.aliases:
        found = [f"Both are on {paper.data}; here the folder was read as {data}."]
    else:
        found = [
            f"The rows marked here are on {data}, the paper's on {paper.data}: other images, so "
            "the numbers are not comparable."
        ]
    counts = record.get("counts")
    if counts:
        sizes = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        found.append(f"Images here: {sizes}.")
    length = "epoch" if epochs == 1 else "epochs"
    same = (
        "as the paper"
        if epochs == _PAPER_EPOCHS and not record.get("max_steps")
        else f"the paper trains {_PAPER_EPOCHS}"
    )
    steps = record.get("max_steps")
    span = f"{steps} steps" if steps else f"{epochs} {length}"
    found.append(f"Every row here is trained for {span} ({same}).")
    found.append(f"Students here start from: {_INIT.get(init, f'the weights in {init}')}.")
    if paper.speed is not None:
        found.append(
            "The paper measures img/s on an RTX 2080 Ti with batches of 32; only ratios compare "
            "across devices."
        )
    if paper.note:
        found.append(f"About the paper's table: {paper.note}")
    return found


def _origin(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("command", "optimiser", "seed", "device", "date", "git_revision", "versions")
    return {name.replace("_", " "): record[name] for name in names if record.get(name) is not None}


def _markdown(
    title: str,
    statements: Sequence[str],
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    origin: Mapping[str, Any],
) -> str:
    def join(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    parts = [f"# {title}", ""]
    parts += [f"- {statement}" for statement in statements]
    parts += ["", join(head), "|" + "---|" + "---:|" * (len(head) - 1)]
    parts += [join(line) for line in lines]
    parts += ["", "Rank-1 and mAP in percent; in brackets the 95% bootstrap interval over queries."]
    for name, value in origin.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        parts.append(f"{name}: `{value}`  ")
    return "\n".join(parts).rstrip() + "\n"


def _page(
    title: str,
    statements: Sequence[str],
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    origin: Mapping[str, Any],
) -> str:
    words = "".join(html.paragraph(statement) for statement in statements)
    note = html.paragraph(
        "Rank-1 and mAP in percent; in brackets the 95% bootstrap interval over queries.", "note"
    )
    table = html.table(list(head), [html.Line(list(line)) for line in lines])
    return html.page(title, words, [html.section("Side by side", table, note)],
                     html.settings_table(dict(origin)))  # fmt: skip


def _number(value: float | None, *, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _score(row: Mapping[str, Any] | None, name: str) -> str:
    if row is None or row.get(name) is None:
        return "-"
    interval = row.get(f"{name}_interval")
    span = f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
    return f"{row[name]:.1f}{span}"


def _ratio(printed: PaperRow | None, dense: PaperRow | None, speed: int | None) -> str:
    if printed is None or dense is None or speed is None:
        return "-"
    rate, base = printed.values[speed], dense.values[speed]
    return "-" if rate is None or base is None else f"{rate / base:.2f}"
