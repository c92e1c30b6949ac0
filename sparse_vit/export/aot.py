"""A model compiled ahead of time by AOTInductor: a package that runs without tracing or Python."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparse_vit.export.files import arriving
from sparse_vit.export.parity import check_parity
from sparse_vit.export.program import image_size_of, operators_of, trace
from sparse_vit.export.report import ExportReport

__all__ = ["compile_aot", "load_aot"]

NO_COMPILER = "no C++ compiler works; install g++ or clang, or name one in CXX"


def compile_aot(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Compiles a model for the device it is on; needs a C++ compiler, on a GPU Triton as well.

    The package fits machines with the instructions of this one, and the same version of torch.
    Arguments, result and errors are those of `export_program`.

    Raises:
        RuntimeError: if the compiler fails.
    """
    start = time.perf_counter()
    size = image_size or image_size_of(model)
    with arriving(path, ".pt2") as temporary:
        program = trace(model, size)
        with torch.no_grad():
            try:
                torch._inductor.aoti_compile_and_package(
                    program,
                    package_path=str(temporary),
                    inductor_configs={"aot_inductor.metadata": dict(metadata or {})},
                )
            except RuntimeError as error:
                # it comes wrapped, or bare, as the version of torch likes
                if "InvalidCxxCompiler" in f"{type(error).__name__}{error}":
                    raise RuntimeError(NO_COMPILER) from error
                raise
        weight = next(model.parameters())
        parity = check_parity(model, load_aot(temporary, weight.device), size, weight.dtype)
        written = temporary.stat().st_size
    return ExportReport(
        path=Path(path),
        format="aot",
        size=written,
        dtype=str(weight.dtype).removeprefix("torch."),
        image_size=size,
        opset=None,
        operators=operators_of(program),
        parity=parity,
        seconds=time.perf_counter() - start,
    )


def load_aot(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> Callable[[Tensor], Tensor]:
    """Loads a compiled package.

    Args:
        path: what `compile_aot` wrote.
        device: that it was compiled for, where images are moved.

    Returns:
        A callable from (B, 3, H, W) to (B, D); `.get_metadata()` of its attribute `package` are
        the strings stored in it.
    """
    package: Any = torch._inductor.aoti_load_package(str(path))

    def run(images: Tensor) -> Tensor:
        result: Tensor = package(images.to(device))
        return result

    run.package = package  # type: ignore[attr-defined]
    return run
