"""Every code block of the package's documentation runs, and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "sparse_vit.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_block(
    block: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[block]
    exec(compile(code, f"docs/sparse_vit.md[{block}]", "exec"), {"__name__": f"block{block}"})
    printed = capsys.readouterr().out
    for line in code.splitlines():
        if not line.startswith(("print(", "    print(")) or "  # " not in line:
            continue
        for number in re.findall(r"\d+", line.split("  # ")[1].split(" of ")[0]):
            assert re.search(rf"\b{number}\b", printed), f"{line!r} printed {printed!r}"
