"""Batches, shards and keys: distinct identities, exact lengths, purity."""

from collections import Counter

import numpy as np
import pytest
import torch

from reid.data.samplers import PKSampler, sample_keys, shard
from reid.errors import UserError

# Images per identity: one with a single image, fewer than K, left-overs, and one giant.
COUNTS = [1, 3, 4, 5, 8, 9, 4, 30, 6, 12]
PIDS = np.repeat(np.arange(len(COUNTS)) * 7 + 2, COUNTS)
CAMIDS = np.arange(len(PIDS)) % 3


def sampler(**settings) -> PKSampler:
    return PKSampler(PIDS, CAMIDS, **{"p": 3, "k": 4, "seed": 5, **settings})


def longest_epoch_by_trial(groups: list[int], p: int) -> int:
    """Fill batches with the p identities that have most groups left, which is optimal."""
    length = 0
    left = sorted(groups, reverse=True)
    while left[p - 1] > 0:
        left = sorted([value - 1 for value in left[:p]] + left[p:], reverse=True)
        length += 1
    return length


@pytest.mark.parametrize("cross_camera", [False, True])
@pytest.mark.parametrize(("p", "k"), [(3, 4), (2, 2), (10, 4), (4, 1)])
def test_every_batch_has_p_distinct_identities_with_k_images(
    p: int, k: int, cross_camera: bool
) -> None:
    batches = sampler(p=p, k=k, cross_camera=cross_camera).epoch(1)
    assert batches.dtype == np.int64
    assert batches.shape[1] == p * k
    for batch in PIDS[batches].reshape(-1, p, k):
        assert (batch == batch[:, :1]).all()
        assert len(np.unique(batch[:, 0])) == p


@pytest.mark.parametrize("cross_camera", [False, True])
def test_images_repeat_inside_a_group_only_if_the_identity_has_too_few(cross_camera: bool) -> None:
    for epoch in range(3):
        for group in sampler(cross_camera=cross_camera).epoch(epoch).reshape(-1, 4):
            available = (PIDS[group[0]] == PIDS).sum()
            assert len(set(group.tolist())) == min(4, available)


def test_an_epoch_is_one_pass() -> None:
    for epoch in range(4):
        drawn = Counter(sampler().epoch(epoch).ravel().tolist())
        for image, times in drawn.items():
            if (PIDS[image] == PIDS).sum() >= 4:
                assert times == 1


@pytest.mark.parametrize("p", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_length_is_exact_constant_and_the_longest_possible(p: int, k: int) -> None:
    batches = sampler(p=p, k=k)
    assert len(batches) == longest_epoch_by_trial([max(count // k, 1) for count in COUNTS], p)
    assert [len(batches.epoch(epoch)) for epoch in range(5)] == [len(batches)] * 5
    assert len(sampler(p=p, k=k, cross_camera=True)) == len(batches)


def test_every_identity_and_image_gets_its_turn() -> None:
    drawn = np.concatenate([sampler().epoch(epoch).ravel() for epoch in range(60)])
    assert set(drawn.tolist()) == set(range(len(PIDS)))


def test_epochs_are_pure_functions_of_seed_and_epoch() -> None:
    first, second = sampler(), sampler()
    second.epoch(0)
    np.testing.assert_array_equal(first.epoch(3), second.epoch(3))
    assert (first.epoch(3) != first.epoch(4)).any()
    assert (first.epoch(3) != sampler(seed=6).epoch(3)).any()


def test_identities_are_combined_freely() -> None:
    uniform = PKSampler(np.repeat(np.arange(12), 8), np.zeros(96, int), p=3, k=4)
    partners = set()
    for epoch in range(20):
        for batch in uniform.epoch(epoch).reshape(-1, 3, 4)[:, :, 0] // 8:
            partners |= {int(pid) for pid in batch if 0 in batch}
    assert partners == set(range(12))


def test_cross_camera_groups_take_other_cameras_first() -> None:
    pids = np.repeat([0, 1, 2], 12)
    # Identity 0: 9 images of camera 0, 3 others; identity 1: one camera; identity 2: all differ.
    camids = np.array([0] * 9 + [1, 2, 2] + [4] * 12 + list(range(12)))
    batches = PKSampler(pids, camids, p=2, k=4, cross_camera=True)
    anchors = set()
    for epoch in range(40):
        for group in batches.epoch(epoch).reshape(-1, 4):
            anchor, rest = camids[group[0]], camids[group[1:]]
            available = ((pids == pids[group[0]]) & (camids != anchor)).sum()
            assert (rest != anchor).sum() == min(3, available)
            anchors.add(int(group[0]))
    assert anchors == set(range(36))


def test_too_few_identities_names_both_numbers_and_the_remedy() -> None:
    with pytest.raises(UserError, match=r"batch of 16 .* has 10; set train.identities to 10"):
        sampler(p=16)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="p=0 and k=4"):
        sampler(p=0)
    with pytest.raises(ValueError, match="2 pids but 3 camids"):
        PKSampler([1, 2], [0, 0, 0])


def test_shards_are_contiguous_and_complete() -> None:
    batch = np.arange(12)
    parts = [shard(batch, rank, 3) for rank in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert shard(torch.arange(4), 1, 2).tolist() == [2, 3]
    with pytest.raises(UserError, match=r"12 images .* by 5 processes"):
        shard(batch, 0, 5)
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3"):
        shard(batch, 3, 3)


def test_keys_differ_by_seed_epoch_position_and_view_and_by_nothing_else() -> None:
    positions = torch.arange(64)
    tables = [
        sample_keys(seed, epoch, positions, view)
        for seed in (0, 1)
        for epoch in range(4)
        for view in (0, 1)
    ]
    assert all(table.dtype == torch.int64 for table in tables)
    assert len(torch.cat(tables).unique()) == len(tables) * 64
    part = sample_keys(1, 3, positions[40:50], 1)
    assert torch.equal(part, tables[-1][40:50])
