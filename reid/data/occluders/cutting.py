"""Cut objects out of their images, and which ones are left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reid.data.occluders.instances import Instance, Pixels
from reid.data.occluders.pictures import read_rgb
from reid.errors import UserError

_VISIBLE = 128


@dataclass(frozen=True)
class Rules:
    """What a cut-out must be like.

    Inferred: the paper gives none. NODA stretches a cut-out over a third to half of the image, so
    that small and slender ones become smears, and a cut edge would stand free.

    Attributes:
        min_size: Least longer side of the object's extent, in pixels.
        min_aspect: Least shorter side over longer side.
        min_fill: Least share of its extent that the object covers.
        border: Leave out objects that touch the border of their image, where they are cut off.
    """

    min_size: int = 64
    min_aspect: float = 0.125
    min_fill: float = 0.2
    border: bool = True

    def reason(self, alpha: Pixels, *, whole: bool = False) -> str:
        """Why an object is left out.

        Args:
            alpha: (H, W) uint8 mask in its image; 128 and above is the object.
            whole: The image is a cut-out; its border says nothing.

        Returns:
            "empty", "small", "thin", "sparse", "border", or "" for one that is kept.
        """
        inside = alpha >= _VISIBLE
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            return "empty"
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        if max(height, width) < self.min_size:
            return "small"
        if min(height, width) < self.min_aspect * max(height, width):
            return "thin"
        if inside.sum() < self.min_fill * height * width:
            return "sparse"
        edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
        if self.border and not whole and any(edge.any() for edge in edges):
            return "border"
        return ""


@dataclass(frozen=True)
class Cutout:
    """An object without its surroundings: (h, w, 4) uint8 RGBA, and where it comes from."""

    rgba: Pixels
    instance: Instance


@dataclass
class Cuts:
    """What was cut out.

    Attributes:
        cutouts: In the order of category and turn.
        left_out: Objects by the reason of the rules.
        problems: Objects that could not be read, one line each.
        unseen: Objects not looked at because there were enough.
    """

    cutouts: list[Cutout] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    unseen: int = 0


def cut(
    instances: Sequence[Instance],
    rules: Rules,
    *,
    most: int = 0,
    seed: int = 0,
    skip_bad: bool = False,
) -> Cuts:
    """Cut out objects, one of each category in turn, in random order within a category.

    Args:
        instances: Objects of the wanted categories.
        rules: Which to leave out.
        most: Stop after so many; 0 takes all.
        seed: Same seed, same choice.
        skip_bad: Count and list unreadable objects instead of refusing them.

    Returns:
        The cut-outs.

    Raises:
        UserError: An image is missing or an object unreadable, or none survives the rules.
    """
    result = Cuts()
    missing = sorted({instance.image for instance in instances if instance.path is None})
    if missing:
        result.problems.append(
            f"{len(missing)} of {len({i.image for i in instances})} images named in the "
            f"annotations are missing, such as {missing[0]}"
        )
        _refuse(result.problems, skip_bad)
    turns = _in_turn([i for i in instances if i.path is not None], seed)
    for number, instance in enumerate(turns):
        if most and len(result.cutouts) == most:
            result.unseen = len(turns) - number
            break
        try:
            alpha = instance.alpha()
            reason = rules.reason(alpha, whole=instance.whole)
            if reason:
                result.left_out[reason] += 1
            else:
                rgb = read_rgb(str(instance.path), (alpha.shape[0], alpha.shape[1]))
                result.cutouts.append(Cutout(_crop(rgb, alpha), instance))
        except UserError as error:
            result.problems.append(f"{instance.image}, object {instance.key}: {error}")
            _refuse(result.problems[-1:], skip_bad)
    if not result.cutouts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
        raise UserError(
            f"none of {len(instances)} objects is left: {reasons or 'none'}, "
            f"{len(result.problems)} unreadable; lower --min-size ({rules.min_size}), or choose "
            "other --categories"
        )
    result.cutouts.sort(key=lambda cutout: cutout.instance.category)
    return result


def _refuse(problems: Sequence[str], skip_bad: bool) -> None:
    if problems and not skip_bad:
        raise UserError(f"{problems[0]}; repair it, or leave such objects out with --skip-bad")


def _in_turn(instances: Sequence[Instance], seed: int) -> list[Instance]:
    """Shuffle within each category; the first of every category, then the second, ..."""
    by_category: dict[str, list[Instance]] = {}
    for instance in instances:
        by_category.setdefault(instance.category, []).append(instance)
    order = np.random.default_rng(seed)
    keyed = [
        (turn, category, by_category[category][place])
        for category in sorted(by_category)
        for turn, place in enumerate(order.permutation(len(by_category[category])))
    ]
    return [instance for _, _, instance in sorted(keyed, key=lambda item: item[:2])]


def _crop(rgb: Pixels, alpha: Pixels) -> Pixels:
    """RGBA of the visible extent, black where nothing is visible."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rgba = np.dstack((rgb[box], alpha[box]))
    rgba[rgba[..., 3] == 0] = 0
    return rgba
