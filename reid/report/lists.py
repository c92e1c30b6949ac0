"""Ranked lists as part of a page: thumbnails in frames, leaf by leaf, without a script."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from reid.evaluation.result import RankedItem, RankingResult
from reid.report.style import STATUS_COLOURS

MOST_EXAMPLES = 24
_PER_LEAF = 6
_SIGNS = {"right": "\u2713", "wrong": "\u2717"}
_SEED = 0

# the n-th radio button shows the n-th leaf; three choices of queries at most
_CHOSEN = "".join(
    f".pages > input:nth-of-type({n}):checked ~ .leaf:nth-of-type({n}) {{ display: block; }}\n"
    for n in range(1, 3 * -(-MOST_EXAMPLES // _PER_LEAF) + 1)
)

CSS = f"""
.pages > input {{ position: absolute; opacity: 0; width: 1px; height: 1px; }}
.pages > label {{ display: inline-block; margin: 0 6px 10px 0; padding: 3px 12px; font-size: 15px;
  border: 1px solid var(--rule); border-radius: 999px; cursor: pointer; color: var(--link); }}
.pages > input:checked + label {{ color: #fff; background: var(--link);
  border-color: var(--link); }}
.pages > input:focus-visible + label {{ outline: 3px solid #e69f00; outline-offset: 1px; }}
.leaf {{ display: none; }}
{_CHOSEN}.leaf h3 {{ font-size: 17px; margin: 6px 0 2px; }}
.list {{ margin: 14px 0 18px; }}
.list > p {{ margin: 0 0 6px; font-size: 15px; max-width: none; }}
.list ol {{ list-style: none; margin: 0; padding: 0 0 2px; display: grid; gap: 7px;
  grid-template-columns: repeat(11, minmax(74px, 1fr)); overflow-x: auto; }}
.shot {{ font-size: 12px; line-height: 1.35; color: var(--muted); min-width: 0; }}
.shot .box {{ display: flex; align-items: center; justify-content: center; height: 146px;
  overflow: hidden; background: var(--wash); border: 3px solid var(--ink); border-radius: 3px; }}
.shot img {{ display: block; width: 100%; height: 100%; object-fit: contain; }}
.shot .none {{ padding: 4px; font-size: 11px; overflow-wrap: anywhere; text-align: center; }}
.shot b {{ display: block; color: var(--ink); }}
.shot span {{ overflow-wrap: anywhere; }}
.shot.query .box {{ border-width: 1px; margin-right: 6px; }}
.shot.right .box {{ border-color: {STATUS_COLOURS["right"]}; }}
.shot.right b {{ color: {STATUS_COLOURS["right"]}; }}
.shot.wrong .box {{ border: 3px dashed {STATUS_COLOURS["wrong"]}; }}
.shot.wrong b {{ color: {STATUS_COLOURS["wrong"]}; }}
.shot.junk .box {{ border: 3px dotted {STATUS_COLOURS["junk"]}; }}
.shot.junk img {{ filter: grayscale(1); opacity: 0.5; }}
@media (max-width: 720px) {{ .shot .box {{ height: 120px; }} }}
@media print {{ .leaf {{ display: block !important; }} .pages > label {{ display: none; }}
  .list {{ break-inside: avoid; }} .list ol {{ grid-template-columns: repeat(11, 1fr); gap: 4px; }}
  .shot .box {{ height: 112px; }} }}
"""


@dataclass(frozen=True)
class Choice:
    """Queries chosen by a rule.

    Attributes:
        title: Name of the rule.
        note: The rule in words.
        queries: Rows of the query set, in the order shown.
    """

    title: str
    note: str
    queries: list[int]


def hardest_first(result: RankingResult) -> list[int]:
    """Return the counted queries, lowest AP first, then the latest first match, then the row."""
    table = result.per_query
    valid = np.flatnonzero(table.valid)
    order = np.lexsort((valid, -table.first_rank[valid], table.ap[valid]))
    return [int(query) for query in valid[order]]


def choose(result: RankingResult, count: int = 12) -> list[Choice]:
    """Choose queries to show by rules, none by eye.

    Args:
        result: An evaluation.
        count: Queries of each choice.

    Returns:
        The hardest, random ones and the easiest; all queries at once where there are few.
    """
    order = hardest_first(result)
    if len(order) <= count:
        return [Choice("All", "All counted queries, lowest average precision first.", order)]
    rng = np.random.default_rng(_SEED)
    drawn = sorted(int(query) for query in rng.choice(order, size=count, replace=False))
    table = result.per_query
    best = sorted(order, key=lambda query: (-table.ap[query], -table.matches[query], query))
    return [
        Choice("Hardest", "Lowest average precision first, then the latest first match.",
               order[:count]),
        Choice("Random", f"Drawn at random (seed {_SEED}) from the counted queries: what is usual.",
               drawn),
        Choice("Easiest", "Highest average precision first, then the most matches.", best[:count]),
    ]  # fmt: skip


def ranked_lists(
    result: RankingResult,
    choices: Sequence[Choice],
    query_names: Sequence[str],
    gallery_names: Sequence[str],
    query_picture: Callable[[int], str | None],
    gallery_picture: Callable[[int], str | None],
    *,
    k: int = 10,
    distractor_pid: int | None = 0,
) -> str:
    """Return the ranked lists of some queries as leaves of which one is seen at a time.

    Args:
        result: Evaluation that kept at least `k` rows per query, or the whole gallery.
        choices: Queries to show.
        query_names: (Q) what to call a query image.
        gallery_names: (G) what to call a gallery image.
        query_picture: Row of the query set -> data URI of a picture, or None.
        gallery_picture: The same for the gallery.
        k: Gallery images per query, junk included.
        distractor_pid: Identity that marks distractors.

    Returns:
        HTML; printed, all leaves are shown.
    """
    page = _Lists(
        result, (query_names, gallery_names), (query_picture, gallery_picture), k, distractor_pid
    )
    leaves = []
    for choice in choices:
        starts = range(0, len(choice.queries), _PER_LEAF)
        for start in starts:
            part = choice.queries[start : start + _PER_LEAF]
            span = f" {start + 1}-{start + len(part)}" if len(starts) > 1 else ""
            leaves.append((choice.title + span, choice.note, part))
    handles, bodies = [], []
    for number, (title, note, queries) in enumerate(leaves, 1):
        chosen = " checked" if number == 1 else ""
        handles.append(
            f'<input type="radio" name="leaf" id="leaf-{number}"{chosen}>'
            f'<label for="leaf-{number}">{escape(title)}</label>'
        )
        bodies.append(
            f'<div class="leaf"><h3>{escape(title)}</h3><p class="note">{escape(note)}</p>'
            f"{''.join(page.one(query) for query in queries)}</div>"
        )
    return f'<div class="pages">{"".join(handles)}{"".join(bodies)}</div>'


def who(pid: int, distractor_pid: int | None) -> str:
    """Return what to call an identity of the gallery."""
    if pid == -1:
        return "no id"
    return "distractor" if pid == distractor_pid else f"id {pid}"


@dataclass(frozen=True)
class _Lists:
    """Writes the ranked list of one query at a time."""

    result: RankingResult
    names: tuple[Sequence[str], Sequence[str]]
    pictures: tuple[Callable[[int], str | None], Callable[[int], str | None]]
    k: int
    distractor_pid: int | None

    def one(self, query: int) -> str:
        result, table = self.result, self.result.per_query
        pid, camera = int(result.query_pids[query]), int(result.query_camids[query])
        count, name = int(table.matches[query]), self.names[0][query]
        words = (
            f"identity {pid}, camera {camera}. AP {table.ap[query]:.2f}%, first match at place "
            f"{int(table.first_rank[query]):,}, {count:,} match{'es' if count != 1 else ''}."
        )
        box = _box(self.pictures[0](query), name, f"query {name}, identity {pid}, camera {camera}")
        shots = [_shot("query", box, "query", [f"id {pid}", f"cam {camera}"])]
        kept = min(self.k, result.top_indices.shape[1])
        shots += [self._gallery(item) for item in result.top(query, kept)]
        return (
            f'<div class="list"><p>Query <code>{escape(name)}</code>, {escape(words)}</p>'
            f"<ol>{''.join(shots)}</ol></div>"
        )

    def _gallery(self, item: RankedItem) -> str:
        row, name = item.gallery, self.names[1][item.gallery]
        camera = int(self.result.gallery_camids[row])
        person = who(int(self.result.gallery_pids[row]), self.distractor_pid)
        place = "junk" if item.status == "junk" else f"{item.rank} {_SIGNS[item.status]}"
        alt = (
            f"gallery {name}, {person}, camera {camera}, {item.status}, distance "
            f"{item.distance:.4f}"
        )
        box = _box(self.pictures[1](row), name, alt)
        return _shot(item.status, box, place, [f"{item.distance:.4f}", person, f"cam {camera}"])


def _box(picture: str | None, name: str, alt: str) -> str:
    if picture is None:
        return f'<span class="none" title="{escape(alt)}">{escape(name)}</span>'
    return f'<img src="{picture}" alt="{escape(alt)}" title="{escape(alt)}">'


def _shot(style: str, box: str, heading: str, words: Sequence[str]) -> str:
    lines = "<br>".join(escape(word) for word in words)
    return (
        f'<li class="shot {style}"><div class="box">{box}</div>'
        f"<b>{escape(heading)}</b><span>{lines}</span></li>"
    )
