"""Batches of a training epoch: files decoded each time, images in memory, images in a cache.

The images are generated, JPEGs of 128 x 64 as Market-1501's, and trained on at 256 x 128. Every way
gives batches of 16 identities with 4 images each, flipped, padded, cropped, normalised and erased.
The step of the smallest backbone stands beside them: what an epoch takes when input costs nothing.
"""

import gc
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from benchmarks import plain_loader, pss
from benchmarks.records import way_row
from benchmarks.timing import elapsed
from reid.config import RunConfig, load_config, replace
from reid.data.mannequins import render_many, training_specs
from reid.data.records import Record
from reid.methods import build_task
from reid.methods.person_batches import PersonBatches

WORKERS = 2
FILE_SIZE = (128, 64)
ROUNDS = 3
PLAIN, MEMORY, CACHE = "Pillow in a DataLoader", "ours, in memory", "ours, from the cache"
STEP = "training steps of the smallest backbone, input not counted"


@pytest.fixture
def images(tmp_path: Path, tiny: bool) -> list[Record]:
    """JPEG files of generated people."""
    from PIL import Image

    identities, each = (8, 4) if tiny else (96, 12)
    drawn = render_many(training_specs(identities, each), WORKERS, image_size=FILE_SIZE)
    records = []
    for number, pixels in enumerate(drawn.images):
        path = tmp_path / f"{number:05}.jpg"
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path, quality=90)
        records.append(Record(str(path), int(drawn.pids[number]), int(drawn.camids[number])))
    return records


@pytest.fixture
def config(tiny: bool) -> RunConfig:
    """Batches of 64 images of 256 x 128, and the smallest backbone."""
    people, size = (4, "[64,32]") if tiny else (16, "[256,128]")
    words = ["method=supervised", "model.sparse=false", "model.backbone=mini", "model.init=scratch"]
    words += ["augment.random_patch=0", f"data.image_size={size}"]
    words += [f"train.identities={people}", "train.instances=4"]
    return load_config(None, words)


class Cost(NamedTuple):
    """Seconds on the wall, and of all cores together, children included."""

    wall: float
    cores: float


def cost_of(call: Callable[[], Any], device: torch.device) -> Cost:
    """Measure a call."""
    before = sum(os.times()[:4])
    wall = elapsed(call, device)
    return Cost(wall, sum(os.times()[:4]) - before)


def epoch_of(batches: PersonBatches, epoch: int = 1) -> None:
    """Read the batches of an epoch."""
    for index in range(len(batches)):
        batches(epoch, index)


@pytest.mark.benchmark(group="input of a training epoch")
def test_epoch(
    benchmark: Any,
    keep_rows: Callable[[list[Any]], None],
    images: list[Record],
    config: RunConfig,
    device: torch.device,
    tmp_path: Path,
) -> None:
    built = replace(config, data__cache=str(tmp_path / "cache"))
    order = PersonBatches(images, built, device).sampler.epoch(1).tolist()
    count = len(order) * len(order[0])

    def plain() -> None:
        size = config.data.image_size
        for pixels, *_ in plain_loader.batches(images, size, order, WORKERS):
            pixels.to(device)

    def start(settings: RunConfig) -> None:
        epoch_of(PersonBatches(images, settings, device), 0)

    found = later_epochs(benchmark, plain, images, (config, built), device)
    gc.collect()
    new = replace(config, data__cache=str(tmp_path / "new"))
    found[f"{MEMORY}, first epoch with decoding"] = cost_of(lambda: start(config), device)
    found[f"{CACHE}, first epoch with decoding"] = cost_of(lambda: start(new), device)
    found[f"{CACHE}, first epoch of another run"] = cost_of(lambda: start(new), device)
    gc.collect()
    peaks = {
        PLAIN: pss.peak_bytes(plain),
        MEMORY: pss.peak_bytes(lambda: start(config)),
        CACHE: pss.peak_bytes(lambda: start(new)),
    }
    found[STEP] = steps_of_a_model(images, config, count, device)
    keep_rows(
        [
            way_row(
                op="loading",
                mode="epoch",
                label=f"{count} images of {'x'.join(map(str, config.data.image_size))}",
                provider=name,
                seconds=cost.wall,
                cpu_seconds=cost.cores,
                items=count,
                unit="img",
                peak_bytes=peaks.get(name),
                ratio=found[PLAIN].wall / cost.wall,
                device_type=device.type,
            )
            for name, cost in found.items()
        ]
    )


def later_epochs(
    benchmark: Any,
    plain: Callable[[], None],
    images: list[Record],
    configs: tuple[RunConfig, RunConfig],
    device: torch.device,
) -> dict[str, Cost]:
    """Cost of an epoch after the first, each way in turn; the median of the rounds."""
    memory, mapped = (PersonBatches(images, config, device) for config in configs)
    calls = {PLAIN: plain, MEMORY: lambda: epoch_of(memory)}
    found: dict[str, list[Cost]] = {PLAIN: [], MEMORY: [], CACHE: []}
    for call in (*calls.values(), lambda: epoch_of(mapped)):
        call()

    def others() -> None:
        for name, call in calls.items():
            found[name].append(cost_of(call, device))

    def read() -> None:
        found[CACHE].append(cost_of(lambda: epoch_of(mapped), device))

    benchmark.pedantic(read, setup=others, rounds=ROUNDS)
    return {
        name: Cost(*(statistics.median(part) for part in zip(*costs, strict=True)))
        for name, costs in found.items()
    }


def steps_of_a_model(
    images: list[Record], config: RunConfig, count: int, device: torch.device
) -> Cost:
    """Cost of forward and backward of `count` images, from a batch of a quarter of the size."""
    few = replace(config, train__identities=max(2, config.train.identities // 4))
    task = build_task(few, images, device)
    batch = task.batch(0, 0)

    def step() -> None:
        task.module(**batch)[0].backward()

    step()
    one = cost_of(step, device)
    share = count / len(batch["labels"])
    return Cost(share * one.wall, share * one.cores)
