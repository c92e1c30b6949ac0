"""The report of one evaluation: its numbers against plain loops, odd inputs, a page on its own."""

import io
import re
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from reid.cli import main
from reid.errors import UserError
from reid.evaluation import Features, bootstrap, evaluate
from reid.report import Origin, evaluation_report
from reid.report.from_files import read_slices, report_files
from reid.report.known_slices import known_slices, occlusion_levels
from reid.report.lists import choose, hardest_first
from reid.report.measures import cmc_band, count, slice_rows
from reid.report.names import short_names
from reid.report.thumbnails import locate, thumbnail

CAMERAS = 3


class Page(HTMLParser):
    """Tags, tables and words of a page; fails where a tag is not closed."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.tables = [], [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small" and "td" in self.open:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def table(self, heading):
        """The lines of the only table whose first line holds this heading."""
        (found,) = [lines for lines in self.tables if lines and heading in lines[0]]
        return found

    def images(self):
        return [given for tag, given in zip(self.tags, self.attributes, strict=True)
                if tag == "img"]  # fmt: skip


def features(pids, camids, seed, noise=1.6, names=None, width=16):
    centres = np.random.default_rng(7).standard_normal((int(max(pids)) + 2, width))
    values = centres[np.asarray(pids)]
    values = values + noise * np.random.default_rng(seed).standard_normal(values.shape)
    return Features(torch.from_numpy(values), np.asarray(pids), np.asarray(camids), names)


def make_set(queries=40, gallery=120, identities=8, images=None):
    """Distractors, junk, an identity that is nowhere and one seen by a single camera."""
    rng = np.random.default_rng(3)
    pids = [1 + np.arange(count) % identities for count in (queries, gallery)]
    camids = [rng.integers(0, CAMERAS, count) for count in (queries, gallery)]
    pids[1][-12:-4], pids[1][-4:] = 0, -1
    pids[0][-3:-1], pids[0][-1] = 50, 60
    pids[1][0], camids[0][-1], camids[1][0] = 60, 2, 2
    names = [None, None]
    if images is not None:
        names = [[], []]
        for side, (kind, found) in enumerate(zip(("query", "gallery"), pids, strict=True)):
            for row, pid in enumerate(found):
                path = images / f"{kind}_{row:03d}.png"
                colour = tuple(int(value) for value in 40 + 17 * (np.array([1, 5, 9]) * pid % 12))
                Image.new("RGB", (16, 32), colour).save(path)
                names[side].append(str(path))
    return [features(*parts, seed=seed) if images is None
            else features(*parts, seed=seed, names=names[seed])
            for seed, parts in enumerate(zip(pids, camids, strict=True))]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The features, their evaluation, the groups and the page about them."""
    images = tmp_path_factory.mktemp("images")
    query, gallery = make_set(images=images)
    result = evaluate(query, gallery)
    groups = {"half": ["" if row == 5 else f"half {row % 2 + 1}" for row in range(len(query))]}
    path = evaluation_report(
        query, gallery, result, tmp_path_factory.mktemp("out"), slices=groups, fpr=0.02,
        examples=8, origin=Origin("Title <b>", "the & set", "reid report", {"model": "x <y>"}),
    )  # fmt: skip
    return query, gallery, result, groups, path


@pytest.fixture(scope="module")
def page(made):
    return Page(made[-1])


def distances(query, gallery):
    q, g = (part.features.double().numpy() for part in (query, gallery))
    q, g = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (q, g))
    return 1.0 - q @ g.T


def brute_force(query, gallery, columns=None):
    """Per query: AP in percent and whether the nearest is right; None without a match."""
    table = distances(query, gallery)
    found = []
    for row in range(len(query)):
        ranked = []
        for column in np.argsort(table[row], kind="stable"):
            if columns is not None and gallery.camids[column] != columns:
                continue
            same = gallery.pids[column] == query.pids[row]
            if gallery.pids[column] == -1 or (
                same and gallery.camids[column] == query.camids[row]
            ):  # fmt: skip
                continue
            ranked.append(bool(same))
        hits = [place for place, right in enumerate(ranked, 1) if right]
        ap = 100.0 * np.mean([(j + 1) / place for j, place in enumerate(hits)]) if hits else None
        found.append(None if ap is None else (ap, 100.0 * ranked[0]))
    return found


def mean(values, position):
    return f"{np.mean([value[position] for value in values]):.1f}"


def test_page_needs_nothing_else_and_hides_nothing(page, made):
    assert page.source.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for given in page.attributes:
        for name in ("src", "href"):
            assert given.get(name, "data:image/").startswith("data:image/")
    assert not re.search(r"https?:|url\(|@import", page.source)
    assert all(given["alt"].strip() for given in page.images())
    assert not re.search(r"\bnan\b|\binf\b", page.text, re.IGNORECASE)
    assert "<b>" not in page.source.split("<h1>")[1].split("</h1>")[0]
    for words in ("Title <b>", "The & set", "x <y>", "reid report"):
        assert words in page.text
    names = {path.name for path in made[-1].parent.iterdir()}
    assert names == {"report.html", "cmc.png", "slices.png", "distances.png", "roc.png"}


def test_scores_stand_beside_their_intervals_and_definitions(page, made):
    result = made[2]
    lines = {line[0]: line for line in page.table("Definition")[1:]}
    values = brute_force(*made[:2])
    counted = [value for value in values if value is not None]
    assert lines["mAP"][1] == mean(counted, 0)
    assert lines["Rank-1"][1] == mean(counted, 1)
    assert lines["mAP, trapezoid"][1] == f"{result.mAP_trapezoid:.1f}"
    assert lines["mINP"][1] == f"{result.mINP:.1f}"
    for unit, column in (("query", 2), ("pid", 3)):
        interval = bootstrap(result, unit=unit)["rank5"]
        assert lines["Rank-5"][column] == f"{interval.low:.1f} to {interval.high:.1f}"
    assert lines["mAP, trapezoid"][2] != lines["mAP"][2]
    assert "precision at each" in lines["mAP"][-1]


def test_who_counts_is_said_with_numbers(page, made):
    query, gallery, result = made[:3]
    assert "37 of 40 queries are counted" in page.text
    assert (
        "3 queries without a match: 2 because the gallery holds no image of the person and 1 "
        "because all images of the person are of the query's camera" in page.text
    )
    assert "8 distractors" in page.text
    assert "4 junk boxes" in page.text
    removed = sum(
        int(gallery.pids[column] == query.pids[row] and gallery.camids[column] == query.camids[row])
        for row in range(len(query))
        for column in range(len(gallery))
    )
    assert f"It leaves out {removed:,} pairs" in page.text
    assert "No counted query has a tie" in page.text
    assert "policy 'stable'" in page.text
    as_person = count(result, None)
    assert (as_person.distractors, as_person.junk, as_person.removed) == (0, 4, removed)


def test_ties_are_counted_and_the_policy_named(tmp_path):
    query = Features(torch.eye(4)[[0, 1]], [1, 2], [0, 0])
    gallery = Features(torch.eye(4)[[0, 0, 1, 2]], [1, 2, 2, 1], [1, 1, 1, 1])
    result = evaluate(query, gallery, ties="pessimistic")
    text = Page(evaluation_report(query, gallery, result, tmp_path)).text
    assert result.tied == 2
    assert "the wrong image, so ties hurt stands first (policy 'pessimistic')" in text
    assert "In 2 queries (100.0%) a match and a wrong image are at exactly the same" in text


def test_band_of_the_cmc_is_the_bootstrap(made):
    result = made[2]
    band, intervals = cmc_band(result), bootstrap(result)
    for rank in (1, 5, 10):
        expected = [intervals[f"rank{rank}"].low, intervals[f"rank{rank}"].high]
        np.testing.assert_allclose(band[:, rank - 1], expected, rtol=0, atol=1e-9)
    assert (band[0] <= result.cmc + 1e-9).all()
    assert (band[1] >= result.cmc - 1e-9).all()
    assert band.shape == (2, len(result.cmc))


def test_slices_are_means_over_their_queries(page, made):
    query, gallery, _, groups, _ = made
    values = brute_force(query, gallery)
    lines = page.table("Skipped")[1:]
    labels = [f"camera {camera}" for camera in query.camids]
    expected = []
    for group in (labels, groups["half"]):
        for label in sorted(set(group) - {""}):
            rows = [value for value, own in zip(values, group, strict=True) if own == label]
            counted = [value for value in rows if value is not None]
            expected.append([label, str(len(counted)), str(len(rows) - len(counted)),
                             mean(counted, 0), mean(counted, 1)])  # fmt: skip
    assert [[line[i] for i in (1, 2, 3, 4, 6)] for line in lines] == expected
    assert [line[0] for line in lines if line[0]] == ["query camera", "half"]
    assert sum(int(line[2]) + int(line[3]) for line in lines[CAMERAS:]) == 39


def test_slices_have_an_order_and_a_bound(made):
    result = made[2]
    many = [f"camera {row}" for row in range(40)]
    rows = slice_rows(result, {"camera": many})
    assert [row.label for row in rows[:3]] == ["camera 0", "camera 1", "camera 2"]
    assert len(rows) == 24
    assert rows[-1].label == "other (17 labels)"
    assert sum(row.queries for row in rows) == result.queries
    words = [["50 to 100%", "0%", "25 to 50%", "0 to 25%"][row % 4] for row in range(40)]
    assert [row.label for row in slice_rows(result, {"occlusion": words})] == [
        "0%", "0 to 25%", "25 to 50%", "50 to 100%",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"'half' have 3 labels for 40 queries"):
        slice_rows(result, {"half": ["a", "b", "c"]})


def test_cells_of_the_camera_matrix_are_evaluations_of_two_cameras(page, made):
    query, gallery = made[:2]
    found = [lines for lines in page.tables if lines[0][0] == "query / gallery"]
    for position, lines in enumerate(found):
        assert lines[0][1:] == [str(camera) for camera in range(CAMERAS)]
        for row, line in enumerate(lines[1:]):
            for column, cell in enumerate(line[1:]):
                if row == column:
                    assert cell == "-"
                    continue
                values = brute_force(query, gallery, columns=column)
                counted = [value for value, camera in zip(values, query.camids, strict=True)
                           if camera == row and value is not None]  # fmt: skip
                assert cell == f"{mean(counted, position)} {len(counted)}"
    assert len(found) == 2


def test_threshold_accepts_what_it_promises(page, made):
    query, gallery = made[:2]
    table = distances(query, gallery)
    same, different = [], []
    for row in range(len(query)):
        for column in range(len(gallery)):
            if gallery.pids[column] == -1:
                continue
            if gallery.pids[column] != query.pids[row]:
                different.append(table[row, column])
            elif gallery.camids[column] != query.camids[row]:
                same.append(table[row, column])
    same, different = np.sort(same), np.sort(different)
    lines = {line[0]: line for line in page.table("Wrong pairs accepted")[1:]}
    for name, share in (("1 in 1,000", 1e-3), ("1 in 100", 1e-2), ("1 in 50", 0.02),
                        ("1 in 10", 0.1)):  # fmt: skip
        most = int(np.floor(share * len(different) + 1e-9))
        _, distance, true, wrong = lines[name]
        assert int(wrong) == most
        assert different[most] - 2e-6 <= float(distance) <= different[most]
        assert true == f"{100.0 * np.mean(same < different[most]):.1f}"
    assert lines["1 in 10,000"][1:] == ["-", "-", "too few pairs to tell"]
    distance = lines["1 in 50"][1]
    assert f"their cosine distance is below {distance} " in page.text
    assert f"cosine similarity above {1 - float(distance):.6f}" in page.text
    assert f"{lines['1 in 50'][3]} of the {len(different):,} wrong ones" in page.text


def test_too_few_pairs_are_said_not_guessed(made, tmp_path):
    query, gallery, result = made[:3]
    path = evaluation_report(query, gallery, result, tmp_path, fpr=1e-5, examples=0)
    text = Page(path).text
    assert "needs at least 100,000 pairs of two persons" in text
    assert "Ranked lists" not in text


def test_hardest_queries_come_first(page, made):
    result = made[2]
    table = result.per_query
    valid = [row for row in range(40) if table.valid[row]]
    order = sorted(valid, key=lambda row: (table.ap[row], -table.first_rank[row], row))
    assert hardest_first(result) == order
    lines = page.table("Nearest counted image")[1:]
    assert [line[0] for line in lines] == [f"query_{row:03d}.png" for row in order[:15]]
    worst = order[0]
    assert lines[0][1:6] == [
        str(result.query_pids[worst]), str(result.query_camids[worst]), f"{table.ap[worst]:.2f}",
        str(table.first_rank[worst]), str(table.matches[worst]),
    ]  # fmt: skip


def test_choices_follow_their_rules(made):
    result = made[2]
    hard, drawn, easy = choose(result, 8)
    order = hardest_first(result)
    assert hard.queries == order[:8]
    assert len(set(drawn.queries)) == 8
    assert set(drawn.queries) <= set(order)
    table = result.per_query
    assert min(table.ap[easy.queries]) >= sorted(table.ap[order])[-8]
    assert choose(result, 8)[1].queries == drawn.queries
    (everything,) = choose(result, 37)
    assert everything.queries == order


def test_ranked_lists_show_what_the_evaluation_kept(page, made):
    result = made[2]
    shown = [given for given in page.images() if given["src"].startswith("data:image/jpeg")]
    choices = [choice.queries for choice in choose(result, 8)]
    assert len(shown) == 3 * 8 * 11
    first = choices[0][0]
    items = result.top(first, 10)
    assert f"query query_{first:03d}.png" in shown[0]["alt"]
    for given, item in zip(shown[1:11], items, strict=True):
        assert f"gallery_{item.gallery:03d}.png" in given["alt"]
        assert f"camera {result.gallery_camids[item.gallery]}, {item.status}" in given["alt"]
        assert f"distance {item.distance:.4f}" in given["alt"]
    frames = [given["class"] for given in page.attributes
              if given.get("class", "").startswith("shot ")]  # fmt: skip
    expected = [
        f"shot {status}"
        for choice in choices
        for query in choice
        for status in ("query", *(item.status for item in result.top(query, 10)))
    ]
    assert frames == expected
    assert {"shot right", "shot wrong", "shot junk"} <= set(frames)
    assert page.text.count("Hardest 1-6") == 2
    assert "Easiest 7-8" in page.text


def test_each_leaf_has_a_button_that_shows_it(page):
    leaves = sum(given.get("class") == "leaf" for given in page.attributes)
    buttons = [given for tag, given in zip(page.tags, page.attributes, strict=True)
               if tag == "input"]  # fmt: skip
    labels = [given["for"] for tag, given in zip(page.tags, page.attributes, strict=True)
              if tag == "label"]  # fmt: skip
    assert [given["id"] for given in buttons] == labels
    assert len(buttons) == leaves == 6
    assert ["checked" in given for given in buttons] == [True] + [False] * 5
    for number in range(1, leaves + 1):
        rule = f"input:nth-of-type({number}):checked ~ .leaf:nth-of-type({number}) {{"
        assert rule in page.source


def test_without_images_the_names_stand_in(made, tmp_path):
    query, gallery, result = made[:3]
    bare = [Features(part.features, part.pids, part.camids) for part in (query, gallery)]
    path = evaluation_report(*bare, result, tmp_path / "a", examples=2)
    page = Page(path)
    assert all(given["src"].startswith("data:image/png") for given in page.images())
    assert f"Query query {hardest_first(result)[0]} , identity" in page.text
    assert "images are shown by name" in page.text
    names = [[f"/gone/<i>{kind}</i>/{row}.jpg" for row in range(len(part))]
             for kind, part in (("q", query), ("g", gallery))]  # fmt: skip
    path = evaluation_report(
        *bare, result, tmp_path / "b", query_paths=names[0], gallery_paths=names[1], examples=1
    )
    assert f"{hardest_first(result)[0]}.jpg" in Page(path).text
    assert "<i>" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("queries", "gallery"),
    [
        (([1], [0]), ([1, 2, 0], [1, 1, 1])),
        (([1], [0]), ([1], [1])),
        (([1, 1, 1], [0, 0, 0]), ([1, 1], [1, 1])),
        (([4, 9], [0, 3]), ([4, 9, 4], [3, 0, 0])),
        (([1, 2, 3], [0, 1, 2]), ([1, 2, 3, 7], [5, 5, 5, 5])),
    ],
    ids=["one query", "one pair", "one identity", "nothing wrong", "one gallery camera"],
)
def test_small_sets_give_a_page(queries, gallery, tmp_path):
    parts = [features(*queries, 0, names=None), features(*gallery, 1)]
    result = evaluate(*parts)
    page = Page(evaluation_report(*parts, result, tmp_path))
    assert not re.search(r"\bnan\b|\binf\b", page.text, re.IGNORECASE)
    assert f"{result.mAP:.1f}" in page.text
    assert "intervals say little" in page.text
    if len(set(queries[1])) == 1:
        assert "Not shown" in page.text
        assert "Slices: all queries are of one camera" in page.text


def test_many_queries_and_cameras_stay_within_bounds(tmp_path):
    rng = np.random.default_rng(0)
    count, cameras = 10_000, 40
    pids = 1 + np.arange(count) % 200
    query = features(pids, rng.integers(0, cameras, count), 0, width=4)
    gallery = features(pids[:200], np.arange(200) % cameras, 1, width=4)
    result = evaluate(query, gallery)
    path = evaluation_report(query, gallery, result, tmp_path)
    page = Page(path)
    matrix = next(lines for lines in page.tables if lines[0][0] == "query / gallery")
    assert len(matrix) == len(matrix[0]) == 17
    assert "48 rows and columns of others are left out" in page.text
    assert "other (17 labels)" in page.text
    assert path.stat().st_size < 1_500_000


def test_thumbnails_are_small_and_of_any_source(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    uri = thumbnail(str(tmp_path / "noise.png"))
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 10_000
    buffer = io.BytesIO()
    Image.new("L", (30, 60), 90).save(buffer, format="PNG")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set/query/a.png", buffer.getvalue())
        archive.writestr("set/query/broken.png", buffer.getvalue()[:40])
        archive.writestr("set/gallery/a.png", buffer.getvalue())
        archive.writestr("set/gallery/b.png", buffer.getvalue())
    names = ["/home/x/set/query/a.png", "D:\\data\\set\\gallery\\a.png", "a.png", "b.png",
             "query/broken.png", "other/c.png"]  # fmt: skip
    found = locate(names, tmp_path / "set.zip")
    assert [None if path is None else path.split("!/")[1] for path in found] == [
        "set/query/a.png", "set/gallery/a.png", None, "set/gallery/b.png",
        "set/query/broken.png", None,
    ]  # fmt: skip
    assert thumbnail(found[0]) is not None
    assert thumbnail(found[4]) is None
    assert thumbnail(str(tmp_path / "absent.png")) is None
    assert thumbnail(None) is None


def test_names_lose_only_the_folders_they_share():
    assert short_names(["/a/b/q/1.jpg", "/a/b/g/1.jpg"]) == ["q/1.jpg", "g/1.jpg"]
    assert short_names(["C:\\x\\1.jpg", "C:\\x\\2.jpg"]) == ["1.jpg", "2.jpg"]
    assert short_names(["same/1.jpg"]) == ["1.jpg"]
    assert short_names(["1.jpg", "x/1.jpg"]) == ["1.jpg", "x/1.jpg"]


def test_what_does_not_belong_together_is_refused(made, tmp_path):
    query, gallery, result = made[:3]
    with pytest.raises(UserError, match="the evaluation is of other images: 40 query rows"):
        evaluation_report(gallery, gallery, result, tmp_path)
    with pytest.raises(UserError, match="2 gallery paths were given for 120 gallery features"):
        evaluation_report(query, gallery, result, tmp_path, gallery_paths=["a", "b"])
    with pytest.raises(UserError, match="between 0 and 1, got 5"):
        evaluation_report(query, gallery, result, tmp_path, fpr=5.0)
    with pytest.raises(UserError, match="a page holds 0 to 24"):
        evaluation_report(query, gallery, result, tmp_path, examples=100)
    assert list(tmp_path.iterdir()) == []


def test_occlusion_and_attributes_come_from_the_folder_of_the_set(tiny_data):
    from reid.data import load

    data = load("occluded-mannequins", tiny_data)
    pids = [record.pid for record in data.query]
    groups = known_slices(tiny_data, [record.path for record in data.query], pids)
    assert set(groups["occlusion"]) <= {"0%", "0 to 25%", "25 to 50%", "50 to 100%"}
    assert {"gender", "sleeves", "upper colour", "lower colour"} <= set(groups)
    assert all(len(labels) == len(pids) for labels in groups.values())
    by_pid = {}
    for pid, label in zip(pids, groups["gender"], strict=True):
        assert by_pid.setdefault(pid, label) == label
    assert known_slices(f"{tiny_data}/query", [], []) == {}
    assert occlusion_levels([0.0, 0.25, 0.26, 0.51, None]) == [
        "0%", "0 to 25%", "25 to 50%", "50 to 100%", "",
    ]  # fmt: skip


def test_verb_writes_the_page_of_a_data_set(tiny_data, tmp_path, capsys):
    from reid.data import load

    data = load("occluded-mannequins", tiny_data)
    files = []
    for kind, records in (("query", data.query), ("gallery", data.gallery)):
        found = features([r.pid for r in records], [r.camid for r in records], len(files))
        files.append(str(found.save(tmp_path / kind)))
    table = tmp_path / "groups.csv"
    lines = ["time of day", *("night" if row % 2 else "" for row in range(len(data.query)))]
    table.write_text("\n".join(f"{line},x" for line in lines), encoding="utf-8")
    code = main(["report", "--features", *files, "--data", "occluded-mannequins", "--root",
                 tiny_data, "--slices", str(table), "--examples", "2", "--out",
                 str(tmp_path / "out")])  # fmt: skip
    assert code == 0
    path = tmp_path / "out" / "report.html"
    assert str(path) in capsys.readouterr().out
    page = Page(path)
    labels = {(line[1]) for line in page.table("Skipped")[1:]}
    assert {"night", "x", "camera 0", "female"} <= labels
    assert sum(given["src"].startswith("data:image/jpeg") for given in page.images()) == 66
    assert main(["report", "--features", *files, "--root", tiny_data, "--out", "x"]) == 2
    assert "--root belongs to --data" in capsys.readouterr().err


def test_files_that_do_not_fit_are_named(tiny_data, tmp_path, made):
    files = [made[0].save(tmp_path / "q"), made[1].save(tmp_path / "g")]
    with pytest.raises(UserError, match="the query features are not those of occluded-mannequins"):
        report_files(*files, tmp_path, data="occluded-mannequins", root=tiny_data)
    table = tmp_path / "groups.csv"
    with pytest.raises(UserError, match=r"no file .*groups\.csv"):
        read_slices(table)
    table.write_text("a,b\n1,2\n3\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 3: 1 cells under 2 headings"):
        read_slices(table)
    table.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is empty"):
        read_slices(table)
    table.write_bytes(b"a\n\xff\xfe\x00")
    with pytest.raises(UserError, match="not a readable CSV"):
        read_slices(table)


def test_same_evaluation_gives_the_same_page(made, tmp_path):
    query, gallery, result, groups, path = made
    again = evaluation_report(
        query, gallery, result, tmp_path, slices=groups, fpr=0.02, examples=8,
        origin=Origin("Title <b>", "the & set", "reid report", {"model": "x <y>"}),
    )  # fmt: skip
    assert again.read_bytes() == path.read_bytes()


@pytest.fixture
def report_of(tmp_path, monkeypatch):
    """`reid report` of two files; returns its status and what the page would be about."""
    seen = []
    monkeypatch.setattr(
        "reid.report.from_files.evaluation_report",
        lambda query, gallery, result, out, **more: seen.append((result, more)),
    )

    def call(sets, *options):
        files = [str(tmp_path / f"{name}.npz") for name in "qg"]
        for file, held in zip(files, sets, strict=True):
            np.savez(file, **held)
        code = main(["report", "--features", *files, "--out", str(tmp_path), *options])
        return code, seen[-1] if seen else None

    return call


def test_people_counted_from_zero_are_no_distractors(report_of, capsys):
    held = {"features": np.eye(4, dtype=np.float32), "pids": np.arange(4)}
    sets = [{**held, "camids": np.full(4, camera)} for camera in (0, 1)]
    code, (result, more) = report_of(sets)
    assert (code, result.queries, more["distractor_pid"]) == (0, 4, None)
    assert report_of(sets, "--distractor-pid", "0")[0] == 2
    assert "give --distractor-pid none" in capsys.readouterr().err
    assert report_of(sets, "--distractor-pid", "0", "--data", "mannequins")[0] == 2
    assert "--distractor-pid 0 goes without --data" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["hamming", "visible"])
def test_verb_takes_what_evaluate_takes(kind, report_of):
    generator = np.random.default_rng(0)
    sets = [{"pids": np.arange(4), "camids": np.full(4, camera)} for camera in (0, 1)]
    for held in sets:
        held["features"] = generator.integers(0, 4, (4, 1)).astype(np.uint64)
        if kind == "visible":
            held["features"] = generator.normal(size=(4, 2, 3)).astype(np.float32)
            held["visibility"] = np.ones((4, 2), np.float32)
    code, (result, _) = report_of(sets, "--ties", "expected")
    assert (code, result.metric, result.ties) == (0, kind, "expected")
