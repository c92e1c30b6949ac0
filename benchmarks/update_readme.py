"""Rewrite the results block of the README from what `reid demo` measured.

python benchmarks/update_readme.py [--results runs/demo/results.json] [--readme README.md]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
ROOT = Path(__file__).parent.parent
BASELINES = {
    "chance": "chance",
    "colour_histogram": "colour histogram",
    "untrained": "untrained network",
    "backbone": "backbone before training",
}
DIFFERENCES = (
    ("teacher - dense", "teacher over dense student"),
    ("hts - dense", "+ HTS over dense student"),
    ("hts+npkd - hts", "+ NPKD over + HTS"),
    ("hts+npkd+noda - hts+npkd", "+ NODA over + NPKD"),
    ("hts+npkd+noda - dense", "whole method over dense student"),
)


def table(results: dict[str, Any]) -> str:
    """Return the block in Markdown: rows, baselines, paired differences and their origin.

    Args:
        results: Content of a results.json that `reid demo` wrote.

    Raises:
        ValueError: It is of a smoke run.
    """
    if "--quick" in results["command"]:
        raise ValueError(
            "these results are of `reid demo --quick`, whose scores mean nothing; run `make demo`"
        )
    lines = [
        "| | patch tokens | img/s | ratio | rank-1 | mAP |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in results["rows"]:
        tokens = " > ".join(str(count) for count in row["tokens"])
        lines.append(
            f"| {row['label']} | {tokens} | {row['images_per_second']:.0f} | "
            f"{row['speedup']:.2f} | {row['rank1']:.1f} | {row['mAP']:.1f} |"
        )
    for name, label in BASELINES.items():
        row = results["baselines"][name]
        lines.append(f"| *{label}* | | | | {row['rank1']:.1f} | {row['mAP']:.1f} |")
    lines += ["", "mAP over the same queries, difference and 95 % interval (paired bootstrap):", ""]
    for key, label in DIFFERENCES:
        found = results["differences"][key]["mAP"]
        lines.append(
            f"* {label}: {found['estimate']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
        )
    config, versions = results["config"], results["versions"]
    queries = results["rows"][0]["queries"]
    revision, _, changed = results["git_revision"].partition("-")
    changed = " with changes" if changed else ""
    origins = {row["trained"]["git_revision"][:10] for row in results["rows"] if "trained" in row}
    trained = f", rows trained at {', '.join(sorted(origins))}" if origins else ""
    lines += [
        "",
        f"`{results['command']}`: data set {config['data']['name']}, {queries} queries, "
        f"{config['train']['max_steps']} steps for every row, seed {results['seed']}; "
        f"{results['minutes_of_training']:.0f} minutes of training on {results['device']}, "
        f"{results['threads']} threads, "
        f"torch {versions['torch']}, {results['date'][:10]}, revision "
        f"{revision[:10]}{changed}{trained}. Images per second: float32, batch 32, medians of runs "
        "that take turns.",
    ]
    return "\n".join(lines)


def replace_block(text: str, block: str, begin: str = BEGIN, end: str = END) -> str:
    """Return `text` with what stands between the two marks replaced.

    Raises:
        ValueError: The marks are not there exactly once, in order.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected {begin} and then {end}, once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Rewrite the file named on the command line."""
    parser = argparse.ArgumentParser(description="fill the README's results block")
    parser.add_argument("--results", type=Path, default=ROOT / "runs/demo/results.json")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args()
    if not arguments.results.is_file():
        print(f"{arguments.results} does not exist; run `make demo` first", file=sys.stderr)
        return 2
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    try:
        text = arguments.readme.read_text(encoding="utf-8")
        text = replace_block(text, table(results))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    arguments.readme.write_text(text, encoding="utf-8")
    print(f"rewrote {arguments.readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
