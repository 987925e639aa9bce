"""Archives of plugins, and what vouches for their files."""

from __future__ import annotations

import base64
import gzip
import io
import os
import stat
import tarfile
import threading
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plugin_maker
from dwkernel import errors
from dwkernel.plugins import archive, discovery, tree, vouching
from expect import code_of

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = {"p/plugin.toml": plugin_maker.manifest(), "p/main.py": plugin_maker.POLICY}


def zipped(path: Path, files: dict[str, Any], **modes: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            packed.writestr(info, content)
    return path


def tarred(
    path: Path, files: dict[str, str], change: Callable[[tarfile.TarInfo], None] = lambda _: None
) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            change(info)
            packed.addfile(info, io.BytesIO(content.encode()))
    return path


MAKERS: dict[str, Callable[..., Path]] = {"p.zip": zipped, "p.tar.gz": tarred}


def refused(path: Path, folder: Path) -> str:
    with pytest.raises(errors.Invalid) as caught:
        archive.install(path, folder)
    assert caught.value.code == "plugin.archive", caught.value
    # Nothing of it is left, neither there nor beside.
    assert not [one for one in folder.iterdir() if one.name != "plugins.lock"]
    return str(caught.value)


@pytest.mark.parametrize("name", MAKERS)
def test_a_plugin_is_installed_whole_with_its_hash(name: str, tmp_path: Path) -> None:
    path = MAKERS[name](tmp_path / name, {**GOOD, "p/deep/er/data.txt": "x"})
    folder = tmp_path / "plugins"
    found = archive.install(path, folder)
    assert found.home == folder / "p-1.0"
    assert (found.home / "deep" / "er" / "data.txt").read_text() == "x"
    assert vouching.locked_hash(found) == tree.look(found.home).hash
    assert archive.install(path, folder) == found
    assert sorted(one.name for one in folder.iterdir()) == ["p-1.0", "plugins.lock"]
    other = MAKERS[name](tmp_path / f"other-{name}", {**GOOD, "p/main.py": "# other"})
    assert code_of(lambda: archive.install(other, folder)) == "plugin.exists"
    assert discovery.discover([folder], []).plugins["p"] == [found]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("../evil.py", "leads out"),
        ("p/../../evil.py", "leads out"),
        ("/tmp/evil.py", "absolute"),  # noqa: S108 - it is refused
        ("C:/evil.py", "absolute"),
        ("p\\evil.py", "no plain name"),
        ("p//evil.py", "no plain name"),
        ("p/./evil.py", "no plain name"),
        ("p/ev\x07il.py", "no plain name"),
        ("p/evil.py.", "file systems drop"),
        ("p/" + "x" * 300, "too long"),
        ("p/" + "x/" * 30 + "y", "too long or too deep"),
        ("p/MAIN.py", "collides"),
        ("p/main.py/inner.py", "collides"),
        ("p/main.py", "collides"),
        ("P/other.py", "collides"),
        ("q/other.py", "not one folder"),
        ("evil.py", "not one folder"),
        ("p/plugins.lock", "the kernel's own"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_lead_elsewhere_or_collide_are_refused(
    name: str, member: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if member == "p/main.py":  # twice in one archive
        if name.endswith("zip"):
            with zipfile.ZipFile(path, "w") as packed:
                for _ in range(2):
                    packed.writestr("p/main.py", "")
        else:
            with tarfile.open(path, "w:gz") as packed_tar:
                for _ in range(2):
                    packed_tar.addfile(tarfile.TarInfo("p/main.py"))
    else:
        MAKERS[name](path, {**GOOD, member: "evil"})
    folder = tmp_path / "plugins"
    folder.mkdir()
    assert says in refused(path, folder)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(kind: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "p.zip", {**GOOD, "p/link": "/etc/passwd"}, **{"p/link": kind | 0o777})
    (tmp_path / "plugins").mkdir()
    assert "link or a device" in refused(path, tmp_path / "plugins")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "p/link":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    path = tarred(tmp_path / "p.tar.gz", {**GOOD, "p/link": ""}, change)
    (tmp_path / "plugins").mkdir()
    assert "link or a device" in refused(path, tmp_path / "plugins")


def test_bombs_are_refused_before_they_fill_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "FILES_MAX", 50)
    folder = tmp_path / "plugins"
    folder.mkdir()
    big = "\0" * (40 << 20)
    for name, make in MAKERS.items():
        path = make(tmp_path / name, {**GOOD, "p/zeroes": big})
        assert path.stat().st_size < 100_000
        assert "unpacked it is larger" in refused(path, folder)
        many = make(tmp_path / f"many-{name}", {**GOOD, **{f"p/{n}": "" for n in range(60)}})
        assert "more than 50 files" in refused(many, folder)
    # A header of a tar can be a bomb as well as a file: here a name of 60 MB.
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as packed:
        packed.addfile(tarfile.TarInfo("p/" + "x" * (60 << 20)))
    bomb = tmp_path / "header.tar.gz"
    bomb.write_bytes(gzip.compress(raw.getvalue(), 9))
    refused(bomb, folder)


def peak_of(call: Callable[[], object]) -> int:
    """Return how much memory a call took at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_list_of_members_that_is_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    path = zipped(tmp_path / "p.zip", {**GOOD, "p/x": ""})
    content = path.read_bytes()
    at, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    # The list's last entry, as often as it fits: each takes ten times as much in memory.
    entries = content[content.index(b"PK\x01\x02") : end] + content[at:end] * 200_000
    tail = bytearray(content[end:])
    tail[12:16] = len(entries).to_bytes(4, "little")
    path.write_bytes(content[: content.index(b"PK\x01\x02")] + entries + tail)
    said: list[str] = []
    peak = peak_of(lambda: said.append(refused(path, folder)))
    assert "the list of its members is too large" in said[0]
    assert peak < 4 << 20
    # So can be what a tar says before a member, here of its attributes.
    fields = b"".join(b"17 %08d=%s\n" % (n, b"x" * 4) for n in range(2_000_000))
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(fields)
    raw = header.tobuf() + fields + b"\0" * (-len(fields) % 512)
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(raw + tarfile.TarInfo("p/a").tobuf() + b"\0" * 1024, 1))
    peak = peak_of(lambda: said.append(refused(path, folder)))
    assert "one of its headers is too large" in said[1]
    assert peak < 16 << 20


@pytest.mark.parametrize("name", MAKERS)
def test_members_without_a_name_of_their_own_count_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "FILES_MAX", 50)
    (tmp_path / "plugins").mkdir()
    path = MAKERS[name](tmp_path / name, GOOD | {"./" * n: "" for n in range(1, 60)})
    assert "more than 50 files" in refused(path, tmp_path / "plugins")


@pytest.mark.parametrize("step", ["write", "mkdir", "fsync", "rename"])
def test_a_disk_that_is_full_is_told_and_no_fault_of_the_archive(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "p.zip", {**GOOD, "p/deep/x": "x"})
    folder = tmp_path / "plugins"
    folder.mkdir()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if step == "write":
            real = Path.open

            def opened(place: Path, mode: str = "r", **rest: Any) -> Any:
                file = real(place, mode, **rest)
                return Full(file) if mode == "xb" else file

            patched.setattr(Path, "open", opened)
        else:
            patched.setattr(os if step == "fsync" else Path, step, full)
        with pytest.raises(errors.Invalid, match="No space left on device") as caught:
            archive.install(path, folder)
    assert caught.value.code == "plugin.load"
    assert list(folder.iterdir()) == []
    assert archive.install(path, folder).home == folder / "p-1.0"
    plain = tmp_path / "plain"
    plain.touch()
    assert code_of(lambda: archive.install(path, plain)) == "plugin.load"


class Full(io.RawIOBase):
    def __init__(self, file: Any) -> None:
        super().__init__()
        self.file = file

    def write(self, _: Any) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.file.close()


def test_many_may_install_at_once_and_what_was_cut_off_goes(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    (folder / ".incoming-left" / "p").mkdir(parents=True)
    paths = [
        zipped(tmp_path / f"{n}.zip", {"p/plugin.toml": plugin_maker.manifest(f"p{n}"), "p/a": ""})
        for n in range(12)
    ]
    wrong: list[BaseException] = []

    def install(path: Path) -> None:
        try:
            archive.install(path, folder)
        except BaseException as error:  # noqa: BLE001 - it is what is looked for
            wrong.append(error)

    threads = [threading.Thread(target=install, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    found = discovery.discover([folder], []).plugins
    assert len(found) == len(paths)
    assert all(vouching.locked_hash(one) for (one,) in found.values())
    assert not list(folder.glob(".incoming*"))


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "p.zip", {**GOOD, "p/data": "x" * 1000})
    content = bytearray(path.read_bytes())
    # The central directory's record of the last member: its size, made smaller than it is.
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    (tmp_path / "plugins").mkdir()
    assert "can't be unpacked" in refused(path, tmp_path / "plugins")


def test_broken_and_strange_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    good = zipped(tmp_path / "p.zip", GOOD).read_bytes()
    for number, content in enumerate((b"", b"PK", b"hello", good[:-30], b"\x1f\x8b" + b"x" * 99)):
        path = tmp_path / f"broken-{number}"
        path.write_bytes(content)
        refused(path, folder)
    os.mkfifo(tmp_path / "pipe")
    assert "no plain file" in refused(tmp_path / "pipe", folder)
    assert code_of(lambda: archive.install(tmp_path / "gone.zip", folder)) == "plugin.not_found"
    # A member without a name, over which the library itself falls.
    nameless = zipped(tmp_path / "nameless.zip", {**GOOD, "p/": ""}).read_bytes()
    path = tmp_path / "nameless.zip"
    path.write_bytes(nameless.replace(b"p/PK", b"\0/PK"))
    assert "can't be unpacked" in refused(path, folder)
    no_manifest = zipped(tmp_path / "no.zip", {"p/main.py": ""})
    assert code_of(lambda: archive.install(no_manifest, folder)) == "plugin.not_found"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(MAKERS)))
def test_an_archive_with_any_damage_is_installed_whole_or_refused(
    data: st.DataObject, name: str, tmp_path: Path
) -> None:
    content = bytearray(MAKERS[name](tmp_path / name, GOOD).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged-{name}"
    path.write_bytes(content)
    folder = tmp_path / "plugins"
    try:
        archive.install(path, folder)
    except errors.DwError as error:
        if error.code not in (
            "plugin.archive",
            "plugin.manifest",
            "plugin.not_found",
            "plugin.exists",
        ):
            raise
    assert not [one for one in folder.iterdir() if one.name.startswith(".incoming")]


# --- Vouching ---


def test_files_that_the_lock_does_not_know_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    found = archive.install(zipped(tmp_path / "p.zip", GOOD), folder)
    assert found.home is not None
    with plugin_maker.plugins(folders=[folder], require_hash=True) as opened:
        assert opened.load("p").hash == vouching.locked_hash(found)
    (found.home / "main.py").write_text(plugin_maker.POLICY + "# changed")
    for require in (False, True):
        with plugin_maker.plugins(folders=[folder], require_hash=require) as opened:
            assert code_of(lambda opened=opened: opened.load("p")) == "plugin.hash"  # type: ignore[misc]
    loose = plugin_maker.write(tmp_path / "loose" / "q", plugin_id="q")
    with plugin_maker.plugins(folders=[loose.parent], require_hash=True) as opened:
        assert code_of(lambda: opened.load("q")) == "plugin.hash"
    (folder / "plugins.lock").write_text("{broken")
    with plugin_maker.plugins(folders=[folder]) as opened:
        assert code_of(lambda: opened.load("p")) == "plugin.hash"


def test_only_what_a_trusted_key_signed_is_loaded_where_keys_are_listed(tmp_path: Path) -> None:
    home = plugin_maker.write(tmp_path / "p")
    trusted, other = os.urandom(32), os.urandom(32)
    key = vouching.sign(home, trusted)
    with plugin_maker.plugins(folders=[home], trusted_keys=[key]) as opened:
        assert opened.load("p").state == "started"
    wrong_key = vouching.sign(home, other)
    for keys in ([key], [base64.b64encode(os.urandom(32)).decode()], ["no key"]):
        with plugin_maker.plugins(folders=[home], trusted_keys=keys) as opened:
            assert code_of(lambda opened=opened: opened.load("p")) == "plugin.signature"  # type: ignore[misc]
    with plugin_maker.plugins(folders=[home], trusted_keys=[key, wrong_key]) as opened:
        assert opened.load("p").state == "started"
    (home / "main.py").write_text(plugin_maker.POLICY + "# changed")
    with plugin_maker.plugins(folders=[home], trusted_keys=[wrong_key]) as opened:
        assert code_of(lambda: opened.load("p")) == "plugin.signature"
    (home / "plugin.sig").unlink()
    with plugin_maker.plugins(folders=[home], trusted_keys=[wrong_key]) as opened:
        assert code_of(lambda: opened.load("p")) == "plugin.signature"


def test_a_hash_is_over_names_and_contents_and_refuses_links(tmp_path: Path) -> None:
    home = plugin_maker.write(tmp_path / "p", files={"a": "1", "b": "2"})
    first = tree.look(home)
    assert first.files == ["a", "b", "main.py", "plugin.toml"]
    (home / "__pycache__").mkdir()
    (home / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert tree.look(home) == first
    assert tree.copy(home, tmp_path / "copy") == first
    assert sorted(one.name for one in (tmp_path / "copy").iterdir()) == first.files
    (home / "a").write_text("2")
    (home / "b").write_text("1")
    assert tree.look(home).hash != first.hash
    (home / "a").write_text("1")
    (home / "b").rename(home / "bb")
    (home / "bb").write_text("2")
    assert tree.look(home).hash != first.hash
    (home / "a").unlink()
    (home / "a").symlink_to("/etc/passwd")
    assert code_of(lambda: tree.look(home)) == "plugin.load"
