"""Building and loading the C++ extension: caches, locks, environments, and failing aloud."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from kernels import _backend, masked_attention
from kernels._cpu import build

REPOSITORY = Path(__file__).parent.parent
CPU = torch.device("cpu")

SOURCE = """
#include <Python.h>
#define TEXT(name) #name
#define TEXT_OF(name) TEXT(name)
static char tag[] = "build-tag:" TEXT_OF(SPARSE_VIT_BUILD_TAG) ";";
static PyModuleDef module{PyModuleDef_HEAD_INIT, "_extension", tag, -1, nullptr, nullptr, nullptr,
                          nullptr, nullptr};
PyMODINIT_FUNC PyInit__extension() { return PyModule_Create(&module); }
"""

# Notes every translation unit in a file, and dawdles over it where a file says so.
COMPILER = """#!/bin/sh
case "$*" in *binding.cpp*)
  echo unit >> "{log}"
  test -e "{slow}" && sleep 60
esac
exec {command} "$@"
"""

LOAD = """
import sys
from pathlib import Path
from kernels._cpu import build
build.SOURCES, build.HERE = Path(sys.argv[1]), Path(sys.argv[2])
print(build.load().__doc__)
"""

needs_compiler = pytest.mark.skipif(
    bool(build.obstacles()), reason="; ".join(build.obstacles()) or "can build"
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package folder and a cache of its own, a trivial source, and nothing remembered."""
    (tmp_path / "src").mkdir()
    (tmp_path / "package").mkdir()
    (tmp_path / "src" / "binding.cpp").write_text(SOURCE)
    monkeypatch.setattr(build, "SOURCES", tmp_path / "src")
    monkeypatch.setattr(build, "HERE", tmp_path / "package")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSE_VIT_CPU_BUILD", raising=False)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    build._attempt.cache_clear()
    build._first_attempt.cache_clear()
    build._compiler.cache_clear()


@pytest.fixture
def compiler(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that counts what it compiles in the file `log` and waits while `slow` exists."""
    script = place / "compiler"
    command = shutil.which(build._command()[0])
    script.write_text(COMPILER.format(log=place / "log", slow=place / "slow", command=command))
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    forget()
    return place


def compilations(place: Path) -> int:
    log = place / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def spoil(module: Path) -> None:
    # In a file of its own: this process has the module mapped, and would read what is written.
    (module.parent / "spoiled").write_bytes(b"of another machine")
    os.replace(module.parent / "spoiled", module)


def start_loading(place: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(place / "src"), str(place / "package")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def notices(place: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            build.reasons()
    return [str(warning.message) for warning in caught]


@needs_compiler
def test_builds_once_and_says_so(compiler: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = build.load()
    assert module.__doc__ == f"build-tag:{build.tag()};"
    assert build.reasons() == []
    assert compilations(compiler) == 1
    (message,) = caplog.messages
    assert "building the CPU kernels" in message
    assert str(compiler / "cache") in message
    forget()
    build.load()
    assert compilations(compiler) == 1
    assert len(caplog.messages) == 1
    files = sorted(path.suffix for path in (compiler / "cache").rglob("*") if path.is_file())
    assert files == [".lock", ".so"]


@needs_compiler
@pytest.mark.parametrize("change", ["source", "torch", "flags", "abi"])
def test_builds_again_after_a_change(
    compiler: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.load()
    if change == "source":
        (compiler / "src" / "more.h").write_text("// more\n")
    elif change == "torch":
        monkeypatch.setattr(build.torch, "__version__", "0.0.1")
    elif change == "flags":
        monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DMORE"))
    else:
        value = sysconfig.get_config_var
        monkeypatch.setattr(
            build.sysconfig,
            "get_config_var",
            lambda name: "other" if name == "SOABI" else value(name),
        )
    forget()
    assert build.load().__doc__ == f"build-tag:{build.tag()};"
    assert compilations(compiler) == 2


@needs_compiler
def test_uses_the_module_that_ships_only_where_it_fits(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = compiler / "package" / "_extension.cpython.so"
    shutil.copy(build.compiled(), shipped)
    shutil.rmtree(compiler / "cache")
    assert build.compiled() == shipped
    monkeypatch.setattr(build.torch, "__version__", "0.0.1")
    assert build.compiled().is_relative_to(compiler / "cache")
    assert compilations(compiler) == 2


@needs_compiler
def test_a_cached_module_serves_without_a_compiler(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.load()
    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    assert build.reasons() == []


@needs_compiler
def test_what_a_killed_build_left_behind_stops_nobody(compiler: Path) -> None:
    (compiler / "slow").touch()
    killed = start_loading(compiler)
    deadline = time.monotonic() + 60
    while not compilations(compiler):
        assert time.monotonic() < deadline, killed.communicate()
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    (compiler / "slow").unlink()
    (left,) = (compiler / "cache").rglob(".building-*")
    (left / "lock").touch()
    start = time.monotonic()
    assert build.reasons() == []
    assert time.monotonic() - start < 30
    assert not left.exists()
    os.killpg(killed.pid, signal.SIGKILL)


@needs_compiler
def test_waits_for_another_process_but_not_for_ever(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "WAIT_SECONDS", 0.2)
    lock = build._target().parent.with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    start = time.monotonic()
    with build._locked(lock), pytest.warns(RuntimeWarning, match="still holds"):
        (reason,) = build.reasons()
    assert time.monotonic() - start < 10
    assert str(lock) in reason


@needs_compiler
def test_processes_that_start_together_build_once(compiler: Path) -> None:
    running = [start_loading(compiler) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    assert sum("building the CPU kernels" in err for _, err in said) == 1
    assert compilations(compiler) == 1


@needs_compiler
def test_finds_ninja_in_an_environment_that_is_not_activated(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "bin"
    folder.mkdir()
    for tool in (build._command()[0], "as", "ld"):
        (folder / Path(tool).name).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(folder))
    assert shutil.which("ninja") is None
    forget()
    assert build.reasons() == []
    assert os.environ["PATH"] == str(folder)


def test_without_a_compiler_one_notice_and_the_reference(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    (notice,) = notices(place)
    assert "no-such-compiler does not run" in notice
    assert "CXX" in notice
    q = torch.randn(1, 2, 5, 8)
    keep = torch.tensor([[True, False, True, True, False]])
    expected = masked_attention(q, q, q, keep, impl="reference")
    assert torch.equal(masked_attention(q, q, q, keep), expected)
    with pytest.raises(RuntimeError, match="no-such-compiler does not run"):
        build.load()


def test_an_empty_path_is_no_crash(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    forget()
    (notice,) = notices(place)
    assert "there is no C++ compiler" in notice


def test_can_be_forbidden(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_VIT_CPU_BUILD", "0")
    assert notices(place) == []
    (reason,) = _backend.cpu_reasons(CPU)
    assert "SPARSE_VIT_CPU_BUILD=0" in reason
    assert not (place / "cache").exists()


@needs_compiler
def test_a_source_that_does_not_compile_is_told_with_the_error(place: Path) -> None:
    (place / "src" / "binding.cpp").write_text("int broken( {\n")
    (notice,) = notices(place)
    assert "binding.cpp:1" in notice
    assert [path for path in (place / "cache").rglob("*") if path.suffix != ".lock"] == [
        place / "cache" / "sparse_vit_cpu",
        build._target().parent,
    ]


@needs_compiler
def test_a_folder_that_cannot_be_written_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(place / "file"))
    (notice,) = notices(place)
    assert str(place / "file") in notice
    assert "set TORCH_EXTENSIONS_DIR to a writable folder" in notice


@needs_compiler
def test_a_home_that_cannot_be_written_is_told_with_the_remedy(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(build._root()))

    monkeypatch.setattr(build.tempfile, "mkdtemp", refuse)
    (notice,) = notices(place)
    assert "Permission denied" in notice
    assert "set TORCH_EXTENSIONS_DIR to a writable folder" in notice


@needs_compiler
def test_a_cached_module_that_does_not_load_is_built_anew_once(
    compiler: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = build.compiled()
    spoil(target)
    assert build.load().__doc__ == f"build-tag:{build.tag()};"
    assert compilations(compiler) == 2
    assert sum(f"{target} does not load" in message for message in caplog.messages) == 1
    forget()
    build.load()
    assert compilations(compiler) == 2


@needs_compiler
def test_a_module_that_another_process_built_anew_meanwhile_is_not_built_again(
    compiler: Path,
) -> None:
    target = build.compiled()
    before = target.stat()
    shutil.copy(target, compiler / "better")
    os.replace(compiler / "better", target)
    assert build.compiled((target, before)) == target
    assert compilations(compiler) == 1


@needs_compiler
def test_a_module_that_ships_and_does_not_load_is_passed_over(compiler: Path) -> None:
    shipped = compiler / "package" / "_extension.cpython.so"
    shipped.write_text(f"build-tag:{build.tag()};")
    for _ in range(2):
        assert build.load().__doc__ == f"build-tag:{build.tag()};"
        assert compilations(compiler) == 1
        forget()
    assert shipped.read_text() == f"build-tag:{build.tag()};"


@needs_compiler
def test_a_module_that_does_not_load_where_none_can_be_built_is_told_with_both(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = build.compiled()
    spoil(target)
    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    (notice,) = notices(place)
    assert f"{target} does not load" in notice
    assert "no-such-compiler does not run" in notice


@needs_compiler
def test_threads_that_start_together_build_once(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.environ["PATH"]
    together = threading.Barrier(4)
    attempts = []
    attempt = build._load

    def count() -> object:
        attempts.append(threading.get_ident())
        time.sleep(0.2)
        return attempt()

    def load() -> object:
        together.wait()
        return build.load()

    monkeypatch.setattr(build, "_load", count)
    with ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(load) for _ in range(4)]]
    assert len(attempts) == 1
    assert len({id(module) for module in found}) == 1
    assert compilations(compiler) == 1
    assert os.environ["PATH"] == path


@needs_compiler
@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO])
@pytest.mark.parametrize("source", [SOURCE, "int broken( {"])
def test_a_build_leaves_the_logger_of_torch_as_it_was(place: Path, level: int, source: str) -> None:
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    (place / "src" / "binding.cpp").write_text(source)
    try:
        logger.setLevel(level)
        assert len(notices(place)) == (source != SOURCE)
        assert logger.level == level
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize("direct", [False, True])
def test_the_notice_names_the_line_of_the_caller(
    place: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    q = torch.randn(1, 2, 5, 8)
    keep = torch.ones(1, 5, dtype=torch.bool)
    call = build.reasons if direct else lambda: masked_attention(q, q, q, keep)
    with pytest.warns(RuntimeWarning, match="no-such-compiler") as caught:
        call()
    assert [warning.filename for warning in caught] == [__file__]


def test_other_devices_are_told_apart() -> None:
    assert "meta" in _backend.cpu_reasons(torch.device("meta"))[0]


def test_a_failing_compiler_does_not_stop_the_installation(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "compiler"
    script.write_text('#!/bin/sh\ncase "$*" in *--version*) exit 0;; esac\nexit 1\n')
    script.chmod(0o755)
    command = ["setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    command += ["--build-temp", str(tmp_path / "temp")]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "CXX": str(script)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert 'building extension "kernels._cpu._extension" failed' in done.stdout + done.stderr
    assert "tried again at first use" in done.stdout + done.stderr


@needs_compiler
def test_the_extension_shares_the_thread_pool_of_torch() -> None:
    forget()
    extension = build.load()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert extension.num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    # in a process of its own: scikit-learn, which other tests import, brings a pool of its own
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import torch; from kernels._cpu import build; build.load();"
            "print(open('/proc/self/maps').read())",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    pools = {line.split()[-1] for line in found.stdout.splitlines() if "libgomp" in line}
    assert len(pools) == 1


@needs_compiler
def test_bad_arguments_raise_instead_of_reading_memory() -> None:
    extension = build.load()
    with pytest.raises(TypeError, match="takes 0 numbers, got 1"):
        extension.num_threads(1)
