"""`reid visualize`: kept tokens and ranked lists of a trained model as PNG files."""

from pathlib import Path

import numpy as np

from reid.data.records import ReidData
from reid.data.store import load_images
from reid.engine.extract import extract, extract_with_kept
from reid.errors import UserError
from reid.evaluation import evaluate
from reid.models.embedder import load_model, preprocess_of
from reid.run import pick_device


def visualize(
    checkpoint: str | Path, data: ReidData, out: str | Path, *, count: int = 8
) -> list[Path]:
    """Draw what a model keeps and what it retrieves.

    Args:
        checkpoint: A model.safetensors.
        data: The data set.
        out: Folder for the PNG files.
        count: Queries to draw, spread evenly over the query set.

    Returns:
        The files written: ranked_lists.png and, for a sparse model, kept_tokens.png.

    Raises:
        UserError: Bad checkpoint or data set, or a count below 1.
    """
    from reid.report import overlay_sheet, ranked_list_sheet

    if count < 1:
        raise UserError(f"--count {count} must be at least 1")
    model, config, _ = load_model(checkpoint)
    model = model.to(pick_device())
    preprocess = preprocess_of(config.data)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    chosen = np.unique(np.linspace(0, len(data.query) - 1, count).round().astype(int))
    written = []
    if config.model.sparse:
        query, kept = extract_with_kept(model, data.query, preprocess)
        images = load_images(
            [data.query[i] for i in chosen], config.data.image_size, config.data.interpolation
        )
        overlay_sheet(
            images.permute(0, 2, 3, 1).numpy(),
            {stage: indices[chosen] for stage, indices in kept.items()},
            patch_size=int(model.backbone.patch_embed.patch_size[0]),
            path=out / "kept_tokens.png",
        )
        written.append(out / "kept_tokens.png")
    else:
        query = extract(model, data.query, preprocess, label="query")
    gallery = extract(model, data.gallery, preprocess, label="gallery")
    ranked_list_sheet(
        evaluate(query, gallery, distractor_pid=data.distractor_pid),
        [record.path for record in data.query],
        [record.path for record in data.gallery],
        queries=chosen.tolist(),
        path=out / "ranked_lists.png",
    )
    written.append(out / "ranked_lists.png")
    return written
