"""Folders and archives give the same names and bytes; hostile or damaged archives are refused."""

import io
import multiprocessing
import os
import re
import struct
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reid.data import archives, source
from reid.data.folder import folder_records
from reid.data.source import MEMBER, open_source, read_bytes
from reid.errors import UserError

FILES = {
    "top/query/0001_c1.jpg": b"one" * 50,
    "top/query/0002_c2.jpg": b"",
    "top/test/deep/\u00e4.png": bytes(range(256)) * 20,
    "top/readme.txt": b"hello",
}
KINDS = ["folder", "zip", "stored.zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "TAR"]


def add_tar(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            add_tar(archive, name, content)
    return path


def write(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    path = folder / f"set.{kind}"
    if kind == "folder":
        for name, content in files.items():
            file = path.joinpath(*name.split("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return path
    if kind.endswith("zip"):
        return write_zip(
            path, files, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED
        )
    return write_tar(path, files)


@pytest.mark.parametrize("kind", KINDS)
def test_names_folders_and_bytes(tmp_path: Path, kind: str) -> None:
    found = open_source(write(tmp_path, kind, FILES))
    assert found.names() == sorted(FILES)
    assert found.folders("") == ["top"]
    assert found.files("") == []
    assert found.folders("top") == ["query", "test"]
    assert found.files("top") == ["readme.txt"]
    assert found.files("top/query") == ["0001_c1.jpg", "0002_c2.jpg"]
    assert found.folders("top/test") == ["deep"]
    for name, content in FILES.items():
        assert found.read(name) == content
        assert read_bytes(found.path(name)) == content
        assert (MEMBER in found.path(name)) == (kind != "folder")


def test_a_compressed_tar_is_said_once_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = write_tar(tmp_path / "set.tgz", FILES)
    for _ in range(3):
        open_source(path).read("top/readme.txt")
    notice = capsys.readouterr().err
    assert notice.count("\n") == 1
    assert str(path) in notice
    assert str(temporary) in notice
    if os.name == "posix":
        assert not list(temporary.iterdir())
    open_source(write_tar(tmp_path / "plain.tar", FILES)).read("top/readme.txt")
    assert capsys.readouterr().err == ""


def test_a_full_disk_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, *_: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match=r"No space left on device\); free space there.*TMPDIR"):
        open_source(write_tar(tmp_path / "set.tar.gz", FILES))


def test_names_are_made_relative(tmp_path: Path) -> None:
    files = {"./a/./b.jpg": b"1", "a\\c.jpg": b"2"}
    assert open_source(write_tar(tmp_path / "set.tar", files)).names() == ["a/b.jpg", "a/c.jpg"]
    assert open_source(write_zip(tmp_path / "set.zip", files)).names() == ["a/b.jpg", "a/c.jpg"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "a\\..\\x.jpg", "/etc/x.jpg", "C:/x.jpg", "\\\\host\\x"]
)
def test_members_that_leave_the_archive(tmp_path: Path, kind: str, name: str) -> None:
    path = write(tmp_path, kind, {"a/fine.jpg": b"1", name: b"2"})
    with pytest.raises(UserError, match="leaves the folder of the archive; do not trust") as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_may_hold_two_dots(tmp_path: Path, kind: str) -> None:
    assert open_source(write(tmp_path, kind, {"a..b/..jpg": b"1"})).names() == ["a..b/..jpg"]


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path: Path, type_: bytes) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        add_tar(archive, "a.jpg", b"1")
        info = tarfile.TarInfo("b.jpg")
        info.type, info.linkname = type_, "a.jpg"
        archive.addfile(info)
    kind = "no regular file" if type_ == tarfile.FIFOTYPE else "a link"
    with pytest.raises(UserError, match=f"set.tar: member 'b.jpg' is {kind}; pack the folder"):
        open_source(tmp_path / "set.tar")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, {"a/x.jpg": b"1", "a//x.jpg": b"2"})
    with pytest.raises(UserError, match=r"holds 'a//x.jpg' twice"):
        open_source(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_larger_than_the_limit(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LIMIT", 1000)
    monkeypatch.setattr(source, "LIMIT", 1000)
    content = os.urandom(1001)
    found = open_source(write(tmp_path, kind, {"big.jpg": content, "fits.jpg": content[:1000]}))
    assert found.read("fits.jpg") == content[:1000]
    with pytest.raises(UserError, match=r"!/big.jpg unpacks to 1001 bytes, more than the 1000"):
        found.read("big.jpg")
    folder = open_source(write(tmp_path, "folder", {"big.jpg": content}))
    with pytest.raises(UserError, match=r"big.jpg has 1001 bytes, more than the 1000"):
        folder.read("big.jpg")


def test_the_limit_is_64_mebibytes(tmp_path: Path) -> None:
    assert archives.LIMIT == 64 * 2**20
    path = write_zip(tmp_path / "set.zip", {"bomb.jpg": bytes(archives.LIMIT + 1)})
    with pytest.raises(UserError, match=r"bomb.jpg unpacks to 67108865 bytes"):
        open_source(path).read("bomb.jpg")


def test_a_ratio_that_no_image_has(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "set.zip", {"bomb.jpg": bytes(2**20 + 1), "black.bmp": bytes(2**20)}
    )
    found = open_source(path)
    assert found.read("black.bmp") == bytes(2**20)
    with pytest.raises(UserError, match=r"bomb.jpg unpacks \d+ bytes to 1048577, as a zip bomb"):
        found.read("bomb.jpg")


def test_a_size_that_is_declared_too_small(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"liar.jpg": bytes(5 * 2**20)})
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, directory + 24, 10)
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"liar.jpg cannot be unpacked.*the 10 bytes that it declares"
    ):
        open_source(path).read("liar.jpg")


def test_a_compressed_tar_that_explodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LIMIT", 2**20)
    path = write_tar(tmp_path / "set.tar.gz", {"zeros.jpg": bytes(8 * 2**20)})
    with pytest.raises(UserError, match="more than 200 times its size, as a bomb"):
        open_source(path)


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.jpg": b"secret"})
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"set.zip is encrypted \(member 'a.jpg'\); unpack it"):
        open_source(path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive(tmp_path: Path, kind: str, share: float) -> None:
    path = write(tmp_path, kind, {f"{i}.jpg": os.urandom(3000) for i in range(10)})
    content = path.read_bytes()
    # a tar is padded with empty blocks, of which one is enough
    stop = content.rindex(b"9.jpg") + 2000 if kind == "tar" else len(content)
    path.write_bytes(content[: int(share * stop)])
    with pytest.raises(UserError, match=r"set\.\S+ is no complete archive \(.*copy or download"):
        open_source(path)


def test_a_tar_cut_between_two_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", {"a.jpg": b"1" * 512, "b.jpg": b"2" * 512})
    content = path.read_bytes()
    path.write_bytes(content[:1024])
    with pytest.raises(UserError, match="no complete archive"):
        open_source(path)
    path.write_bytes(content[: 2048 + 512])
    assert open_source(path).names() == ["a.jpg", "b.jpg"]


def test_a_damaged_header_inside_a_tar_is_no_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", {"a.jpg": b"1" * 512, "b.jpg": b"2" * 512})
    content = bytearray(path.read_bytes())
    content[1024 + 148] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="byte 1024 is neither a member nor the end"):
        open_source(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_bytes_in_a_zip(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.jpg": bytes(range(256)) * 4}, method)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.jpg cannot be unpacked \(.*copy or download"):
        open_source(path).read("a.jpg")


def test_a_method_that_is_not_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.jpg": b"x" * 99}, zipfile.ZIP_LZMA)
    with pytest.raises(UserError, match="compression method 14 is neither stored nor deflate"):
        open_source(path).read("a.jpg")


def test_zstd_is_named(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(600))
    with pytest.raises(UserError, match="zstd, which is not read; unpack it first"):
        open_source(tmp_path / "set.tar")


def test_roots_that_are_neither(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes.txt is a file; give a folder, or an archive"):
        open_source(tmp_path / "notes.txt")


def test_missing_files_and_members(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.jpg cannot be read \(No such file"):
        read_bytes(str(tmp_path / "gone.jpg"))
    path = write_zip(tmp_path / "set.zip", FILES)
    with pytest.raises(UserError, match=r"has no member 'gone.jpg'"):
        read_bytes(f"{path}{MEMBER}gone.jpg")
    known = open_source(path).path("top/readme.txt")
    path.unlink()
    with pytest.raises(UserError, match=re.escape("readme.txt cannot be read")):
        read_bytes(known)


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.jpg": b"old"})
    assert read_bytes(f"{path}{MEMBER}a.jpg") == b"old"
    write_zip(path, {"b.jpg": b"x" * 100, "a.jpg": b"newer"})
    assert read_bytes(f"{path}{MEMBER}a.jpg") == b"newer"


def test_a_folder_whose_name_ends_in_the_mark(tmp_path: Path) -> None:
    (tmp_path / "hey!").mkdir()
    (tmp_path / "hey!" / "a.jpg").write_bytes(b"1")
    assert read_bytes(f"{tmp_path}/hey!/a.jpg") == b"1"
    path = write_zip(tmp_path / "hey!" / "set.zip", {"odd!/b.jpg": b"2"})
    assert read_bytes(f"{path}{MEMBER}odd!/b.jpg") == b"2"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_links_in_a_folder(tmp_path: Path) -> None:
    root = write(tmp_path, "folder", {"a/x.jpg": b"1"})
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "b").symlink_to(root / "a", target_is_directory=True)
    (root / "a" / "broken.jpg").symlink_to(root / "nowhere.jpg")
    found = open_source(root)
    assert found.names() == ["a/broken.jpg", "a/x.jpg", "b/broken.jpg", "b/x.jpg"]
    with pytest.raises(UserError, match=r"broken.jpg cannot be read"):
        found.read("a/broken.jpg")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_threads_read_what_one_reads(tmp_path: Path, kind: str) -> None:
    files = {f"{i}.bin": bytes([i]) * (1000 + 37 * i) for i in range(60)}
    path = write(tmp_path, kind, files)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            order = [*files, *files]
            got = pool.map(lambda name: read_bytes(f"{path}{MEMBER}{name}"), order)
            assert list(got) == [files[name] for name in order]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_threads_where_files_have_one_position(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, which lacks pread."""
    monkeypatch.delattr(os, "pread", raising=False)
    test_threads_read_what_one_reads(tmp_path, kind)


def _digest(path: str) -> list[bytes]:
    return [read_bytes(f"{path}{MEMBER}{i}.bin")[:1] for i in range(40) for _ in range(5)]


@pytest.mark.skipif(sys.platform != "linux", reason="processes fork on Linux")
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_forked_processes_read_what_one_reads(tmp_path: Path, kind: str) -> None:
    files = {f"{i}.bin": bytes([i]) * 3000 for i in range(40)}
    path = str(write(tmp_path, kind, files))
    expected = _digest(path)
    # held as by a thread that is indexing an archive while another one forks
    with (
        source._ARCHIVES._lock,
        multiprocessing.get_context("fork").Pool(2) as pool,
    ):
        assert pool.map_async(_digest, [path] * 6).get(timeout=60) == [expected] * 6


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_of_a_plain_folder(tmp_path: Path, kind: str) -> None:
    files = dict.fromkeys(["b/2.JPG", "a.png", ".x.png", "__MACOSX/a.png", "notes.txt"], b"1")
    root = write(tmp_path, kind, files)
    names = [record.path[len(str(root)) :] for record in folder_records(root)]
    assert [name.strip("!/\\").replace("\\", "/") for name in names] == ["a.png", "b/2.JPG"]
    with pytest.raises(UserError, match="does not exist"):
        folder_records(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no image"):
        folder_records(write(tmp_path / "y", "folder", {"notes.txt": b"1"}))
