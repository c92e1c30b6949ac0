"""Parts of an evaluation, sampled galleries and verification, against plain loops."""

import numpy as np
import pytest
import torch

from reid.errors import UserError
from reid.evaluation import (
    Features,
    camera_matrix,
    evaluate,
    evaluate_single_shot,
    slices,
    threshold_at,
    verification,
    verify,
)

IMPLEMENTATIONS = [None, "reference"]


def draw(count, low, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(13, 12, generator=torch.Generator().manual_seed(9))
    pids = torch.randint(low, 13, (count,), generator=generator)
    vectors = centres[pids.clamp(min=0)] + 1.2 * torch.randn(count, 12, generator=generator)
    return Features(vectors, pids, torch.randint(0, 3, (count,), generator=generator))


@pytest.fixture(scope="module")
def sets():
    """Queries and a gallery with junk, distractors and images that repeat."""
    query, gallery = draw(30, 1, 1), draw(210, -1, 2)
    gallery.features[::11] = gallery.features[0]
    return query, gallery


def distance_table(query, gallery):
    q, g = (torch.nn.functional.normalize(x.features.double()) for x in (query, gallery))
    return (1.0 - q @ g.t()).float().numpy()


def kinds(query, gallery):
    """Tables (Q, G): counted rows and matches."""
    same = (query.pids[:, None] == gallery.pids) & (gallery.pids != 0)
    camera = query.camids[:, None] == gallery.camids
    return ~(same & camera) & (gallery.pids != -1), same & ~camera


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_verification_counts_every_pair(sets, impl):
    table, (counted, match) = distance_table(*sets), kinds(*sets)
    genuine, impostors = table[match], np.sort(table[counted & ~match])
    rates = [0.001, 0.01, 0.1, 0.5]
    found = verify(*sets, rates, impl=impl)
    assert (found.genuine, found.impostors) == (len(genuine), len(impostors))
    for index, rate in enumerate(rates):
        threshold = impostors[int(rate * len(impostors))]
        assert found.thresholds[index] == threshold
        assert found.false[index] == (impostors < threshold).sum()
        assert found.true[index] == (genuine < threshold).sum()
        assert found.fpr[index] == (impostors < threshold).mean() <= rate
        assert found.tpr[index] == pytest.approx((genuine < threshold).mean(), rel=1e-15)
        assert threshold_at(*sets, rate, impl=impl) == threshold


@pytest.mark.parametrize("drawn", [0, 1, 3])
def test_a_sample_that_misleads_changes_nothing(sets, drawn, monkeypatch):
    rates = [0.001, 0.3, 1.0]
    expected = verify(*sets, rates)
    monkeypatch.setattr(verification, "_SAMPLE", drawn)
    monkeypatch.setattr(verification, "_DEVIATIONS", 0.0)
    found = verify(*sets, rates)
    assert found.thresholds.tolist() == expected.thresholds.tolist()
    assert found.false.tolist() == expected.false.tolist()


def test_all_impostors_may_be_accepted(sets):
    found = verify(*sets, [1.0])
    assert (found.fpr[0], found.tpr[0]) == (1.0, 1.0)


def test_tied_impostors_are_accepted_together_or_not_at_all():
    gallery = Features([[1.0], [2.0], [2.0], [2.0], [3.0]], [7, 8, 8, 9, 9], [1] * 5)
    query = Features([[0.0]], [7], [0])
    found = verify(query, gallery, [0.25, 0.5, 0.75], metric="euclidean")
    assert found.thresholds.tolist() == [2.0, 2.0, 3.0]
    assert found.false.tolist() == [0, 0, 3]


@pytest.mark.parametrize(
    ("rates", "message"),
    [([], "above 0"), ([0.0], "above 0"), ([2.0], "above 0"), ([1e-9], "1000000000 impostor")],
)
def test_verification_refuses_rates(sets, rates, message):
    with pytest.raises(UserError, match=message):
        verify(*sets, rates)


def test_verification_needs_both_kinds_of_pairs():
    query, gallery = Features([[1.0]], [1], [0]), Features([[1.0]], [1], [1])
    with pytest.raises(UserError, match="1 genuine and 0 impostor"):
        verify(query, gallery)


def test_a_slice_is_the_evaluation_of_its_queries(sets):
    query, gallery = sets
    whole = evaluate(query, gallery)
    labels = [["low", "high", ""][row % 3] for row in range(len(query))]
    found = slices(whole, labels)
    assert list(found) == ["high", "low"]
    for label, part in found.items():
        rows = np.array(labels) == label
        alone = evaluate(query.subset(rows), gallery)
        assert part.summary() == alone.summary()
        np.testing.assert_array_equal(part.cmc, alone.cmc)
        np.testing.assert_array_equal(part.top_indices, alone.top_indices)
        assert part.top(0, 3) == alone.top(0, 3)
    assert list(slices(whole, query.camids)) == [0, 1, 2]
    with pytest.raises(UserError, match="30 queries, labels of shape"):
        slices(whole, labels[:-1])


def test_a_slice_without_counted_queries_has_no_score():
    result = evaluate(
        Features(torch.eye(2), [1, 5], [0, 0]), Features(torch.eye(2), [1, 2], [1, 1])
    )
    lost = slices(result, ["a", "b"])["b"]
    assert (lost.queries, lost.skipped) == (0, 1)
    assert np.isnan([lost.mAP, lost.rank1, lost.mINP]).all()


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_camera_matrix_evaluates_each_pair_of_cameras(sets, impl):
    query, gallery = sets
    found = camera_matrix(query, gallery, impl=impl)
    assert found.query_cameras.tolist() == found.gallery_cameras.tolist() == [0, 1, 2]
    for a in range(3):
        for b in range(3):
            if a == b:
                assert np.isnan(found.mAP[a, b])
                assert found.queries[a, b] == 0
                continue
            alone = evaluate(
                query.subset(query.camids == a), gallery.subset(gallery.camids == b), impl=impl
            )
            assert found.queries[a, b] == alone.queries
            assert found.rank1[a, b] == alone.rank1
            assert found.mAP[a, b] == pytest.approx(alone.mAP, rel=1e-14)
            assert found.mINP[a, b] == pytest.approx(alone.mINP, rel=1e-14)
    kept = camera_matrix(query, gallery, cross_camera=False, impl=impl)
    assert not np.isnan(kept.mAP).any()


@pytest.mark.parametrize("ties", ["stable", "optimistic", "pessimistic", "expected"])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_single_gallery_shot_keeps_one_image_per_person(sets, ties, impl):
    query, gallery = sets
    result = evaluate_single_shot(query, gallery, shots=4, seed=3, ties=ties, impl=impl)
    table, (_, match) = distance_table(query, gallery), kinds(query, gallery)
    hits = np.zeros((len(query), 50))
    for shot in range(4):
        generator = np.random.default_rng([3, shot])
        order = generator.permutation(len(gallery))
        chosen = {}
        for row in order.tolist():
            if gallery.pids[row] != -1:
                chosen.setdefault(gallery.pids[row], row)
        share = generator.random(len(query))
        for q in range(len(query)):
            own = np.flatnonzero(match[q])
            if not len(own):
                continue
            row = own[int(share[q] * len(own))]
            others = [r for pid, r in chosen.items() if pid != query.pids[q]]
            less = sum(table[q, r] < table[q, row] for r in others)
            same = [r for r in others if table[q, r] == table[q, row]]
            for k in range(50):
                hits[q, k] += {
                    "stable": less + sum(r < row for r in same) <= k,
                    "optimistic": less <= k,
                    "pessimistic": less + len(same) <= k,
                    "expected": min(1.0, max(0.0, (k + 1 - less) / (len(same) + 1))),
                }[ties] / 4
    valid = match.any(axis=1)
    np.testing.assert_allclose(result.cmc, 100 * hits[valid].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.per_query.hits[valid], hits[valid], rtol=1e-12)
    whole = evaluate(query, gallery, ties=ties)
    assert (result.mAP, result.protocol) == (whole.mAP, "single-gallery-shot")


def test_draws_follow_the_seed(sets):
    one, same, other = (evaluate_single_shot(*sets, seed=seed).cmc.tolist() for seed in (1, 1, 2))
    assert one == same != other
    with pytest.raises(UserError, match="shots=0"):
        evaluate_single_shot(*sets, shots=0)


def test_reasons_of_skipped_queries_are_counted():
    query = Features(torch.eye(3), [1, 2, 9], [0, 0, 0])
    gallery = Features(torch.eye(3), [1, 2, 2], [1, 0, 0])
    assert evaluate(query, gallery).skipped_because() == {
        "the gallery holds no image of the person": 1,
        "all images of the person are of the query's camera": 1,
    }
    assert evaluate(query, gallery, cross_camera=False).skipped == 1


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_codes_are_compared_by_their_bits(impl):
    codes = np.array([[0, 0], [1, 0], [2**63, 3], [2**64 - 1, 2**64 - 1]], dtype=np.uint64)
    query = Features(codes[:1], [1], [0])
    gallery = Features(codes[[3, 2, 1, 2]], [2, 1, 2, 3], [1] * 4)
    result = evaluate(query, gallery, metric="hamming", impl=impl)
    assert [(item.gallery, item.distance) for item in result.top(0, 4)] == [
        (2, 1.0), (1, 3.0), (3, 3.0), (0, 128.0),
    ]  # fmt: skip
    assert (result.tied, result.per_query.first_rank[0]) == (1, 2)
    pessimist = evaluate(query, gallery, metric="hamming", impl=impl, ties="pessimistic")
    assert pessimist.per_query.first_rank[0] == 3


def test_codes_and_visibilities_survive_a_file(tmp_path):
    codes = np.array([[2**64 - 1], [5]], dtype=np.uint64)
    back = Features.load(Features(codes, [1, 2], [0, 1]).save(tmp_path / "codes"))
    assert back.features.tolist() == [[-1], [5]]
    assert back.subset([1]).features.tolist() == [[5]]
    seen = Features(torch.ones(2, 3, 4), [1, 2], [0, 1], None, [[1, 0, 0.5]] * 2)
    back = Features.load(seen.save(tmp_path / "parts"))
    assert back.visibility.tolist() == [[1, 0, 0.5]] * 2
    assert back.features.shape == (2, 3, 4)
    assert back.subset([True, False]).visibility.shape == (1, 3)


def test_hidden_parts_do_not_count():
    """The second part, hidden in the query, would have spoken for the other person."""
    parts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    query = Features(parts[None], [1], [0], None, [[1.0, 0.0]])
    images = torch.stack([torch.stack([parts[0], -parts[1]]), torch.stack([parts[1], parts[1]])])
    gallery = Features(images, [1, 2], [1, 1], None, [[1.0, 1.0]] * 2)
    assert evaluate(query, gallery, metric="visible").rank1 == 100.0
    shown = Features(parts[None], [1], [0], None, [[0.1, 1.0]])
    assert evaluate(shown, gallery, metric="visible").rank1 == 0.0
    nothing = Features(images, [1, 2], [1, 1], None, [[0.0, 1.0], [1.0, 1.0]])
    assert evaluate(query, nothing, metric="visible").top(0)[1].distance == 2.0


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("hamming", "compares packed binary codes.*metric='cosine'"),
        ("visible", "compares part features.*metric='cosine'"),
    ],
)
def test_metrics_name_the_features_they_need(sets, metric, message):
    with pytest.raises(UserError, match=message):
        evaluate(*sets, metric=metric)
    codes = Features(np.ones((1, 1), np.uint64), [1], [0])
    with pytest.raises(UserError, match="metric='hamming'"):
        evaluate(codes, codes)


@pytest.mark.parametrize(
    ("features", "visibility", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 3), "needs float features"),
        (torch.ones(2, 3, 4), torch.ones(2, 4), "needs float features"),
        (torch.ones(2, 3, 4), [[1, 1, 1], [1, 1, 2.0]], "row 1 has a visibility outside 0"),
        (np.array([["a"]] * 2), None, "must be numbers"),
    ],
)
def test_refuses_broken_parts(features, visibility, message):
    with pytest.raises(UserError, match=message):
        Features(features, [1, 2], [0, 1], None, visibility)
