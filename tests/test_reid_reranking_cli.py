"""`reid evaluate --features ... --rerank`: numbers, and what it does not go with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reid.cli import main
from reid.evaluation import Features, evaluate
from reid.evaluation.reranking import rerank


def people(features: torch.Tensor, seed: int) -> Features:
    generator = np.random.default_rng(seed)
    count = len(features)
    return Features(features, generator.integers(1, 6, count), generator.integers(0, 3, count))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = torch.randn(60, 5) + 3.0 * torch.randn(8, 5)[torch.arange(60) % 8]
    sets = people(features[:20], 0), people(features[20:], 1)
    files = [str(x.save(tmp_path / f"{i}.npz")) for i, x in enumerate(sets)]
    out = tmp_path / "out.json"
    assert (
        main(["evaluate", "--features", *files, "--rerank", "7", "2", "0.5", "--json", str(out)])
        == 0
    )
    found = json.loads(out.read_text())
    expected = evaluate(*sets, blocks=rerank(*sets, k1=7, k2=2, lambda_value=0.5))
    assert found["mAP"] == pytest.approx(expected.mAP)
    assert "transductive" in found["metric"]
    for words, message in (
        (["--rerank", "7.5"], "K1 K2 LAMBDA"),
        (["--rerank", "--metric", "hamming"], "cosine or euclidean"),
        (["--rerank", "--tpr-at", "0.1"], "--tpr-at"),
        (["--rerank", "3", "5"], "k1=3 and k2=5"),
    ):
        capsys.readouterr()
        assert main(["evaluate", "--features", *files, *words]) == 2
        assert message in capsys.readouterr().err
