"""Rows as tables, for the terminal and for documents."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.goal import Outcome
from benchmarks.parts import OTHER

Row = Mapping[str, Any]


class Section(NamedTuple):
    """A table; the columns of words are aligned at the left."""

    title: str
    head: list[str]
    body: list[list[str]]
    words: tuple[int, ...] = (0,)


def markdown(section: Section) -> list[str]:
    """Return the lines of a Markdown table under its title."""
    marks = ["---" if i in section.words else "---:" for i in range(len(section.head))]
    return [
        f"### {section.title}",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (section.head, marks, *section.body)),
        "",
    ]


def text(section: Section) -> list[str]:
    """Return the lines of an aligned table."""
    lines = [section.head, *section.body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(section.head))]
    return [
        "  ".join(
            cell.ljust(width) if column in section.words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def sections(rows: Iterable[Row]) -> list[Section]:
    """Return, for every operator and mode, ours and the best peer, then every peer's ratio;
    then pairs of models, whole models with their products and parts, whole tasks, ways of reading
    and the peers that were not timed."""
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    rows = list(rows)
    for row in rows:
        if row["status"] not in ("pair", "task", "way", "model"):
            grouped[row["op"], row["mode"]].append(row)
    found = []
    for (op, mode), members in grouped.items():
        found += [_summary(f"{op}, {mode}", members), _against(f"{op}, {mode}", members)]
    found += [
        pairs_of(rows),
        *models_of(rows),
        products_of(rows),
        parts_of(rows),
        tasks_of(rows),
        *ways_of(rows),
        _absent(rows),
    ]
    return [section for section in found if section.body]


def _lines(rows: Iterable[Row]) -> dict[str, list[Row]]:
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        lines[f"{row['label']} {row['dtype']}"].append(row)
    return lines


def _summary(title: str, rows: list[Row]) -> Section:
    head = ["shape", "ours ms", "p20 to p80", "GFLOP/s", "GB/s", "roof %", "peak MB", "host us"]
    head += ["best peer", "its ms", "its MB", "ratio hot", "ratio cold"]
    body = []
    for label, line in _lines(rows).items():
        state = _primary(line)
        ours = _of(line, "ours", state)
        if ours is None:
            continue
        peers = [r for r in line if r.get("cache") == state and _rival(r)]
        best = min(peers, key=lambda r: r["p50_ms"], default=None)
        ratios = [_ratio(_of(line, "ours", cache)) for cache in ("hot", "cold")]
        body.append(
            [
                label,
                number(ours["p50_ms"]),
                f"{number(ours['p20_ms'])} to {number(ours['p80_ms'])}",
                number(ours["gflops"]) if ours["gflops"] else "-",
                number(ours["gbytes"]),
                f"{100 * ours['roof_share']:.0f}",
                number(ours["peak_bytes"] / 1e6),
                "-" if ours["host_us"] is None else f"{ours['host_us']:.0f}",
                best["provider"] if best else "none",
                number(best["p50_ms"]) if best else "-",
                number(best["peak_bytes"] / 1e6) if best else "-",
                *ratios,
            ]
        )
    return Section(f"{title}: ours and the best peer", head, body, (0, 8))


def _against(title: str, rows: list[Row]) -> Section:
    names = [n for n in dict.fromkeys(r["provider"] for r in rows if r["status"] == "ok")]
    names = [name for name in names if name != "ours"]
    body = []
    for label, line in _lines(rows).items():
        state = _primary(line)
        ours = _of(line, "ours", state)
        if ours is None:
            continue
        cells = []
        for name in names:
            peer = _of(line, name, state)
            wrong = any(r["provider"] == name and r["status"] == "wrong" for r in line)
            cells.append(
                f"{peer['p50_ms'] / ours['p50_ms']:.2f}" if peer else "wrong" if wrong else "-"
            )
        body.append([label, *cells])
    return Section(f"{title}: time of each as a multiple of ours", ["shape", *names], body)


def _absent(rows: Iterable[Row]) -> Section:
    found: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row["status"] in ("wrong", "unavailable"):
            key = (row["op"], row["provider"], row["status"], row["reason"].replace("|", "/"))
            found[key].add(row["mode"])
    body = [
        [provider, op, ", ".join(sorted(modes)), status, reason]
        for (op, provider, status, reason), modes in found.items()
    ]
    return Section(
        "not timed", ["peer", "operator", "modes", "status", "reason"], body, (0, 1, 2, 3, 4)
    )


def pairs_of(rows: Iterable[Row]) -> Section:
    """Return the table of pairs of models."""
    body = [
        [
            row["label"],
            row["rival"],
            number(row["rival_ms"]),
            row["provider"],
            number(row["p50_ms"]),
            f"{row['ratio']:.2f}",
        ]
        for row in rows
        if row["status"] == "pair"
    ]
    return Section("models", ["case", "rival", "ms", "measured", "ms", "ratio"], body, (0, 1, 3))


def tasks_of(rows: Iterable[Row]) -> Section:
    """Return the table of whole tasks, each contender in a process of its own."""
    body = [
        [
            f"{row['op']}, {row['mode']}",
            row["label"],
            row["provider"],
            number(row["seconds"]),
            number(row["peak_bytes"] / 1e6),
            f"{row['ratio']:.2f}",
            "measured" if row["scaled"] == 1 else f"scaled by {number(row['scaled'])}",
        ]
        for row in rows
        if row["status"] == "task"
    ]
    head = ["task", "case", "by", "seconds", "peak MB", "ratio to ours", "how"]
    return Section("whole tasks, each in a process of its own", head, body, (0, 1, 2, 6))


def models_of(rows: Iterable[Row]) -> list[Section]:
    """Return a table for every case of whole models, everybody against the first."""
    grouped: dict[tuple[str, str, float], list[list[str]]] = defaultdict(list)
    for row in rows:
        if row["status"] != "model":
            continue
        overlap = row["overlap"]
        grouped[row["label"], row["dtype"], row["roof_gflops"]].append(
            [
                row["provider"],
                number(row["p50_ms"]),
                number(row["images_per_second"]),
                f"{row['ratio']:.2f}",
                number(row["flops"] / 1e9),
                f"{100 * row['roof_share']:.0f}",
                f"{row['ratio'] / row['roof_share']:.2f}",
                f"{row['cosine']:.6f}" if row["cosine"] else "-",
                _overlap(overlap) if overlap else "-",
            ]
        )
    head = ["model", "ms", "img/s", "ratio", "GFLOP", "roof %", "ratio at the roof"]
    head += ["cosine", "same tokens %"]
    return [
        Section(f"{label}, {dtype}; best product {number(roof)} GFLOP/s", head, body)
        for (label, dtype, roof), body in grouped.items()
    ]


def _overlap(shares: Sequence[float]) -> str:
    """Return the share of every stage; of many, the least."""
    percent = [f"{100 * share:.1f}" for share in shares]
    return " ".join(percent) if len(percent) <= 4 else f"{100 * min(shares):.1f} or more"


def products_of(rows: Iterable[Row]) -> Section:
    """Return the best matrix product of each library, for every case of whole models."""
    cases = {
        f"{row['label']}, {row['dtype']}": row["products"] for row in rows if row.get("products")
    }
    body = []
    for case, rates in cases.items():
        best = [
            max((rate for name, rate in rates.items() if name.startswith(library)), default=0.0)
            for library in ("torch", "packed oneDNN")
        ]
        ratio = f"{best[0] / best[1]:.2f}" if best[1] else "-"
        body.append([case, *(number(rate) if rate else "-" for rate in best), ratio])
    head = ["case", "torch GFLOP/s", "packed oneDNN GFLOP/s", "torch over packed"]
    return Section("the best matrix product of each library", head, body)


def parts_of(rows: Iterable[Row]) -> Section:
    """Return where the time of engines goes, in percent."""
    found = [row for row in rows if row["status"] == "model" and row.get("shares")]
    totals: dict[str, float] = defaultdict(float)
    for row in found:
        for name, share in row["shares"].items():
            totals[name] += share
    names = sorted(totals, key=lambda name: (name == OTHER, -totals[name]))
    body = [
        [
            f"{row['label']}, {row['dtype']}",
            row["provider"],
            *(f"{100 * row['shares'].get(name, 0.0):.0f}" for name in names),
        ]
        for row in found
    ]
    return Section("parts of the time, %", ["case", "model", *names], body, (0, 1))


def ways_of(rows: Iterable[Row]) -> list[Section]:
    """Return a table for every case: each way with time, rate, memory and speed."""
    grouped: dict[tuple[str, str, str], list[list[str]]] = defaultdict(list)
    for row in rows:
        if row["status"] != "way":
            continue
        peak = row["peak_bytes"]
        grouped[row["op"], row["mode"], row["label"]].append(
            [
                row["provider"],
                number(row["p50_ms"] / 1e3),
                number(row["cpu_seconds"]),
                f"{number(row['rate'])} {row['unit']}/s",
                "-" if peak is None else number(peak / 1e6),
                f"{row['ratio']:.2f}",
            ]
        )
    head = ["way", "seconds", "core seconds", "rate", "peak MB", "times as fast as the first"]
    return [Section(", ".join(key), head, body) for key, body in grouped.items()]


def goals_of(outcomes: Iterable[Outcome]) -> Section:
    """Return the table of goals, each with its worst case."""
    body = []
    for outcome in outcomes:
        goal = outcome.goal
        sign = ">=" if goal.at_least else "<="
        stretch = "" if goal.stretch is None else f" ({goal.stretch:g})"
        measured = outcome.cases > 0
        low, high = goal.tokens
        body.append(
            [
                goal.name,
                ", ".join(name.removesuffix("_attention") for name in goal.ops),
                ", ".join(goal.dtypes),
                f"{low} to {high}" if low != high else str(low),
                f"{sign} {goal.bound:g}{stretch}",
                f"{outcome.worst:.2f}" if measured else "-",
                outcome.where if measured else "-",
                str(outcome.cases),
                outcome.verdict,
            ]
        )
    head = ["goal", "operators", "dtypes", "tokens", "bound (stretch)", "worst", "at", "cases", ""]
    return Section("goals; the worst case decides", head, body, (0, 1, 2, 6, 8))


def origin_line(origin: Mapping[str, Any]) -> str:
    """Return device, versions, date and revision in one line."""
    versions = origin["versions"]
    gpu = origin.get("gpu")
    extra = f", CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}" if gpu else ""
    load = origin.get("load_average")
    if load is not None and load > origin["threads"] + 0.5:
        extra += f", other programs running (load {load:.1f})"
    return (
        f"{origin['device']}, {origin['threads']} threads, torch {versions['torch']}, "
        f"triton {versions['triton']}, timm {versions['timm']}{extra}, {origin['date'][:10]}, "
        f"revision {origin['git_revision'][:18]}"
    )


def number(value: float) -> str:
    """Return three significant digits without an exponent."""
    if value >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def _primary(line: Sequence[Row]) -> str:
    """Return the cache that the tables show: cold on a GPU, hot on a CPU."""
    return "cold" if line[0]["device_type"] == "cuda" else "hot"


def _of(line: Sequence[Row], provider: str, cache: str) -> Row | None:
    return next((r for r in line if r["provider"] == provider and r.get("cache") == cache), None)


def _rival(row: Row) -> bool:
    return not {"own", "yardstick"} & set(row["tags"])


def _ratio(row: Row | None) -> str:
    ratio = row["ratio_to_best_peer"] if row else None
    return "-" if ratio is None else f"{ratio:.2f}"
