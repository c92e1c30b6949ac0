"""The bank of occluders: drawn, saved, read, and what bad folders get."""

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data.occluders import OccluderBank
from reid.errors import UserError

SIZE = (32, 16)


def test_default_bank_is_a_function_of_its_seed() -> None:
    first, again, other = (OccluderBank.default(seed) for seed in (0, 0, 1))
    assert len(first) >= 60
    assert len(set(first.names)) == len(first)
    assert all(np.array_equal(a, b) for a, b in zip(first.cutouts, again.cutouts, strict=True))
    same = [np.array_equal(a, b) for a, b in zip(first.cutouts, other.cutouts, strict=True)]
    assert not any(same)
    aspects = first.tensors(SIZE)[1]
    assert 0.2 < (aspects > 2).double().mean() < 0.8
    for cutout in first.cutouts:
        assert (cutout[..., 3] > 128).mean() > 0.15
        assert cutout[..., 3].any(0)[[0, -1]].all()
        assert cutout[..., 3].any(1)[[0, -1]].all()


def test_bank_tensors_are_squares_with_colours_times_alpha() -> None:
    bank = OccluderBank.default()
    occluders, aspects = bank.tensors(SIZE)
    assert occluders.shape == (len(bank), 4, 32, 32)
    assert occluders.dtype == torch.uint8
    assert aspects.dtype == torch.float32
    assert aspects[0].item() == pytest.approx(
        bank.cutouts[0].shape[0] / bank.cutouts[0].shape[1], rel=1e-6
    )
    assert (occluders[:, :3] <= occluders[:, 3:].int() + 1).all()
    assert bank.tensors(SIZE)[0] is occluders
    assert bank.tensors((16, 16))[0].shape[-1] == 16


def test_bank_survives_a_folder(tmp_path) -> None:
    bank = OccluderBank(OccluderBank.default().cutouts[:4], ["b", "a/x", "a/w", "c"])
    read = OccluderBank.from_folder(bank.save(tmp_path / "cutouts"))
    assert read.names == ["a/w", "a/x", "b", "c"]
    for name, cutout in zip(read.names, read.cutouts, strict=True):
        saved = bank.cutouts[bank.names.index(name)]
        np.testing.assert_array_equal(cutout, saved)


def test_bank_reads_opaque_images_and_crops_transparent_borders(tmp_path) -> None:
    Image.new("RGB", (8, 20), (250, 10, 10)).save(tmp_path / "opaque.jpg")
    framed = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    framed.paste((9, 9, 9, 255), (10, 5, 30, 15))
    framed.save(tmp_path / "framed.webp", lossless=True)
    Image.new("RGB", (1200, 300)).save(tmp_path / "large.png")
    bank = OccluderBank.from_folder(tmp_path)
    shapes = dict(zip(bank.names, (c.shape for c in bank.cutouts), strict=True))
    assert shapes == {"framed": (10, 20, 4), "large": (128, 512, 4), "opaque": (20, 8, 4)}
    assert all((cutout[..., 3] == 255).all() for cutout in bank.cutouts)


def test_bank_names_bad_folders_and_files(tmp_path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        OccluderBank.from_folder(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"holds no image \(.png"):
        OccluderBank.from_folder(tmp_path)
    for content in (b"", b"not a picture"):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(UserError, match=r"broken.png cannot be read"):
            OccluderBank.from_folder(tmp_path)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "broken.png")
    with pytest.raises(UserError, match=r"broken.png is fully transparent"):
        OccluderBank.from_folder(tmp_path)
    with pytest.raises(ValueError, match="at least one"):
        OccluderBank([])
    with pytest.raises(ValueError, match=r"cut-out 0 must be \(h, w, 4\) uint8, got \(2, 2, 3\)"):
        OccluderBank([np.zeros((2, 2, 3), np.uint8)])
