"""Overlays of kept tokens."""

import numpy as np
import pytest
import torch

from sparse_vit.visualize import kept_mask, overlay_kept, overlay_stages

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, size=(24, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize(("style", "paint"), [("whiten", 255), ("dim", 0)])
def test_dropped_patches_are_painted_over_and_kept_ones_untouched(style: str, paint: int) -> None:
    kept = torch.tensor([1, 4, 7])
    got = overlay_kept(IMAGE, kept, (4, 2), style=style, strength=0.5)
    for y in range(24):
        for x in range(12):
            patch = (y // 6) * 2 + x // 6
            for c in range(3):
                value = int(IMAGE[y, x, c])
                want = value if patch in (1, 4, 7) else round((value + paint) / 2)
                assert got[y, x, c] == want
    assert got is not IMAGE
    assert (overlay_kept(IMAGE, range(8), (4, 2)) == IMAGE).all()


def test_image_of_another_size_than_the_model_saw() -> None:
    mask = kept_mask([0], (4, 2), (50, 21))
    assert mask.shape == (50, 21)
    assert mask[:13, :11].all()
    assert mask.sum() == 13 * 11


def test_stages_side_by_side() -> None:
    strip = overlay_stages(IMAGE, [[0, 1], [1]], (4, 2), gap=3)
    assert strip.shape == (24, 3 * 12 + 2 * 3, 3)
    assert (strip[:, :12] == IMAGE).all()
    assert (strip[:, 12:15] == 255).all()
    assert (strip[:, 15:27] == overlay_kept(IMAGE, [0, 1], (4, 2))).all()
    assert (strip[:, 30:] == overlay_kept(IMAGE, [1], (4, 2))).all()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="from 8 to 8, outside a grid of 4x2"):
        overlay_kept(IMAGE, [8], (4, 2))
    with pytest.raises(ValueError, match="expected uint8"):
        overlay_kept(IMAGE.astype(np.float32), [0], (4, 2))
    with pytest.raises(ValueError, match="style 'red' is unknown"):
        overlay_kept(IMAGE, [0], (4, 2), style="red")
