"""Decoded images on disk: equal to decoding, found again, renewed when files change, never half."""

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid import run
from reid.config import DataConfig, load_config
from reid.data import cache, pixels
from reid.data.cache import Unwritable, images_of, open_cached
from reid.data.locks import locked
from reid.data.records import Record
from reid.data.store import Held, decode, load_images
from reid.errors import UserError
from reid.methods.person_batches import PersonBatches

SIZE = (16, 8)
COUNT = 12


def jpeg(seed: int, size: tuple[int, int] = (24, 11)) -> bytes:
    """A smooth picture of its own for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size[::-1], Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def write(folder: Path, count: int = COUNT, first: int = 0) -> list[Record]:
    """Write pictures and list them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:04}.jpg").write_bytes(jpeg(first + number))
    return [Record(str(folder / f"{n:04}.jpg"), n // 3, n % 3) for n in range(count)]


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return write(tmp_path / "images")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple]:
    """Open from the cache and say how many files were read and decoded for it."""

    def call(records: list[Record], size: tuple[int, int] = SIZE, filter_name: str = "bicubic"):
        counts = {"read": 0, "decoded": 0}

        def counted(name: str, function: Callable) -> Callable:
            def wrapped(*args, **kwargs):
                counts[name] += 1
                return function(*args, **kwargs)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(cache, "read_bytes", counted("read", cache.read_bytes))
            patch.setattr(cache, "decode_bytes", counted("decoded", cache.decode_bytes))
            images = open_cached(records, size, filter_name, folder=folder)
        assert torch.equal(images, load_images(records, size, filter_name))
        return images, counts["read"], counts["decoded"]

    return call


def pixel_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pixels"))


def test_equals_decoding_and_is_built_once(records, folder, opened) -> None:
    images, _, decoded = opened(records)
    assert images.shape == (COUNT, 3, *SIZE)
    assert images.dtype == torch.uint8
    assert decoded == COUNT
    assert opened(records)[1:] == (0, 0)
    (file,) = pixel_files(folder)
    written = file.stat().st_mtime_ns
    opened(records)
    assert file.stat().st_mtime_ns == written
    assert not list(folder.glob(".building*"))


@pytest.mark.parametrize("change", ["size", "filter", "order", "subset"])
def test_another_list_has_pixels_of_its_own(records, folder, opened, change: str) -> None:
    opened(records)
    size, filter_name, listed, decoded = SIZE, "bicubic", records, COUNT
    if change == "size":
        size = (8, 16)
    elif change == "filter":
        filter_name = "bilinear"
    else:
        # what another file holds is copied, not decoded
        listed, decoded = (records[::-1] if change == "order" else records[3:7]), 0
    assert opened(listed, size, filter_name)[2] == decoded
    assert len(pixel_files(folder)) == 2
    assert opened(records)[1:] == (0, 0)


def test_touched_files_are_compared_by_content(records, folder, opened) -> None:
    opened(records)
    for record in records[:4]:
        os.utime(record.path, (1e9, 1e9))
    assert opened(records)[1:] == (4, 0)
    assert opened(records)[1:] == (0, 0)


def test_a_moved_set_is_found_by_content(records, tmp_path, folder, opened) -> None:
    opened(records)
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    moved = [Record(r.path.replace("images", "elsewhere"), r.pid, r.camid) for r in records]
    assert opened(moved)[1:] == (COUNT, 0)
    assert len(pixel_files(folder)) == 1


@pytest.mark.parametrize("same_size", [False, True])
def test_a_changed_image_is_decoded_alone(records, folder, opened, same_size: bool) -> None:
    before = opened(records)[0].clone()
    victim = Path(records[5].path)
    size = victim.stat().st_size
    content = jpeg(99)
    if same_size:
        # what follows the picture is ignored
        content = next(c for c in map(jpeg, range(99, 999)) if len(c) <= size).ljust(size, b"\0")
    victim.write_bytes(content)
    os.utime(victim, ns=(10**18, 10**18))
    images, _, decoded = opened(records)
    assert decoded == 1
    different = (images != before).flatten(1).any(1).nonzero().flatten().tolist()
    assert different == [5]
    assert len(pixel_files(folder)) == 1, "the pixels that nothing names any longer are removed"


def test_pixels_that_another_list_names_stay(records, tmp_path, folder, opened) -> None:
    shutil.copytree(tmp_path / "images", tmp_path / "copy")
    copies = [Record(r.path.replace("images", "copy"), r.pid, r.camid) for r in records]
    opened(records)
    opened(copies)
    Path(records[0].path).write_bytes(jpeg(77))
    opened(records)
    assert len(pixel_files(folder)) == 2
    assert opened(copies)[1:] == (0, 0)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_of_an_archive(records, tmp_path, opened, kind: str) -> None:
    archive = tmp_path / f"set.{kind}"

    def pack() -> None:
        if kind == "zip":
            with zipfile.ZipFile(archive, "w") as packed:
                for record in records:
                    packed.write(record.path, f"in/{Path(record.path).name}")
        else:
            with tarfile.open(archive, "w") as packed:
                for record in records:
                    packed.add(record.path, f"in/{Path(record.path).name}")

    pack()
    members = [Record(f"{archive}!/in/{Path(r.path).name}", r.pid, r.camid) for r in records]
    assert opened(members)[2] == COUNT
    assert opened(members)[1:] == (0, 0)
    os.utime(archive, (1e9, 1e9))
    assert opened(members)[1:] == (COUNT, 0)
    Path(records[2].path).write_bytes(jpeg(55))
    pack()
    assert opened(members)[2] == 1
    # the same contents outside the archive are the same pixels
    assert opened(records)[2] == 0


@pytest.mark.parametrize("damage", ["cut", "no_end", "empty", "first", "last", "unseen", "rest"])
def test_damaged_pixels_are_noticed_and_mended(
    records, folder, opened, monkeypatch, capsys, damage: str
) -> None:
    monkeypatch.setattr(pixels, "SAMPLES", 2)
    opened(records)
    (file,) = pixel_files(folder)
    content = bytearray(file.read_bytes())
    row = 3 * SIZE[0] * SIZE[1]
    stamp = file.stat().st_mtime_ns
    lost = 1
    if damage == "cut":
        content = content[: len(content) // 2]
        lost = COUNT
    elif damage == "no_end":
        content, lost = content[:-8], COUNT
    elif damage == "empty":
        content, lost = bytearray(), COUNT
    elif damage == "rest":
        content += b"more"
        lost = COUNT
    else:
        content[{"first": 5, "last": COUNT * row - 1, "unseen": 6 * row}[damage]] ^= 1
    file.write_bytes(content)
    if damage in ("first", "last"):
        # not even the time tells; the samples do
        os.utime(file, ns=(stamp, stamp))
    else:
        os.utime(file, ns=(10**18, 10**18))
    capsys.readouterr()
    assert opened(records)[2] == lost
    assert capsys.readouterr().err.count("decoding again") == 1
    assert opened(records)[1:] == (0, 0)


def test_a_copied_cache_is_verified_once(records, folder, opened, monkeypatch) -> None:
    opened(records)
    (file,) = pixel_files(folder)
    os.utime(file, ns=(10**18, 10**18))
    extents = []
    verify = pixels.Pixels.verify

    def noted(self, whole: bool) -> None:
        extents.append(whole)
        verify(self, whole=whole)

    monkeypatch.setattr(pixels.Pixels, "verify", noted)
    opened(records)
    opened(records)
    assert extents == [True, False]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"stamps": [], "digests": ""}'])
def test_a_damaged_index_is_written_again(records, folder, opened, content: str) -> None:
    opened(records)
    (index,) = folder.glob("*.json")
    index.write_text(content)
    assert opened(records)[1:] == (COUNT, 0)
    assert opened(records)[1:] == (0, 0)


def test_an_index_cannot_name_files_elsewhere(records, folder, opened, tmp_path) -> None:
    opened(records)
    (index,) = folder.glob("*.json")
    (file,) = pixel_files(folder)
    shutil.move(file, tmp_path / file.name)
    index.write_text(json.dumps({**json.loads(index.read_text()), "pixels": f"../{file.name}"}))
    assert opened(records)[2] == COUNT


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0truncated"])
def test_bad_images_are_named_and_nothing_is_left(records, folder, content: bytes) -> None:
    victims = [records[3], records[7]]
    for record in victims:
        Path(record.path).write_bytes(content)
    for read in (
        lambda: open_cached(records, SIZE, folder=folder),
        lambda: load_images(records, SIZE),
    ):
        with pytest.raises(UserError) as error:
            read()
        text = str(error.value)
        assert all(record.path in text for record in victims)
        assert records[0].path not in text
        assert "\n" not in text
        assert "0x" not in text, "no address of an object in memory"
    assert not pixel_files(folder)
    assert not list(folder.glob(".building*"))
    for number, record in zip((3, 7), victims, strict=True):
        Path(record.path).write_bytes(jpeg(number))
    assert torch.equal(open_cached(records, SIZE, folder=folder), load_images(records, SIZE))


def test_a_missing_file_and_a_truncated_one_are_named(records) -> None:
    Path(records[1].path).unlink()
    content = jpeg(1, (200, 100))
    Path(records[4].path).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"0001\.jpg cannot be read") as error:
        load_images(records, SIZE)
    assert "0004.jpg cannot be read as an image" in str(error.value)
    assert "truncated" in str(error.value)


def test_a_file_that_vanished_is_named_though_it_is_cached(records, folder, opened) -> None:
    opened(records)
    Path(records[2].path).unlink()
    with pytest.raises(UserError, match=r"0002\.jpg"):
        open_cached(records, SIZE, folder=folder)


def test_an_image_far_too_large_is_named(tmp_path, monkeypatch) -> None:
    (record,) = write(tmp_path, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"0000\.jpg is far larger than any image of a person"):
        decode(record.path, SIZE)


@pytest.mark.parametrize("space", [0, None])
def test_a_full_disk_leaves_nothing(records, folder, monkeypatch, space: int | None) -> None:
    if space is None:
        # full in the middle of writing
        whole = cache._write

        def write_until_full(file, content) -> None:
            if file.tell() > 0:
                raise OSError(28, "No space left on device")
            whole(file, content)

        monkeypatch.setattr(cache, "_write", write_until_full)
    else:
        usage = shutil.disk_usage(folder.parent)._replace(free=space)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    config = DataConfig(image_size=SIZE, cache=str(folder))
    with pytest.raises(UserError, match=r"data\.cache") as error:
        images_of(records, config)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert [p.name for p in folder.iterdir() if p.suffix != ".lock"] == []


def test_auto_goes_on_in_memory_where_it_cannot_write(
    records, tmp_path, monkeypatch, capsys
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setattr(cache, "users_folder", lambda: blocked / "images")
    images = images_of(records, DataConfig(image_size=SIZE, cache="auto"))
    assert torch.equal(images, load_images(records, SIZE))
    assert "going on without a cache" in capsys.readouterr().err
    with pytest.raises(Unwritable, match="file"):
        images_of(records, DataConfig(image_size=SIZE, cache=str(blocked)))


def test_auto_is_a_folder_of_the_user(records, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "user"))
    images_of(records, DataConfig(image_size=SIZE, cache="auto"))
    assert len(pixel_files(tmp_path / "user" / "reid" / "images")) == 1


def test_a_folder_that_is_only_readable_serves_what_it_holds(
    records, folder, opened, monkeypatch
) -> None:
    opened(records)
    for path in folder.glob("*.lock"):
        path.unlink()

    plain_open = Path.open

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    def open_to_read(path: Path, mode: str = "r", **kwargs):
        inside = folder in path.parents and "r" not in mode
        return refuse() if inside else plain_open(path, mode, **kwargs)

    monkeypatch.setattr(Path, "open", open_to_read)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert opened(records)[1:] == (0, 0)
    os.utime(records[0].path, (1e9, 1e9))
    assert opened(records)[1:] == (1, 0)
    Path(records[0].path).write_bytes(jpeg(44))
    with pytest.raises(Unwritable, match="Permission denied"):
        open_cached(records, SIZE, folder=folder)


def test_the_images_are_mapped_and_not_copied(tmp_path, folder) -> None:
    records = write(tmp_path / "images", 3)
    size = (512, 256)
    images = open_cached(records, size, folder=folder)
    (file,) = pixel_files(folder)
    maps = Path("/proc/self/maps")
    if maps.exists():
        (line,) = [line for line in maps.read_text().splitlines() if line.endswith(file.name)]
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        assert low <= images.data_ptr() < high
    before = file.read_bytes()
    images.zero_()
    assert file.read_bytes() == before
    again = open_cached(records, size, folder=folder)
    assert torch.equal(again, load_images(records, size))


def _open_in_process(records, folder, barrier, out) -> None:
    decoded = []
    decode_bytes = cache.decode_bytes

    def slow(*args, **kwargs):
        decoded.append(1)
        time.sleep(0.01)
        return decode_bytes(*args, **kwargs)

    cache.decode_bytes = slow
    barrier.wait()
    images = open_cached(records, SIZE, folder=folder)
    out.put((len(decoded), int(images.long().sum())))


def test_processes_build_once(records, folder) -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    barrier, out = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_open_in_process, args=(records, folder, barrier, out))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [out.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(count for count, _ in found) == [0, 0, COUNT]
    assert {total for _, total in found} == {int(load_images(records, SIZE).long().sum())}
    assert len(pixel_files(folder)) == 1


KILLED = """
import os, sys
from reid.data import cache
from reid.data.records import Record
decode_bytes, count = cache.decode_bytes, []
def dying(*args, **kwargs):
    count.append(1)
    if len(count) > 5:
        os._exit(9)
    return decode_bytes(*args, **kwargs)
cache.decode_bytes = dying
cache.open_cached([Record(p, 0, 0) for p in sys.argv[2:]], (16, 8), folder=sys.argv[1])
"""


def test_a_killed_build_leaves_neither_half_a_cache_nor_a_lock(records, folder, opened) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), *(r.path for r in records)]
    assert subprocess.run(command, capture_output=True).returncode == 9
    assert len(list(folder.glob(".building*"))) == 1
    assert not pixel_files(folder)
    assert opened(records)[2] == COUNT
    assert not list(folder.glob(".building*"))


def test_waiting_for_a_lock_is_said(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("reid.data.locks.NOTICE_SECONDS", 0.0)
    started = time.monotonic()
    waiting = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    held = waiting.Event()
    holder = waiting.Process(target=_hold, args=(tmp_path / "lock", held))
    holder.start()
    held.wait(30)
    with locked(tmp_path / "lock", "tests") as alone:
        assert alone
        assert time.monotonic() - started > 0.2
    holder.join()
    assert "waiting for another process that tests" in capsys.readouterr().err


def _hold(path: Path, held) -> None:
    with locked(path, "holds"):
        held.set()
        time.sleep(0.3)


def test_images_are_held_once_decoded(records, monkeypatch) -> None:
    held = Held(records, SIZE)
    expected = load_images(records, SIZE)
    assert torch.equal(held[2:7], expected[2:7])
    for record in records[2:7]:
        Path(record.path).unlink()
    assert torch.equal(held[3:9], expected[3:9])
    assert torch.equal(held[2:9], expected[2:9])
    assert len(held) == COUNT


def test_batches_read_ahead_are_those_of_memory(records, folder) -> None:
    settings = ["method=supervised", "model.sparse=false", "data.image_size=[16, 8]"]
    settings += ["train.identities=2", "train.instances=2", "augment.views=[clean,occluded]"]
    config = load_config("demo", [*settings, "augment.random_patch=1.0"])
    cached = load_config("demo", [*settings, "augment.random_patch=1.0", f"data.cache={folder}"])
    plain, ahead = (PersonBatches(records, c, torch.device("cpu")) for c in (config, cached))
    assert plain._ahead is None
    assert ahead._ahead is not None
    # in order, over the end of an epoch, and back as a resumed run goes
    places = [(epoch, index) for epoch in range(3) for index in range(len(plain))]
    for place in [*places, places[1], places[0]]:
        one, two = plain(*place), ahead(*place)
        for name in ("labels", "camids", "keys"):
            assert torch.equal(one[name], two[name])
        assert all(torch.equal(a, b) for a, b in zip(one["views"], two["views"], strict=True))


def test_a_run_with_a_cache_equals_one_without(tiny_overrides, tmp_path, monkeypatch) -> None:
    common = [*tiny_overrides, "method=supervised", "model.sparse=false", "train.eval_every=1"]
    common += ["train.max_steps=0", "train.epochs=2", "data.protocol=''"]
    reads = []

    def noted(path: str) -> bytes:
        reads.append(path)
        return Path(path).read_bytes()

    monkeypatch.setattr("reid.data.store.read_bytes", noted)
    results = []
    for name, more in (("plain", []), ("cached", [f"data.cache={tmp_path / 'cache'}"])):
        reads.clear()
        config = load_config("demo", [*common, *more])
        results.append(run.train(config, tmp_path / name))
        data = run.load_data(config.data)
        everything = len(data.train) + len(data.query) + len(data.gallery)
        # every image is decoded once though the run evaluates three times
        assert len(reads) == (everything if name == "plain" else 0)
    plain, cached = results
    losses = [[row["loss"] for row in r.history if "loss" in row] for r in results]
    assert losses[0] == losses[1]
    assert plain.result.mAP == cached.result.mAP
    assert len(pixel_files(tmp_path / "cache")) == 3
    config = load_config("demo", [*common, f"data.cache={tmp_path / 'cache'}"])
    resumed = run.train(config, tmp_path / "cached", resume=True)
    assert resumed.result.mAP == cached.result.mAP
