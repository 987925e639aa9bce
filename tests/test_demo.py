"""The demo, on a small tree."""

from __future__ import annotations

import html.parser
import random
from typing import TYPE_CHECKING

import pytest

from dwkernel import demo, errors
from dwkernel.demo import trees

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demo_proves_what_it_claims_and_writes_its_page(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    chance = random.Random(5)
    for number in range(60):
        file = tree / str(number % 7) / f"{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.choice([0, 50, 5000, 80_000, 700_000])))
    said: list[str] = []
    report = tmp_path / "report.html"
    story = demo.run(tmp_path / "store", sources=[tree], report=report, say=said.append)
    assert story.proved, "\n".join(said)
    assert story.files == 60
    assert len(story.proofs) == 7
    page = report.read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    checker = _Balanced()
    checker.feed(page)
    assert checker.open == []
    assert story.to_dict()["proved"] is True


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
        [found] = trees.collect([tmp_path], None)
        assert found.digest == trees.digest_of(file)
