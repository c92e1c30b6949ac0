"""CUDA graphs of an engine, one per batch bucket.

A batch is copied to the front of its bucket's input, the graph is replayed, and the front of the
result is copied out. Nothing in between waits for the device or is launched by Python.
"""

import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_vit.engine.describe import Description

__all__ = ["LARGEST", "Graphs", "Outputs", "bucket_of", "capture", "compiled"]

LARGEST = 512
"""Images of the largest bucket; larger batches are split."""

WARMUPS = 3

Outputs = tuple[Tensor, list[Tensor]]
Function = Callable[[Tensor], Outputs]


class Replay(NamedTuple):
    """A captured call: fill `images`, call `run`, read `outputs`."""

    images: Tensor
    run: Callable[[], Any]
    outputs: Outputs


def bucket_of(images: int) -> int:
    """The smallest power of two that holds so many images."""
    return 1 << (images - 1).bit_length()


def capture(function: Function, images: Tensor) -> Replay:
    """Records the kernels of a function of images on a CUDA device.

    Args:
        function: waits for the device nowhere; its tensors do not depend on values in shape.
        images: (B, 3, H, W), the memory that it will read.
    """
    side: Any = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(side):
        for _ in range(WARMUPS):
            function(images)
    torch.cuda.current_stream(images.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(images)
    return Replay(images, graph.replay, outputs)


def compiled(function: Function, notes: Description) -> "Graphs":
    """A function of images compiled and captured; as it is where the compiler fails, said so."""
    fast = torch.compile(function, dynamic=False)

    def either(images: Tensor) -> Outputs:
        try:
            return fast(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            why = str(error).partition("\n")[0]
            notes.add("compiler", "none", why)
            warnings.warn(f"the engine runs without the compiler: {why}", RuntimeWarning, 2)
            graphs.function = function
            return function(images)

    notes.add("whole model", "torch.compile, CUDA graphs by batch bucket", "no launch from Python")
    graphs = Graphs(either)
    return graphs


class Graphs:
    """Calls a function of images through captured graphs, one caller at a time.

    Args:
        function: as of `capture`.
        record: makes a `Replay`; `capture` but in tests.
    """

    def __init__(
        self, function: Function, record: Callable[[Function, Tensor], Replay] = capture
    ) -> None:
        self.function, self._record = function, record
        self._graphs: dict[tuple[object, ...], Replay] = {}
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Outputs:
        """Up to `LARGEST` images to what the function returns for them, in memory of its own."""
        count = images.shape[0]
        key = bucket_of(count), *images.shape[1:], images.dtype
        with self._lock:
            if key not in self._graphs:
                blank = images.new_zeros(key[0], *images.shape[1:])
                self._graphs[key] = self._record(self.function, blank)
            replay = self._graphs[key]
            # What an earlier batch left behind these images is computed and not read.
            replay.images[:count].copy_(images)
            replay.run()
            output, kept = replay.outputs
            return output[:count].clone(), [mask[:count].clone() for mask in kept]
