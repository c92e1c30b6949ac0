"""Exported models: what leaves Python computes what the model computes, on fewer tokens."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from kernels import select_tokens
from kernels.gather import gather_rows
from sparse_vit import SparseVisionTransformer, sparsify
from sparse_vit.decisions import Decision
from sparse_vit.export import ParityError, export_onnx, export_program, parity, to_onnx
from sparse_vit.export.parity import check_parity
from sparse_vit.export.plain import decompositions
from sparse_vit.export.program import trace
from sparse_vit.selectors import StageInput, TokenSelector

SIZE = (64, 32)
EPS = float(torch.finfo(torch.float32).eps)


def vit(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=SIZE, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, **options
    )
    return model.eval()


def sparse(model: VisionTransformer | None = None, **options: Any) -> SparseVisionTransformer:
    """With scores further apart than those of selectors that were never trained."""
    found = sparsify(vit() if model is None else model, **options).eval()
    with torch.no_grad():
        for module in found.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=0.3)
    return found


def operands(scores: Tensor, count: int, prefix: int) -> tuple[Any, ...]:
    return scores, 0.0, count, count, prefix, True, None


def test_the_plain_selection_is_the_operator_with_ties_and_nan() -> None:
    select, gather = decompositions().values()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (64, 17), generator=generator).float()
    scores[::3, 5] = torch.nan
    scores[5] = -torch.inf
    scores[6] = torch.nan
    for prefix in (0, 1, 3):
        for count in (1, 6, 17):
            mask, indices, cu_seqlens = select(*operands(scores, count, prefix))
            expected = select_tokens(scores, count, prefix=prefix)
            assert torch.equal(mask, expected.mask)
            assert torch.equal(indices, expected.indices)
            assert torch.equal(cu_seqlens, expected.cu_seqlens)
            rows = torch.randn(64 * (prefix + 17), 3, generator=generator)
            assert torch.equal(gather(rows, indices, None), gather_rows(rows, indices))
    with pytest.raises(ValueError, match="threshold"):
        select(scores, 0.0, 1, 4, 0, False, None)


def exported(model: nn.Module, path: Path) -> tuple[Any, Any]:
    report = export_onnx(model, path, metadata={"note": "kept"})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return report, session


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("predictor", {"stages": (0, 1)}),
        ("class attention", {"stages": (1,), "selector": "class_attention", "keep_ratio": 0.3}),
        ("fuse", {"stages": (0,), "reduction": "fuse"}),
        ("merge", {"stages": (0,), "reduction": "merge"}),
    ],
)
def test_onnx_agrees_in_onnxruntime(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    model = sparse(vit(reg_tokens=2 if name == "predictor" else 0), **options)
    path = tmp_path / "model.onnx"
    report, session = exported(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert report.size == path.stat().st_size
    for batch in (1, 5):
        images = torch.randn(batch, 3, *SIZE)
        with torch.no_grad():
            expected = model(images)
        found = session.run(None, {"images": images.numpy()})[0]
        # two blocks of a network whose outputs are at most 5
        assert np.abs(found - expected.numpy()).max() <= 100 * EPS * 5
    graph = onnx.load(str(path))
    operators = {node.op_type for node in graph.graph.node}
    assert not operators & {"If", "Loop", "Scan", "ScatterElements", "ScatterND"}
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions
    assert operators == set(report.operators)
    assert "TopK" in operators
    assert {p.key: p.value for p in graph.metadata_props}["note"] == "kept"
    # neither a stack trace nor a path of this machine
    assert str(Path(__file__).parent.parent).encode() not in path.read_bytes()
    if name == "class attention":
        _tokens_are_gone(graph, kept=9)
    images = torch.randn(2, 3, *SIZE)
    images[0] = torch.nan
    found = session.run(None, {"images": images.numpy()})[0]
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def _tokens_are_gone(graph: Any, kept: int) -> None:
    """The last MLP of 32 patches at a ratio of 0.3 sees the class token and 9 patches."""
    shapes = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph.value_info
    lengths = [
        [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
        for value in shapes
        if len(value.type.tensor_type.shape.dim) == 3
    ]
    assert [1 + kept, 32] in lengths


def test_equal_scores_keep_the_lower_index_in_onnx(tmp_path: Path) -> None:
    class Constant(TokenSelector):
        def score(self, stage: StageInput) -> Tensor:
            return stage.tokens[..., 0] * 0.0

    model = sparsify(vit(), stages=(1,), keep_ratio=0.5, selector=Constant()).eval()
    _, session = exported(model, tmp_path / "ties.onnx")
    images = torch.randn(2, 3, *SIZE)
    changed = images.clone()
    changed[:, :, 32:] = 0.0
    with torch.no_grad():
        features, decisions = model.forward_with_decisions(images)
    assert decisions[0].mask.tolist() == [[1.0] * 16 + [0.0] * 16] * 2
    found = session.run(None, {"images": images.numpy()})[0]
    assert np.abs(found - features.numpy()).max() <= 100 * EPS * 5
    assert np.abs(session.run(None, {"images": changed.numpy()})[0] - found).max() > 1e-3


def test_a_program_runs_with_torch_alone(tmp_path: Path) -> None:
    model = sparse(stages=(0, 1))
    path = tmp_path / "model.pt2"
    report = export_program(model, path, metadata={"note": "kept"})
    extra = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["metadata.json"]) == {"note": "kept"}
    targets = {str(node.target) for node in program.graph.nodes}
    assert not any("sparse_vit" in target for target in targets)
    assert report.operators["aten.index_select"] == 2
    images = torch.randn(5, 3, *SIZE)
    with torch.no_grad():
        assert (program.module()(images) - model(images)).abs().max() <= 100 * EPS * 5
    assert str(Path(__file__).parent.parent).encode() not in path.read_bytes()


def test_parity_tells_a_wrong_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparse(stages=(0, 1))
    with torch.no_grad():
        found = check_parity(model, model, SIZE, torch.float32)
        assert found.error <= found.tolerance < 1e-4
        assert (found.images + found.near_ties) % 4 == 0

        other_ratio = copy.deepcopy(model)
        other_ratio.set_keep_ratio((0.7, 0.45))

        for wrong in (
            lambda x: model(x) * (1 + 4 * found.tolerance),
            lambda x: model(x)[:1],
            lambda x: model(x) * torch.nan,
            lambda x: model(x) * (1.0 if len(x) == 1 else 0.5),
            other_ratio,
        ):
            with pytest.raises(ParityError):
                check_parity(model, wrong, SIZE, torch.float32)
        # two tokens apart by less than a rounding of what they were computed from
        monkeypatch.setattr(parity, "NUDGE", 1e6)
        with pytest.raises(ParityError, match=r"every one of 16 .* near a tie"):
            check_parity(model, model, SIZE, torch.float32)


def test_an_image_near_a_tie_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    # never trained: scores some roundings apart, and float32 keeps other tokens than float64
    model = sparsify(vit(), stages=(0, 1)).eval()
    with pytest.raises(ParityError, match=r"every one of 16 .* near a tie"):
        check_parity(model, model, SIZE, torch.float32)
    # its own error is then that of other tokens, and allows anything
    monkeypatch.setattr(parity, "_clear_of_ties", lambda *_: torch.ones(_[2].shape[0]) > 0)
    assert check_parity(model, model, SIZE, torch.float32).tolerance > 1e-4


def test_how_far_apart_the_scores_must_be() -> None:
    def decision(scores: list[float], mask: list[int], error: float = 0.0) -> Decision:
        values = torch.tensor([scores], dtype=torch.float32)
        values[0, 0] += error
        return Decision(0, 0.5, values, torch.tensor([mask]).float())

    def wide(*stages: tuple[list[float], list[int]], error: float = 0.0) -> bool:
        judged = [decision(*stage) for stage in stages]
        own = [decision(*stage, error) for stage in stages]
        return bool(parity._wide_gaps(judged, own))

    assert wide(([1.0, 0.5, 1.0 - 10 * EPS], [1, 0, 1]))
    assert wide(([1.0, 1.0 - 16 * EPS], [1, 0]))
    assert not wide(([1.0, 1.0 - 4 * EPS], [1, 0]))
    assert wide(([1.0, 0.9], [1, 0]), error=0.01)
    assert not wide(([1.0, 0.9], [1, 0]), error=0.02)
    # equal: the index decides, unless the scores were rounded
    assert wide(([1.0, 1.0], [1, 0]))
    assert not wide(([1.0, 1.0], [1, 0]), error=EPS)
    # the second stage decides among two, and the third token is gone
    first = ([2.0, 1.0, 0.0], [1, 1, 0])
    assert wide(first, ([2.0, 1.0, 1.0], [1, 0, 0]))
    assert wide(first, ([2.0, 1.0, 2.0], [1, 0, 0]))
    assert not wide(first, ([2.0, 2.0 - 4 * EPS, 0.0], [1, 0, 0]))


def test_a_file_that_differs_never_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(path: Path, threads: int | None = None) -> Any:
        return lambda images: torch.zeros(len(images), 32)

    old = tmp_path / "model.onnx"
    old.write_bytes(b"the previous one")
    monkeypatch.setattr(to_onnx, "onnx_session", wrong)
    with pytest.raises(ParityError, match=r"relative error 1\.0e\+00"):
        export_onnx(vit(), old)
    assert old.read_bytes() == b"the previous one"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="training mode"):
        trace(vit().train(), SIZE)
    random = sparsify(vit(), stages=(1,), selector="random").eval()
    with pytest.raises(ValueError, match="RandomSelector does not decide by the image"):
        trace(random, SIZE)
    with pytest.raises(ValueError, match=r"ends in '\.pt'"):
        export_onnx(vit(), tmp_path / "model.pt")
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export_onnx(vit(), folder)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        export_program(vit(), tmp_path / "file" / "model.pt2")
    with pytest.raises(ValueError, match="image_size"):
        export_program(nn.Linear(3, 3).eval(), tmp_path / "m.pt2")
    monkeypatch.setattr(to_onnx, "LARGEST", 1000)
    with pytest.raises(ValueError, match="2 GB"):
        export_onnx(vit(), tmp_path / "model.onnx")
    monkeypatch.setattr(to_onnx, "NEEDED", ("onnx", "no_such_runtime"))
    with pytest.raises(ModuleNotFoundError, match=r"no_such_runtime.*sparse-vit\[export\]"):
        export_onnx(vit(), tmp_path / "model.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.onnx"]
