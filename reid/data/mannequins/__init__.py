"""Mannequins: a generated re-identification data set of drawn figures."""

from reid.data.mannequins.batch import Rendered, render_many, training_specs
from reid.data.mannequins.picture import Spec, draw, render
from reid.data.mannequins.protocols import PROTOCOLS, SIZES, SizeSpec
from reid.data.mannequins.summary import report
from reid.data.mannequins.writing import MANIFEST, generate, mask_path, read_manifest

__all__ = [
    "MANIFEST",
    "PROTOCOLS",
    "SIZES",
    "Rendered",
    "SizeSpec",
    "Spec",
    "draw",
    "generate",
    "mask_path",
    "read_manifest",
    "render",
    "render_many",
    "report",
    "training_specs",
]
