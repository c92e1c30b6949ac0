"""Where a figure comes from: versions, git revision, machine, time."""

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Return versions of what computes, the git revision if any, and the device."""
    import torch

    versions = {"python": platform.python_version()}
    for name in ("sparse-vit", "torch", "timm", "triton", "accelerate", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "versions": versions,
        "git_revision": git_revision(),
        "device": device,
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def git_revision() -> str:
    """Return the revision of the source tree, marked when it has changes; or "unknown"."""
    here = Path(__file__).parent
    try:

        def git(*words: str) -> str:
            return subprocess.run(
                ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()

        # an installed copy may lie inside another project's repository
        git("ls-files", "--error-unmatch", str(Path(__file__)))
        revision = git("rev-parse", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _processor() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores"
