"""While a plugin is exchanged the interpreter changes threads more often, later as before."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import pytest

import plugin_maker
from dwkernel.plugins.giving_way import giving_way

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def now_ms() -> float:
    return round(sys.getswitchinterval() * 1000, 2)


def test_it_is_shorter_until_the_last_one_ends_whatever_happens() -> None:
    with giving_way():
        with contextlib.suppress(ZeroDivisionError), giving_way():
            assert now_ms() == 0.5
            _ = 1 / 0
        assert now_ms() == 0.5
    assert now_ms() == 5


def test_what_the_program_wants_stays() -> None:
    sys.setswitchinterval(0.0001)
    with giving_way():
        assert now_ms() == 0.1
    assert now_ms() == 0.1
    with giving_way():
        sys.setswitchinterval(0.002)
    assert now_ms() == 2


def test_a_reload_gives_way(tmp_path: Path) -> None:
    told = "import sys\nseen = round(sys.getswitchinterval() * 1000, 3)\n"
    with plugin_maker.plugins() as opened:
        home = plugin_maker.write(tmp_path / "p")
        opened.load(home)
        (home / "main.py").write_text(told + plugin_maker.POLICY + "\n    seen = seen\n")
        opened.reload("p")
        with opened.get("policy").use() as instance:
            assert instance.seen == 0.5
    assert now_ms() == 5
