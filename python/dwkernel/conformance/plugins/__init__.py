"""What every plugin must do, and what plugins of each kind must.

A case is a claim with a name, and a sentence of what to do when it does not hold. The command
`dwkernel plugin test FOLDER` runs them all; with pytest:

    from dwkernel.conformance import plugins

    FOLDER = pathlib.Path(__file__).parents[1]


    @pytest.mark.parametrize("case", plugins.cases("drive"), ids=plugins.name_of)
    def test_my_drive(case: plugins.Case) -> None:
        plugins.run(case, FOLDER)

What only the author knows (configuration, URLs, a key's name) stands in `conformance.toml` beside
the plugin: see `Samples`. Cases grant what the manifest asks for, and run in this process unless
the manifest says `run = "confined"`: that is for what you do not trust.

>>> from dwkernel.conformance import plugins
>>> plugins.name_of(plugins.cases("codec")[-1])
'what_is_damaged_is_noticed_or_has_its_length'
"""

from __future__ import annotations

import importlib
import unittest
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.plugins.core import (
    CASE_LIMIT_S,
    Broken,
    Case,
    LeftOut,
    Result,
    Samples,
    Subject,
    result_of,
)
from dwkernel.plugins import kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "Broken",
    "Case",
    "LeftOut",
    "Result",
    "Samples",
    "Subject",
    "cases",
    "check",
    "name_of",
    "of",
    "result_of",
    "run",
]

_HERE = "dwkernel.conformance.plugins"
_ROOMS = {
    "drive": ("drives", "logs", "stores"),
    "policy": ("policies",),
    "codec": ("codecs",),
    "key_source": ("keys",),
    "authoriser": ("authorisers",),
    "principal_source": ("principals",),
    "sink": ("sinks",),
    "metrics_exporter": ("exporters",),
    "index_stage": ("indexes",),
    "search_provider": ("searches",),
    "ai_provider": ("models",),
    "door": ("doors",),
    "job": ("jobs",),
}


def cases(kind: str, *, life: bool = True) -> list[Case]:
    """Return the cases of a kind.

    Args:
        kind: by its name.
        life: with those that all plugins have in common, which come first.

    Raises:
        Invalid: `plugin.kind`: there is no such kind

    """
    kinds.protocol(kind)
    rooms = (*(("life",) if life else ()), *_ROOMS[kind])
    return [case for room in rooms for case in importlib.import_module(f"{_HERE}.{room}").CASES]


def name_of(case: Case) -> str:
    """Return what a case claims, as a name."""
    return case.name


def of(make: Callable[[], Any], kind: str, samples: Samples | None = None) -> Subject:
    """Return an object as a subject: `make` makes a new one for each case.

    What needs a plugin in a folder (its life, reloads) is left out.
    """
    return Subject(None, kind=kind, samples=samples, make=make)


def run(case: Case, subject: Subject | Path | str, *, limit_s: float = CASE_LIMIT_S) -> None:
    """Run a case, for pytest and unittest.

    Raises:
        Broken: an AssertionError: the claim does not hold; it says what to do
        SkipTest: it does not apply, and why

    """
    __tracebackhide__ = True  # pytest shows the test, and not this
    if not isinstance(subject, Subject):
        subject = Subject(subject, kind=None if case.kind == "any" else case.kind)
    result = result_of(case, subject, limit_s)
    if result.status == "failed":
        text = f"{result.says} But {result.text}. What to do: {result.advice}"
        raise Broken(text)
    if result.status == "left out":
        raise unittest.SkipTest(result.text)


def check(
    subject: Subject, *, life: bool = True, limit_s: float = CASE_LIMIT_S
) -> Iterator[Result]:
    """Run the cases of a subject's kind, one after the other, and say how each went."""
    for case in cases(subject.kind, life=life):
        yield result_of(case, subject, limit_s)
