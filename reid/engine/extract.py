"""From images to features: batched, sharded over processes, with real token pruning."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid._optional import require
from reid.data.ahead import Ahead
from reid.data.records import Record
from reid.data.store import Held, load_images
from reid.engine.distributed import gather_shards, is_main, shard_range
from reid.errors import UserError
from reid.evaluation import Features
from reid.models.embedder import Preprocess, ReidModel


def extract(
    model: ReidModel,
    records: Sequence[Record],
    preprocess: Preprocess,
    *,
    images: Tensor | Held | None = None,
    batch_size: int = 64,
    device: torch.device | None = None,
    label: str = "extract",
    progress: bool = True,
) -> Features:
    """Embed images; each process embeds its share and all get the whole.

    Args:
        model: In evaluation mode; sparse models drop tokens for real.
        records: Images, with identities and cameras.
        preprocess: Size and normalisation the model was trained with.
        images: (N, 3, H, W) uint8 decoded already, or decoded once and kept; None reads the files
            in batches, each while the model works on the one before.
        batch_size: Images in one forward.
        device: Where the model runs; None keeps it where it is.
        label: Shown in front of the progress bar.
        progress: Whether to show a progress bar.

    Returns:
        (N, C) L2-normalised float32 features on the CPU, in the order of `records`.

    Raises:
        UserError: A file cannot be read, or a feature is not finite.
    """
    if device is not None:
        model = model.to(device)
    rows, _ = _run(model, records, preprocess, images, batch_size, label, progress, False)
    return _features(rows, records)


def extract_with_kept(
    model: ReidModel,
    records: Sequence[Record],
    preprocess: Preprocess,
    *,
    images: Tensor | Held | None = None,
    batch_size: int = 64,
) -> tuple[Features, dict[int, NDArray[np.int64]]]:
    """Embed images with a sparse model and say which patches each stage kept.

    Returns:
        The features, and block index of a stage -> (N, k) original patch ids, ascending.

    Raises:
        UserError: The model fuses or merges tokens, so that no patch is simply gone.
    """
    if model.backbone.reduction != "prune":
        raise UserError(
            f"the model has model.reduction={model.backbone.reduction}; kept patches can be named "
            "for reduction=prune only"
        )
    rows, kept = _run(model, records, preprocess, images, batch_size, "extract", False, True)
    return _features(rows, records), kept


def _features(rows: Tensor, records: Sequence[Record]) -> Features:
    return Features(
        features=torch.nn.functional.normalize(rows, dim=1),
        pids=np.array([record.pid for record in records], dtype=np.int64),
        camids=np.array([record.camid for record in records], dtype=np.int64),
        names=[record.path for record in records],
    )


def _batches(
    records: Sequence[Record],
    preprocess: Preprocess,
    images: Tensor | Held | None,
    span: tuple[int, int],
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Yield (b, 3, H, W) uint8 batches of the rows in `span`, on the device."""

    def read(rows: tuple[int, int]) -> list[Tensor]:
        part = slice(*rows)
        if images is not None:
            return [images[part]]
        return [load_images(records[part], preprocess.image_size, preprocess.interpolation)]

    start, stop = span
    parts = [(first, min(first + batch_size, stop)) for first in range(start, stop, batch_size)]
    if isinstance(images, Tensor) and images.device.type == device.type:
        yield from (images[slice(*part)] for part in parts)
        return
    ahead = Ahead(read, device)
    try:
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            yield ahead(part, following)[0]
    finally:
        ahead.close()


@torch.inference_mode()
def _run(
    model: ReidModel,
    records: Sequence[Record],
    preprocess: Preprocess,
    images: Tensor | Held | None,
    batch_size: int,
    label: str,
    progress: bool,
    with_kept: bool,
) -> tuple[Tensor, dict[int, NDArray[np.int64]]]:
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    start, stop, length = shard_range(len(records))
    out = torch.zeros(length, model.num_features, device=device)
    kept: dict[int, list[Tensor]] = {}
    bar: Any = require("tqdm").tqdm(
        total=stop - start,
        desc=label,
        unit="img",
        disable=not (progress and is_main()),
        mininterval=1.0,
        dynamic_ncols=True,
    )
    done = 0
    # an error gets a line of its own, below the bar
    with bar:
        for pixels in _batches(records, preprocess, images, (start, stop), batch_size, device):
            x = preprocess(pixels.to(device))
            if with_kept:
                feature, decisions = model.backbone.forward_with_decisions(x)
                for decision in decisions:
                    kept.setdefault(decision.stage, []).append(decision.indices)
            else:
                feature = model(x)
            out[done : done + len(x)] = feature.float()
            done += len(x)
            bar.update(len(x))
    model.train(training)
    rows = gather_shards(out, len(records)).cpu()
    indices = {}
    if with_kept:
        # by the model's stages, so that a rank without images takes part in every exchange
        schedule = model.backbone.schedule
        for stage, count in zip(schedule.stages, model.backbone.keep_counts, strict=True):
            padded = torch.zeros(length, count, dtype=torch.int64, device=device)
            if done:
                padded[:done] = torch.cat(kept[stage])
            indices[stage] = gather_shards(padded, len(records)).cpu().numpy()
    return rows, indices
