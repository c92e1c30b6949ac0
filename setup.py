"""Metadata, dependencies and extras of the `sparse-vit` distribution."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Return `__version__` of the `sparse_vit` package without importing it."""
    text = (HERE / "sparse_vit" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("sparse_vit/_version.py does not define __version__")
    return match.group(1)


REID = [
    "accelerate>=1.0",
    "matplotlib>=3.7",
    "opencv-python-headless>=4.8",
    "pillow>=10.0",
    "pyyaml>=6.0",
    "scikit-learn>=1.3",
    "scipy>=1.10",
    "tensorboard>=2.14",
    "tqdm>=4.65",
]
TEST = [
    "build>=1.0",
    "hypothesis>=6.90",
    "pytest>=8.0",
    "pytest-benchmark>=4.0",
    "pytest-xdist>=3.5",
    "setuptools>=68",
    "wheel",
]
BENCH = ["pytest>=8.0", "pytest-benchmark>=4.0"]
DEV = ["mypy>=1.11", "ruff>=0.6"]

setup(
    name="sparse-vit",
    version=read_version(),
    description=(
        "Token-sparsified vision transformers with exact masked training and compacted "
        "inference, and person re-identification built on them"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(
        include=["kernels", "kernels.*", "sparse_vit", "sparse_vit.*", "reid", "reid.*"]
    ),
    package_data={
        "kernels": ["py.typed", "_launch/tables/*"],
        "sparse_vit": ["py.typed"],
        "reid": ["py.typed", "recipes/*.yaml", "assets/*"],
    },
    install_requires=[
        "numpy>=1.24",
        "safetensors>=0.4",
        "timm>=1.0.12",
        "torch>=2.6",
        "ninja",
        'triton>=3.2; platform_system == "Linux"',
    ],
    extras_require={
        "reid": REID,
        "test": REID + TEST,
        "bench": REID + BENCH,
        "dev": REID + TEST + DEV,
    },
    entry_points={"console_scripts": ["reid = reid.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
