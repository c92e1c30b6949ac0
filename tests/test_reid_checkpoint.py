"""Checkpoints survive crashes and full disks, and refuse what does not fit."""

import errno
import os
import pickle

import pytest
import torch
from torch import nn

from reid.engine import checkpoint
from reid.errors import UserError


def test_round_trip_of_tensors_metadata_and_optimizer_state(tmp_path) -> None:
    model = nn.Linear(3, 2)
    names = {p: n for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    tensors, scalars = checkpoint.flatten_optimizer(optimizer, names)
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, tensors, {"scalars": scalars, "step": 1})

    again = torch.optim.AdamW(model.parameters(), lr=0.1)
    loaded, metadata = checkpoint.load(path)
    checkpoint.restore_optimizer(again, names, loaded, metadata["scalars"])
    assert metadata["step"] == 1
    for parameter in model.parameters():
        for slot, value in optimizer.state[parameter].items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(again.state[parameter][slot])
            )


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_previous_file_and_no_litter(tmp_path, monkeypatch, call) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"w": torch.ones(2)}, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"No space left.*previous file is unchanged"):
        checkpoint.save(path, {"w": torch.zeros(2)}, {"step": 2})
    monkeypatch.undo()
    tensors, metadata = checkpoint.load(path)
    assert metadata["step"] == 1
    assert torch.equal(tensors["w"], torch.ones(2))
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_a_failed_write_names_the_remedy_of_its_cause(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"it is a folder: name a file, such as .*out$"):
        checkpoint.write_atomic(tmp_path, b"x")
    with pytest.raises(UserError, match="a folder on the way there is a file: choose another"):
        checkpoint.write_atomic(tmp_path / "file" / "out.json", b"x")
    assert os.listdir(tmp_path) == ["file"]
    for number, words in (
        (errno.EACCES, "you may not write there: choose another folder"),
        (errno.EROFS, "you may not write there: choose another folder"),
        (errno.ENOSPC, "free some space or choose another folder$"),
    ):

        def fails(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", fails)
        with pytest.raises(UserError, match=words):
            checkpoint.write_atomic(tmp_path / "out", b"x")
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupt_during_a_write_leaves_the_previous_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"w": torch.ones(2)}, {"step": 1})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"w": torch.zeros(2)}, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load(path)[1]["step"] == 1
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_a_truncated_file_is_named(tmp_path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"w": torch.ones(200)}, {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"c\.safetensors.*damaged"):
        checkpoint.load(path)


def test_nothing_is_unpickled(tmp_path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    for name in ("c.pth", "c.safetensors"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(UserError, match=name):
            checkpoint.load(path)
    assert not marker.exists()


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match="absent"):
        checkpoint.load(tmp_path / "absent.safetensors")


def test_another_architecture_is_refused_by_keys_and_shapes() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    foreign = {"0.weight": torch.zeros(5, 3), "0.bias": torch.zeros(2), "2.weight": torch.zeros(1)}
    with pytest.raises(UserError) as error:
        checkpoint.load_strict(model, foreign, "file.safetensors")
    text = str(error.value)
    assert "missing: 1.bias, 1.weight" in text
    assert "unexpected: 2.weight" in text
    assert "0.weight (5, 3) instead of (2, 3)" in text
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
