"""Several processes: gathered gradients, and shards whose padding is not counted."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from reid.cli import main
from reid.config import load_config
from reid.engine import distributed
from reid.run import train

WORLD = 2


def loss_of(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Couples every row with every other, as hard mining and batch statistics do."""
    centred = (features - features.mean(0)) / features.std(0)
    return ((centred @ centred.T) * (labels[:, None] == labels)).tanh().sum()


def worker(rank: int, file: str, x: torch.Tensor, weight: torch.Tensor, out: str) -> None:
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=WORLD)
    local = x.chunk(WORLD)[rank]
    linear = torch.nn.Linear(*weight.T.shape, bias=False, dtype=torch.float64)
    linear.weight.data.copy_(weight)
    model = torch.nn.parallel.DistributedDataParallel(linear)
    features = distributed.gather(model(local))
    labels = distributed.gather(torch.arange(len(x)).chunk(WORLD)[rank] % 3)
    loss_of(features, labels).backward()
    rows = torch.arange(7.0).reshape(7, 1)
    start, stop, length = distributed.shard_range(7)
    padded = torch.full((length, 1), -1.0)
    padded[: stop - start] = rows[start:stop]
    collected = distributed.gather_shards(padded, 7)
    torch.save([linear.weight.grad, collected], f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_gathered_gradients_and_shards(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 5, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    mp.spawn(worker, (str(tmp_path / "store"), x, weight, str(tmp_path)), nprocs=WORLD)
    whole = weight.clone().requires_grad_()
    loss_of(x @ whole.T, torch.arange(8) % 3).backward()
    for rank in range(WORLD):
        grad, collected = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(grad, whole.grad, rtol=1e-12, atol=1e-12)
        assert collected.flatten().tolist() == list(range(7))


@pytest.mark.parametrize(("total", "world"), [(7, 2), (6, 2), (1, 4), (5, 4), (0, 3)])
def test_shards_cover_every_row_once(monkeypatch, total: int, world: int) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    rows: list[int] = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        start, stop, length = distributed.shard_range(total)
        assert stop - start <= length
        rows += range(start, stop)
    assert rows == list(range(total))


def test_extraction_on_two_processes_equals_one(tiny_overrides, tiny_data, tmp_path) -> None:
    overrides = [*tiny_overrides, "loss.kd_feature=0", "loss.kd_logits=0", "train.max_steps=1"]
    train(load_config("demo", overrides), tmp_path / "run", evaluate_after=False)
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((Path(tiny_data) / "query").glob("*.jpg"))[:13]:
        (folder / path.name).write_bytes(path.read_bytes())
    arguments = [
        "extract",
        "--checkpoint",
        str(tmp_path / "run" / "model.safetensors"),
        "--images",
        str(folder),
        "--out",
    ]
    assert main([*arguments, str(tmp_path / "one.npz")]) == 0
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "reid",
            *arguments,
            str(tmp_path / "two.npz"),
        ],
        check=True,
        timeout=300,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert len(one["features"]) == 13
        assert one["names"].tolist() == two["names"].tolist()
        # other batch sizes round differently; the features have unit length
        rounding = 1e3 * np.finfo(np.float32).eps
        np.testing.assert_allclose(one["features"], two["features"], rtol=0, atol=rounding)
