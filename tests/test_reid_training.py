"""Training: exact resume, several processes, divergence, and what a run leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reid.config import load_config
from reid.engine import checkpoint
from reid.errors import UserError
from reid.run import train

REPOSITORY = Path(__file__).parent.parent
HTS = ["loss.kd_feature=0", "loss.kd_logits=0"]


def command(overrides: list[str], out: Path, *flags: str) -> list[str]:
    return ["-m", "reid", "train", "demo", *overrides, "--out", str(out), *flags]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "model.safetensors")[0]


def test_a_run_leaves_model_log_configuration_and_scores(tiny_overrides, tmp_path) -> None:
    config = load_config("demo", [*tiny_overrides, *HTS])
    run = train(config, tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"model.safetensors", "checkpoint.safetensors", "log.jsonl", "config.json"} <= names
    assert {"evaluation.json", "tensorboard"} <= names
    assert [row["step"] for row in run.history] == [1, 2, 3, 4]
    assert {"classification", "triplet", "ratio", "kept_1", "kept_3"} <= set(run.history[-1])
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 <= scores["mAP"] <= 100
    with pytest.raises(UserError, match="--resume"):
        train(config, tmp_path / "run")


def test_training_reduces_the_loss_of_a_batch_seen_again(tiny_overrides, tmp_path) -> None:
    config = load_config(
        "demo",
        [
            *tiny_overrides,
            *HTS,
            "train.max_steps=40",
            "optim.lr=3e-4",
            "augment.erasing=0",
            "augment.random_patch=0",
            "augment.flip=0",
            "augment.pad=0",
        ],
    )
    history = train(config, tmp_path / "run", evaluate_after=False).history
    first, last = (
        sum(row["classification"] for row in part) for part in (history[:5], history[-5:])
    )
    assert last < first


def test_kill_in_the_middle_of_an_epoch_and_resume_is_bitwise_exact(
    tiny_overrides, tmp_path
) -> None:
    overrides = [
        *tiny_overrides,
        *HTS,
        "train.max_steps=8",
        "train.checkpoint_every=2",
        "model.drop_path=0.2",
        "data.seed=0",
        "augment.views=[clean, occluded]",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(load_config("demo", overrides), whole, evaluate_after=False)

    process = subprocess.Popen(
        [sys.executable, *command(overrides, cut)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = cut / "log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.is_file() and log.read_text().count("\n") >= 3):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not reach its third step"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "model.safetensors").exists()
    step = checkpoint.load(cut / "checkpoint.safetensors")[1]["step"]
    assert 0 < step < 8

    train(load_config("demo", overrides), cut, resume=True, evaluate_after=False)
    expected, resumed = weights(whole), weights(cut)
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 9))


SPARSE = [*HTS, "augment.views=[clean, occluded]"]
TAUGHT = ["augment.views=[clean, occluded]", "loss.align=ts_linear", "loss.kd_feature=1"]
CAMERAS = ["method=supervised", "model.sparse=false", "loss.triplet=camera", "train.accumulate=2"]


@pytest.mark.parametrize("method", [SPARSE, TAUGHT, CAMERAS], ids=["hts", "npkd", "cameras"])
def test_two_processes_equal_one(tiny_overrides, tmp_path, method: list[str]) -> None:
    overrides = [
        *tiny_overrides,
        "train.max_steps=3",
        "optim.name=sgd",
        "optim.lr=0.01",
        "optim.head_lr_factor=1",
        "optim.selector_lr_factor=1",
        "optim.clip_norm=0",
        "model.drop_path=0.2",
        *method,
    ]
    if method is TAUGHT:
        dense = ["method=supervised", "model.sparse=false", "train.max_steps=1"]
        teacher = load_config("demo", [*tiny_overrides, *dense])
        train(teacher, tmp_path / "teacher", evaluate_after=False)
        overrides.append(f"teacher={tmp_path / 'teacher' / 'model.safetensors'}")
    one, two = tmp_path / "one", tmp_path / "two"
    config = load_config("demo", overrides)
    single = train(config, one)
    start = train_zero_steps(overrides, tmp_path / "start")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            *command(overrides, two),
        ],
        env=environment(),
        check=False,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (two / "log.jsonl").read_text().splitlines()]
    for mine, other in zip(single.history, rows, strict=True):
        # the same draws: the hard decisions agree exactly
        for name in [name for name in mine if name.startswith("kept_")]:
            assert mine[name] == pytest.approx(other[name], abs=1e-6)
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    first, second = weights(one), weights(two)
    moved = sum((first[n] - start[n]).double().square().sum() for n in first).sqrt()
    apart = sum((first[n] - second[n]).double().square().sum() for n in first).sqrt()
    # float32 gradients through 12 blocks carry about 1e3 roundings of 6e-8 each
    assert apart / moved < 1e3 * torch.finfo(torch.float32).eps
    scores = [json.loads((f / "evaluation.json").read_text()) for f in (one, two)]
    assert scores[0]["queries"] == scores[1]["queries"]
    assert scores[0]["mAP"] == pytest.approx(scores[1]["mAP"], abs=1.0)


def train_zero_steps(overrides: list[str], out: Path) -> dict[str, torch.Tensor]:
    config = load_config("demo", [*overrides, "train.max_steps=1", "optim.lr=0"])
    train(config, out, evaluate_after=False)
    return weights(out)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tiny_overrides, tmp_path, monkeypatch
) -> None:
    from reid.methods.supervised import Supervised

    original, calls = Supervised.identity_loss, []

    def poisoned(self, *arguments):
        loss, logits, parts = original(self, *arguments)
        calls.append(1)
        return (loss * float("nan") if len(calls) == 3 else loss), logits, parts

    monkeypatch.setattr(Supervised, "identity_loss", poisoned)
    config = load_config("demo", [*tiny_overrides, *HTS, "train.checkpoint_every=1"])
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"not finite at step 2.*optim\.lr"):
        train(config, out)
    tensors, metadata = checkpoint.load(out / "checkpoint.safetensors")
    assert metadata["step"] == 2
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())
    batch, about = checkpoint.load(out / "diverged_batch.safetensors")
    assert about["step"] == 2
    assert batch["views.0"].shape == (8, 3, 64, 32)
    assert not (out / "model.safetensors").exists()


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    tiny_overrides, tmp_path, monkeypatch
) -> None:
    from reid.models.neck import BNNeck

    original, calls = BNNeck.forward, []

    def poisoned(self, feature):
        logits = original(self, feature)
        calls.append(1)
        if len(calls) == 2:
            logits.register_hook(lambda grad: grad * float("inf"))
        return logits

    monkeypatch.setattr(BNNeck, "forward", poisoned)
    overrides = [*tiny_overrides, *HTS, "train.checkpoint_every=1", "optim.clip_norm=0"]
    out = tmp_path / "run"
    with pytest.raises(UserError, match="gradient is not finite at step 1"):
        train(load_config("demo", overrides), out)
    tensors, metadata = checkpoint.load(out / "checkpoint.safetensors")
    assert metadata["step"] == 1
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())
    assert (out / "diverged_batch.safetensors").is_file()


def test_gradient_accumulation_averages_the_gradients_of_its_batches(
    tiny_overrides, tmp_path
) -> None:
    from reid.data import load
    from reid.methods import build_task

    overrides = [
        *tiny_overrides,
        *HTS,
        "optim.name=sgd",
        "optim.lr=0.5",
        "optim.momentum=0",
        "optim.weight_decay=0",
        "optim.clip_norm=0",
        "optim.warmup=0",
        "optim.head_lr_factor=1",
        "optim.selector_lr_factor=1",
        "train.max_steps=1",
    ]
    config = load_config("demo", [*overrides, "train.accumulate=2"])
    records = load(config.data.name, config.data.root).train
    task = build_task(config, records, torch.device("cpu"))
    task.module.train()
    before = {n: p.detach().clone() for n, p in task.module.named_parameters()}
    for index in range(2):
        (task.module(**task.batch(0, index))[0] / 2).backward()
    train(config, tmp_path / "run", evaluate_after=False)
    after = weights(tmp_path / "run")
    compared = 0
    for name, parameter in task.module.named_parameters():
        if parameter.grad is None:
            continue
        expected = before[name] - 0.5 * parameter.grad
        rounding = 8 * torch.finfo(torch.float32).eps * (1 + parameter.grad.abs().max())
        assert (after[name.removeprefix("model.")] - expected).abs().max() <= rounding, name
        compared += 1
    assert compared > 100


def test_resume_with_another_configuration_is_refused(tiny_overrides, tmp_path) -> None:
    out = tmp_path / "run"
    train(
        load_config("demo", [*tiny_overrides, *HTS, "train.max_steps=1"]), out, evaluate_after=False
    )
    changed = load_config("demo", [*tiny_overrides, *HTS, "train.max_steps=1", "optim.lr=1e-5"])
    with pytest.raises(UserError, match=r"optim\.lr"):
        train(changed, out, resume=True)


def test_the_teacher_stays_frozen_and_in_evaluation_mode(tiny_overrides, tmp_path) -> None:
    from reid.data import load
    from reid.methods import sureid

    dense = load_config(
        "demo", [*tiny_overrides, "method=supervised", "model.sparse=false", "train.max_steps=1"]
    )
    train(dense, tmp_path / "teacher", evaluate_after=False)
    path = tmp_path / "teacher" / "model.safetensors"
    config = load_config("demo", [*tiny_overrides, f"teacher={path}", "loss.align=ts_linear"])
    records = load(config.data.name, config.data.root).train
    task = sureid.build(config, records, torch.device("cpu"))
    before = {n: t.clone() for n, t in task.module.teacher.state_dict().items()}
    task.module.train()
    loss, parts = task.module(**task.batch(0, 0))
    loss.backward()
    assert {"kd_feature", "kd_logits"} <= set(parts)
    assert not task.module.teacher.training
    assert all(p.grad is None for p in task.module.teacher.parameters())
    for name, tensor in task.module.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trained = [n for n, p in task.module.named_parameters() if p.requires_grad and p.grad is None]
    assert trained == []


def test_distillation_without_or_with_a_foreign_teacher_is_refused(
    tiny_overrides, tmp_path
) -> None:
    with pytest.raises(UserError, match="needs a teacher"):
        train(load_config("demo", tiny_overrides), tmp_path / "a")
    dense = load_config(
        "demo",
        [
            *tiny_overrides,
            "method=supervised",
            "model.sparse=false",
            "train.max_steps=1",
            "data.image_size=[32, 32]",
        ],
    )
    train(dense, tmp_path / "teacher", evaluate_after=False)
    path = tmp_path / "teacher" / "model.safetensors"
    with pytest.raises(UserError, match=r"expects \(32, 32\)"):
        train(load_config("demo", [*tiny_overrides, f"teacher={path}"]), tmp_path / "b")


def test_a_sparse_model_needs_the_method_that_trains_its_selectors(
    tiny_overrides, tmp_path
) -> None:
    config = load_config("demo", [*tiny_overrides, "method=supervised"])
    with pytest.raises(UserError, match=r"model\.sparse=false"):
        train(config, tmp_path / "run")
