"""Mannequins: a generated re-identification data set of drawn figures."""

from reid.data.mannequins.batch import Rendered, render_many, training_specs
from reid.data.mannequins.generate import generate, read_manifest
from reid.data.mannequins.protocols import PROTOCOLS, SIZES, SizeSpec
from reid.data.mannequins.render import Spec, draw, render

__all__ = [
    "PROTOCOLS",
    "SIZES",
    "Rendered",
    "SizeSpec",
    "Spec",
    "draw",
    "generate",
    "read_manifest",
    "render",
    "render_many",
    "training_specs",
]
