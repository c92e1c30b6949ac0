"""`reid <verb>`: arguments to function calls, errors to one line and an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid._deploy_verbs import add_deploy_verbs
from reid._evaluate_options import (
    add_evaluate_options,
    check_outputs,
    evaluate_files,
    print_more,
    refuse_ranking_options,
    write,
)
from reid._report_verb import add_report_verb
from reid._verbs import add_verb, root_of
from reid.data.cli import add_data_verbs
from reid.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        argv: Arguments without the program's name; None takes them from the command line.

    Returns:
        0 on success, 2 on bad input, 130 when interrupted.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    # section.key=value may stand anywhere, also between options
    foreign = [word for word in rest if word.startswith("-") or "=" not in word]
    if foreign or (rest and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(foreign or rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    try:
        code = arguments.run(arguments)
        _wait_for_processes()
    except UserError as error:
        _complain(str(error))
        return EXIT_USER_ERROR
    except OSError as error:
        if error.errno is None:
            raise
        _complain(f"{error.filename or 'a file'}: {error.strerror}; check space and permissions")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("reid: interrupted; continue a training run with --resume", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        _leave_process_group()
    return int(code or 0)


def _complain(text: str) -> None:
    """Print one line, once for all processes of a run."""
    if os.environ.get("RANK", "0") == "0":
        print(f"reid: error: {text}", file=sys.stderr)


def _wait_for_processes() -> None:
    """Leave together: a process that is gone breaks the last exchange of a slower one."""
    distributed = sys.modules.get("reid.engine.distributed")
    if distributed is not None:
        distributed.barrier()


def _leave_process_group() -> None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="reid",
        description="Person re-identification with token-sparsified vision transformers.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (
        add_data_verbs, _train, _evaluate, add_report_verb, _extract, _visualize, add_deploy_verbs,
        _reproduce, _demo,
    ):  # fmt: skip
        add(verbs)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        # imported here because it brings torch along
        from sparse_vit import __version__

        print(f"reid {__version__}")
        parser.exit()


def _dataset_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--data",
        required=required,
        metavar="NAME",
        help="data set, such as market1501 or occluded-mannequins",
    )
    parser.add_argument(
        "--root", metavar="PATH", help="its folder or archive; generated sets default to data/NAME"
    )


def _reading_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol", metavar="NAME", help="of the data set, such as train+val or occluded-body"
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read and files that do not fit the data set, and "
        "list them (in full beside the output), instead of stopping",
    )


def _read_dataset(arguments: argparse.Namespace, left_out: Path | None) -> Any:
    """Read the data set; `left_out` lists what is left out on request."""
    from reid.data import load

    data = load(
        arguments.data,
        root_of(arguments.data, arguments.root),
        protocol=arguments.protocol,
        skip_bad=arguments.skip_bad,
    )
    _list_left_out(data.left_out, left_out)
    return data


def _list_left_out(lines: Sequence[str], path: Path | None) -> None:
    from reid.data.leaving_out import write_left_out
    from reid.engine.distributed import is_main

    if path is not None and is_main():
        write_left_out(lines, path)


def _beside(output: Path | None) -> Path | None:
    return output and output.with_name(f"{output.name}.left_out.txt")


def _train(verbs: Any) -> None:
    parser = add_verb(verbs, "train", _run_train, "train a recipe and evaluate the result")
    parser.add_argument("recipe", help="name of a recipe, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")


def _evaluate(verbs: Any) -> None:
    parser = add_verb(
        verbs, "evaluate", _run_evaluate, "print CMC and mAP of a model or of features"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, metavar="FILE", help="model.safetensors")
    source.add_argument(
        "--features",
        type=Path,
        nargs=2,
        metavar=("QUERY", "GALLERY"),
        help=".npz files with features, pids and camids",
    )
    _dataset_arguments(parser, required=False)
    _reading_arguments(parser)
    add_evaluate_options(parser)


def _extract(verbs: Any) -> None:
    parser = add_verb(verbs, "extract", _run_extract, "write the features of images to a .npz file")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    _dataset_arguments(parser, required=False)
    _reading_arguments(parser)
    parser.add_argument("--split", choices=("train", "query", "gallery"), default="query")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="a folder of images instead of a data set"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def _visualize(verbs: Any) -> None:
    parser = add_verb(
        verbs, "visualize", _run_visualize, "draw kept tokens and ranked lists of a trained model"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    _dataset_arguments(parser)
    _reading_arguments(parser)
    parser.add_argument("--count", type=int, default=8, help="queries to draw")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _reproduce(verbs: Any) -> None:
    parser = add_verb(
        verbs, "reproduce", _run_reproduce, "run the rows of one of the paper's tables"
    )
    parser.add_argument("table", choices=[f"table{n}" for n in range(1, 8)])
    _dataset_arguments(parser)
    parser.add_argument("--size", default="demo", help="of a generated set: tiny, demo or market")
    parser.add_argument("--epochs", type=int, help="the same for every row; default 200")
    parser.add_argument(
        "--init",
        default="pretrained",
        help="pretrained, scratch (with its own "
        "AdamW recipe), mini (the small backbone that ships, with the demo's recipe), or a file",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default runs/TABLE-NAME")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")


def _demo(verbs: Any) -> None:
    parser = add_verb(
        verbs, "demo", _run_demo, "generate data, train the rows of Table IV, write a report"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run on tiny data; its scores mean nothing"
    )


def _run_train(arguments: argparse.Namespace) -> None:
    from reid.config import load_config
    from reid.engine.distributed import is_main
    from reid.run import train

    config = load_config(arguments.recipe, arguments.overrides)
    run = train(config, arguments.out, resume=arguments.resume)
    if is_main() and run.result is not None:
        _print_scores(run.result)
        print(f"wrote {arguments.out / 'model.safetensors'}")


def _run_evaluate(arguments: argparse.Namespace) -> None:
    from reid import run
    from reid.engine.distributed import is_main
    from reid.models.embedder import load_model

    check_outputs(arguments)
    more: dict[str, Any] = {}
    if arguments.features:
        result, more = evaluate_files(arguments)
    else:
        refuse_ranking_options(arguments)
        if arguments.data is None:
            raise UserError("--data is missing: name the data set to evaluate on")
        run.start_processes()
        model, config, _ = load_model(arguments.checkpoint)
        data = _read_dataset(arguments, _beside(arguments.json))
        result, _, _ = run.evaluate_model(model.to(run.pick_device()), config, data)
    if is_main():
        _print_scores(result)
        print_more(write(arguments, result, run.scores(result), more))


def _run_extract(arguments: argparse.Namespace) -> None:
    from reid import run
    from reid.data.folder import folder_records
    from reid.data.leaving_out import readable_only
    from reid.engine.distributed import is_main
    from reid.models.embedder import load_model

    run.start_processes()
    model, config, _ = load_model(arguments.checkpoint)
    if arguments.images:
        records = folder_records(arguments.images)
        if arguments.skip_bad:
            records, bad = readable_only(records, str(arguments.images))
            _list_left_out(bad, _beside(arguments.out))
    elif arguments.data:
        records = getattr(_read_dataset(arguments, _beside(arguments.out)), arguments.split)
    else:
        raise UserError("give --data NAME or --images FOLDER")
    features = run.extract_features(model.to(run.pick_device()), config, records)
    if is_main():
        path = features.save(arguments.out)
        print(f"wrote {len(features)} features of {features.features.shape[1]} numbers to {path}")


def _run_visualize(arguments: argparse.Namespace) -> None:
    from reid.visualize import visualize

    data = _read_dataset(arguments, arguments.out / "left_out.txt")
    for path in visualize(arguments.checkpoint, data, arguments.out, count=arguments.count):
        print(f"wrote {path}")


def _run_reproduce(arguments: argparse.Namespace) -> None:
    from reid.reproduce import reproduce

    name = arguments.data
    out = arguments.out or Path("runs") / f"{arguments.table}-{name}"
    text = reproduce(
        arguments.table,
        data=name,
        root=root_of(name, arguments.root),
        size=arguments.size,
        epochs=arguments.epochs,
        init=arguments.init,
        out=out,
        overrides=arguments.overrides,
    )
    if text:
        print(text)


def _run_demo(arguments: argparse.Namespace) -> None:
    from reid.demo import demo

    text = demo(arguments.out, quick=arguments.quick)
    if text:
        print(text)


def _print_scores(result: Any) -> None:
    from reid.run import scores

    for name, value in scores(result).items():
        print(f"{name:>14}  {value:.2f}" if isinstance(value, float) else f"{name:>14}  {value}")
