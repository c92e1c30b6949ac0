"""The model card: what a model is, was trained on, is good for, and must not be used for."""

import json
from typing import Any

from reid.config import RunConfig
from reid.inference.threshold import Threshold
from reid.models.embedder import ReidModel

SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")
LICENSE = "other"


def model_card(
    name: str,
    model: ReidModel,
    config: RunConfig,
    metadata: dict[str, Any],
    scores: dict[str, Any] | None,
    threshold: Threshold | None,
) -> str:
    """Write the card of a model in Markdown, with the front matter that hubs read.

    Args:
        name: That the example loads.
        model: The network.
        config: Of the run that trained it.
        metadata: Of its file.
        scores: Of its evaluation, in percent, if known.
        threshold: Its calibrated threshold, if known.
    """
    sections = [
        _front(config),
        f"# {name}\n\n{_summary(model, config)}",
        f"## Use\n\n{_use(name)}",
        f"## Model\n\n{_model(model, config, metadata)}",
        f"## Training data\n\n{_data(config, metadata)}",
        f"## Evaluation\n\n{_evaluation(config, scores, threshold)}",
        f"## Intended use and limits\n\n{_limits(config)}",
        f"## Privacy and misuse\n\n{PRIVACY}",
        f"## Licence\n\n{TERMS}",
    ]
    return "\n\n".join(sections) + "\n"


PRIVACY = """\
Features of people are personal data: whoever stores them can find a person again, and in many
jurisdictions that needs a legal basis, a notice and an end of storage. Do not use this model to
identify, track or profile people without one, to single out people by origin, religion, health or
opinion, or where a wrong match harms somebody and nobody looks at it. The model has not been tested
for equal error rates across groups of people; measure that on your own data before you rely on it.
Keep features only as long as they are needed, and treat them like the images."""

TERMS = """\
The front matter says `other`: the code is under Apache-2.0, but weights inherit the terms of the
data and of the starting weights that they were trained with, and many re-identification data sets
are for research only. Whoever publishes this model fills in the licence that holds for it."""


def _front(config: RunConfig) -> str:
    lines = [
        f"license: {LICENSE}",
        "library_name: sparse-vit",
        "pipeline_tag: image-feature-extraction",
        # JSON strings are YAML strings
        f"datasets: [{json.dumps(config.data.name)}]",
        "tags: [person-re-identification, token-pruning, vision-transformer]",
    ]
    return "\n".join(["---", *lines, "---"])


def _summary(model: ReidModel, config: RunConfig) -> str:
    reduces = (
        ", which goes on with fewer patches from stage to stage," if config.model.sparse else ""
    )
    height, width = config.data.image_size
    return (
        f"Person re-identification: a vision transformer{reduces} turns a {height}x{width} image "
        f"of a person into {model.num_features} numbers, near those of other images of that person "
        "by cosine."
    )


def _use(name: str) -> str:
    return (
        "```python\n"
        "from reid import Embedder\n"
        f"embedder = Embedder.from_pretrained({name!r})\n"
        'features = embedder(["a.jpg", "b.jpg"])  # (2, D) float32, of length 1\n'
        "```"
    )


def _model(model: ReidModel, config: RunConfig, metadata: dict[str, Any]) -> str:
    m = config.model
    rows = [
        ("backbone", m.backbone),
        ("started from", m.init),
        ("feature", f"{model.num_features} numbers, {m.neck_feature} the BNNeck"),
        ("resize filter", config.data.interpolation),
        ("method", config.method),
    ]
    if m.sparse:
        patches = int(model.backbone.patch_embed.num_patches)
        counts = ", ".join(map(str, model.backbone.keep_counts))
        stages = ", ".join(map(str, m.stages))
        rows += [
            ("reduction", m.reduction if m.reduction != "prune" else f"prune by {m.selector}"),
            ("keep schedule", f"{counts} of {patches} patches from the blocks {stages} on"),
        ]
    return _table(("", ""), rows)


def _data(config: RunConfig, metadata: dict[str, Any]) -> str:
    protocol = f", protocol {config.data.protocol}" if config.data.protocol else ""
    return (
        f"{config.data.name}{protocol}: {metadata['identities']} identities. Views of an image in "
        f"training: {', '.join(config.augment.views)}."
    )


def _evaluation(
    config: RunConfig, scores: dict[str, Any] | None, threshold: Threshold | None
) -> str:
    if scores is None:
        text = "No evaluation lay beside the weights."
    else:
        rows = [(name, f"{scores[name]:.2f}") for name in SCORES if name in scores]
        text = (
            f"On query and gallery of {config.data.name}, in percent, with tokens dropped:\n\n"
            f"{_table(('score', ''), rows)}"
        )
    if threshold is not None:
        text += f"\n\nThreshold: {threshold.meaning}."
    return text


def _limits(config: RunConfig) -> str:
    lines = [
        "For research, and for matching people across the cameras of one site whose operator has "
        "the right to do so.",
        f"Features follow clothes and build more than faces, and were learned on {config.data.name}"
        ": on other cameras, seasons, clothes or crops, scores are lower, and the threshold must "
        "be calibrated again.",
        "The input is one person in a tight box; it detects nobody, and somebody who is not in the "
        "gallery still has a nearest neighbour there.",
    ]
    if config.model.sparse:
        lines.append(
            "Patches that are dropped early are gone: a small object that tells two people apart "
            "may be among them."
        )
    return "\n".join(f"* {line}" for line in lines)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {a} | {b} |" for a, b in rows])
