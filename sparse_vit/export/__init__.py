"""Ways out of Python for a model that drops tokens: torch.export, AOTInductor, ONNX."""

from sparse_vit.export.aot import compile_aot, load_aot
from sparse_vit.export.parity import Parity, ParityError
from sparse_vit.export.program import export_program
from sparse_vit.export.report import ExportReport
from sparse_vit.export.to_onnx import export_onnx, onnx_session

__all__ = [
    "ExportReport",
    "Parity",
    "ParityError",
    "compile_aot",
    "export_onnx",
    "export_program",
    "load_aot",
    "onnx_session",
]
