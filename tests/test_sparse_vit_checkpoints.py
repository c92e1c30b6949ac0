"""Weights on disk, and backbones loaded without silence."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sparse_vit import (
    load_backbone,
    load_pretrained_by_tag,
    load_weights,
    read_metadata,
    save_weights,
    sparsify,
)


def build(distilled: bool = False, seed: int = 0, **kwargs: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    cls = VisionTransformerDistilled if distilled else VisionTransformer
    return cls(**{**options, "num_classes": 3, **kwargs})


def sparse(**kwargs: Any) -> Any:
    return sparsify(build(seed=9, **kwargs), (1,))


@pytest.fixture
def dense_file(tmp_path: Path) -> Path:
    path = tmp_path / "dense.safetensors"
    save_weights(build(), path)
    return path


def test_round_trip_with_metadata(tmp_path: Path) -> None:
    model = sparse()
    path = tmp_path / "new" / "model.safetensors"
    save_weights(model, path, {"epoch": "3"})
    assert read_metadata(path) == {"epoch": "3", "grid_size": "4x4"}
    state = load_weights(path)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert os.listdir(path.parent) == ["model.safetensors"]
    twin = sparsify(build(seed=4), (1,))
    twin.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(twin.eval()(x), model.eval()(x))


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    from sparse_vit import KeepPredictor

    model = sparsify(build(), (0, 1), selector=KeepPredictor(16))
    save_weights(model, tmp_path / "tied.safetensors")
    assert load_weights(tmp_path / "tied.safetensors").keys() == model.state_dict().keys()


def test_a_failed_write_leaves_the_old_file(
    dense_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dense_file.read_bytes()

    def full_disk(tensors: object, path: object, metadata: object = None) -> None:
        Path(str(path)).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparse_vit.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_weights(build(seed=1), dense_file)
    assert dense_file.read_bytes() == before
    assert os.listdir(dense_file.parent) == [dense_file.name]
    with pytest.raises(ValueError, match=r"does not end in .safetensors"):
        save_weights(build(), "model.pth")


def test_damaged_and_missing_files(tmp_path: Path, dense_file: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(dense_file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(broken)
    for content in (b"", b"not a checkpoint"):
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(ValueError, match="damaged or holds more than tensors"):
            load_weights(tmp_path / "broken.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="not a state dict"):
        load_weights(tmp_path / "list.pth")


class Payload:
    """Would create a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"model": Payload(str(trap))}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(str(trap)), protocol=2))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(ValueError, match="holds more than tensors"):
            load_weights(tmp_path / name)
    assert not trap.exists()


def test_dense_weights_load_into_a_sparse_model(tmp_path: Path) -> None:
    dense = build()
    wrapped = {"model": {f"module.{k}": v for k, v in dense.state_dict().items()}}
    torch.save(wrapped, tmp_path / "dense.pth")
    model = sparse()
    report = load_backbone(model, tmp_path / "dense.pth")
    assert report.missing
    assert all(name.startswith("selectors.") for name in report.missing)
    assert not report.skipped
    model.set_keep_ratio(1.0)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x), dense.eval()(x))


def test_mismatches_name_keys_and_shapes_and_change_nothing(dense_file: Path) -> None:
    cases = [
        (sparse(embed_dim=32), r"cls_token is \(1, 1, 16\), the model has \(1, 1, 32\)"),
        (sparse(num_classes=7), r"head.weight is \(3, 16\), the model has \(7, 16\)"),
        (sparse(depth=3), r"missing blocks.2.norm1.weight \(16,\)"),
        (sparsify(build(depth=1), (0,)), r"unexpected blocks.1.attn.proj.bias \(16,\)"),
        (sparse(patch_size=16, img_size=64), r"patch_embed.proj.weight is \(16, 3, 8, 8\)"),
        (sparse(init_values=0.1), r"missing blocks.0.ls1.gamma"),
    ]
    for model, message in cases:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            load_backbone(model, dense_file)
        assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())
    with pytest.raises(ValueError, match=r"missing selectors.0.norm.weight"):
        load_backbone(sparse(), dense_file, allow_missing=())
    model = sparse(num_classes=7)
    head = model.head.weight.clone()
    report = load_backbone(model, dense_file, skip=("head.",))
    assert sorted(report.skipped) == ["head.bias", "head.weight"]
    assert torch.equal(model.head.weight, head)


def resized(rows: Tensor, old: tuple[int, int], new: tuple[int, int], mode: str) -> Tensor:
    grid = rows.T.reshape(1, -1, *old)
    return F.interpolate(grid, size=new, mode=mode)[0].flatten(1).T


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_positions_are_resized_to_rectangles(mode: str) -> None:
    dense = build(reg_tokens=2)
    model = sparse(reg_tokens=2, img_size=(64, 24))
    report = load_backbone(model, dense.state_dict(), interpolation=mode)
    assert report.resized_from == (4, 4)
    assert torch.equal(model.pos_embed[0, :3], dense.pos_embed[0, :3])
    want = resized(dense.pos_embed[0, 3:], (4, 4), (8, 3), mode)
    torch.testing.assert_close(model.pos_embed[0, 3:], want)


def test_grids_of_equal_size_and_other_shape(tmp_path: Path) -> None:
    dense = build()
    model = sparse(img_size=(64, 16))
    with pytest.raises(ValueError, match="pass source_grid"):
        load_backbone(model, dense.state_dict())
    assert load_backbone(model, dense.state_dict(), source_grid=(4, 4)).resized_from == (4, 4)
    want = resized(dense.pos_embed[0, 1:], (4, 4), (8, 2), "bilinear")
    torch.testing.assert_close(model.pos_embed[0, 1:], want)
    # A file of our own says which grid it has.
    save_weights(model, tmp_path / "rectangle.safetensors")
    twin = sparse(img_size=(64, 16))
    assert load_backbone(twin, tmp_path / "rectangle.safetensors").resized_from is None
    assert torch.equal(twin.pos_embed, model.pos_embed)
    assert load_backbone(build(), tmp_path / "rectangle.safetensors", skip=("selectors.",))
    with pytest.raises(ValueError, match="no grid of"):
        load_backbone(model, dense.state_dict(), source_grid=(5, 4))


def test_distilled_weights_are_told_by_shape() -> None:
    dense = build(distilled=True)
    state = dense.state_dict()
    assert state["pos_embed"].shape[1] == 18
    model = sparse(img_size=(64, 24))
    report = load_backbone(model, state)
    assert report.distilled
    assert report.resized_from == (4, 4)
    assert sorted(report.skipped) == ["dist_token", "head_dist.bias", "head_dist.weight"]
    assert torch.equal(model.pos_embed[0, 0], dense.pos_embed[0, 0])
    want = resized(dense.pos_embed[0, 2:], (4, 4), (8, 3), "bilinear")
    torch.testing.assert_close(model.pos_embed[0, 1:], want)
    # Without the token's own key the number of rows still tells.
    bare = {name: value for name, value in state.items() if "dist" not in name}
    twin = sparse(img_size=(64, 24))
    assert load_backbone(twin, bare).distilled
    assert torch.equal(twin.pos_embed, model.pos_embed)


def test_the_distillation_token_can_be_kept() -> None:
    dense = build(distilled=True).eval()
    state = dense.state_dict()
    same = sparsify(build(distilled=True, seed=9), (1,))
    assert not load_backbone(same, state).skipped
    register = sparse(reg_tokens=1)
    report = load_backbone(register, state, keep_dist=True)
    assert torch.equal(register.reg_token, dense.dist_token)
    assert torch.equal(register.pos_embed, dense.pos_embed)
    assert sorted(report.skipped) == ["head_dist.bias", "head_dist.weight"]
    register.set_keep_ratio(1.0)
    x = torch.randn(2, 3, 32, 32)
    tokens = register.eval().forward_features(x)
    torch.testing.assert_close(tokens, dense.forward_features(x))
    with pytest.raises(ValueError, match="keep_dist needs"):
        load_backbone(sparse(), state, keep_dist=True)


def test_tags_without_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"under the tag 'none'; it has \['fb_in1k'\]"):
        load_pretrained_by_tag(sparse(), "deit_tiny_patch16_224.none")
    with pytest.raises(ValueError, match="no pretrained weights of"):
        load_pretrained_by_tag(sparse(), "no_such_model")


def test_weights_that_cannot_be_fetched_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(RuntimeError, match=r"could not be fetched \(no network\)"):
        load_pretrained_by_tag(sparse(), "deit_tiny_patch16_224.fb_in1k")
    from sparse_vit import create_sparse

    with pytest.raises(RuntimeError, match="check the network"):
        create_sparse("deit_tiny_patch16_224", pretrained=True)


def test_pretrained_weights_are_loaded_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = build(num_classes=10)

    def create(name: str, pretrained: bool) -> VisionTransformer:
        assert (name, pretrained) == ("deit_tiny_patch16_224.fb_in1k", True)
        return dense

    monkeypatch.setattr("timm.create_model", create)
    model = sparse(img_size=(64, 24))
    report = load_pretrained_by_tag(model, "deit_tiny_patch16_224.fb_in1k")
    assert report.resized_from == (4, 4)
    assert sorted(report.skipped) == ["head.bias", "head.weight"]
    assert torch.equal(model.blocks[1].mlp.fc1.weight, dense.blocks[1].mlp.fc1.weight)
