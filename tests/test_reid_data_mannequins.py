"""What a generated image and its mask look like, and that they are always the same."""

import numpy as np
import pytest

from reid.data.attributes import MARKET_ATTRIBUTES
from reid.data.mannequins import Spec, draw, render, render_many, training_specs
from reid.data.mannequins.identity import identity
from reid.data.mannequins.labels import ARMS, HEAD, LEGS, OCCLUDER, TORSO
from reid.data.mannequins.sheet import contact_sheet
from reid.errors import UserError

SIZE = (64, 32)


@pytest.mark.parametrize("size", [(256, 128), (128, 64), (96, 40), (384, 128)])
def test_any_size(size: tuple[int, int]) -> None:
    image, mask, covered = render(0, 5, 2, 1, image_size=size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert mask.shape == size
    assert mask.dtype == np.uint8
    assert covered == 0.0
    assert {HEAD, TORSO, ARMS, LEGS} <= set(np.unique(mask).tolist())


def test_same_image_whatever_was_drawn_before() -> None:
    specs = [Spec(3, number, number % 6, 1, number % 2 == 0) for number in range(12)]
    forward = [draw(spec, SIZE) for spec in specs]
    backward = [draw(spec, SIZE) for spec in specs[::-1]][::-1]
    for first, second in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        assert first[2] == second[2]


def test_same_images_whatever_the_number_of_workers() -> None:
    specs = training_specs(30, 10, occluded=0.5)
    one = render_many(specs, workers=1, image_size=SIZE)
    two = render_many(specs, workers=2, image_size=SIZE)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.masks, two.masks)
    np.testing.assert_array_equal(one.occlusion, two.occlusion)


@pytest.mark.parametrize("change", [{"seed": 1}, {"identity": 9}, {"camera": 3}, {"frame": 2}])
def test_every_part_of_the_key_matters(change: dict[str, int]) -> None:
    key = {"seed": 0, "identity": 8, "camera": 2, "frame": 1}
    first, _, _ = render(**key, image_size=SIZE)
    second, _, _ = render(**{**key, **change}, image_size=SIZE)
    assert (first != second).mean() > 0.3


def test_recorded_share_is_that_of_the_masks() -> None:
    for number in range(60):
        spec = Spec(1, number, number % 6, number, True)
        whole = draw(Spec(1, number, number % 6, number, False), SIZE)[1]
        _, mask, covered = draw(spec, SIZE)
        body = whole > 0
        hidden = mask == OCCLUDER
        assert covered == pytest.approx(hidden[body].mean(), abs=1e-12)
        np.testing.assert_array_equal(mask[~hidden], whole[~hidden])
        assert 0.2 <= covered <= 0.6


def test_an_occluder_changes_only_what_it_covers_before_the_camera_develops_it() -> None:
    spec = Spec(1, 4, 2, 7)
    whole, _, _ = draw(spec, (256, 128))
    hidden, mask, _ = draw(Spec(1, 4, 2, 7, True), (256, 128))
    difference = np.abs(whole.astype(int) - hidden).max(-1)
    free = mask != OCCLUDER
    assert np.median(difference[free]) < 12
    assert np.median(difference[~free]) > 12


def test_occluders_come_from_all_four_sides() -> None:
    shares = np.zeros(4)
    for number in range(80):
        hidden = draw(Spec(2, number, number % 6, 0, True), SIZE)[1] == OCCLUDER
        thirds = (hidden[:10], hidden[-10:], hidden[:, :6], hidden[:, -6:])
        centre = hidden[24:40, 10:22].mean()
        shares += [bool(part.mean() > 0.8 and centre < 0.99) for part in thirds]
    assert (shares >= 5).all()


def test_render_many_tells_what_it_drew() -> None:
    specs = training_specs(5, 4, occluded=0.5)
    drawn = render_many(specs, image_size=SIZE)
    assert drawn.images.shape == (20, 3, *SIZE)
    assert drawn.masks.shape == (20, *SIZE)
    assert drawn.attributes.shape == (20, len(MARKET_ATTRIBUTES))
    for row, spec in enumerate(specs):
        image, mask, covered = draw(spec, SIZE)
        np.testing.assert_array_equal(drawn.images[row], image.transpose(2, 0, 1))
        np.testing.assert_array_equal(drawn.masks[row], mask)
        assert drawn.occlusion[row] == np.float32(covered)
        assert (drawn.pids[row], drawn.camids[row]) == (spec.identity, spec.camera)
        known = identity(spec.seed, spec.identity).attributes
        assert drawn.attributes[row].tolist() == [known[name] for name in MARKET_ATTRIBUTES]


def test_training_specs_are_apart_and_spread_over_cameras() -> None:
    specs = training_specs(3, 12, cameras=6)
    assert {spec.seed for spec in specs} == {1000}
    assert min(spec.identity for spec in specs) >= 10_000
    for number in {spec.identity for spec in specs}:
        cameras = [spec.camera for spec in specs if spec.identity == number]
        assert np.bincount(cameras, minlength=6).tolist() == [2] * 6


def test_attributes_have_market_values() -> None:
    people = [identity(0, number).attributes for number in range(400)]
    for attributes in people:
        assert tuple(sorted(attributes)) == MARKET_ATTRIBUTES
        assert all(value in (1, 2) for name, value in attributes.items() if name != "age")
        assert 1 <= attributes["age"] <= 4
        for group, count in (("up", 8), ("down", 9)):
            colours = [
                value
                for name, value in attributes.items()
                if name.startswith(group) and name != group
            ]
            assert len(colours) == count
            assert colours.count(2) == 1
    for name in MARKET_ATTRIBUTES:
        assert len({attributes[name] for attributes in people}) > 1


def test_many_identities_share_their_colours() -> None:
    pairs = {(identity(0, n).upper, identity(0, n).lower) for n in range(1000)}
    assert len(pairs) < 450


def test_background_boxes_are_empty() -> None:
    mask = draw(Spec(0, 77, 1, 0, kind="background"), SIZE)[1]
    assert not mask.any()


def test_impossible_requests() -> None:
    with pytest.raises(UserError, match="no image to draw"):
        render_many([])
    with pytest.raises(UserError, match="workers is 0"):
        render_many([Spec(0, 1, 1, 1)], workers=0)


def test_contact_sheet_has_a_row_per_identity() -> None:
    sheet = contact_sheet(2, cameras=2, image_size=SIZE)
    assert sheet.shape == (2 * 64, 2 * 32 + 8 + 6 * 32, 3)
