"""Peak memory of a process and its children together, without pages of files."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTERVAL_SECONDS = 0.02
_FIELDS = ("Pss_Anon", "Pss_Shmem")


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Measure what a call adds to the memory of this process and its children at its highest.

    Counted every 20 ms are anonymous and shared memory, shared pages by halves, thirds and so on;
    pages of mapped files, which the system drops when it needs room, are not. None where the
    system does not count so.
    """
    before = _held()
    if before is None:
        return None
    highest, done = before, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(INTERVAL_SECONDS):
            highest = max(highest, _held() or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return highest - before


def _held() -> int | None:
    own = _of(os.getpid())
    if own is None:
        return None
    return own + sum(_of(child) or 0 for child in _children(os.getpid()))


def _children(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found + [below for child in found for below in _children(child)]


def _of(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines[1:]}
    if not all(name in sizes for name in _FIELDS):
        return None
    return sum(int(sizes[name]) << 10 for name in _FIELDS)
