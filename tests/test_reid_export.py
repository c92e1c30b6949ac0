"""`reid export` and the ways behind `Embedder`: engine, model, onnxruntime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from reid import Embedder, UserError
from reid.cli import main
from reid.config import RunConfig, from_dict
from reid.inference import export as exporting
from reid.inference.deployed import Deployed, dense_twin
from reid.models import backbone as backbones
from reid.models.embedder import Preprocess, ReidModel, save_model
from sparse_vit import engine
from sparse_vit.export import ParityError

SIZE = (64, 32)
EPS = float(torch.finfo(torch.float32).eps)


def tiny(config: Any, size: tuple[int, int]) -> VisionTransformer:
    return VisionTransformer(
        img_size=size, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0
    ).eval()


def made(folder: Path, **options: Any) -> tuple[Path, ReidModel]:
    """A checkpoint of a model whose BNNeck does something."""
    torch.manual_seed(0)
    config: RunConfig = from_dict(
        {
            "data": {"image_size": list(SIZE), "root": "/somebody/data"},
            "model": {
                "backbone": "mini",
                "init": "scratch",
                "stages": [1, 2],
                "neck_feature": "after",
                **options,
            },
        }
    )
    model = ReidModel(config.model, SIZE, 3).eval()
    with torch.no_grad():
        for module in model.backbone.modules():
            if isinstance(module, nn.Linear):
                # scores further apart than those of selectors that were never trained
                module.weight.normal_(std=0.3)
    model.neck.norm.running_mean.normal_()
    model.neck.norm.running_var.uniform_(0.5, 2.0)
    path = folder / "model.safetensors"
    save_model(path, model, config, {})
    return path, model


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_dense", tiny)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)


def reference(model: ReidModel, pictures: np.ndarray) -> np.ndarray:
    """Normalised features of the model in float64, pixels normalised by hand."""
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255.0 - 0.5) / 0.5
    with torch.no_grad():
        feature = model.backbone.double()(x)
        norm = model.neck.norm.double()
        feature = (feature - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        feature = feature * norm.weight + norm.bias
    model.float()
    return (feature / feature.norm(dim=1, keepdim=True)).numpy()


def test_an_onnx_file_embeds_like_its_checkpoint(
    tmp_path: Path, pictures: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, model = made(tmp_path)
    out = tmp_path / "deep" / "model.onnx"
    assert main(["export", "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "parity: relative error" in printed
    assert "opset 18" in printed
    assert sorted(p.name for p in out.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    beside = json.loads((out.parent / "model.onnx.json").read_text())
    assert beside["preprocess"]["image_size"] == list(SIZE)
    assert beside["keep_counts"] == model.backbone.keep_counts == [22, 15]
    assert beside["tokens"] == 32
    assert beside["dim"] == 32
    assert "somebody" not in json.dumps(beside)
    assert beside["export"]["parity"]["error"] <= beside["export"]["parity"]["tolerance"]

    embedder = Embedder.load(out, color="rgb", batch_size=2)
    assert "onnxruntime" in embedder.describe()
    assert embedder.preprocess == Preprocess(image_size=SIZE)
    found = embedder(pictures)
    assert found.dtype == np.float32
    assert np.abs(found - reference(model, pictures)).max() <= 200 * EPS
    assert embedder([]).shape == (0, 32)
    with pytest.raises(UserError, match="takes no engine"):
        Embedder.load(out, engine=True)
    with pytest.raises(UserError, match="normalises its features itself"):
        Embedder.load(out, normalize=False)
    with pytest.raises(UserError, match=r"not loaded from a model\.safetensors"):
        embedder.save_pretrained(tmp_path / "folder")
    out.write_bytes(out.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read as ONNX"):
        Embedder.load(out)
    with pytest.raises(UserError, match="does not exist"):
        Embedder.load(tmp_path / "no.onnx")


def test_a_program_without_the_last_normalisation(tmp_path: Path, pictures: np.ndarray) -> None:
    checkpoint, model = made(tmp_path, neck_feature="before", reduction="fuse")
    out = tmp_path / "model.pt2"
    exporting.export(checkpoint, out, format="program", normalize=False)
    program = torch.export.load(out).module()
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0
    with torch.no_grad():
        expected = model((x - 0.5) / 0.5)
        assert (program(x) - expected).abs().max() <= 200 * EPS


def test_half_precision_keeps_the_direction(tmp_path: Path) -> None:
    checkpoint, model = made(tmp_path)
    deployed = Deployed(model, Preprocess(image_size=SIZE), dtype=torch.bfloat16)
    images = torch.rand(3, 3, *SIZE)
    with torch.no_grad():
        found = deployed(images)
        exact = Deployed(model, Preprocess(image_size=SIZE))(images)
    assert found.dtype == torch.float32
    # tokens near the cut may differ
    assert torch.cosine_similarity(found, exact).min() > 0.95
    assert not torch.equal(found, exact)
    with pytest.raises(UserError, match="'bfloat16' is not possible with the format onnx"):
        exporting.export(checkpoint, tmp_path / "m.onnx", dtype="bfloat16")


def test_the_dense_twin_keeps_everything(tmp_path: Path) -> None:
    _, model = made(tmp_path)
    config = from_dict({"data": {"image_size": list(SIZE)}, "model": {"neck_feature": "after"}})
    twin = dense_twin(model, config)
    assert type(twin.backbone) is VisionTransformer
    model.backbone.set_keep_ratio(1.0)
    x = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert (twin(x) - model(x)).abs().max() <= 200 * EPS


@pytest.mark.filterwarnings("ignore:bfloat16 is slower:RuntimeWarning")
@pytest.mark.parametrize("sparse", [True, False])
def test_the_engine_gives_the_features_of_the_model(
    tmp_path: Path, pictures: np.ndarray, sparse: bool
) -> None:
    checkpoint, model = made(tmp_path, sparse=sparse)
    expected = reference(model, pictures)
    options: dict[str, Any] = {"device": "cpu", "color": "rgb"}
    plain = Embedder.load(checkpoint, engine=False, **options)
    fast = Embedder.load(checkpoint, **options)
    assert plain.describe().startswith("the model in torch: engine=False")
    assert fast.describe().startswith("sparse_vit.engine: cpu, float32")
    for embedder in (plain, fast):
        assert np.abs(embedder(pictures) - expected).max() <= 200 * EPS
    low = Embedder.load(checkpoint, dtype="bfloat16", **options)(pictures)
    assert low.dtype == np.float32
    assert (low * expected).sum(axis=1).min() > 0.95
    assert np.abs(low - expected).max() > 200 * EPS


def test_what_the_engine_refuses_runs_in_torch(
    tmp_path: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("cannot optimize a Strange")

    monkeypatch.setattr(engine, "optimize", refuse)
    checkpoint, model = made(tmp_path)
    embedder = Embedder.load(checkpoint, device="cpu", color="rgb")
    assert "the engine refuses it (cannot optimize a Strange)" in embedder.describe()
    assert np.abs(embedder(pictures) - reference(model, pictures)).max() <= 200 * EPS
    for options in ({"engine": True}, {"dtype": "bfloat16"}):
        with pytest.raises(UserError, match="cannot optimize a Strange"):
            Embedder.load(checkpoint, device="cpu", **options)
    with pytest.raises(UserError, match="needs the engine"):
        Embedder.load(checkpoint, device="cpu", engine=False, dtype="bfloat16")
    with pytest.raises(UserError, match="'float8'"):
        Embedder.load(checkpoint, device="cpu", dtype="float8")


def test_exports_that_fail_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, _ = made(tmp_path)

    def line(*words: str) -> str:
        assert main(["export", "--checkpoint", str(checkpoint), *words]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("reid: error: ")
        assert printed.count("\n") == 1
        return printed

    assert "must end in .onnx" in line("--out", str(tmp_path / "model.pt2"))
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    assert "is a folder" in line("--out", str(folder))
    (tmp_path / "file").touch()
    assert "cannot write" in line("--out", str(tmp_path / "file" / "model.onnx"))
    assert "--time compares float32" in line(
        "--out", str(tmp_path / "model.onnx"), "--time", "--dtype", "float16"
    )

    def differs(*_: Any, **__: Any) -> None:
        raise ParityError("the exported model differs from the model: relative error 3.0e-01")

    monkeypatch.setattr(exporting, "export_onnx", differs)
    assert "relative error 3.0e-01" in line("--out", str(tmp_path / "model.onnx"))

    def missing(module: str, extra: str) -> None:
        raise UserError(f"needs {module}: sparse-vit[{extra}]")

    monkeypatch.setattr(exporting, "require", missing)
    assert "sparse-vit[export]" in line("--out", str(tmp_path / "model.onnx"))
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["file", "folder.onnx", "model.safetensors"]
