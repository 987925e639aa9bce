"""The contract of `dwkernel.open` and what it returns."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import os
import pathlib
import pickle
import random
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_example_of_the_docs_works(path: pathlib.Path) -> None:
    with dw.open(path, drives=6, geometry="4+2", create=True) as kernel:
        with pytest.warns(dw.NotEnforcedWarning):
            kernel.containers.create("docs", quota="10 GiB", compress="zstd")
        kernel.put("docs/hello.txt", b"hi")
        assert kernel["docs/hello.txt"] == b"hi"
        assert kernel["docs/hello.txt"] == b"hi"
        kernel.delete("docs/hello.txt")
        with pytest.raises(FileNotFoundError):
            kernel.get("docs/hello.txt")
        assert kernel.containers.get("docs").options == {"quota": "10 GiB", "compress": "zstd"}


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 5_000_000])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "file", "path", "pipe"])
def test_every_source_is_read_back_bit_for_bit(
    kernel: dw.Kernel, tmp_path: pathlib.Path, size: int, kind: str
) -> None:
    data = random.Random(size).randbytes(size)
    file = tmp_path / "source"
    file.write_bytes(data)
    if kind == "pipe":
        reading, writing = os.pipe()
        feeder = threading.Thread(target=lambda: _feed(writing, data))
        feeder.start()
        with os.fdopen(reading, "rb", buffering=0) as source:
            info = kernel.put("docs/a", source)
        feeder.join()
    elif kind == "file":
        with file.open("rb") as source:
            info = kernel.put("docs/a", source)
    else:
        sources: dict[str, Any] = {
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "path": file,
        }
        info = kernel.put("docs/a", sources[kind])
    assert info.size == size
    assert info.checksum == dw.hashing.crc64nvme(data)
    assert kernel["docs/a"] == data


def _feed(writing: int, data: bytes) -> None:
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(data)


def test_what_is_said_of_an_object_is_kept(kernel: dw.Kernel, path: pathlib.Path) -> None:
    before = datetime.now(UTC)
    stored = kernel.put(
        "docs/ä", b"x", content_type="text/plain", metadata={"a": "ü"}, tags={"t": "1"}
    )
    assert kernel.head("docs/ä") == stored
    assert (stored.key, stored.container, stored.name) == ("docs/ä", "docs", "ä")
    assert (stored.content_type, stored.metadata, stored.tags) == (
        "text/plain",
        {"a": "ü"},
        {"t": "1"},
    )
    assert abs((stored.created - before).total_seconds()) < 60
    assert json.loads(json.dumps(stored.to_dict()))["key"] == "docs/ä"
    assert "<table>" in stored._repr_html_()
    kernel.close()
    with dw.open(path) as again:
        assert again.head("docs/ä") == stored


def test_keys_are_kept_as_given(kernel: dw.Kernel) -> None:
    names = ["docs/A", "docs/a", "docs/\u00e9", "docs/e\u0301", "docs/a//b", "docs/../x", "docs/ "]
    for number, name in enumerate(names):
        kernel.put(name, bytes([number]))
    assert [kernel[name][0] for name in names] == list(range(len(names)))
    assert list(kernel) == sorted(names, key=str.encode)


def test_conditions_hold(kernel: dw.Kernel) -> None:
    first = kernel.put("docs/a", b"1", if_absent=True)
    with pytest.raises(errors.Conflict) as caught:
        kernel.put("docs/a", b"2", if_absent=True)
    assert caught.value.code == "object.conflict"
    second = kernel.put("docs/a", b"2", if_match=first.etag)
    assert second.version > first.version
    with pytest.raises(errors.Conflict):
        kernel.put("docs/a", b"3", if_match=first.etag)
    with pytest.raises(errors.Conflict):
        kernel.delete("docs/a", if_match=first.etag)
    kernel.delete("docs/a", if_match=second.etag)
    assert "docs/a" not in kernel


def test_mapping_sugar(kernel: dw.Kernel) -> None:
    kernel["docs/a"] = b"1"
    assert "docs/a" in kernel
    assert "none/a" not in kernel
    assert 7 not in kernel
    assert list(kernel) == ["docs/a"]
    del kernel["docs/a"]
    with pytest.raises(FileNotFoundError):
        kernel["docs/a"]


def test_listings_roll_up_page_and_stop(kernel: dw.Kernel) -> None:
    keys = [f"docs/{n:04}" for n in range(1500)] + ["docs/sub/a", "docs/sub/b", "docs/z"]
    for key in keys:
        kernel.put(key, b"")
    assert kernel.list("docs").keys() == keys
    assert kernel.list("docs/", limit=1100).keys() == keys[:1100]
    assert kernel.list("docs/00", start_after="docs/0050").keys() == keys[51:100]
    rolled = list(kernel.list("docs/", delimiter="/", start_after="docs/1499"))
    assert [str(entry.key) for entry in rolled] == ["docs/sub/", "docs/z"]
    assert isinstance(rolled[0], dw.Prefix)
    assert kernel.list(limit=0).keys() == []
    assert "docs/0000" in str(kernel.list("docs"))
    with pytest.raises(errors.NotFound):
        kernel.list("none/").keys()


def test_a_reader_is_a_file(kernel: dw.Kernel) -> None:
    data = random.Random(1).randbytes(200_000)
    kernel.put("docs/a", data)
    with kernel.get("docs/a") as reader:
        assert (reader.read(10), reader.tell()) == (data[:10], 10)
        assert reader.seek(-5, io.SEEK_END) == len(data) - 5
        assert reader.read() == data[-5:]
        assert reader.read() == b""
        reader.seek(100_000)
        buffer = bytearray(50)
        assert reader.readinto(buffer) == 50
        assert buffer == data[100_000:100_050]
        assert reader.read_range(7, 9) == data[7:16]
        assert reader.tell() == 100_050
        reader.seek(0)
        buffered = io.BufferedReader(reader)
        assert buffered.read() == data
        buffered.detach()
        with pytest.raises(ValueError, match=r"object\.range"):
            reader.read_range(199_999, 2)
    with pytest.raises(errors.State):
        reader.read()


def test_a_reader_is_sought_as_far_as_a_file_and_is_not_copied(kernel: dw.Kernel) -> None:
    kernel.put("docs/a", b"abc")
    with kernel.get("docs/a") as reader:
        reader.seek((1 << 63) - 1)
        assert (reader.read(), reader.read(1), reader.readinto(bytearray(1))) == (b"", b"", 0)
        with pytest.raises(ValueError, match=r"object\.range"):
            reader.seek(1 << 63)
        with pytest.raises(TypeError):
            reader.seek(1.0)  # type: ignore[arg-type]
        # Two would share what is open, and the first that is closed would close both.
        for take in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="it is open"):
                take(reader)


def test_lines_are_read(kernel: dw.Kernel) -> None:
    lines = [f"line {n}\n".encode() for n in range(20_000)]
    kernel.put("docs/a", b"".join(lines))
    with kernel.get("docs/a") as reader:
        assert list(reader) == lines
    with io.TextIOWrapper(io.BufferedReader(kernel.get("docs/a"))) as text:
        assert text.readline() == "line 0\n"


def test_a_reader_keeps_its_version(kernel: dw.Kernel) -> None:
    kernel.put("docs/a", b"old" * 100_000)
    with kernel.get("docs/a") as reader:
        kernel.put("docs/a", b"new")
        kernel.delete("docs/a")
        assert reader.read() == b"old" * 100_000


def test_threads_share_a_store(kernel: dw.Kernel) -> None:
    def work(thread: int) -> None:
        for n in range(20):
            kernel.put(f"docs/{thread}-{n}", bytes([thread]) * n * 1000)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        assert all(kernel[f"docs/{number}-{n}"] == bytes([number]) * n * 1000 for n in range(20))


def test_progress_is_told_and_may_end_a_put(kernel: dw.Kernel) -> None:
    told: list[dw.Progress] = []
    data = bytes(64 << 20)
    kernel.put("docs/a", data, progress=told.append)
    assert all(step.work == "put" and step.total == len(data) for step in told)
    assert [step.done for step in told] == sorted(step.done for step in told)

    def stop(_: dw.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kernel.put("docs/b", _Endless(), progress=stop)  # type: ignore[arg-type]
    assert "docs/b" not in kernel


class _Endless:
    def read(self, size: int) -> bytes:
        return bytes(size)


def test_a_source_that_raises_is_the_cause(kernel: dw.Kernel) -> None:
    class Broken:
        def __init__(self) -> None:
            self.left = 3

        def read(self, size: int) -> bytes:
            self.left -= 1
            if self.left == 0:
                message = "the tape tore"
                raise OSError(message)
            return bytes(min(size, 100_000))

    with pytest.raises(errors.Invalid) as caught:
        kernel.put("docs/a", Broken())  # type: ignore[arg-type]
    assert caught.value.code == "source.failed"
    assert isinstance(caught.value.__cause__, OSError)
    assert "the tape tore" in str(caught.value)
    assert "docs/a" not in kernel


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (io.StringIO("text"), "source.failed"),
        (pathlib.Path("/none/such"), "source.failed"),
        ("text", "buffer.type"),
        (7, "buffer.type"),
        (memoryview(b"abcd")[::2], "buffer.type"),
    ],
)
def test_what_is_no_source_is_refused(kernel: dw.Kernel, data: Any, code: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        kernel.put("docs/a", data)
    assert caught.value.code == code
    assert "docs/a" not in kernel


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", "object.key"),
        ("docs", "object.key"),
        ("docs/", "object.key"),
        ("/a", "container.name"),
        ("docs/a\0", "object.key"),
        ("docs/" + "x" * 4097, "object.key"),
        ("none/a", "container.not_found"),
    ],
)
def test_bad_keys_are_refused_with_a_code(kernel: dw.Kernel, key: str, code: str) -> None:
    with pytest.raises(errors.DwError) as caught:
        kernel.put(key, b"x")
    assert caught.value.code == code
    assert len(caught.value.correlation_id or "") == 32


def test_metadata_has_a_limit(kernel: dw.Kernel) -> None:
    with pytest.raises(errors.Invalid) as caught:
        kernel.put("docs/a", b"x", metadata={"a": "x" * 20_000})
    assert caught.value.code == "object.metadata"


def test_a_deadline_holds_in_the_middle_of_a_stream(kernel: dw.Kernel) -> None:
    with pytest.raises(TimeoutError) as caught:
        kernel.put("docs/a", _Endless(), timeout="300ms")  # type: ignore[arg-type]
    assert isinstance(caught.value, errors.Timeout)
    assert caught.value.code == "context.deadline"
    assert caught.value.retryable
    assert "docs/a" not in kernel
    with pytest.raises(errors.Timeout):
        kernel.head("docs/a", timeout=0)


def test_a_closed_kernel_says_so(kernel: dw.Kernel) -> None:
    kernel.put("docs/a", b"x")
    reader = kernel.get("docs/a")
    kernel.close()
    kernel.close()
    assert kernel.closed
    for use in (
        lambda: kernel.head("docs/a"),
        lambda: kernel.put("docs/b", b""),
        kernel.pool.status,
        reader.read,
    ):
        with pytest.raises(errors.State) as caught:
            use()
        assert caught.value.code == "store.closed"
    reader.close()


def test_containers(kernel: dw.Kernel) -> None:
    with pytest.raises(FileExistsError):
        kernel.containers.create("docs")
    kernel.put("docs/a", b"")
    with pytest.raises(errors.Conflict) as caught:
        kernel.containers.delete("docs")
    assert caught.value.code == "container.not_empty"
    kernel.delete("docs/a")
    kernel.containers.delete("docs")
    assert "docs" not in kernel.containers
    with pytest.raises(errors.NotFound):
        kernel.containers.delete("docs")
    with pytest.raises(ValueError, match="colour"):
        kernel.containers.create("x", colour="red")
    for name in ["", "a/b", "a\0", "x" * 256]:
        with pytest.raises(errors.Invalid):
            kernel.containers.create(name)
    for name in ["b", "a", "ä"]:
        kernel.containers.create(name)
    assert [found.name for found in kernel.containers] == ["a", "b", "ä"]


def test_status_says_how_the_drives_are(kernel: dw.Kernel, path: pathlib.Path) -> None:
    status = kernel.pool.status()
    assert [drive.id for drive in status.drives] == ["d1", "d2", "d3"]
    assert [drive.path for drive in status.drives] == [str(path / f"d{n}") for n in (1, 2, 3)]
    assert {drive.state for drive in status.drives} == {"ok"}
    assert (status.geometry, status.redundancy, status.advice) == ("2+1", "full", [])
    assert any("file system" in text for text in status.warnings)
    assert status.usable_bytes > 0
    assert json.loads(json.dumps(status.to_dict()))["redundancy"] == "full"
    assert "d1" in str(status)
    assert "<table>" in status._repr_html_()


def test_the_asyncio_twins_do_the_same(path: pathlib.Path) -> None:
    async def work() -> None:
        async with dw.aio.open(path, drives=3, create=True) as kernel:
            await kernel.containers.create("docs")
            infos = await asyncio.gather(
                *(kernel.put(f"docs/{n}", bytes(n * 1000)) for n in range(20))
            )
            assert [info.size for info in infos] == [n * 1000 for n in range(20)]
            found = [entry.key async for entry in kernel.list("docs")]
            assert len(found) == 20
            async with await kernel.get("docs/7") as reader:
                assert await reader.read() == bytes(7000)
                assert await reader.read_range(5, 2) == bytes(2)
            await kernel.delete("docs/7")
            with pytest.raises(errors.NotFound):
                await kernel.head("docs/7")
            assert (await kernel.pool.status()).redundancy == "full"
        kernel = await dw.aio.open(path)
        assert (await kernel.head("docs/8")).size == 8000
        await kernel.close()
        assert kernel.closed

    asyncio.run(work())


@pytest.mark.parametrize("size", ["10 GiB", 512, "1.5MB"])
def test_sizes_are_ints_or_text(size: int | str) -> None:
    assert dw.units.parse_size(size) > 0


@pytest.mark.parametrize("bad", ["", "GiB", "-1", -1])
def test_bad_sizes_are_refused(bad: int | str) -> None:
    with pytest.raises(errors.Invalid):
        dw.units.parse_size(bad)
    with pytest.raises(errors.Invalid):
        dw.units.parse_duration(bad)


HALF = "\udcff"
OPEN: Any = dw.open


@pytest.mark.parametrize(
    ("use", "code"),
    [
        (lambda kernel: kernel.put(f"docs/{HALF}", b""), "object.key"),
        (lambda kernel: kernel.get(f"docs/{HALF}"), "object.key"),
        (lambda kernel: kernel.head(5), "object.key"),
        (lambda kernel: kernel.put(b"docs/a", b""), "object.key"),
        (lambda kernel: kernel.delete(None), "object.key"),
        (lambda kernel: kernel.list(f"docs/{HALF}").keys(), "object.key"),
        (lambda kernel: kernel.list("docs/", start_after=1).keys(), "object.key"),
        (lambda kernel: kernel.list("docs/", delimiter=1).keys(), "store.option"),
        (lambda kernel: kernel.list("docs/", limit="many"), "store.option"),
        (lambda kernel: kernel.list("docs/", limit=-1), "store.option"),
        (lambda kernel: kernel.containers.create(HALF), "container.name"),
        (lambda kernel: kernel.containers.delete(7), "container.name"),
        (lambda kernel: kernel.put("docs/a", b"", metadata={"a": 1}), "object.metadata"),
        (lambda kernel: kernel.put("docs/a", b"", metadata={HALF: ""}), "object.metadata"),
        (lambda kernel: kernel.put("docs/a", b"", tags=5), "object.metadata"),
        (lambda kernel: kernel.put("docs/a", b"", content_type=5), "object.metadata"),
        (lambda kernel: kernel.put("docs/a", b"", if_match=5), "store.option"),
        (lambda kernel: kernel.put("docs/a", b"", if_absent="no"), "store.option"),
        (lambda kernel: kernel.put("docs/a", b"", timeout=[]), "unit.invalid"),
        (lambda kernel: kernel.pool.status(timeout=None), "unit.invalid"),
        (lambda kernel: kernel.pool.rebuild(5), "drive.url"),
        (lambda kernel: kernel.pool.replace("d1", 5), "drive.url"),
        (lambda kernel: kernel.pool.scrub(rate=1.5), "unit.invalid"),
        (lambda _: OPEN("x", read_only="no"), "store.option"),
        (lambda _: OPEN("x", geometry=5), "store.option"),
        (lambda _: OPEN("x", drives=[5]), "drive.url"),
        (lambda _: OPEN("x", drives=1.5), "store.option"),
        (lambda _: OPEN("x", drives=1 << 70), "store.option"),
        (lambda _: OPEN("x", timeout=[]), "unit.invalid"),
        (lambda _: OPEN("x", timeout=10**400), "unit.invalid"),
    ],
)
def test_arguments_of_the_wrong_type_are_invalid_and_say_what_they_should_be(
    kernel: dw.Kernel, use: Callable[[Any], object], code: str
) -> None:
    with pytest.raises(errors.Invalid) as caught:
        use(kernel)
    assert caught.value.code == code
    assert len(caught.value.correlation_id or "") == 32
    assert not kernel.list("docs").keys()


def test_every_error_has_a_correlation_id_also_those_of_closing(path: pathlib.Path) -> None:
    kernel = dw.open(path, drives=3, create=True)
    kernel.containers.create("docs")
    kernel.put("docs/a", b"x")
    reader = kernel.get("docs/a")
    reader.close()
    reading = threading.Event()

    class Slow:
        def read(self, _: int) -> bytes:
            reading.set()
            time.sleep(1)
            return b""

    writer = threading.Thread(target=lambda: kernel.put("docs/b", Slow()))  # type: ignore[arg-type]
    writer.start()
    reading.wait()
    uses: list[Callable[[], object]] = [
        lambda: kernel.close(timeout=0.01),
        reader.read,
        lambda: kernel.put("docs/a", pathlib.Path("/nonexistent")),
        lambda: kernel.head("docs/a"),
    ]
    ids = set()
    for use in uses:
        with pytest.raises(errors.DwError) as caught:
            use()
        assert len(caught.value.correlation_id or "") == 32, caught.value
        ids.add(caught.value.correlation_id)
    assert len(ids) == len(uses)
    writer.join()
    kernel.close()


def test_status_names_each_drive_by_its_identity(kernel: dw.Kernel) -> None:
    uuids = {drive.uuid for drive in kernel.pool.status().drives}
    assert len(uuids) == 3
    assert all(len(uuid) == 32 for uuid in uuids)


def test_many_verbs_of_asyncio_run_at_once(path: pathlib.Path) -> None:
    together = threading.Barrier(32)

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0:
                together.wait(timeout=20)
            return super().read(size)

    async def work() -> list[str]:
        async with dw.aio.open(path, drives=3, create=True) as kernel:
            await kernel.containers.create("docs")
            await asyncio.gather(*(kernel.put(f"docs/{n}", Slow(b"x" * 100)) for n in range(32)))
            return [entry.key async for entry in kernel.list("docs")]

    assert len(asyncio.run(work())) == 32
