"""`reid compare`, `reid calibrate` and `reid benchmark`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from reid import Embedder, UserError
from reid.cli import main
from reid.config import from_dict
from reid.data.records import Record, ReidData
from reid.inference import benchmark as benchmarking
from reid.inference.race import race
from reid.inference.threshold import Threshold, calibrate, read_threshold
from reid.models import backbone as backbones
from reid.models.embedder import ReidModel, load_model, save_model
from sparse_vit import engine
from sparse_vit.flops import flops

SIZE = (64, 32)


def tiny(config: Any, size: tuple[int, int]) -> VisionTransformer:
    return VisionTransformer(
        img_size=size, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0
    ).eval()


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backbones, "_dense", tiny)
    torch.manual_seed(0)
    config = from_dict(
        {
            "data": {"image_size": list(SIZE)},
            "model": {"backbone": "mini", "init": "scratch", "stages": [1, 2]},
        }
    )
    path = tmp_path / "run" / "model.safetensors"
    save_model(path, ReidModel(config.model, SIZE, 3).eval(), config, {})
    return path


@pytest.fixture
def data(tmp_path: Path) -> ReidData:
    """Six people, each seen twice by camera 0 and twice by camera 1."""
    generator = np.random.default_rng(0)
    records: list[Record] = []
    for pid in range(1, 7):
        base = generator.integers(0, 200, (8, 4, 3))
        for shot in range(4):
            noise = generator.integers(0, 56, (8, 4, 3))
            picture = Image.fromarray((base + noise).astype(np.uint8))
            path = tmp_path / f"{pid}_{shot}.png"
            picture.resize((SIZE[1], SIZE[0])).save(path)
            records.append(Record(str(path), pid, shot // 2))
    query = [record for record in records if record.path.endswith("_0.png")]
    gallery = [record for record in records if not record.path.endswith("_0.png")]
    return ReidData("people", "", [], query, gallery)


def test_a_threshold_accepts_the_share_that_was_asked_for(checkpoint: Path, data: ReidData) -> None:
    model, config, _ = load_model(checkpoint)
    found = calibrate(checkpoint, model, config, data, 0.1)
    embedder = Embedder.load(checkpoint, device="cpu", engine=False)
    rows = {r.path: embedder(r.path)[0].astype(float) for r in (*data.query, *data.gallery)}
    genuine, impostors = [], []
    for q in data.query:
        for g in data.gallery:
            distance = 1.0 - rows[q.path] @ rows[g.path]
            if q.pid != g.pid:
                impostors.append(distance)
            elif q.camid != g.camid:
                genuine.append(distance)
    assert (found.genuine, found.impostors) == (len(genuine), len(impostors)) == (12, 90)
    # 9 of 90 pairs may be accepted; the threshold is the tenth smallest distance
    assert found.distance == pytest.approx(sorted(impostors)[9], abs=1e-5)
    assert found.fpr == pytest.approx(0.1)
    assert found.tpr == pytest.approx(np.mean(np.array(genuine) < found.distance), abs=1e-9)
    assert "1 in 10 pairs of different people" in found.meaning
    assert "measured on people" in found.meaning
    assert read_threshold(checkpoint) == embedder.threshold == found


def test_compare_says_what_it_means(
    checkpoint: Path, data: ReidData, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = data.query[0].path, data.query[1].path
    command = ["compare", "--checkpoint", str(checkpoint)]
    assert main([*command, a, b]) == 0
    assert "no threshold is known: run reid calibrate" in capsys.readouterr().out
    assert main([*command, a, a, "--threshold", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "similarity 1.0000" in printed
    assert "same person: the limit 0.0100 was given" in printed
    assert main([*command, a, b, "--threshold", "0"]) == 1
    assert "different people" in capsys.readouterr().out
    assert main([*command, a, b, "--threshold", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False
    embedder = Embedder.load(checkpoint, device="cpu")
    expected = float(embedder(a)[0] @ embedder(b)[0])
    assert found["similarity"] == pytest.approx(expected, abs=1e-6)

    model, config, _ = load_model(checkpoint)
    threshold = calibrate(checkpoint, model, config, data, 0.1)
    code = main([*command, a, b])
    printed = capsys.readouterr().out
    assert code == int(1.0 - expected >= threshold.distance)
    assert ("same person" if code == 0 else "different people") in printed
    assert "1 in 10 pairs" in printed
    assert main([*command, a, str(tmp_path / "no.jpg")]) == 2
    assert main([*command, a, b, "--threshold", "3"]) == 2
    assert "between 0 and 2" in capsys.readouterr().err


def test_several_images_of_a_person(checkpoint: Path, data: ReidData) -> None:
    embedder = Embedder.load(checkpoint, device="cpu", output="torch")
    left = [r.path for r in data.gallery[:3]]
    right = [r.path for r in data.gallery[3:5]]
    found = embedder.compare(left, right)
    pairs = [float(a @ b) for a in embedder(left) for b in embedder(right)]
    assert found.similarity == pytest.approx(sum(pairs) / 6, abs=1e-6)
    assert found.same is None
    with pytest.raises(UserError, match="second side holds no image"):
        embedder.compare(left, [])


def test_a_threshold_of_other_weights_is_refused(checkpoint: Path, data: ReidData) -> None:
    model, config, _ = load_model(checkpoint)
    calibrate(checkpoint, model, config, data, 0.1)
    model.neck.norm.weight.data.add_(1.0)
    save_model(checkpoint, model, config, {})
    a = data.query[0].path
    embedder = Embedder.load(checkpoint, device="cpu")
    with pytest.raises(UserError, match="measured with other weights"):
        embedder.compare(a, a)
    assert embedder.compare(a, a, threshold=0.5).same
    (checkpoint.parent / "model.threshold.json").write_text("{")
    with pytest.raises(UserError, match="holds no threshold"):
        embedder.compare(a, a)
    with pytest.raises(UserError, match="has no query and gallery"):
        calibrate(checkpoint, model, config, ReidData("empty", ""), 0.1)
    with pytest.raises(UserError, match="impostor pairs"):
        calibrate(checkpoint, model, config, data, 1e-4)


def test_meaning_of_a_threshold_without_a_false_pair() -> None:
    threshold = Threshold(0.2, 1e-3, 0.0, 0.5, 10, 4000, "people", "")
    assert "none of 4,000 pairs of different people" in threshold.meaning


def test_benchmark_compares_with_the_dense_twin(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speeds = iter([(10.0, 30.0, 20.0, 50.0)])

    def timed(models: Any, images: torch.Tensor, **_: Any) -> list[float]:
        assert images.shape == (2, 3, *SIZE)
        for model in models:
            assert model(images).shape == (2, 32)
        return list(next(speeds))

    monkeypatch.setattr("reid.inference.race.images_per_second", timed)
    out = checkpoint.parent / "speed.json"
    command = ["benchmark", "--checkpoint", str(checkpoint), "--batch", "2", "--json", str(out)]
    assert main([*command, "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    assert "keeps 22, 15 of 32 patches" in printed
    rows = json.loads(out.read_text())["rows"]
    assert [(r["model"], r["path"]) for r in rows] == [
        ("dense", "torch"),
        ("dense", "engine"),
        ("own", "torch"),
        ("own", "engine"),
    ]
    assert [r["against_dense"] for r in rows] == [1.0, 3.0, 2.0, 5.0]
    assert [r["against_same"] for r in rows] == pytest.approx([1.0, 1.0, 2.0, 5.0 / 3.0])
    assert rows[0]["time"]["milliseconds"] == pytest.approx(200.0)
    model, _, _ = load_model(checkpoint)
    assert rows[2]["gflops"] == pytest.approx(flops(model.backbone) / 1e9)
    assert rows[0]["gflops"] > rows[2]["gflops"]


def test_benchmark_names_what_it_leaves_out(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("cannot optimize a Strange")

    monkeypatch.setattr(engine, "optimize", refuse)
    found = benchmarking.benchmark(checkpoint, batches=[1], dtypes=["float32"], rounds=1)
    assert [row.path for row in found.rows] == ["torch", "torch"]
    assert "left out: own through the engine in float32: cannot optimize" in str(found)
    with pytest.raises(UserError, match="choose of float32"):
        benchmarking.benchmark(checkpoint, dtypes=["int4"])
    with pytest.raises(UserError, match="at least 1"):
        race({}, SIZE, [0], rounds=1)
