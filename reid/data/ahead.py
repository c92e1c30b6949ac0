"""The next batch is read while the present one is used."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

K = TypeVar("K", bound=Hashable)


class Ahead(Generic[K]):
    """Brings uint8 batches from host memory, a mapped file or a decoder to the device.

    A thread reads the batch that follows; on a GPU it also copies it there, from pinned memory on
    a stream of its own, so that reading and copying overlap with the step before.

    Args:
        read: From the key of a batch to its tensors on the CPU; called in the thread.
        device: Where the batches are wanted.
    """

    def __init__(self, read: Callable[[K], list[Tensor]], device: torch.device) -> None:
        self._read = read
        self._device = device
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: tuple[K, Future[tuple[list[Tensor], Any]]] | None = None

    def __call__(self, key: K, following: K | None = None) -> list[Tensor]:
        """Return the tensors of a batch and start to read the one that follows.

        Args:
            key: The batch; it is there already if it was the one to follow before.
            following: Key of the next batch; None when there is none.

        Raises:
            UserError: What `read` raised for this batch.
        """
        if self._next is not None and self._next[0] == key:
            waited = self._next[1]
        else:
            waited = self._pool.submit(self._load, key)
        self._next = None
        tensors, copied = waited.result()
        if following is not None:
            self._next = following, self._pool.submit(self._load, following)
        if copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            for tensor in tensors:
                # its memory is not given away while this stream works on it
                tensor.record_stream(stream)
        return tensors

    def _load(self, key: K) -> tuple[list[Tensor], Any]:
        tensors = self._read(key)
        if self._stream is None:
            return tensors, None
        with torch.cuda.stream(self._stream):
            # the allocator keeps a pinned block until the copies from it are done
            moved = [
                t.pin_memory().to(self._device, non_blocking=True) if t.device.type == "cpu" else t
                for t in tensors
            ]
            return moved, self._stream.record_event()

    def close(self) -> None:
        """End the thread; a batch that nobody asked for is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
