"""Feature files: what is written comes back, what is broken is named."""

import numpy as np
import pytest
import torch

from reid.errors import UserError
from reid.evaluation import Features


def test_file_round_trip(tmp_path):
    features = Features(
        torch.tensor([[1.5, -2.0], [0.25, 8.0]]), [3, -1], [0, 5], ["a.jpg", "ä.jpg"]
    )
    path = features.save(tmp_path / "deep" / "query")
    assert path.name == "query.npz"
    assert [file.name for file in path.parent.iterdir()] == ["query.npz"]
    back = Features.load(path)
    torch.testing.assert_close(back.features, features.features, rtol=0, atol=0)
    np.testing.assert_array_equal(back.pids, [3, -1])
    np.testing.assert_array_equal(back.camids, [0, 5])
    assert back.names == ["a.jpg", "ä.jpg"]
    assert len(back) == 2


def test_names_are_optional_and_numpy_is_taken(tmp_path):
    path = Features(np.ones((2, 3), np.float64), np.array([1, 2]), torch.tensor([0, 1])).save(
        tmp_path / "f.npz"
    )
    back = Features.load(path)
    assert back.names is None
    assert back.features.dtype == torch.float32
    assert back.pids.dtype == np.int64


@pytest.mark.parametrize(
    ("features", "pids", "camids", "names", "message"),
    [
        (torch.zeros(0, 4), [], [], None, r"empty, shape \(0, 4\)"),
        (torch.zeros(4), [1], [1], None, r"shape \(4,\)"),
        (torch.zeros(2, 4), [1], [1, 2], None, "1 pids for 2 feature rows"),
        (torch.zeros(2, 4), [1, 2], [1], None, "1 camids for 2 feature rows"),
        (torch.zeros(2, 4), [1, 2], [1, 2], ["a"], "1 names for 2 feature rows"),
        (torch.zeros(2, 4), [1.5, 2.0], [1, 2], None, "pids must be a list of whole numbers"),
        (
            torch.tensor([[1.0], [float("nan")], [float("inf")]]),
            [1, 2, 3],
            [0, 0, 0],
            ["a", "b", "c"],
            r"2 of 3 feature rows hold NaN.*row 1 \(b\)",
        ),
    ],
)
def test_refuses_broken_sets(features, pids, camids, names, message):
    with pytest.raises(UserError, match=message):
        Features(features, pids, camids, names)


def test_refuses_broken_files(tmp_path):
    with pytest.raises(UserError, match=r"no feature file at .*nothing\.npz"):
        Features.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "part.npz", features=np.ones((1, 2)), other=np.ones(1))
    with pytest.raises(UserError, match="lacks the array pids, camids; it holds features, other"):
        Features.load(tmp_path / "part.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match="not a readable feature file"):
        Features.load(tmp_path / "text.npz")
    whole = Features(torch.ones(3, 2), [1, 2, 3], [0, 0, 0]).save(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable feature file"):
        Features.load(tmp_path / "cut.npz")
    np.save(tmp_path / "single.npy", np.ones((2, 2)))
    with pytest.raises(UserError, match="single array"):
        Features.load(tmp_path / "single.npy")


def test_nothing_is_unpickled(tmp_path):
    trap = np.empty(1, dtype=object)
    trap[0] = {"any": "object"}
    np.savez(tmp_path / "trap.npz", features=trap, pids=np.ones(1, int), camids=np.ones(1, int))
    with pytest.raises(UserError, match="not a readable feature file"):
        Features.load(tmp_path / "trap.npz")
