"""Person attributes: the reader, its tables for losses, the writer, and what bad files get."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from reid.cli import main
from reid.data.attribute_names import colour_groups, value_names
from reid.data.attributes import (
    DUKE_ATTRIBUTES,
    MARKET_ATTRIBUTES,
    read_attributes,
    write_market_attributes,
)
from reid.errors import UserError

MARKET = "market_attribute"
DUKE = "duke_attribute"


def values(seed: int, pids: list[int]) -> dict[int, dict[str, int]]:
    """Random values, with a colour above and below for everyone."""
    rng = np.random.default_rng(seed)
    table = {pid: {name: int(rng.integers(1, 3)) for name in MARKET_ATTRIBUTES} for pid in pids}
    for row in table.values():
        row["upred"] = row["downblue"] = 2
    return table


def split_of(
    names: Sequence[str], ids: Sequence[Any], columns: Mapping[str, Sequence[float]]
) -> dict[str, np.ndarray]:
    """A split with fields in the order of `names`; 1 where `columns` says nothing."""
    index = np.empty((1, len(ids)), object)
    index[0] = list(ids)
    fields = {name: np.array([columns.get(name, [1.0] * len(ids))]) for name in names}
    return {**fields, "image_index": index}


def saved(path: Path, train: object, test: object, root: str = MARKET) -> Path:
    scipy.io.savemat(path, {root: {"train": train, "test": test}})
    return path


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


def test_fields_of_the_public_files() -> None:
    assert len(MARKET_ATTRIBUTES) == len(set(MARKET_ATTRIBUTES)) == 27
    assert len(DUKE_ATTRIBUTES) == len(set(DUKE_ATTRIBUTES)) == 23
    assert list(DUKE_ATTRIBUTES) == sorted(DUKE_ATTRIBUTES)
    assert {"boots", "shoes", "top", "upbrown", "downred"} <= set(DUKE_ATTRIBUTES)
    for names, upper, lower in ((MARKET_ATTRIBUTES, 8, 9), (DUKE_ATTRIBUTES, 8, 7)):
        groups = colour_groups(names)
        assert [len(groups[title]) for title in ("upper colour", "lower colour")] == [upper, lower]
    assert "up" not in colour_groups(MARKET_ATTRIBUTES)["upper colour"]
    assert "down" not in colour_groups(MARKET_ATTRIBUTES)["lower colour"]
    assert colour_groups(["hat", "upred"]) == {"upper colour": ("upred",)}


def test_fields_are_read_by_name_whatever_their_order_and_the_form_of_the_ids(
    tmp_path: Path,
) -> None:
    columns = {"hat": [1.0, 2.0], "age": [4.0, 3.0], "upred": [2.0, 2.0], "downblue": [2.0, 2.0]}
    forward, backward = list(MARKET_ATTRIBUTES), list(reversed(MARKET_ATTRIBUTES))
    for ids in (["0005", "0004"], ["5", "4"], [5.0, 4.0], ["5   ", "0004"]):
        train, test = (split_of(names, ids, columns) for names in (forward, backward))
        if ids[0] == "5   ":
            train["image_index"] = np.array(ids)
        path = saved(tmp_path / "market_attribute.mat", train, test)
        fields = scipy.io.loadmat(path)[MARKET][0, 0]
        assert fields["train"].dtype.names != fields["test"].dtype.names
        for table in read_attributes(path).values():
            assert table.pids.tolist() == [4, 5]
            assert table.names == MARKET_ATTRIBUTES
            described = table.describe(5)
            assert (described["hat"], described["age"], described["upred"]) == ("no", "old", "yes")
            assert (table.describe(4)["hat"], table.describe(4)["age"]) == ("yes", "adult")


def test_duke_with_unlabelled_top_and_identities_without_a_colour(tmp_path: Path) -> None:
    columns = {
        "top": [0.0, 2.0, 1.0],
        "upred": [2.0, 1.0, 2.0],
        "upbrown": [1.0, 1.0, 2.0],
        "downgray": [2.0, 2.0, 1.0],
    }
    split = split_of(DUKE_ATTRIBUTES, ["0001", "0012", "7138"], columns)
    path = saved(tmp_path / "duke_attribute.mat", split, split, root=DUKE)
    table = read_attributes(path)["train"]
    assert table.root == DUKE
    upper, lower = table.groups["upper colour"], table.groups["lower colour"]
    for pid, undefined in ((1, {"top"}), (12, set(upper)), (7138, set(lower))):
        row = table.rows(np.array([pid]))[0]
        found = {
            name for name, known in zip(table.names, table.defined[row], strict=True) if not known
        }
        assert found == undefined
        assert {name for name, word in table.describe(pid).items() if word is None} == undefined
    assert table.describe(12)["top"] == "long"
    assert table.describe(7138)["top"] == "short"
    assert [table.describe(7138)[name] for name in ("upred", "upbrown", "upblue")] == [
        "yes", "yes", "no",
    ]  # fmt: skip

    binary, mask, names = table.binary()
    assert names == DUKE_ATTRIBUTES
    assert binary.dtype == np.float32
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, table.defined)
    for row in range(3):
        for column in range(23):
            known = table.defined[row, column]
            assert binary[row, column] == float(known and table.values[row, column] == 2)


def test_age_becomes_a_column_for_each_value(tmp_path: Path) -> None:
    ages = [1.0, 2.0, 3.0, 4.0, 0.0]
    split = split_of(MARKET_ATTRIBUTES, ["1", "2", "3", "4", "5"], {"age": ages})
    table = read_attributes(saved(tmp_path / "m.mat", split, split))["test"]
    binary, mask, names = table.binary()
    assert len(names) == 26 + 4
    wanted = [f"age={word}" for word in ("child", "teenager", "adult", "old")]
    columns = [names.index(name) for name in wanted]
    np.testing.assert_array_equal(binary[:, columns], np.eye(5, 4))
    assert mask[:, columns].all(1).tolist() == [True, True, True, True, False]
    assert value_names(MARKET, "clothes") == ("dress", "pants")
    assert value_names(DUKE, "shoes") == ("dark", "light")


def test_lookup_by_pid_names_the_identity_it_lacks(tmp_path: Path) -> None:
    split = split_of(["hat", "top"], ["0005", "0004"], {"hat": [2.0, 1.0]})
    table = read_attributes(saved(tmp_path / "d.mat", split, split, DUKE), root=DUKE)["train"]
    assert table.rows(np.array([5, 4, 5])).tolist() == [1, 0, 1]
    for pid in (6, 0, -1, 3):
        with pytest.raises(UserError, match=f"no identity {pid:04d} .* 2 from 0004 to 0005"):
            table.rows(np.array([4, pid]))
    with pytest.raises(UserError, match="no identity 0009"):
        table.describe(9)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no attribute file"):
        read_attributes(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("not a matrix\nbut two lines")
    (tmp_path / "empty.mat").write_bytes(b"")
    for name in ("text.mat", "empty.mat"):
        with pytest.raises(UserError, match=f"{name} is not a readable") as caught:
            read_attributes(tmp_path / name)
        assert "\n" not in str(caught.value)
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    with pytest.raises(UserError, match=r"not an attribute file .*: it holds x;"):
        read_attributes(tmp_path / "other.mat")
    split = split_of(["hat"], ["1"], {})
    duke = saved(tmp_path / "duke.mat", split, split, DUKE)
    with pytest.raises(UserError, match="with market_attribute: it holds duke_attribute"):
        read_attributes(duke, root=MARKET)
    scipy.io.savemat(tmp_path / "half.mat", {DUKE: {"train": split}})
    with pytest.raises(UserError, match=r"duke_attribute.train and duke_attribute.test"):
        read_attributes(tmp_path / "half.mat")


def test_matlab_7_3_files_are_named_as_such(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path = tmp_path / "market_attribute.mat"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(UserError, match=r"MATLAB 7\.3 file \(HDF5\).* -v7"):
        read_attributes(path)


@pytest.mark.parametrize(
    ("names", "ids", "columns", "message"),
    [
        (["hat"], ["1", "1"], {}, "train: identity 0001 occurs twice"),
        (["hat"], ["1", "2"], {"hat": [1.0]}, "train: hat has 1 values for 2 identities"),
        (["hat"], ["1", "2"], {"hat": [1.0, 3.0]}, "hat of identity 0002 is 3; expected 1 to 2"),
        (["hat"], ["1", "2"], {"hat": [np.nan, 1.0]}, "hat of identity 0001 is nan"),
        (["hat"], ["1", "2"], {"hat": [1.5, 1.0]}, "hat of identity 0001 is 1.5"),
        (["age"], ["1", "2"], {"age": [5.0, 1.0]}, "age of identity 0001 is 5; expected 1 to 4"),
        (["hat"], ["1", "c1s1"], {}, "not an attribute file .*'c1s1'"),
        ([], ["1", "2"], {}, "not an attribute file .*no attribute"),
        (["hair"], ["1", "2"], {}, "hair, hat is in one of train and test only"),
    ],
)
def test_damaged_content(
    tmp_path: Path, names: list[str], ids: list[str], columns: dict[str, list[float]], message: str
) -> None:
    train, test = split_of(names, ids, columns), split_of(["hat"], ["3", "4"], {})
    with pytest.raises(UserError, match=message):
        read_attributes(saved(tmp_path / "market_attribute.mat", train, test))


def test_without_scipy_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"needs 'scipy'.*pip install 'sparse-vit\[reid\]'"):
        read_attributes(tmp_path / "market_attribute.mat")


def test_command_prints_shares_and_undefined_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {
        "hat": [2.0, 1.0, 1.0, 1.0],
        "top": [0.0, 2.0, 2.0, 1.0],
        "upred": [2.0, 2.0, 1.0, 1.0],
    }
    train = split_of(DUKE_ATTRIBUTES, ["1", "2", "3", "4"], columns)
    test = split_of(DUKE_ATTRIBUTES, ["5"], {"hat": [2.0], "upred": [2.0]})
    path = saved(tmp_path / "duke_attribute.mat", train, test, DUKE)
    assert main(["data", "attributes", "occluded-duke", "--mat", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split()[0]: line.split() for line in lines}
    assert cells["hat"] == ["hat", "no,", "yes", "25.0", "100.0", "0", "/", "0"]
    assert cells["top"] == ["top", "short,", "long", "66.7", "0.0", "1", "/", "0"]
    assert cells["upred"] == ["upred", "no,", "yes", "100.0", "100.0", "2", "/", "0"]
    assert cells["downred"] == ["downred", "no,", "yes", "-", "-", "4", "/", "1"]
    assert lines[-1] == "4 identities in train, 1 identities in test"

    root = tmp_path / "set"
    (root / "attribute").mkdir(parents=True)
    write_market_attributes(
        root / "attribute" / "market_attribute.mat", values(0, [2, 7]), values(1, [3])
    )
    assert main(["data", "attributes", "mannequins", "--root", str(root)]) == 0
    assert "age=teenager" in capsys.readouterr().out

    for arguments, message in (
        (["market1501", "--mat", str(path)], "with market_attribute: it holds duke_attribute"),
        (["market1501"], "--mat is missing: give market_attribute.mat"),
        (["msmt17", "--mat", str(path)], "'msmt17' has no attribute file; choose one of"),
    ):
        assert main(["data", "attributes", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_file_for_a_name_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "attributes", "my files/market_attribute.mat"]) == 2
    printed = capsys.readouterr().err
    assert "expected the name of a data set, got the file my files/market_attribute.mat" in printed
    assert "attributes market1501 --mat 'my files/market_attribute.mat'" in printed
