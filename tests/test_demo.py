"""The demo, on a small tree."""

from __future__ import annotations

import html.parser
import os
import random
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import demo, errors, hashing
from dwkernel.demo import page as demo_page
from dwkernel.demo import shards, story, trees

if TYPE_CHECKING:
    from pathlib import Path

    from dwkernel.demo.shards import ShardMap


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    chance = random.Random(5)
    for number in range(60):
        file = tree / str(number % 7) / f"{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.choice([0, 50, 5000, 80_000, 700_000])))
    return tree


def digests(drive: Path) -> dict[Path, bytes]:
    return {at: hashing.blake3(at.read_bytes()) for at in (drive / "blobs").rglob("*.*")}


@dataclass
class Seen:
    """What really happened, beside what the demo says."""

    changed: int = 0
    status: int = 0
    acknowledged: int = 0
    killed: int = 0
    maps: list[tuple[str, ShardMap]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    what = Seen()
    flip, kill_a_writer, kill = shards.flip, story._kill_a_writer, os.kill
    render = demo_page.render

    def flipped(drive: Path, **options: Any) -> tuple[list[str], int]:
        before = digests(drive)
        told = flip(drive, **options)
        what.changed = sum(1 for at, was in digests(drive).items() if was != before[at])
        return told

    def killed(store: Path, seed: int) -> tuple[set[int], int]:
        acknowledged, what.status = kill_a_writer(store, seed)
        what.acknowledged = len(acknowledged)
        return acknowledged, what.status

    def counted_kill(pid: int, number: int) -> None:
        what.killed += number == signal.SIGKILL
        kill(pid, number)

    def rendered(told: demo.Story, maps: list[tuple[str, ShardMap]]) -> str:
        what.maps = maps
        return render(told, maps)

    monkeypatch.setattr(shards, "flip", flipped)
    monkeypatch.setattr(story, "_kill_a_writer", killed)
    monkeypatch.setattr(os, "kill", counted_kill)
    monkeypatch.setattr(demo_page, "render", rendered)
    return what


def test_the_demo_proves_what_it_claims_and_writes_its_page(
    tree: Path, tmp_path: Path, seen: Seen
) -> None:
    said: list[str] = []
    report = tmp_path / "report.html"
    told = demo.run(tmp_path / "store", sources=[tree], report=report, say=said.append)
    assert told.proved, "\n".join(said)
    assert told.files == 60
    assert len(told.proofs) == 8
    assert seen.changed > 0
    assert (seen.killed, seen.status) == (1, -signal.SIGKILL)
    assert seen.acknowledged >= 60
    maps = dict(seen.maps)
    assert {name for name, _ in maps["before"].cells} == set(maps["before"].drives)
    assert len(maps["during"].damaged) == seen.changed
    assert "d2" not in {name for name, _ in maps["during"].cells}
    assert {name for name, _ in maps["after"].cells} == set(maps["after"].drives)
    assert any("15 pairs, all 60 files with each, 0 wrong" in proof.text for proof in told.proofs)
    assert sum(rest for _, _, rest in told.capacity) > 0
    check_page(report.read_text(encoding="utf-8"), told)


def check_page(page: str, told: demo.Story) -> None:
    assert page.count("<svg") == 5
    assert page.count('fill="var(--bad)"') > 0
    stored = sum(shard + rest for _, shard, rest in told.capacity)
    assert f"{stored / told.bytes:.2f} times as much" in page
    checker = _Balanced()
    checker.feed(page)
    assert checker.open == []
    assert told.to_dict()["proved"] is True
    assert str(told).splitlines() == ["8 of 8 claims proved", f"report: {told.report}"]


def test_the_demo_proves_nothing_when_nothing_was_harmed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "flip", lambda *_, **__: ([], 0))
    monkeypatch.setattr(story, "_kill_a_writer", lambda *_: ({1}, 0))
    report = tmp_path / "report.html"
    told = demo.run(tmp_path / "store", sources=[tree], report=report, say=lambda _: None)
    assert not told.proved
    wrong = [proof.claim for proof in told.proofs if not proof.held]
    assert len(wrong) == 3
    assert "NOT TRUE: every file reads bit for bit with one drive gone" in str(told)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limit": "nonsense"}, errors.Invalid),
        ({"sources": ["nowhere"]}, errors.Invalid),
        ({"sources": ["bare"]}, errors.Invalid),
        ({"limit": "0"}, errors.Invalid),
        ({"report": "nowhere/report.html"}, FileNotFoundError),
        ({"report": "bare"}, IsADirectoryError),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    tree: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    (tmp_path / "bare").mkdir()
    asked: dict[str, Any] = {"sources": [tree], "report": tmp_path / "report.html", **options}
    asked["sources"] = [tmp_path / source for source in asked["sources"]]
    asked["report"] = tmp_path / asked["report"]
    with pytest.raises(error):
        demo.run(tmp_path / "store", say=lambda _: None, **asked)
    assert not (tmp_path / "store").exists()


def test_what_is_left_out_is_counted_and_said(tree: Path) -> None:
    (tree / "link").symlink_to("0/0.bin")
    os.mkfifo(tree / "pipe")
    (tree / os.fsdecode(b"\xff")).write_bytes(b"x")
    found = trees.collect([tree], 500_000)
    assert found.left_out["neither file nor directory, or a link"] == 2
    assert found.left_out["with a name that is not UTF-8"] == 1
    beyond = found.left_out["beyond the limit or the room"]
    assert beyond > 0
    assert len(found.files) + beyond == 60
    (tree / "0" / "0.bin").chmod(0)
    if not os.access(tree / "0" / "0.bin", os.R_OK):
        assert trees.collect([tree], None).left_out["unreadable"] == 1


class _Balanced(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_demo_touches_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(errors.Exists):
        demo.run(tmp_path, sources=[tmp_path], report=tmp_path / "r.html", say=lambda _: None)
    assert (tmp_path / "precious").read_text() == "mine"


def test_digests_of_long_files_are_those_of_their_stream(tmp_path: Path) -> None:
    for size in [0, 1, 4 << 20, (4 << 20) + 1, 9 << 20]:
        file = tmp_path / "file"
        file.write_bytes(random.Random(size).randbytes(size))
        [found] = trees.collect([tmp_path], None).files
        assert found.digest == trees.digest_of(file)
