"""Reader and writer of Market-1501's attribute file."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from reid.data.attributes import MARKET_ATTRIBUTES, read_attributes, write_market_attributes
from reid.errors import UserError


def values(seed: int, pids: list[int]) -> dict[int, dict[str, int]]:
    rng = np.random.default_rng(seed)
    return {pid: {name: int(rng.integers(1, 3)) for name in MARKET_ATTRIBUTES} for pid in pids}


def test_round_trip(tmp_path: Path) -> None:
    train, test = values(0, [7, 2, 1500]), values(1, [3])
    path = tmp_path / "market_attribute.mat"
    write_market_attributes(path, train, test)
    tables = read_attributes(path)
    assert tables["train"].pids.tolist() == [2, 7, 1500]
    assert tables["test"].pids.tolist() == [3]
    for split, expected in (("train", train), ("test", test)):
        table = tables[split]
        assert table.names == MARKET_ATTRIBUTES
        assert table.defined.all()
        for row, pid in enumerate(table.pids.tolist()):
            assert dict(zip(table.names, table.values[row].tolist(), strict=True)) == expected[pid]


def test_structure_is_that_of_the_public_file(tmp_path: Path) -> None:
    path = tmp_path / "market_attribute.mat"
    write_market_attributes(path, values(0, [2, 7]), values(1, [3]))
    root = scipy.io.loadmat(path)["market_attribute"]
    assert root.shape == (1, 1)
    assert set(root.dtype.names) == {"train", "test"}
    train = root[0, 0]["train"]
    assert train.shape == (1, 1)
    assert len(train.dtype.names) == 28
    assert train["age"][0, 0].shape == (1, 2)
    assert train["image_index"][0, 0].shape == (1, 2)
    assert train["image_index"][0, 0][0, 1][0] == "0007"


def test_fields_are_read_by_name_and_zero_is_undefined(tmp_path: Path) -> None:
    def split(names: list[str], top: list[float]) -> dict[str, np.ndarray]:
        index = np.empty((1, 2), object)
        index[0] = ["0005", "0004"]
        columns = {"top": top, "hat": [1.0, 2.0]}
        return {**{name: np.array([columns[name]]) for name in names}, "image_index": index}

    path = tmp_path / "duke_attribute.mat"
    content = {
        "train": split(["top", "hat"], [0.0, 2.0]),
        "test": split(["hat", "top"], [1.0, 1.0]),
    }
    scipy.io.savemat(path, {"duke_attribute": content})
    tables = read_attributes(path, root="duke_attribute")
    assert tables["train"].names == tables["test"].names == ("hat", "top")
    assert tables["train"].values.tolist() == [[2, 2], [1, 0]]
    assert tables["train"].defined.tolist() == [[True, True], [True, False]]
    assert tables["train"].rows(np.array([5, 4, 5])).tolist() == [1, 0, 1]
    with pytest.raises(UserError, match="no identity 0006"):
        tables["train"].rows(np.array([4, 6]))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no attribute file"):
        read_attributes(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("not a matrix")
    with pytest.raises(UserError, match="not a readable"):
        read_attributes(tmp_path / "text.mat")
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    with pytest.raises(UserError, match="not an attribute file"):
        read_attributes(tmp_path / "other.mat")
