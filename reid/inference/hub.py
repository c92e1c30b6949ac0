"""A model as a folder that others can load, and on a model hub through huggingface_hub."""

import json
import os
import re
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from reid._optional import require
from reid.config import from_dict, to_dict
from reid.engine import checkpoint as files
from reid.engine.checkpoint import write_atomic
from reid.errors import UserError
from reid.inference.card import model_card
from reid.inference.origin import sha256_of, without_paths
from reid.inference.threshold import read_threshold, threshold_path
from reid.models.embedder import load_model

WEIGHTS = "model.safetensors"
CONFIG, CARD, SCORES = "config.json", "README.md", "evaluation.json"
THRESHOLD = threshold_path(WEIGHTS).name
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def save_folder(checkpoint: Path, folder: Path, *, name: str = "") -> Path:
    """Write a folder with weights, configuration, model card and what else is known.

    Args:
        checkpoint: A model.safetensors; evaluation.json and model.threshold.json beside it are
            taken along.
        folder: Made if it is missing; files of these names in it are replaced, each atomically.
        name: Of the model in the card's example; empty for the folder's.

    Returns:
        The folder.

    Raises:
        UserError: The checkpoint cannot be read or the folder not be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the name of a folder")
    model, _, metadata = load_model(checkpoint)
    threshold = read_threshold(checkpoint)
    scores = _json_beside(checkpoint, SCORES)
    config = without_paths(from_dict(metadata["config"]))
    tensors, _ = files.load(checkpoint)
    files.save(folder / WEIGHTS, tensors, {**metadata, "config": to_dict(config)})
    write_atomic(folder / CONFIG, json.dumps(to_dict(config), indent=2).encode())
    if scores is not None:
        write_atomic(folder / SCORES, json.dumps(scores, indent=2).encode())
    if threshold is not None:
        threshold = replace(threshold, checkpoint_sha256=sha256_of(folder / WEIGHTS))
        write_atomic(folder / THRESHOLD, json.dumps(asdict(threshold), indent=2).encode())
    card = model_card(name or str(folder), model, config, metadata, scores, threshold)
    write_atomic(folder / CARD, card.encode())
    return folder


def push(checkpoint: Path, name: str, *, private: bool = True, api: Any = None) -> str:
    """Upload what `save_folder` writes.

    Args:
        checkpoint: A model.safetensors.
        name: `owner/model` on the hub; the repository is made if it is missing.
        private: Whether a new repository is hidden from others, as models that recognise people
            should be until somebody decides otherwise.
        api: A `huggingface_hub.HfApi`; None makes one with the token of the user's log-in.

    Returns:
        Where it lies.

    Raises:
        UserError: A name of another form, no access, or no network.
    """
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a model on the hub; expected owner/model")
    hub = require("huggingface_hub")
    api = hub.HfApi() if api is None else api
    with tempfile.TemporaryDirectory() as folder:
        save_folder(checkpoint, Path(folder), name=name)
        try:
            url = api.create_repo(repo_id=name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=folder, commit_message="Upload a sparse-vit re-ID model"
            )
        except Exception as error:  # of the network, of its client, of the hub
            raise UserError(
                f"cannot upload to {name} ({_reason(error)}); log in with `hf auth login`, and "
                "check the name and the network"
            ) from error
    return str(url)


def download(name: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """Return a folder with a model: the one given, or a copy of one on the hub.

    Args:
        name: A folder or file as of `Embedder.load`, or `owner/model`.
        revision: Branch, tag or commit on the hub.

    Raises:
        UserError: There is no such folder, or the hub does not give the model.
    """
    path = Path(name)
    if path.exists():
        return path
    text = os.fspath(name)
    if not HUB_NAME.fullmatch(text):
        raise UserError(
            f"{text} does not exist; give a folder with {WEIGHTS}, or owner/model for one on the "
            "hub"
        )
    hub = require("huggingface_hub")
    try:
        found = hub.snapshot_download(
            text, revision=revision, allow_patterns=[WEIGHTS, CONFIG, CARD, SCORES, THRESHOLD]
        )
    except Exception as error:  # of the network, of its client, of the hub
        raise UserError(
            f"cannot get {text} from the hub ({_reason(error)}), and there is no folder of that "
            "name; check the name and the network, or give a folder that save_pretrained wrote"
        ) from error
    return Path(found)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    first = lines[0].strip() if lines else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _json_beside(checkpoint: Path, name: str) -> dict[str, Any] | None:
    path = checkpoint.with_name(name)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); evaluate again, or delete it") from error
    return found if isinstance(found, dict) else None
