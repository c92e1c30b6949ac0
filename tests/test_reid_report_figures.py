"""Single figures: what they show is what they were given."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid.errors import UserError
from reid.evaluation import Features, Interval, evaluate
from reid.report import RowResult, overlay_sheet, ranked_list_sheet
from reid.report.curves import cmc_chart, speed_chart, training_chart
from reid.report.embedding import choose_identities, embed, embedding_chart
from reid.report.overlays import Grid, whiten_dropped
from reid.report.shares import patch_regions, read_regions, stage_shares
from reid.report.style import ROW_COLOURS, STATUS_COLOURS


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def has_colour(picture, colour, at_least=20):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(picture - wanted).max(axis=2) <= 4).sum()) >= at_least


@given(
    kept=st.lists(st.integers(0, 7), unique=True),
    height=st.integers(4, 23),
    width=st.integers(2, 13),
)
@settings(max_examples=40, deadline=None)
def test_whitening_touches_exactly_the_dropped_patches(kept, height, width):
    image = np.random.default_rng(0).integers(0, 120, (height, width, 3)).astype(np.uint8)
    result = whiten_dropped(image, np.array(kept, dtype=np.int64), Grid(4, 2))
    for y in range(height):
        for x in range(width):
            patch = (y * 4 // height) * 2 + x * 2 // width
            if patch in kept:
                np.testing.assert_array_equal(result[y, x], image[y, x])
            else:
                assert result[y, x].min() > 200


def test_overlay_sheet_takes_pictures_and_files(tmp_path):
    red = np.zeros((3, 32, 16, 3), np.uint8)
    red[..., 0] = 200
    kept = {6: np.tile([0, 1], (3, 1)), 3: np.tile([0, 1, 2, 3], (3, 1))}
    png = overlay_sheet(red, kept, patch_size=8, path=tmp_path / "deep" / "kept.png")
    assert (tmp_path / "deep" / "kept.png").read_bytes() == png
    picture = pixels(png)
    full = int((np.abs(picture - [200, 0, 0]).max(axis=2) <= 2).sum())
    area = 216 * 108 * 3
    assert full == pytest.approx(area * (1 + 4 / 8 + 2 / 8), rel=0.06)
    paths = []
    for index in range(3):
        Image.fromarray(red[index]).save(tmp_path / f"{index}.png")
        paths.append(str(tmp_path / f"{index}.png"))
    assert overlay_sheet(paths, kept, patch_size=8, image_size=(32, 16)) == png


def test_overlay_sheet_refuses_what_does_not_fit(tmp_path):
    images = np.zeros((2, 32, 16, 3), np.uint8)
    with pytest.raises(UserError, match="no image"):
        overlay_sheet([], {}, patch_size=8, image_size=(32, 16))
    with pytest.raises(UserError, match="stage 3 has kept patches of 1 images, but 2"):
        overlay_sheet(images, {3: np.zeros((1, 2), int)}, patch_size=8)
    with pytest.raises(UserError, match=r"ids run from 0 to 8.*ids 0 to 7"):
        overlay_sheet(images, {3: np.tile([0, 8], (2, 1))}, patch_size=8)
    with pytest.raises(UserError, match="32x16 is not a multiple of the patch size 7"):
        overlay_sheet(images, {}, patch_size=7)
    with pytest.raises(UserError, match="without image_size"):
        overlay_sheet(["a.png"], {}, patch_size=8)
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.jpg is not a readable image"):
        overlay_sheet([str(tmp_path / "empty.jpg")], {}, patch_size=8, image_size=(32, 16))
    with pytest.raises(UserError, match=r"nothing\.jpg does not exist"):
        overlay_sheet(["nothing.jpg"], {}, patch_size=8, image_size=(32, 16))


@pytest.fixture
def ranked(tmp_path):
    """Return a ranking whose first query sees right, wrong and junk, in this order."""
    query = Features(torch.tensor([[0.0]]), [1], [0], None)
    gallery = Features(torch.tensor([[1.0], [2.0], [3.0]]), [1, 2, 1], [1, 1, 0])
    paths = []
    for index in range(4):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (16, 32), (250, 220, 90)).save(path)
        paths.append(str(path))
    return evaluate(query, gallery, metric="euclidean"), paths[:1], paths[1:]


def test_ranked_list_marks_right_wrong_and_junk(ranked, tmp_path):
    ranking, query, gallery = ranked
    png = ranked_list_sheet(ranking, query, gallery, [0], k=3, path=tmp_path / "list.png")
    assert (tmp_path / "list.png").read_bytes() == png
    picture = pixels(png)[50:]
    columns = {}
    for status, colour in STATUS_COLOURS.items():
        assert has_colour(picture, colour), status
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        columns[status] = np.where((np.abs(picture - wanted).max(axis=2) <= 4).any(axis=0))[0]
    assert columns["right"].max() < columns["wrong"].min()
    assert columns["wrong"].max() < columns["junk"].min()
    junk = picture[:, columns["junk"].min() + 8 : columns["junk"].max() - 8]
    assert np.abs(junk[..., 0] - junk[..., 2]).max() <= 15


def test_ranked_list_refuses_other_lists(ranked):
    ranking, query, gallery = ranked
    with pytest.raises(UserError, match="2 gallery images were given for an evaluation of 3"):
        ranked_list_sheet(ranking, query, gallery[:2], [0])
    with pytest.raises(UserError, match="query 5 does not exist"):
        ranked_list_sheet(ranking, query, gallery, [5], k=3)
    with pytest.raises(UserError, match="no query to draw"):
        ranked_list_sheet(ranking, query, gallery, [])


@pytest.mark.parametrize("shape", [(16, 8), (17, 9), (24, 16)])
def test_patch_regions_equal_counted_pixels(shape):
    mask = np.random.default_rng(3).integers(0, 8, shape).astype(np.uint8)
    grid = Grid(4, 2)
    got = patch_regions(mask, grid)
    np.testing.assert_allclose(got.sum(axis=1), 1.0)
    if shape == (17, 9):
        return
    down, across = shape[0] // 4, shape[1] // 2
    for patch in range(8):
        top, left = (patch // 2) * down, (patch % 2) * across
        cell = mask[top : top + down, left : left + across].ravel().tolist()
        body = sum(1 <= label <= 6 for label in cell) / len(cell)
        occluder = sum(label == 7 for label in cell) / len(cell)
        np.testing.assert_allclose(got[patch], [body, occluder, 1 - body - occluder], atol=1e-12)


def test_stage_shares_equal_a_plain_loop():
    rng = np.random.default_rng(4)
    regions = rng.dirichlet([1, 1, 1], size=(5, 8))
    regions[0, :, 1] = 0.0
    kept = {6: np.array([[0, 5]] * 5), 3: np.array([[0, 2, 5, 7]] * 5)}
    stages = stage_shares(regions, kept)
    assert [(stage.stage, stage.tokens) for stage in stages] == [(0, 8), (3, 4), (6, 2)]
    for stage, ids in zip(stages, [range(8), (0, 2, 5, 7), (0, 5)], strict=True):
        for index, region in enumerate(("body", "occluder", "background")):
            share, area, total = 0.0, 0.0, 0.0
            for image in range(5):
                own = [regions[image, patch, index] for patch in ids]
                share += sum(own) / len(own) / 5
                area += sum(own)
                total += sum(regions[image, patch, index] for patch in range(8))
            assert stage.share[region] == pytest.approx(100 * share)
            assert stage.survives[region] == pytest.approx(100 * area / total)


def test_shares_refuse_masks_of_another_model(tmp_path):
    regions = np.full((2, 8, 3), 1 / 3)
    with pytest.raises(UserError, match="stage 3 keeps patches of 2 images with ids up to 9"):
        stage_shares(regions, {3: np.array([[0, 9]] * 2)})
    with pytest.raises(UserError, match="holds the label 9"):
        patch_regions(np.full((8, 8), 9, np.uint8), Grid(2, 2))
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        read_regions([str(tmp_path / "none.png")], Grid(2, 2))
    Image.new("RGB", (8, 8)).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match="one label per pixel"):
        read_regions([str(tmp_path / "colour.png")], Grid(2, 2))


def test_an_occluder_that_nobody_has_is_zero_and_not_nan():
    regions = np.zeros((1, 4, 3))
    regions[:, :, 0] = 1.0
    stage = stage_shares(regions, {3: np.array([[1, 2]])})[1]
    assert stage.survives == {"body": 50.0, "occluder": 0.0, "background": 0.0}


def test_training_chart_needs_a_logged_step():
    with pytest.raises(UserError, match="log at least one step"):
        training_chart({"dense": [], "hts": []})
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan"), "kept_1": 0.7}]
    assert pixels(training_chart({"dense": history[:1], "hts": history})).std() > 5


def test_speed_chart_shows_every_row_even_at_equal_speed(ranked):
    ranking = ranked[0]
    rows = [RowResult(str(index), str(index), [1], 50.0, 1.0, ranking) for index in range(5)]
    intervals = {row.name: Interval(50.0, 45.0, 55.0) for row in rows}
    picture = pixels(speed_chart(rows, intervals))
    bars = []
    for colour in ROW_COLOURS[:5]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        tall = (np.abs(picture - wanted).max(axis=2) <= 4).sum(axis=0) >= 100
        assert tall.any(), colour
        bars.append(np.flatnonzero(tall).mean())
    assert np.diff(bars).min() > 10


def test_cmc_chart_takes_short_curves(ranked):
    ranking = ranked[0]
    short = evaluate(
        Features(torch.tensor([[0.0]]), [1], [0]),
        Features(torch.tensor([[1.0]]), [1], [1]),
        metric="euclidean",
        max_rank=3,
    )
    assert pixels(cmc_chart({"one $x_1$": ranking, "two": short}, {"chance": short})).std() > 5


def test_embedding_is_seeded_and_orders_identities_by_size():
    generator = torch.Generator().manual_seed(0)
    pids = [3] * 6 + [1] * 4 + [2] * 4 + [0] * 9
    gallery = Features(torch.randn(23, 8, generator=generator), pids, [1] * 23)
    query = Features(torch.randn(4, 8, generator=generator), [1, 2, 3, 4], [0] * 4)
    assert choose_identities(query, gallery, 3) == [3, 1, 2]
    first, again = (embed(query, gallery, [3, 1, 2], seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.points, again.points)
    assert first.labels.tolist() == [0] * 7 + [1] * 5 + [2] * 5
    assert first.is_query.sum() == 3
    assert pixels(embedding_chart({"model": first})).std() > 5
    with pytest.raises(UserError, match="two identities"):
        choose_identities(Features(query.features[:1], [1], [0]), gallery)


def test_silhouette_tells_tight_groups_from_loose_ones():
    generator = torch.Generator().manual_seed(1)
    pids = torch.arange(40) % 4 + 1
    centres = torch.randn(5, 16, generator=generator)[pids]
    noise = torch.randn(2, 40, 16, generator=generator)
    tight, loose = (
        embed(*(Features(centres + scale * part, pids, [0] * 40) for part in noise), [1, 2, 3, 4])
        for scale in (0.2, 2.0)
    )
    assert tight.silhouette > loose.silhouette + 0.3
