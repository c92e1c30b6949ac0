"""Typed run configuration: dataclasses, YAML recipes, overrides on the command line."""

import dataclasses
import difflib
import json
import math
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from reid._optional import require
from reid.errors import UserError

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class DataConfig:
    """Which images.

    Attributes:
        name: Data set of the catalog, such as "market1501" or "occluded-mannequins".
        root: Folder or archive of the data set; generated sets are written there when it is
            missing.
        protocol: Named protocol of the data set, such as "train+val"; empty takes its default.
        skip_bad: Leave out images that cannot be read, files whose name does not fit and list lines
            without a file, and list them in left_out.txt, instead of stopping.
        size: Size of a generated set: tiny, demo or market.
        seed: Seed of a generated set.
        image_size: Height and width in pixels that images are resized to.
        interpolation: Resize filter: bicubic or bilinear.
        cache: Folder that keeps decoded images for all runs and processes; "auto" is one in the
            user's folder of caches, empty decodes into memory at every start.
    """

    name: str = "occluded-mannequins"
    root: str = "data/occluded-mannequins"
    protocol: str = ""
    skip_bad: bool = False
    size: str = "demo"
    seed: int = 0
    image_size: tuple[int, int] = (256, 128)
    interpolation: str = "bicubic"
    cache: str = ""


@dataclass
class ModelConfig:
    """Backbone, token sparsification and neck.

    Attributes:
        backbone: timm name of a VisionTransformer, or "mini" (12 blocks, width 128, patch 8).
        init: "pretrained" (timm weights of `backbone`), "timm:TAG" (of another timm model of the
            same shape), "scratch", "mini" (the small backbone that ships with the package), or
            the path of a .safetensors or .pth file.
        drop_path: Stochastic depth rate of the last block.
        sparse: Whether tokens are dropped; False gives the dense backbone.
        stages: Blocks in front of which tokens are dropped, counted from 0.
        keep_ratio: p keeps p, p^2, p^3 of the patches; a list sets each stage.
        reduction: What happens to tokens that do not stay: prune, fuse or merge.
        selector: Who decides which stay when pruning: predictor, class_attention or random.
        reweight: Class-token attention reweighting: off, literal_after_norm or pooled.
        neck_feature: Feature used for retrieval: "before" or "after" BNNeck.
    """

    backbone: str = "deit_small_patch16_224"
    init: str = "timm:deit_small_distilled_patch16_224"
    drop_path: float = 0.1
    sparse: bool = True
    stages: tuple[int, ...] = (3, 6, 9)
    keep_ratio: float | tuple[float, ...] = 0.7
    reduction: str = "prune"
    selector: str = "predictor"
    reweight: str = "off"
    neck_feature: str = "before"


@dataclass
class AugmentConfig:
    """Views of an image in training.

    Attributes:
        views: Views per image, each "clean" (erasing and random patch) or "occluded" (NODA).
        flip: Probability of a horizontal flip.
        pad: Padding in pixels at a height of 256 before the random crop.
        erasing: Probability of random erasing in the clean view.
        random_patch: Probability of a random patch in the clean view.
        color_jitter: Strength of brightness, contrast and saturation jitter; 0 is off.
        occluders: Folder of cut-outs with alpha; None draws the default bank.
        teacher_view: "same" pixels as the student, or "clean": the unoccluded view for both.
    """

    views: tuple[str, ...] = ("clean",)
    flip: float = 0.5
    pad: int = 10
    erasing: float = 0.5
    random_patch: float = 0.5
    color_jitter: float = 0.0
    occluders: str | None = None
    teacher_view: str = "same"


@dataclass
class LossConfig:
    """Weights of the losses; names as in SUReID Eq. 9 to 14.

    Attributes:
        alpha: Weight of distillation and ratio loss together (Eq. 14).
        beta: Weight of classification and triplet together (Eq. 14).
        label_smoothing: Of the cross-entropy.
        triplet: "soft_margin" or "camera" (camera-constrained).
        cam_pos: Camera triplet: positives come from another camera.
        cam_neg: Camera triplet: negatives come from the same camera.
        ratio: Weight of the ratio loss inside alpha.
        ratio_per: Whether the ratio loss holds the kept share of every "image", or the mean of the
            "batch", which lets one image keep more tokens than another.
        kd_logits: Weight of the KL term inside alpha; 0 turns it off.
        kd_temperature: Temperature of the KL term.
        kd_feature: Weight of the feature term inside alpha; 0 turns it off.
        kd_reduction: "mean" over channels, or "sum" (the printed Eq. 13).
        align: ts_interpolate, st_interpolate, ts_linear or st_linear (Table VI).
        teacher_bn: The teacher's logits come from its BNNeck as trained; False is literal.
    """

    alpha: float = 1.0
    beta: float = 1.0
    label_smoothing: float = 0.0
    triplet: str = "soft_margin"
    cam_pos: bool = True
    cam_neg: bool = True
    ratio: float = 2.0
    ratio_per: str = "image"
    kd_logits: float = 0.1
    kd_temperature: float = 1.0
    kd_feature: float = 1.0
    kd_reduction: str = "mean"
    align: str = "ts_interpolate"
    teacher_bn: bool = True


@dataclass
class OptimConfig:
    """Optimiser and schedule.

    Attributes:
        name: sgd or adamw.
        lr: Peak learning rate.
        momentum: Of SGD.
        weight_decay: L2 for SGD, decoupled for AdamW.
        bias_lr_factor: Multiplier of the learning rate of biases.
        selector_lr_factor: Multiplier of the learning rate of the token selectors.
        head_lr_factor: Multiplier of the learning rate of the identity classifier.
        warmup: Share of all steps spent in the linear warm-up.
        warmup_factor: Learning rate at the first step, as a share of the peak.
        final_factor: Learning rate at the end of the cosine, as a share of the peak.
        clip_norm: Largest norm of the gradient; 0 is off.
    """

    name: str = "sgd"
    lr: float = 0.008
    momentum: float = 0.9
    weight_decay: float = 1e-4
    bias_lr_factor: float = 2.0
    selector_lr_factor: float = 1.0
    head_lr_factor: float = 1.0
    warmup: float = 0.025
    warmup_factor: float = 0.01
    final_factor: float = 0.002
    clip_norm: float = 0.0


@dataclass
class TrainConfig:
    """Length, batch, precision and logging of a run.

    Attributes:
        epochs: Passes of the sampler over the training set.
        max_steps: Stop after so many optimiser steps; 0 trains all epochs.
        identities: Identities in a batch (P), over all processes.
        instances: Images of each identity in a batch (K).
        cross_camera: Prefer instances from different cameras.
        accumulate: Batches whose gradients are summed in one optimiser step.
        mixed_precision: auto, no, bf16 or fp16.
        seed: Of weights, sampling, augmentation and token selection.
        log_every: Optimiser steps between two log lines.
        checkpoint_every: Optimiser steps between two checkpoints; 0: at the end of each epoch.
        eval_every: Epochs between two evaluations; 0: at the end only.
        keep_data_on_device: Hold the decoded images in device memory; auto: when they fit.
    """

    epochs: int = 200
    max_steps: int = 0
    identities: int = 16
    instances: int = 4
    cross_camera: bool = False
    accumulate: int = 1
    mixed_precision: str = "auto"
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 0
    eval_every: int = 0
    keep_data_on_device: str = "auto"


@dataclass
class RunConfig:
    """Everything that determines a run.

    Attributes:
        method: supervised or sureid.
        teacher: Checkpoint of the teacher; needed when a distillation weight is not 0.
        data: Which images.
        model: Backbone and sparsification.
        augment: Views of an image.
        loss: Weights of the losses.
        optim: Optimiser and schedule.
        train: Length, batch, precision and logging.
    """

    method: str = "sureid"
    teacher: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


T = TypeVar("T")

CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("supervised", "sureid"),
    "data.interpolation": ("bicubic", "bilinear"),
    "model.reduction": ("prune", "fuse", "merge"),
    "model.reweight": ("off", "literal_after_norm", "pooled"),
    "model.neck_feature": ("before", "after"),
    "augment.views": ("clean", "occluded"),
    "augment.teacher_view": ("same", "clean"),
    "loss.triplet": ("soft_margin", "camera"),
    "loss.ratio_per": ("image", "batch"),
    "loss.kd_reduction": ("mean", "sum"),
    "loss.align": ("ts_interpolate", "st_interpolate", "ts_linear", "st_linear"),
    "optim.name": ("sgd", "adamw"),
    "train.mixed_precision": ("auto", "no", "bf16", "fp16"),
    "train.keep_data_on_device": ("auto", "yes", "no"),
}


def load_config(
    recipe: str | Path | None = None, overrides: typing.Sequence[str] = ()
) -> RunConfig:
    """Read a recipe and apply overrides.

    Args:
        recipe: Name of a recipe that ships with the package, or path of a YAML file.
        overrides: "section.key=value" strings; values are read as YAML.

    Returns:
        The checked configuration.

    Raises:
        UserError: Unknown recipe, key or value; the nearest valid name is given.
    """
    yaml = require("yaml")
    tree: dict[str, Any] = {}
    if recipe is not None:
        path = _recipe_path(recipe)
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise UserError(f"{path} must hold a mapping of sections, found {loaded!r}")
        tree = loaded or {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise UserError(f"override {override!r} is not of the form section.key=value")
        _set(tree, key.strip().split("."), read_value(override, value))
    return from_dict(tree)


def read_value(override: str, text: str) -> Any:
    """Read the value of an override as YAML.

    Raises:
        UserError: The value is not valid YAML.
    """
    yaml = require("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the value of {override!r} is not valid YAML ({reason})") from error


def from_dict(tree: dict[str, Any]) -> RunConfig:
    """Build a checked configuration from nested dictionaries.

    Raises:
        UserError: Unknown key, wrong type or a value that is not one of the choices.
    """
    config = _build(RunConfig, tree, "")
    for name, allowed in CHOICES.items():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        for item in value if isinstance(value, tuple) else (value,):
            if item not in allowed:
                raise UserError(f"{name}={item!r} is not known; choose one of {', '.join(allowed)}")
    _check_ranges(config)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return nested dictionaries of plain JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def replace(config: RunConfig, **changes: Any) -> RunConfig:
    """Copy `config` with dotted keys written as `section__key`.

    Raises:
        UserError: Unknown key or value.
    """
    tree = to_dict(config)
    for key, value in changes.items():
        _set(tree, key.split("__"), value)
    return from_dict(tree)


def _recipe_path(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(
                f"recipe {str(path)!r} does not exist; give a YAML file or one of "
                f"{', '.join(recipe_names())}"
            )
        return path
    known = recipe_names()
    if str(recipe) not in known:
        raise UserError(f"unknown recipe {str(recipe)!r}{_nearest(str(recipe), known)}")
    return RECIPES / f"{recipe}.yaml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UserError(f"key {'.'.join(keys)!r} goes through {key!r}, which is a value")
    tree[keys[-1]] = value


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _build(cls: type[T], tree: dict[str, Any], prefix: str) -> T:
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(typing.cast(Any, cls))]
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key not in known:
            raise UserError(f"unknown configuration key {name!r}{_nearest(str(key), known)}")
        hint = hints[key]
        if is_dataclass(hint):
            if not isinstance(value, dict):
                raise UserError(f"{name} is a section with keys of its own, found {value!r}")
            values[key] = _build(typing.cast(type, hint), value, f"{name}.")
        else:
            values[key] = _convert(value, hint, name)
    return cls(**values)


def _convert(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(value, option, name)
            except UserError:
                continue
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            open_ended = len(arguments) == 2 and arguments[1] is Ellipsis
            if open_ended or len(value) == len(arguments):
                return tuple(_convert(item, arguments[0], name) for item in value)
    elif hint is type(None):
        if value is None:
            return None
    elif hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is float:
        # YAML reads 1e-4 as a string
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                return _refuse(value, hint, name)
    elif hint is str and isinstance(value, bool):
        # YAML reads the words yes and no as booleans
        return "yes" if value else "no"
    elif isinstance(value, hint) and not isinstance(value, bool):
        return value
    return _refuse(value, hint, name)


def _refuse(value: Any, hint: Any, name: str) -> Any:
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise UserError(f"{name}={value!r} has the wrong type; expected {expected}")


def _check_ranges(config: RunConfig) -> None:
    ratios = config.model.keep_ratio
    for ratio in ratios if isinstance(ratios, tuple) else (ratios,):
        if not 0 < ratio <= 1:
            raise UserError(
                f"model.keep_ratio={ratio} is outside (0, 1]; 0.7 keeps 70 % of the "
                "patches at the first stage"
            )
    if min(config.data.image_size) < 1:
        raise UserError(f"data.image_size={config.data.image_size} must be two positive numbers")
    limits: dict[str, tuple[float, float, float]] = {
        "train.epochs": (config.train.epochs, 1, math.inf),
        "train.identities": (config.train.identities, 2, math.inf),
        "train.instances": (config.train.instances, 1, math.inf),
        "train.accumulate": (config.train.accumulate, 1, math.inf),
        "train.log_every": (config.train.log_every, 1, math.inf),
        "train.max_steps": (config.train.max_steps, 0, math.inf),
        "train.checkpoint_every": (config.train.checkpoint_every, 0, math.inf),
        "train.eval_every": (config.train.eval_every, 0, math.inf),
        "train.seed": (config.train.seed, 0, 2**31 - 1),
        "data.seed": (config.data.seed, 0, 2**31 - 1),
        "model.drop_path": (config.model.drop_path, 0, 0.99),
        "optim.lr": (config.optim.lr, 0, math.inf),
        "optim.warmup": (config.optim.warmup, 0, 1),
        "optim.clip_norm": (config.optim.clip_norm, 0, math.inf),
        "augment.flip": (config.augment.flip, 0, 1),
        "augment.pad": (config.augment.pad, 0, math.inf),
        "augment.erasing": (config.augment.erasing, 0, 1),
        "augment.random_patch": (config.augment.random_patch, 0, 1),
        "augment.color_jitter": (config.augment.color_jitter, 0, 1),
        "loss.label_smoothing": (config.loss.label_smoothing, 0, 1),
    }
    for name, (number, low, high) in limits.items():
        if not low <= number <= high:
            wanted = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"{name}={number} must be {wanted}")
    if not config.augment.views:
        raise UserError("augment.views is empty; give at least one of clean, occluded")
