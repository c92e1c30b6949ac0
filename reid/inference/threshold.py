"""The distance below which two images count as one person, and what that was measured on."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from reid.config import RunConfig
from reid.data.records import ReidData
from reid.engine.checkpoint import write_atomic
from reid.errors import UserError
from reid.inference.origin import sha256_of
from reid.models.embedder import ReidModel


@dataclass(frozen=True)
class Threshold:
    """A calibrated threshold.

    Attributes:
        distance: Pairs with a smaller cosine distance are accepted.
        rate: False positive rate that was asked for.
        fpr: Share of the pairs of different people that it accepts, at most the rate.
        tpr: Share of the pairs of one person, seen by different cameras, that it accepts.
        genuine: Pairs of one person.
        impostors: Pairs of different people.
        data: Data set that it was measured on.
        checkpoint_sha256: Of the weights; a threshold fits no others.
    """

    distance: float
    rate: float
    fpr: float
    tpr: float
    genuine: int
    impostors: int
    data: str
    checkpoint_sha256: str

    @property
    def meaning(self) -> str:
        """What accepting a pair means, in words."""
        one_in = f"1 in {1 / self.fpr:,.0f}" if self.fpr else f"none of {self.impostors:,}"
        return (
            f"at the distance {self.distance:.4f}, {one_in} pairs of different people is accepted "
            f"and {100 * self.tpr:.1f} % of the pairs of one person are, measured on {self.data}"
        )


def threshold_path(checkpoint: str | Path) -> Path:
    """Where the threshold of a checkpoint lies: model.threshold.json beside model.safetensors."""
    return Path(checkpoint).with_suffix(".threshold.json")


def calibrate(
    checkpoint: str | Path, model: ReidModel, config: RunConfig, data: ReidData, rate: float
) -> Threshold:
    """Measure the threshold of a false positive rate, and write it beside the checkpoint.

    Pairs are those of a query and a gallery image that count in an evaluation: of one person only
    from different cameras.

    Args:
        checkpoint: File of the model.
        model: The model, on its device.
        config: Of the run that trained it.
        data: Query and gallery.
        rate: False positive rate, above 0 and at most 1.

    Returns:
        The threshold.

    Raises:
        UserError: No query or gallery, a rate that the data set is too small for, or a file that
            cannot be written.
    """
    from reid.evaluation import verify
    from reid.run import extract_features

    if not (data.query and data.gallery):
        raise UserError(f"{data.name} has no query and gallery; calibrate on another data set")
    query, gallery = (
        extract_features(model, config, records, label=label)
        for label, records in (("query", data.query), ("gallery", data.gallery))
    )
    found = verify(query, gallery, [rate], distractor_pid=data.distractor_pid)
    threshold = Threshold(
        distance=float(found.thresholds[0]),
        rate=rate,
        fpr=float(found.fpr[0]),
        tpr=float(found.tpr[0]),
        genuine=found.genuine,
        impostors=found.impostors,
        data=data.name,
        checkpoint_sha256=sha256_of(checkpoint),
    )
    write_atomic(threshold_path(checkpoint), json.dumps(asdict(threshold), indent=2).encode())
    return threshold


def read_threshold(checkpoint: str | Path) -> Threshold | None:
    """Read the threshold of a checkpoint; None if it has none.

    Raises:
        UserError: A damaged file, or one that belongs to other weights.
    """
    path = threshold_path(checkpoint)
    if not path.is_file():
        return None
    remedy = "run reid calibrate again, or delete it"
    try:
        threshold = threshold_from(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} holds no threshold ({error}); {remedy}") from error
    if threshold.checkpoint_sha256 != sha256_of(checkpoint):
        raise UserError(f"{path} was measured with other weights than {checkpoint}; {remedy}")
    return threshold


def threshold_from(values: dict[str, Any]) -> Threshold:
    """Rebuild a threshold from its JSON.

    Raises:
        KeyError: A value is missing.
    """
    return Threshold(**{field.name: values[field.name] for field in fields(Threshold)})
