"""What an export left on the disk."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparse_vit.export.parity import Parity

__all__ = ["ExportReport"]


@dataclass(frozen=True)
class ExportReport:
    """An exported model.

    Attributes:
        path: the file.
        format: "onnx", "program" or "aot".
        size: bytes of the file.
        dtype: of the weights.
        image_size: height and width of the images it takes; the batch size is free.
        opset: version of the ONNX operators; None for other formats.
        operators: how often each operator occurs in the graph; of a compiled package, in the
            program that was compiled.
        parity: how far it is from the model.
        seconds: that the export took, the comparison included.
    """

    path: Path
    format: str
    size: int
    dtype: str
    image_size: tuple[int, int]
    opset: int | None
    operators: dict[str, int]
    parity: Parity
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON; without the path, which may have moved."""
        values = asdict(self)
        del values["path"]
        return values

    def __str__(self) -> str:
        opset = "" if self.opset is None else f", opset {self.opset}"
        total = sum(self.operators.values())
        return (
            f"{self.path}: {self.format}{opset}, {self.dtype}, {self.size / 1e6:.1f} MB, "
            f"{total} operators of {len(self.operators)} kinds, made in {self.seconds:.1f} s\n"
            f"parity: {self.parity}"
        )
