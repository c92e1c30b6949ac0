"""`reid export`, `compare`, `calibrate` and `benchmark`: a trained model in use."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reid._verbs import add_verb, root_of
from reid.errors import UserError

EXIT_DIFFERENT = 1


def add_deploy_verbs(verbs: Any) -> None:
    """Add the verbs."""
    for add in (_export, _compare, _calibrate, _benchmark):
        add(verbs)


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    parser = add_verb(verbs, name, run, text)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="model.safetensors"
    )
    return parser


def _export(verbs: Any) -> None:
    parser = _verb(verbs, "export", _run_export, "write a trained model as ONNX or for torch")
    parser.add_argument("--format", choices=("onnx", "program", "aot"), default="onnx")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".onnx, or .pt2 for program and aot"
    )
    parser.add_argument("--dtype", default="float32", help="float32, float16 or bfloat16")
    parser.add_argument(
        "--no-normalize", action="store_true", help="leave the features as long as they are"
    )
    parser.add_argument(
        "--time", action="store_true", help="time it beside the dense export, torch and the engine"
    )


def _compare(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "compare",
        _run_compare,
        "tell how alike two persons look; exit code 0: same or no threshold, 1: different, "
        "2: error; with --json 0 or 2",
    )
    parser.add_argument("a", metavar="A", help="an image of one person, or a folder of images")
    parser.add_argument("b", metavar="B", help="the same of the other")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="DISTANCE",
        help="cosine distance below which they are one; default what reid calibrate measured",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _calibrate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "calibrate",
        _run_calibrate,
        "measure the distance below which two images are of one person, and keep it beside the "
        "checkpoint",
    )
    parser.add_argument("--data", required=True, metavar="NAME", help="data set to measure on")
    parser.add_argument("--root", metavar="PATH", help="its folder or archive")
    parser.add_argument("--protocol", metavar="NAME", help="of the data set")
    parser.add_argument(
        "--fpr",
        type=float,
        default=1e-3,
        metavar="SHARE",
        help="pairs of different people that it may accept; default 0.001",
    )


def _benchmark(verbs: Any) -> None:
    parser = _verb(
        verbs, "benchmark", _run_benchmark, "time a model dense and sparse, in torch and the engine"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=11, help="calls of each, of which the median")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the machine")


def _run_export(arguments: argparse.Namespace) -> None:
    from reid.inference.export import beside_of, export

    if arguments.time and arguments.dtype != "float32":
        raise UserError("--time compares float32 files; leave --dtype or --time out")
    report = export(
        arguments.checkpoint,
        arguments.out,
        format=arguments.format,
        dtype=arguments.dtype,
        normalize=not arguments.no_normalize,
    )
    print(report)
    print(f"wrote {arguments.out} and {beside_of(arguments.out).name}")
    if arguments.time:
        from reid.inference.timing import time_export, times_table

        print(times_table(time_export(arguments.checkpoint, arguments.out, arguments.format)))


def _run_compare(arguments: argparse.Namespace) -> int:
    from reid.inference import Embedder

    embedder = Embedder.load(arguments.checkpoint)
    found = embedder.compare(arguments.a, arguments.b, threshold=arguments.threshold)
    if arguments.json:
        print(json.dumps({**asdict(found), "same": found.same}, indent=2))
        return 0
    print(found)
    return EXIT_DIFFERENT if found.same is False else 0


def _run_calibrate(arguments: argparse.Namespace) -> None:
    from reid import run
    from reid.data import load
    from reid.engine.distributed import is_main
    from reid.inference.threshold import calibrate, threshold_path
    from reid.models.embedder import load_model

    run.start_processes()
    model, config, _ = load_model(arguments.checkpoint)
    root = root_of(arguments.data, arguments.root)
    data = load(arguments.data, root, protocol=arguments.protocol)
    model = model.to(run.pick_device())
    found = calibrate(arguments.checkpoint, model, config, data, arguments.fpr)
    if is_main():
        print(found.meaning)
        print(f"wrote {threshold_path(arguments.checkpoint)}")


def _run_benchmark(arguments: argparse.Namespace) -> None:
    from reid.inference.benchmark import benchmark

    print(
        benchmark(
            arguments.checkpoint,
            batches=arguments.batch,
            dtypes=arguments.dtype,
            rounds=arguments.rounds,
            out=arguments.json,
        )
    )
    if arguments.json:
        print(f"wrote {arguments.json}")
