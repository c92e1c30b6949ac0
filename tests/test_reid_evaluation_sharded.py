"""Two processes give the result of one, bit for bit, whatever the shares hold."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from reid.errors import UserError
from reid.evaluation import Features, RankingResult, evaluate, evaluate_sharded, ranking

WORLD = 2
GALLERY = 23
# name: number of queries, options, queries that no gallery row matches, blocks per rank
CASES = {
    "odd": (7, {"chunk": 2, "max_rank": 9, "keep_top": 5}, [], [2, 2]),
    "ties": (9, {"chunk": 1, "ties": "pessimistic", "metric": "euclidean"}, [], [5, 4]),
    "skipped share": (7, {"chunk": 2}, [4, 5, 6], [2, 2]),
    "skipped first share": (7, {"chunk": 2}, [0, 1, 2, 3], [2, 2]),
    "fewer queries than ranks": (1, {}, [], [1, 1]),
    "fewer blocks than ranks": (7, {}, [], [1, 1]),
}


def features(queries: int, unmatched: list[int]) -> tuple[Features, Features]:
    generator = torch.Generator().manual_seed(queries)
    vectors = torch.randn(queries, 33, generator=generator)
    others = torch.randn(GALLERY, 33, generator=generator)
    # neighbours of different identities at one distance
    others[1::2] = others[:-1:2]
    pids = np.arange(queries) % 4 + 1
    pids[unmatched] = 99
    query = Features(vectors, pids, np.zeros(queries, dtype=np.int64))
    rows = np.arange(GALLERY)
    return query, Features(others, rows % 6 - 1, rows // 6 % 3)


def flatten(result: RankingResult) -> dict[str, np.ndarray]:
    table = result.per_query
    flat = {field.name: np.asarray(getattr(result, field.name)) for field in fields(result)}
    del flat["per_query"]
    return flat | {f"each {field.name}": getattr(table, field.name) for field in fields(table)}


def worker(rank: int, file: str, out: str) -> None:
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=WORLD)
    ranked: list[int] = []
    rank_block = ranking._rank_block

    def counted(*arguments):
        ranked.append(arguments[3])
        return rank_block(*arguments)

    ranking._rank_block = counted
    for name, (queries, options, unmatched, _) in CASES.items():
        ranked.clear()
        result = evaluate_sharded(*features(queries, unmatched), **options)
        np.savez(f"{out}/{name} {rank}.npz", blocks=len(ranked), **flatten(result))
    messages = []
    for unmatched, options in ([0, 1, 2, 3, 4], {"chunk": 2}), ([], {"chunk": 0}):
        with pytest.raises(UserError) as error:
            evaluate_sharded(*features(5, unmatched), **options)
        messages.append(str(error.value))
    Path(f"{out}/errors {rank}.txt").write_text("\n".join(messages), encoding="utf-8")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they returned."""
    out = tmp_path_factory.mktemp("sharded")
    mp.spawn(worker, (str(out / "store"), str(out)), nprocs=WORLD)
    return out


@pytest.mark.parametrize("name", CASES)
def test_every_rank_returns_the_result_of_one_process(results: Path, name: str) -> None:
    queries, options, unmatched, blocks = CASES[name]
    whole = flatten(evaluate(*features(queries, unmatched), **options))
    assert whole["skipped"] == len(unmatched)
    assert whole["tied"] > 0
    for rank in range(WORLD):
        with np.load(results / f"{name} {rank}.npz") as shared:
            assert shared["blocks"] == blocks[rank]
            assert set(shared.files) == {*whole, "blocks"}
            for key, value in whole.items():
                assert shared[key].dtype == value.dtype, key
                assert shared[key].shape == value.shape, key
                assert shared[key].tobytes() == value.tobytes(), key


def test_errors_are_raised_on_every_rank(results: Path) -> None:
    for rank in range(WORLD):
        lines = (results / f"errors {rank}.txt").read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("no query has a match")
        assert lines[1] == "chunk must be at least 1, got 0"


def test_one_process_is_evaluate() -> None:
    query, gallery = features(7, [2])
    one = flatten(evaluate_sharded(query, gallery, chunk=2))
    for key, value in flatten(evaluate(query, gallery, chunk=2)).items():
        assert one[key].tobytes() == value.tobytes(), key
