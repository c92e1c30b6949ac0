"""Folders and hubs: what is shared loads again, and says what it is."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from reid import Embedder, UserError
from reid.config import from_dict
from reid.inference.hub import download, save_folder
from reid.inference.origin import sha256_of
from reid.models.embedder import ReidModel, load_model, save_model

SIZE = (64, 32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = from_dict(
        {
            "data": {"name": "market1501", "image_size": list(SIZE), "root": "/somebody/data"},
            "model": {"backbone": "mini", "init": "/somebody/weights.pth", "stages": [3, 6, 9]},
            "teacher": "/somebody/teacher.safetensors",
        }
    )
    config.model.init = "scratch"
    model = ReidModel(config.model, SIZE, 751).eval()
    config.model.init = "/somebody/weights.pth"
    path = tmp_path / "run" / "model.safetensors"
    save_model(path, model, config, {"note": 7})
    (path.parent / "evaluation.json").write_text(json.dumps({"rank1": 87.654, "mAP": 71.2}))
    threshold = {
        "distance": 0.3,
        "rate": 1e-3,
        "fpr": 1e-3,
        "tpr": 0.9,
        "genuine": 10,
        "impostors": 2000,
        "data": "market1501",
        "checkpoint_sha256": sha256_of(path),
    }
    (path.parent / "model.threshold.json").write_text(json.dumps(threshold))
    return path


def test_a_saved_folder_loads_again(checkpoint: Path, tmp_path: Path) -> None:
    embedder = Embedder.load(checkpoint, device="cpu", engine=False)
    folder = embedder.save_pretrained(tmp_path / "shared")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "evaluation.json",
        "model.safetensors",
        "model.threshold.json",
    ]
    again = Embedder.from_pretrained(folder, device="cpu", engine=False)
    images = torch.rand(2, 3, *SIZE)
    assert (again(images) == embedder(images)).all()
    assert again.threshold is not None
    assert again.threshold.distance == 0.3
    assert load_model(folder / "model.safetensors")[2]["note"] == 7
    for file in folder.iterdir():
        assert b"/somebody" not in file.read_bytes(), file.name
    # once more over itself
    assert again.save_pretrained(folder) == folder
    assert (Embedder.load(folder, device="cpu", engine=False)(images) == embedder(images)).all()


def test_the_card_says_what_the_model_is(checkpoint: Path, tmp_path: Path) -> None:
    save_folder(checkpoint, tmp_path / "shared", name="owner/model")
    card = (tmp_path / "shared" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert "license: other" in front
    assert 'datasets: ["market1501"]' in front
    for words in (
        "Embedder.from_pretrained('owner/model')",
        "market1501: 751 identities",
        "| rank1 | 87.65 |",
        "| mAP | 71.20 |",
        "22, 15, 10 of 32 patches from the blocks 3, 6, 9 on",
        "1 in 1,000 pairs of different people",
        "## Privacy and misuse",
        "## Intended use and limits",
        "weights.pth",
    ):
        assert words in body, words
    (checkpoint.parent / "evaluation.json").unlink()
    (checkpoint.parent / "model.threshold.json").unlink()
    save_folder(checkpoint, tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert "No evaluation lay beside the weights." in bare
    assert "Threshold" not in bare


class Api:
    """What `push` calls, and what it was called with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[Any] = []

    def create_repo(self, **arguments: Any) -> str:
        if self.error is not None:
            raise self.error
        self.calls.append(arguments)
        return "where/it/lies"

    def upload_folder(self, **arguments: Any) -> None:
        names = sorted(p.name for p in Path(arguments["folder_path"]).iterdir())
        card = (Path(arguments["folder_path"]) / "README.md").read_text()
        self.calls.append((arguments["repo_id"], names, card))


def test_push_uploads_the_folder(checkpoint: Path) -> None:
    api = Api()
    embedder = Embedder.load(checkpoint, device="cpu", engine=False)
    assert embedder.push_to_hub("owner/model", api=api) == "where/it/lies"
    created, (name, names, card) = api.calls
    assert created == {"repo_id": "owner/model", "private": True, "exist_ok": True}
    assert name == "owner/model"
    assert "model.safetensors" in names
    assert "README.md" in names
    assert "from_pretrained('owner/model')" in card
    with pytest.raises(UserError, match="expected owner/model"):
        embedder.push_to_hub("model", api=api)
    with pytest.raises(UserError, match=r"cannot upload to owner/model \(OSError: no route\)"):
        embedder.push_to_hub("owner/model", api=Api(OSError("no route\nmore")))


def test_names_that_are_no_folder(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(name: str, **options: Any) -> str:
        asked.append((name, options["revision"]))
        return str(checkpoint.parent)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    embedder = Embedder.from_pretrained("owner/model", revision="v1", device="cpu", engine=False)
    assert embedder.dim == 128
    assert asked == [("owner/model", "v1")]

    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError("the network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"cannot get owner/model .*unreachable.*check the name"):
        download("owner/model")
    for name in ("nowhere", "a/b/c", "/no/such/folder"):
        with pytest.raises(UserError, match=f"{name} does not exist"):
            download(name)


def test_folders_that_cannot_be(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        save_folder(checkpoint, tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        save_folder(checkpoint, tmp_path / "file" / "folder")
    (checkpoint.parent / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        save_folder(checkpoint, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
