"""Metadata, dependencies and extras of the `sparse-vit` distribution."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

HERE = Path(__file__).parent


def read_version() -> str:
    """Return `__version__` of the `sparse_vit` package without importing it."""
    text = (HERE / "sparse_vit" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("sparse_vit/_version.py does not define __version__")
    return match.group(1)


def load_builder() -> ModuleType | None:
    """Return the file that builds the CPU kernels; None where torch, which it needs, is not.

    torch is no build requirement: an isolated build has none and leaves the kernels to first use.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    path = HERE / "kernels" / "_cpu" / "build.py"
    spec = importlib.util.spec_from_file_location("build_cpu_kernels", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be imported")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    return builder


BUILDER = load_builder()


class BuildCpuKernels(build_ext):
    """Ships the CPU kernels compiled; without them they are compiled at first use."""

    def build_extension(self, extension: Extension) -> None:
        """Copy the compiled module, from the user's cache if it is there, to where it ships."""
        assert BUILDER is not None
        try:
            built = BUILDER.compiled()
        except (RuntimeError, OSError) as error:
            raise CompileError(f"{error}. They will be tried again at first use") from error
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if built != target:
            shutil.copyfile(built, target)


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
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3"]
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
    ext_modules=(
        [
            Extension(
                "kernels._cpu._extension",
                sorted(str(path.relative_to(HERE)) for path in BUILDER.SOURCES.glob("*.cpp")),
                optional=True,
            )
        ]
        if BUILDER is not None and not BUILDER.obstacles()
        else []
    ),
    cmdclass={"build_ext": BuildCpuKernels},
    package_data={
        "kernels": ["py.typed", "_launch/tables/*", "_cpu/src/*.h", "_cpu/src/*.cpp"],
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
        "export": EXPORT,
        "test": REID + EXPORT + TEST,
        "bench": REID + BENCH,
        "dev": REID + EXPORT + TEST + DEV,
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
