"""The documents say what the code does: blocks run, commands parse, settings and files exist."""

import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reid.cli import build_parser
from reid.config import RunConfig, load_config, replace, to_dict

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "kernels" / "README.md",
    )
)
LAUNCHERS = re.compile(r"^(?:torchrun|accelerate launch) .*? -m reid ")


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every line of a page that calls `reid`, with the name of the page."""
    found = []
    for page in PAGES:
        for line in text_of(page).splitlines():
            command = LAUNCHERS.sub("reid ", line.strip())
            if line.startswith("    ") and command.startswith("reid "):
                found.append((str(page), command))
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_python_blocks_are_python(page: Path) -> None:
    for number, block in enumerate(blocks(page)):
        compile(block, f"{page}[{number}]", "exec")


def test_the_start_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    block = blocks(Path("README.md"))[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 11
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["model"].keep_counts == [89, 62, 43]
    assert "128 -> 89, 62, 43" in block
    assert not names["pooled"].has_class_token
    assert names["registers"].num_reg_tokens == 4
    assert capsys.readouterr().out.splitlines() == [
        "torch.Size([2, 10])",
        "[179, 125, 87]",
        "torch.Size([1, 1000])",
    ]


def test_the_embedder_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from reid.config import from_dict
    from reid.models.embedder import ReidModel, save_model

    (block,) = blocks(Path("README.md"))[1:]
    monkeypatch.chdir(tmp_path)
    config = from_dict(
        {"data": {"image_size": [64, 32]}, "model": {"backbone": "mini", "init": "scratch"}}
    )
    model = ReidModel(config.model, (64, 32), 2)
    save_model(Path("runs/student/model.safetensors"), model, config, {})
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (20, 40), "red").save(name)
    frame = np.full((90, 120, 3), 7, np.uint8)
    names: dict[str, object] = {"frame": frame, "boxes": [[0, 0, 32, 64], [5, 5, 30, 60]]}
    exec(compile(block, "README.md", "exec"), names)
    assert names["features"].shape == names["people"].shape == (2, model.num_features)


def test_the_stage_in_the_readme_of_the_kernels_runs() -> None:
    (block,) = blocks(Path("kernels/README.md"))
    names: dict[str, object] = {}
    exec(compile(block, "kernels/README.md", "exec"), names)
    assert names["o"].shape == (8 * 90, 6, 64)
    assert names["rows"].shape == names["normed"].shape == (8 * 90, 384)


def test_the_block_about_training_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(Path("docs/training.md"))
    exec(compile(block, "docs/training.md", "exec"), {})
    assert capsys.readouterr().out == "mini adamw 10\n"


def test_there_are_commands_to_check() -> None:
    verbs = Counter(command.split()[1] for _, command in commands())
    assert set(verbs) >= {"data", "train", "evaluate", "extract", "visualize", "reproduce"}


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_parse_and_their_settings_are_known(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    arguments, rest = build_parser().parse_known_args(words)
    assert all("=" in word and not word.startswith("-") for word in rest), f"{page}: {command}"
    overrides = [*getattr(arguments, "overrides", []), *rest]
    if words[0] == "train":
        load_config(arguments.recipe, overrides)
    for override in overrides:
        key, _, value = override.partition("=")
        load_config(None, [f"{key}={value}"])
        section, _, name = key.partition(".")
        assert name or hasattr(RunConfig(), section)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_settings_that_are_named_exist(page: Path) -> None:
    sections = {name: keys for name, keys in to_dict(RunConfig()).items() if isinstance(keys, dict)}
    # model.safetensors is a file
    pattern = rf"`({'|'.join(sections)})\.(?!safetensors)([a-z_]+)(?:=([^`]*))?`"
    for section, key, value in re.findall(pattern, text_of(page)):
        assert key in sections[section], f"{page} names {section}.{key}"
        if value and value != "PATH":
            load_config(None, [f"{section}.{key}={value}"])


def test_defaults_in_the_table_of_settings_are_the_defaults() -> None:
    values = to_dict(RunConfig())
    checked = 0
    for line in text_of(Path("docs/training.md")).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([a-z]+\.[a-z_]+)`", cells[0])
        if len(cells) != 3 or not names:
            continue
        listed = cells[1].replace("`", "").replace(" (off)", "")
        defaults = [listed] if listed.startswith("[") else re.split(r", ", listed)
        if len(defaults) != len(names) or not re.match(r"[\[\d]|mean|auto|sgd|ts_|pred", listed):
            continue
        for name, default in zip(names, defaults, strict=True):
            section, key = name.split(".")
            changed = replace(load_config(None, [f"{name}={default}"]))
            assert to_dict(changed)[section][key] == values[section][key], name
            checked += 1
    assert checked >= 15


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor[1:] in slugs, f"{page} links to {target}{anchor}"


def test_every_page_is_in_the_index() -> None:
    index = text_of(Path("docs/README.md"))
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index


def test_every_inferred_choice_is_listed() -> None:
    """Each file with the mark has as many rows on the page as it has marks."""
    page = text_of(Path("docs/fidelity.md"))
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    marked = {}
    for folder in ("kernels", "sparse_vit", "reid", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in (".py", ".yaml", ".md") and name != "docs/fidelity.md":
                marked[name] = path.read_text(encoding="utf-8").count("Inferred:")
    marked = {name: count for name, count in marked.items() if count}
    assert len(marked) > 5
    missing = {
        name: count for name, count in marked.items() if sum(f"`{name}`" in r for r in rows) < count
    }
    assert not missing, f"docs/fidelity.md lists too few choices of {missing}"
    named = {name for row in rows for name in re.findall(r"`([\w/]+\.(?:py|md))`", row)}
    assert named == set(marked), "docs/fidelity.md names files without the mark"
