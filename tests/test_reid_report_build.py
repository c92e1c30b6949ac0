"""The whole report from a small made-up run."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from reid.errors import UserError
from reid.evaluation import Features, evaluate
from reid.report import DemoRun, RowResult, build_report
from reid.report.build import choose_queries

COLOURS = [(180, 60, 50), (40, 90, 160), (60, 140, 80), (200, 160, 60), (120, 70, 140)]


def draw_person(path, mask_path, pid, index, occluded, size=(64, 32)):
    """A box for a body on a plain ground, and a bar in front of it when occluded."""
    height, width = size
    rng = np.random.default_rng(1000 * pid + index)
    ground = tuple(int(v) for v in rng.integers(120, 200, 3))
    image, mask = Image.new("RGB", (width, height), ground), Image.new("L", (width, height), 0)
    shift = int(rng.integers(-width // 10, width // 10 + 1))
    body = [
        ((0.40, 0.06, 0.60, 0.20), (224, 190, 160), 1),
        ((0.28, 0.20, 0.72, 0.55), COLOURS[pid % 5], 2),
        ((0.32, 0.55, 0.68, 0.95), COLOURS[(pid // 5) % 5], 4),
    ]
    pictures = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    for (left, top, right, bottom), colour, label in body:
        box = [left * width + shift, top * height, right * width + shift, bottom * height]
        pictures[0].rectangle(box, fill=colour)
        pictures[1].rectangle(box, fill=label)
    if occluded:
        top = float(rng.uniform(0.5, 0.7)) * height
        pictures[0].rectangle([0, top, width, height], fill=(90, 90, 95))
        pictures[1].rectangle([0, top, width, height], fill=7)
    image.save(path)
    if mask_path is not None:
        mask.save(mask_path)


def features(pids, camids, noise, generator, width=24):
    centres = torch.randn(int(max(pids)) + 1, width, generator=torch.Generator().manual_seed(5))
    values = centres[torch.as_tensor(pids)]
    return Features(values + noise * torch.randn(values.shape, generator=generator), pids, camids)


def make_run(root, queries=24, gallery=60, identities=6, steps=30, size=(64, 32), patch=8):
    """Rows that grow better one after the other, and selectors that prefer the body."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    query_pids, gallery_pids = [1 + np.arange(count) % identities for count in (queries, gallery)]
    query_camids, gallery_camids = rng.integers(0, 3, queries), rng.integers(0, 3, gallery)
    gallery_camids[:identities] = 3
    paths = {"query": [], "gallery": [], "mask": []}
    for which, pids in (("query", query_pids), ("gallery", gallery_pids)):
        for index, pid in enumerate(pids):
            path = root / f"{which}_{index}.png"
            mask = root / f"mask_{index}.png" if which == "query" else None
            draw_person(path, mask, int(pid), index, which == "query", size)
            paths[which].append(str(path))
            if mask is not None:
                paths["mask"].append(str(mask))
    patches = (size[0] // patch) * (size[1] // patch)
    grid_column = np.arange(patches) % (size[1] // patch)
    central = -np.abs(grid_column - (size[1] // patch - 1) / 2) * 0.6
    rows = []
    for name, label, noise in (
        ("teacher", "Teacher", 0.7), ("dense", "Dense student", 0.95), ("hts", "+ HTS", 1.05),
        ("hts+npkd", "+ NPKD", 0.9), ("hts+npkd+noda", "+ NODA", 0.8),
    ):  # fmt: skip
        own = [
            features(pids, camids, noise, generator)
            for pids, camids in ((query_pids, query_camids), (gallery_pids, gallery_camids))
        ]
        kept, tokens = None, [patches]
        if name.startswith("hts"):
            score = central + rng.normal(size=(queries, patches))
            counts = [round(patches * 0.7**power) for power in (1, 2, 3)]
            order = np.argsort(-score, axis=1)
            kept = {
                stage: np.sort(order[:, :count], axis=1)
                for stage, count in zip((3, 6, 9), counts, strict=True)
            }
            tokens += counts
        history = [
            {"step": step, "epoch": step // 10, "lr": 0.1,
             "loss": float(6 * np.exp(-step / 200 * noise) + rng.normal() * 0.2 + 1),
             "ce": float(4 * np.exp(-step / 200) + rng.normal() * 0.1),
             "triplet": float(0.7 * np.exp(-step / 300) + rng.normal() * 0.05),
             **({"ratio": float(0.05 * np.exp(-step / 50))} if kept else {}),
             **({"kl": 1.0 / (step + 20), "feature": 2.0 / (step + 30)} if "npkd" in name else {})}
            for step in range(steps)
        ]  # fmt: skip
        speed = 100.0 if name == "teacher" else 410.0 if kept is None else 640.0
        rows.append(
            RowResult(
                name, label, tokens, speed, speed / 410.0, evaluate(*own), history, kept, *own
            )
        )
    chance = [
        Features(torch.rand(len(f), 3, generator=generator) + 0.1, f.pids, f.camids)
        for f in (rows[0].query_features, rows[0].gallery_features)
    ]
    return DemoRun(
        rows=rows,
        baselines={"chance": evaluate(*chance), "colour_histogram": evaluate(*chance)},
        query_paths=paths["query"],
        gallery_paths=paths["gallery"],
        mask_paths=paths["mask"],
        image_size=size,
        patch_size=patch,
        settings={"seed": 0, "optimiser": {"name": "adamw", "lr": 0.0005}},
        versions={"torch": torch.__version__, "git": "0123abc"},
        command="reid demo --quick",
        data="Occluded mannequins <small> & generated",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    return build_report(run, tmp_path_factory.mktemp("out") / "demo")


class _Checker(HTMLParser):
    """Collects tags, attributes and words, and whether every tag is closed."""

    VOID = ("meta", "img", "br", "!doctype")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_holds_everything_and_needs_nothing(report):
    checker = _Checker()
    checker.feed(report.read_text(encoding="utf-8"))
    assert checker.open == []
    assert "script" not in checker.tags
    assert "link" not in checker.tags
    assert checker.tags.count("img") == 7
    assert all(link.startswith("data:image/png;base64,") for link in checker.links)
    text = " ".join(checker.words)
    for words in ("What was measured", "Scores", "CMC curves", "Training curves", "Ranked lists",
                  "Which tokens are kept", "Where the kept tokens lie", "t-SNE",
                  "reid demo --quick", "optimiser.lr", "0123abc"):  # fmt: skip
        assert words in text
    assert "Not shown" not in text
    assert not re.search(r"\bnan\b", text)


def test_pngs_lie_beside_the_page_and_are_pictures(report):
    names = sorted(path.name for path in report.parent.iterdir())
    expected = ["cmc", "kept_tokens", "ranked_lists", "speed", "token_share", "training", "tsne"]
    assert names == sorted([*(f"{name}.png" for name in expected), "report.html"])
    for path in report.parent.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) >= 300
            assert np.asarray(image.convert("L")).std() > 5


def test_words_of_the_user_are_escaped(report):
    text = report.read_text(encoding="utf-8")
    assert "<small> & generated" not in text
    assert "&lt;small&gt; &amp; generated" in text


def test_table_shows_the_numbers_of_the_evaluations(run, report):
    text = report.read_text(encoding="utf-8")
    for row in run.rows:
        assert f"{row.ranking.mAP:.1f}" in text
        assert f"{row.images_per_second:,.0f}" in text
    assert " &gt; ".join(str(count) for count in run.rows[-1].tokens) in text


def test_same_run_gives_the_same_page(run, report, tmp_path):
    again = build_report(run, tmp_path)
    assert again.read_bytes() == report.read_bytes()


def test_what_is_absent_is_said(run, tmp_path):
    rows = [
        RowResult(row.name, row.label, row.tokens, 1.0, 1.0, row.ranking) for row in run.rows[:2]
    ]
    bare = DemoRun(rows, {}, run.query_paths, run.gallery_paths, None, (64, 32), 8)
    text = build_report(bare, tmp_path).read_text(encoding="utf-8")
    assert "Not shown" in text
    for words in ("no training history", "no row prunes tokens", "holds no features"):
        assert words in text
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "cmc.png", "ranked_lists.png", "speed.png",
    ]  # fmt: skip


def test_a_single_row_is_enough(run, tmp_path):
    alone = DemoRun([run.rows[0]], {}, run.query_paths, run.gallery_paths, None, (64, 32), 8)
    assert build_report(alone, tmp_path).is_file()


def test_refuses_runs_that_do_not_fit_together(run, tmp_path):
    empty = DemoRun([], {}, [], [], None, (64, 32), 8)
    with pytest.raises(UserError, match="no row"):
        build_report(empty, tmp_path)
    short = DemoRun(run.rows, {}, run.query_paths[:3], run.gallery_paths, None, (64, 32), 8)
    with pytest.raises(UserError, match="3 query image paths were given for 24 queries"):
        build_report(short, tmp_path)
    odd = DemoRun(run.rows, {}, run.query_paths, run.gallery_paths, None, (60, 32), 8)
    with pytest.raises(UserError, match="60x32 is not a multiple of the patch size 8"):
        build_report(odd, tmp_path)


def test_examples_are_evenly_spaced_over_identities():
    pids = np.repeat(np.arange(10), 3)
    assert choose_queries(pids, np.arange(30), 4) == [0, 9, 18, 27]
    assert choose_queries(pids, np.array([4, 5, 29]), 8) == [4, 29]


def test_numbers_of_the_run_can_be_written_as_json(run):
    assert json.loads(json.dumps(run.rows[0].ranking.summary()))["queries"] == 24
    assert json.dumps(run.rows[0].ranking.per_query.rows())
