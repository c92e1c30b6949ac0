"""Augmentations against per-image loops, and their dependence on nothing but pixels and keys."""

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import AugmentConfig
from reid.data.augment import VIEWS, Augmenter, normalize
from reid.data.augment.boxes import box_mask, first_fitting
from reid.data.augment.color import color_jitter
from reid.data.augment.erasing import _fill_everywhere, _fill_picked, random_erasing
from reid.data.augment.flip_crop import flip_crop, scaled_padding
from reid.data.augment.noda import noda
from reid.data.augment.random_patch import random_patch
from reid.data.occluders import OccluderBank
from reid.data.samplers import sample_keys
from sparse_vit.keyed_random import uniform

SIZE = (32, 16)


def make_keys(count: int, epoch: int = 0) -> torch.Tensor:
    return sample_keys(7, epoch, torch.arange(count))


def make_images(count: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)


def extent(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of the true pixels, which must fill a rectangle."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    assert int(mask.sum()) == height * width
    return top, left, height, width


def gray_bank(height: int, width: int, alpha: int = 255, value: int = 200) -> OccluderBank:
    cutout = np.full((height, width, 4), value, dtype=np.uint8)
    cutout[..., 3] = alpha
    return OccluderBank([cutout])


# Flip, pad, crop


def moved(image: np.ndarray, flip: bool, dy: int, dx: int) -> np.ndarray:
    source = image[:, :, ::-1] if flip else image
    out = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                out[:, y, x] = source[:, y + dy, x + dx]
    return out


def test_flip_crop_gives_every_flip_and_shift_and_nothing_else() -> None:
    image = make_images(1, (6, 4))
    pad = 1
    candidates = {
        moved(image[0].numpy(), flip, dy, dx).tobytes(): (flip, dy, dx)
        for flip in (False, True)
        for dy in range(-pad, pad + 1)
        for dx in range(-pad, pad + 1)
    }
    count = 900
    results = flip_crop(image.expand(count, -1, -1, -1), make_keys(count), pad=pad)
    found = [candidates[result.numpy().tobytes()] for result in results]
    shares = np.array([found.count(choice) / count for choice in candidates.values()])
    assert len(set(found)) == 18
    # Six standard deviations of a share of 1/18.
    assert np.abs(shares - 1 / 18).max() < 6 * np.sqrt(1 / 18 * 17 / 18 / count)


def test_flip_crop_without_padding_or_flip_changes_nothing() -> None:
    images = make_images(5)
    assert torch.equal(flip_crop(images, make_keys(5), flip=0.0, pad=0), images)
    assert torch.equal(flip_crop(images, make_keys(5), flip=1.0, pad=0), images.flip(3))


def test_padding_scales_with_the_height() -> None:
    assert [scaled_padding(10, height) for height in (256, 128, 64, 384)] == [10, 5, 2, 15]


# Rectangles


def test_first_fitting_equals_loop() -> None:
    areas = 0.01 + 0.8 * uniform(make_keys(200), (2,), stream=1)
    aspects = 0.2 + 6 * uniform(make_keys(200), (2,), stream=2)
    box_h, box_w = first_fitting(areas, aspects, *SIZE)
    misses = 0
    for row in range(200):
        expected = (0, 0)
        for area, aspect in zip(areas[row].tolist(), aspects[row].tolist(), strict=True):
            size = (round((area * 512 * aspect) ** 0.5), round((area * 512 / aspect) ** 0.5))
            if size[0] < SIZE[0] and size[1] < SIZE[1]:
                expected = size
                break
        misses += expected == (0, 0)
        assert (int(box_h[row]), int(box_w[row])) == expected
    assert 0 < misses < 100


def test_box_mask_equals_slices() -> None:
    boxes = torch.tensor([[0, 0, 32, 16], [3, 5, 7, 2], [9, 9, 0, 0]])
    masks = box_mask(*boxes.unbind(1), *SIZE)
    for mask, (top, left, height, width) in zip(masks, boxes.tolist(), strict=True):
        expected = torch.zeros(SIZE, dtype=torch.bool)
        expected[top : top + height, left : left + width] = True
        assert torch.equal(mask, expected)


# Random patch


def coded_donors(count: int) -> torch.Tensor:
    """Images whose channels are 1 + row, 1 + column and 1 + number."""
    rows = torch.arange(1, SIZE[0] + 1).view(1, -1, 1).expand(count, *SIZE)
    columns = torch.arange(1, SIZE[1] + 1).view(1, 1, -1).expand(count, *SIZE)
    numbers = torch.arange(1, count + 1).view(-1, 1, 1).expand(count, *SIZE)
    return torch.stack((rows, columns, numbers), dim=1).to(torch.uint8)


@pytest.mark.parametrize("p_flip", [0.0, 1.0])
def test_random_patch_copies_a_rectangle_of_a_donor(p_flip: float) -> None:
    count, donors = 300, coded_donors(10)
    images = torch.full((count, 3, *SIZE), 255, dtype=torch.uint8)
    out = random_patch(images, make_keys(count), donors, p=1.0, p_rotate=0.0, p_flip=p_flip)
    chosen, corners = set(), set()
    for result in out.long():
        changed = (result != 255).any(0)
        top, left, height, width = extent(changed)
        patch = result[:, top : top + height, left : left + width]
        if p_flip:
            patch = patch.flip(2)
        row, column, number = (int(value) for value in patch[:, 0, 0])
        source = donors[number - 1, :, row - 1 : row - 1 + height, column - 1 : column - 1 + width]
        assert torch.equal(patch, source.long())
        # Sides are rounded by up to half a pixel.
        assert (height - 0.5) * (width - 0.5) <= 0.5 * 512
        assert (height + 0.5) * (width + 0.5) >= 0.01 * 512
        assert (height + 0.5) / (width - 0.5) >= 0.1
        assert (height - 0.5) / (width + 0.5) <= 10
        chosen.add(number)
        corners.add((top, left))
    assert chosen == set(range(1, 11))
    assert len(corners) > 100


def test_random_patch_rotates_as_pillow_does() -> None:
    count, donors = 60, make_images(6)
    images = torch.full((count, 3, *SIZE), 255, dtype=torch.uint8)
    donors = donors.clamp(1, 254)
    settings = {"p": 1.0, "p_flip": 0.0}
    upright = random_patch(images, make_keys(count), donors, p_rotate=0.0, **settings)
    turned = random_patch(images, make_keys(count), donors, p_rotate=1.0, **settings)
    best = []
    for before, after in zip(upright, turned, strict=True):
        top, left, height, width = extent((before != 255).any(0))
        assert extent((after != 255).any(0)) == (top, left, height, width)
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        patch = Image.fromarray(before[window].permute(1, 2, 0).contiguous().numpy())
        target = after[window].permute(1, 2, 0).numpy()
        equal = [(np.asarray(patch.rotate(a)) == target).mean() for a in range(-10, 11)]
        best.append((max(equal), int(np.argmax(equal)) - 10))
    assert min(share for share, _ in best) > 0.97
    assert min(angle for _, angle in best) < -7
    assert max(angle for _, angle in best) > 7


def test_random_patch_happens_with_its_probability() -> None:
    count = 1000
    images = torch.full((count, 3, *SIZE), 255, dtype=torch.uint8)
    out = random_patch(images, make_keys(count), coded_donors(3), p=0.3)
    share = (out != 255).flatten(1).any(1).double().mean().item()
    assert abs(share - 0.3) < 6 * (0.21 / count) ** 0.5
    assert torch.equal(random_patch(images, make_keys(count), coded_donors(3), p=0.0), images)


# Random erasing


def test_random_erasing_fills_a_rectangle_with_unit_noise() -> None:
    count = 1500
    images = torch.full((count, 3, *SIZE), 9.0)
    out = random_erasing(images, make_keys(count), p=0.5)
    erased = (out != 9.0).flatten(1).any(1)
    assert abs(erased.double().mean().item() - 0.5) < 6 * (0.25 / count) ** 0.5
    noise = []
    for result in out[erased]:
        mask = (result != 9.0).any(0)
        assert (result != 9.0)[:, mask].all()
        _, _, height, width = extent(mask)
        assert (height - 0.5) * (width - 0.5) <= 512 / 3
        assert (height + 0.5) * (width + 0.5) >= 0.02 * 512
        assert (height + 0.5) / (width - 0.5) >= 0.3
        assert (height - 0.5) / (width + 0.5) <= 1 / 0.3
        noise.append(result[:, mask].flatten())
    values = torch.cat(noise).double()
    assert abs(values.mean().item()) < 6 / len(values) ** 0.5
    assert abs(values.var().item() - 1.0) < 6 * (2 / len(values)) ** 0.5
    assert len(values.unique()) > 0.99 * len(values)


def test_random_erasing_in_the_two_ways_of_filling_is_the_same() -> None:
    images = make_images(6).float()
    erased = uniform(make_keys(6), (512,)) < 0.3
    picked = _fill_picked(images, erased, make_keys(6))
    assert torch.equal(picked, _fill_everywhere(images, erased, make_keys(6)))
    assert torch.equal((picked != images).any(1).flatten(1), erased)


# Colour jitter


def jitter_loop(
    image: np.ndarray, alpha: np.ndarray, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    weights = np.array([0.299, 0.587, 0.114])
    straight = image / np.maximum(alpha, 1e-12)
    bright = straight * brightness
    mean = (np.tensordot(weights, bright, 1) * alpha).sum() / alpha.sum()
    contrasted = bright * contrast + (1 - contrast) * mean
    gray = np.tensordot(weights, contrasted, 1)
    return (contrasted * saturation + gray * (1 - saturation)).clip(0, 1) * alpha


@pytest.mark.parametrize("with_alpha", [False, True])
def test_color_jitter_equals_loop(with_alpha: bool) -> None:
    images = make_images(8).double() / 255
    keys = make_keys(8)
    alpha = uniform(keys, (1, *SIZE), stream=9).double() if with_alpha else None
    if alpha is not None:
        images = images * alpha
    out = color_jitter(images, keys, 0.5, alpha=alpha)
    factors = 1 + 0.5 * (2 * uniform(keys, (3,)).double() - 1)
    for index in range(8):
        cover = np.ones(SIZE) if alpha is None else alpha[index, 0].numpy()
        expected = jitter_loop(images[index].numpy(), cover, *factors[index].tolist())
        np.testing.assert_allclose(out[index].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert factors.min() < 0.6
    assert factors.max() > 1.4


def test_color_jitter_of_strength_zero_is_the_identity() -> None:
    images = make_images(3).float() / 255
    torch.testing.assert_close(color_jitter(images, make_keys(3), 0.0), images, rtol=0, atol=1e-6)


# NODA


@pytest.mark.parametrize(("shape", "vertical"), [((30, 10), True), ((20, 10), False)])
def test_noda_covers_a_third_to_half_at_each_of_two_edges(
    shape: tuple[int, int], vertical: bool
) -> None:
    count, (height, width) = 300, SIZE
    occluders, aspects = gray_bank(*shape).tensors(SIZE)
    images = torch.zeros(count, 3, *SIZE)
    out = noda(images, make_keys(count), occluders, aspects)
    sizes, starts = set(), set()
    for result in out:
        top, left, box_h, box_w = extent((result > 0).any(0))
        if vertical:
            assert (top, box_h) == (0, height)
            assert left in (0, width - box_w)
            sizes.add(box_w)
            starts.add(left == 0)
        else:
            assert (left, box_w) == (0, width)
            assert top in (0, height - box_h)
            sizes.add(box_h)
            starts.add(top == 0)
    side = width if vertical else height
    assert sizes == set(range(-(-side // 3), side // 2 + 1))
    assert starts == {True, False}


def test_noda_composites_alpha() -> None:
    images = make_images(20).float() / 255
    for alpha in (0, 128, 255):
        occluders, aspects = gray_bank(10, 10, alpha=alpha).tensors(SIZE)
        out = noda(images, make_keys(20), occluders, aspects, jitter=0.0)
        covered = (noda(images * 0, make_keys(20), *gray_bank(10, 10).tensors(SIZE)) > 0).any(1)
        blend = images * (1 - alpha / 255) + 200 / 255 * alpha / 255
        expected = torch.where(covered[:, None], blend, images)
        # The bank holds colour times alpha in 8 bits.
        torch.testing.assert_close(out, expected, rtol=0, atol=0.51 / 255 + 1e-5)


def test_noda_flips_and_crops_the_cutout() -> None:
    ramp = np.zeros((64, 64, 4), dtype=np.uint8)
    ramp[..., 0], ramp[..., 3] = np.linspace(20, 250, 64)[None, :], 255
    occluders, aspects = OccluderBank([ramp]).tensors((64, 64))
    images = torch.zeros(100, 3, 64, 64)
    spans = []
    for p_flip, sign in ((0.0, 1), (1.0, -1)):
        out = noda(images, make_keys(100), occluders, aspects, jitter=0.0, p_flip=p_flip)
        for result in out:
            row = result[0][result[0].any(1)][0]
            assert (sign * row.diff() >= -1e-6).all()
            spans.append((row.max() - row.min()).item() * 255 / 230)
    assert min(spans) > 0.65
    assert max(spans) > 0.95
    assert min(spans) < 0.75


def test_noda_happens_with_its_probability_and_jitters_colour() -> None:
    count = 600
    occluders, aspects = gray_bank(10, 10, value=120).tensors(SIZE)
    out = noda(torch.zeros(count, 3, *SIZE), make_keys(count), occluders, aspects, p=0.4)
    peaks = out.amax(dim=(1, 2, 3))
    assert abs((peaks > 0).double().mean().item() - 0.4) < 6 * (0.24 / count) ** 0.5
    shown = peaks[peaks > 0] * 255 / 120
    assert 0.5 <= shown.min() < 0.6
    assert 1.4 < shown.max() <= 1.51


# Views


def make_augmenter(view: str, **settings) -> Augmenter:
    config = AugmentConfig(**{"color_jitter": 0.1, **settings})
    bank = OccluderBank.default()
    return Augmenter(view, config, image_size=SIZE, bank=bank, donors=make_images(9))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_depends_on_pixels_and_key_only(view: str) -> None:
    augment, images, keys = make_augmenter(view), make_images(12), make_keys(12)
    before = images.clone(), keys.clone(), augment.donors.clone()
    whole = augment(images, keys)
    assert whole.dtype == torch.float32
    assert whole.shape == images.shape
    assert torch.equal(whole, augment(images, keys))
    parts = [augment(images[i : i + 5], keys[i : i + 5]) for i in range(0, 12, 5)]
    assert torch.equal(whole, torch.cat(parts))
    order = torch.tensor([7, 3, 11, 0, 1, 2, 10, 9, 8, 4, 5, 6])
    assert torch.equal(whole[order], augment(images[order], keys[order]))
    assert torch.equal(whole[:1], make_augmenter(view)(images[:1], keys[:1]))
    assert torch.equal(images, before[0])
    assert torch.equal(keys, before[1])
    assert torch.equal(augment.donors, before[2])


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_changes_with_the_key(view: str) -> None:
    augment, images = make_augmenter(view), make_images(1).expand(30, -1, -1, -1)
    results = augment(images, make_keys(30))
    assert len({result.numpy().tobytes() for result in results}) == 30


def test_views_with_everything_off_only_normalise() -> None:
    off = {"flip": 0.0, "pad": 0, "erasing": 0.0, "random_patch": 0.0, "color_jitter": 0.0}
    images = make_images(4)
    expected = images.double().div(127.5).sub(1)
    clean = make_augmenter("clean", **off)(images, make_keys(4))
    torch.testing.assert_close(clean.double(), expected, rtol=0, atol=1e-6)
    occluded = make_augmenter("occluded", **off)(images, make_keys(4)).double()
    untouched = ((occluded - expected).abs() < 1e-5).all(1).flatten(1).double().mean(1)
    assert (untouched >= 0.5).all()
    assert (untouched < 1.0).all()


def test_normalize_equals_loop() -> None:
    images = make_images(2)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    for source in (images, images.float() / 255):
        out = normalize(source, mean, std)
        for channel in range(3):
            expected = (images[:, channel].double() / 255 - mean[channel]) / std[channel]
            torch.testing.assert_close(out[:, channel].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(images, make_images(2))


def test_views_refuse_what_they_cannot_use() -> None:
    config = AugmentConfig()
    with pytest.raises(ValueError, match="unknown view 'blurred'"):
        Augmenter("blurred", config, image_size=SIZE)
    with pytest.raises(ValueError, match="needs a bank"):
        Augmenter("occluded", config, image_size=SIZE)
    with pytest.raises(ValueError, match="random_patch to 0"):
        Augmenter("clean", config, image_size=SIZE)
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 16\) uint8, got \(2, 3, 8, 8\)"):
        Augmenter("clean", config, image_size=SIZE, donors=make_images(2, (8, 8)))
    augment = make_augmenter("clean")
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8\) torch.uint8; resize them"):
        augment(make_images(2, (8, 8)), make_keys(2))
    with pytest.raises(ValueError, match=r"3 int64 keys, got \(2,\)"):
        augment(make_images(3), make_keys(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_the_same_on_a_gpu(view: str) -> None:
    images, keys = make_images(32), make_keys(32)
    host = make_augmenter(view)(images, keys)
    device = make_augmenter(view)(images.cuda(), keys.cuda()).cpu()
    # A coordinate that rounds across a pixel border moves single pixels of a rotated patch.
    different = ((host - device).abs() > 1e-3).double().mean().item()
    assert different < 1e-3
