"""Builds and loads the C++ extension behind `impl="cpu"`.

A module built ahead of time by `setup.py` is used when it fits this Python, torch and these
sources, as the tag inside it tells; otherwise one is built at first use, into a folder of the user.
The build runs under a lock that the system drops with its process, in a folder of its own, and its
result is moved into place whole: a killed build leaves nothing that the next one trips over.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

NAME = "_extension"
HERE = Path(__file__).parent
SOURCES = HERE / "src"
FLAGS = (
    "-O3",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-ffunction-sections",
)
LINK_FLAGS = ("-fopenmp", "-Wl,--gc-sections", "-s")
WAIT_SECONDS = 900.0
"""How long to wait for another process that builds the same module."""

_LOG = logging.getLogger(__name__)
_FIRST = threading.Lock()
_CALLEES = tuple(f"{Path(file).parent}{os.sep}" for file in (HERE, torch.__file__))
"""Folders whose lines are not the ones that a notice is about."""


def load() -> ModuleType:
    """Return the extension, built if need be.

    Returns:
        The module; the same one at every call.

    Raises:
        RuntimeError: There is none and none can be built; the message lists the reasons.
    """
    module, why = _attempt()
    if module is None:
        raise RuntimeError("; ".join(why))
    return module


def reasons() -> list[str]:
    """List why the extension cannot be had; empty when it can. The first call may build it."""
    return _attempt()[1]


@cache
def _attempt() -> tuple[ModuleType | None, list[str]]:
    # A cache alone lets threads that call for the first time together all build.
    with _FIRST:
        return _first_attempt()


@cache
def _first_attempt() -> tuple[ModuleType | None, list[str]]:
    try:
        return _load(), []
    except (RuntimeError, OSError, ImportError) as error:
        why = str(error)
    if not _disabled():
        warnings.warn(
            f"the CPU kernels are not available, slower plain torch serves instead: {why}",
            RuntimeWarning,
            stacklevel=_frames_to_the_caller(),
        )
    return None, [why]


def _frames_to_the_caller() -> int:
    """Count the frames from the caller of this function to the line outside these packages."""
    frame, count = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_CALLEES):
        frame, count = frame.f_back, count + 1
    return count


def _load() -> ModuleType:
    path = compiled()
    file = path.stat()
    try:
        return _import(path)
    except ImportError as error:
        # A shared home may hold what a machine with a newer C library built.
        _LOG.warning("%s does not load: %s", path, error)
        try:
            return _import(compiled((path, file)))
        except RuntimeError as second:
            raise RuntimeError(f"{path} does not load ({error}); {second}") from error


def compiled(unfit: tuple[Path, os.stat_result] | None = None) -> Path:
    """Return the file of a module that fits, built first if there is none.

    Args:
        unfit: A file that fits but does not load, as it was then: it is passed over, and built
            anew where a build would put it.

    Raises:
        RuntimeError: It cannot be built; the message names the cause and the remedy.
    """
    spurned = unfit[0] if unfit else None
    try:
        found = _found(spurned)
        if found is not None:
            return found
        why = obstacles()
        if why:
            raise RuntimeError("; ".join(why))
        target = _target()
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent.with_suffix(".lock")):
            # Who held the lock before may have built it, or built it anew.
            known = unfit[1] if unfit and target == spurned else None
            if not target.exists() or (known and os.path.samestat(target.stat(), known)):
                _build(target)
        return target
    except OSError as error:
        raise RuntimeError(
            f"the CPU kernels cannot be kept: {error}; set TORCH_EXTENSIONS_DIR to a writable "
            "folder"
        ) from error


def tag() -> str:
    """Return what a module must have been built from to serve here: sources, flags, torch, ABI."""
    digest = hashlib.sha256()
    for path in _files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    fit = (*FLAGS, *LINK_FLAGS, torch.__version__, sysconfig.get_config_var("SOABI") or "")
    digest.update("\0".join(fit).encode())
    return digest.hexdigest()[:20]


def _files() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h"))


def _found(spurned: Path | None) -> Path | None:
    mark = tag()
    for path in HERE.glob(f"{NAME}*.so"):
        if path != spurned and f"build-tag:{mark};".encode() in path.read_bytes():
            return path
    if _compiler():
        target = _target()
        return target if target.exists() and target != spurned else None
    # Without a compiler whatever one built it before will do.
    built = _root().glob(f"{mark}-*/{NAME}.so")
    return next((path for path in built if path != spurned), None)


def _disabled() -> bool:
    return os.environ.get("SPARSE_VIT_CPU_BUILD") == "0"


def obstacles() -> list[str]:
    """List what is in the way of a build, each with its remedy; empty when nothing is."""
    found = []
    if _disabled():
        found.append("SPARSE_VIT_CPU_BUILD=0 forbids building the CPU kernels; unset it")
    if sys.platform != "linux":
        found.append(f"the CPU kernels are built on Linux only, this is {sys.platform}")
    if not _compiler():
        found.append(
            f"there is no C++ compiler ({_command()[0]} does not run); install g++ or clang++, or "
            "name one in the environment variable CXX"
        )
    with _path_with_ninja():
        if shutil.which("ninja") is None:
            found.append("ninja is not found; pip install ninja")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        found.append(
            f"{header} is missing; install the headers of this Python (Debian: python3-dev)"
        )
    return found


def _command() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]


@cache
def _compiler() -> str:
    """Name the compiler and its version; empty when there is none."""
    if shutil.which(_command()[0]) is None:
        return ""
    answer = subprocess.run([*_command(), "--version"], capture_output=True, text=True)
    return f"{_command()} {answer.stdout}" if answer.returncode == 0 else ""


def _root() -> Path:
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    if root:
        return Path(root) / "sparse_vit_cpu"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "torch_extensions" / "sparse_vit_cpu"


def _target() -> Path:
    compiler = hashlib.sha256(_compiler().encode()).hexdigest()[:8]
    return _root() / f"{tag()}-{compiler}" / f"{NAME}.so"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # not on every system that this file is imported on

    deadline = time.monotonic() + WAIT_SECONDS
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"another process has been building for {WAIT_SECONDS:.0f} s and still "
                        f"holds {path}; end it and try again"
                    ) from None
                time.sleep(0.1)
            except OSError as error:
                raise RuntimeError(
                    f"{path} cannot be locked ({error}); set TORCH_EXTENSIONS_DIR to a folder on a "
                    "local disk"
                ) from error
        yield


@contextlib.contextmanager
def _path_with_ninja() -> Iterator[None]:
    """Let ninja be found in an environment that is not activated."""
    before = os.environ.get("PATH", "")
    folders = [before, str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    with contextlib.suppress(ImportError, AttributeError):
        folders.append(importlib.import_module("ninja").BIN_DIR)
    os.environ["PATH"] = os.pathsep.join(folder for folder in folders if folder)
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _build(target: Path) -> None:
    """Compile into a fresh folder beside the target, then move the module into place."""
    prefix = f".building-{target.parent.name}-"
    root = target.parent.parent
    for leftover in root.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=prefix, dir=root)
    _LOG.warning("building the CPU kernels, once, about half a minute, into %s", target.parent)
    try:
        with _path_with_ninja():
            built = _compile(folder)
        os.replace(built, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _no_warnings_of(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _compile(folder: str) -> str:
    # Its import tells about a missing GPU, which is of no concern here.
    with _no_warnings_of("torch.utils.cpp_extension"):
        return _compile_quietly(folder)


def _compile_quietly(folder: str) -> str:
    from torch.utils import cpp_extension

    # A second build in one process would otherwise get another name than the one it is imported by.
    cpp_extension.JIT_EXTENSION_VERSIONER.entries.pop(NAME, None)
    try:
        module = cpp_extension.load(
            NAME,
            [str(path) for path in _files() if path.suffix == ".cpp"],
            extra_cflags=[*FLAGS, f"-DSPARSE_VIT_BUILD_TAG={tag()}"],
            extra_ldflags=list(LINK_FLAGS),
            build_directory=folder,
        )
    except (RuntimeError, ImportError, subprocess.SubprocessError) as error:
        raise RuntimeError(
            f"the CPU kernels do not compile with {' '.join(_command())}; name another compiler in "
            f"the environment variable CXX. It said: {_last_words(str(error))}"
        ) from error
    return str(module.__file__)


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return " | ".join(errors[:3] or lines[-3:])[:1000]


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"kernels._cpu.{NAME}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
