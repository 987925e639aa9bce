"""What all plugins must do, whatever their kind: begin, rest, hand over, end, and leave nothing."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.conformance.plugins.core import Cases, LeftOut, Running, Subject, hold
from dwkernel.conformance.plugins.exercise import exercise
from dwkernel.plugins import effects
from dwkernel.plugins.manifest import API_VERSION
from dwkernel.plugins.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CASES"]

CASES = Cases("any")
_THREAD = "it left the thread"
_ALIVE = "still there"


@CASES.claim("Add what is missing to plugin.toml: docs/plugins.md has every field.")
def its_manifest_says_what_it_is(subject: Subject) -> None:
    """Its manifest has a summary for people, and capabilities where they are needed."""
    if subject.found is None:
        raise LeftOut("it is an object, and not a plugin in a folder")  # noqa: TRY003 - told
    said = subject.found.manifest
    hold(said.summary.strip(), "there is no summary in its manifest")
    hold(API_VERSION in said.kernel, f"it is for the API {said.kernel}, this is {API_VERSION}")
    for kind in {"drive", "principal_source"} & set(said.kinds):
        hold(said.capabilities.get(kind), f"it names no scheme under capabilities.{kind}")


@CASES.claim("Read the error: it says at which step and where, and mend that first.")
def it_loads_and_starts(subject: Subject) -> None:
    """It is imported and made, meets the kernel, starts, and says that it is well."""
    with subject.running(is_claim=True) as running:
        said = running.plugins.info(subject.id)
        hold(said.state == "started", f"it is {said.state}")


@CASES.claim("Make a new object each time, and keep nothing outside of the plugin's own modules.")
def two_of_it_run_side_by_side(subject: Subject) -> None:
    """A second one can be loaded beside the first, and shares no object and no class with it."""
    with subject.running() as first, subject.running(is_claim=True) as second:
        _ = first.plugins
        if subject.is_confined:
            return  # each has a process of its own
        with first.used() as one, second.used() as other:
            hold(one is not other, "both are one and the same object")
            hold(type(one) is not type(other), f"both are of one class, {type(one).__qualname__}")


@CASES.claim("Return from each method within plugins.limits, and raise in none of them.")
def it_goes_through_its_life_in_time(subject: Subject) -> None:
    """It pauses, resumes, works, drains and stops, each in time."""
    with subject.running() as running:
        plugins = running.plugins
        for _ in range(2):
            plugins.pause(subject.id)
            plugins.resume(subject.id)
        exercise(running)
        wrong = [text for text in running.end() if not text.startswith((_THREAD, _ALIVE))]
        hold(not wrong, "at its end: " + "; ".join(wrong))


@CASES.claim("Read at which step, and let the new version start while the old one still runs.")
def it_follows_itself_while_it_is_used(subject: Subject) -> None:
    """It can be reloaded, and works before and after."""
    with subject.running() as running:
        _used(running)
        report = running.reload()
        hold(not report.wrong, "; ".join(report.wrong))
        exercise(running)


@CASES.claim(
    "Return from export_state all that counts, as plain data; take all of it in import_state; "
    "leave out what changes by itself, such as times; count state_version from 1 on."
)
def its_state_comes_over_a_reload(subject: Subject) -> None:
    """What it exports after a reload is what it exported before."""
    with subject.running() as running:
        _used(running)
        with running.used() as it:
            if not hasattr(it, "export_state"):
                hold(not _version(subject), "its manifest has a state_version, and it no state")
                raise LeftOut("it has no state")  # noqa: TRY003 - told
            before = plain(it.export_state())
        del it
        hold(_version(subject), "it exports state, and its manifest has no state_version")
        report = running.reload()
        hold(report.state, "no state was carried over")
        with running.used() as it:
            after = plain(it.export_state())
        hold(after == before, f"it exported {before!r:.200}, and then {after!r:.200}")


def _used(running: Running) -> None:
    """Use it, so that it has something to show; whether that goes well is another case's."""
    try:
        exercise(running)
    except (Exception, SystemExit) as error:
        raise LeftOut("it fails when it is used") from error  # noqa: TRY003 - told


def _version(subject: Subject) -> int:
    return subject.found.manifest.state_version if subject.found else 0


@CASES.claim(
    "Undo in stop() what was registered elsewhere (atexit, logging, other libraries): the text "
    "says who holds the old version."
)
def nothing_is_left_of_an_old_version(subject: Subject) -> None:
    """After a reload no class and no module of the old version is alive."""
    with subject.running() as running:
        _used(running)
        report = running.reload()
        if report.leaked:
            raise LeftOut("threads of the old version still run")  # noqa: TRY003 - told
        hold(report.is_unloaded, "still there: " + "; ".join(report.alive))


@CASES.claim("End every thread in stop(), and wait for it with join().")
def no_thread_is_left(subject: Subject) -> None:
    """When it has stopped, none of its threads runs."""
    with subject.running() as running:
        _used(running)
        left = [text for text in running.end() if text.startswith(_THREAD)]
        hold(not left, "; ".join(left))


@CASES.claim(
    "Leave the process as it is: pass paths and environments on to what needs them, patch nothing."
)
def the_process_stays_as_it_was(subject: Subject) -> None:
    """Working directory, locale, environment, signals and others' functions stay as they were."""
    before = effects.look()
    told: list[str] = []
    try:
        with subject.running() as running:
            _used(running)
            _rest(running)
            told += running.plugins.info(subject.id).effects  # of its end, too
    finally:
        later = effects.put_back(before)
    hold(not told + later, "it did this: " + "; ".join(told + later))


def _rest(running: Running) -> None:
    """Take it through the steps in which it may do something to the process."""
    name = running.subject.id
    # Whether it does that well is another case's.
    with contextlib.suppress(errors.DwError):
        running.plugins.pause(name)
        running.plugins.resume(name)
    running.end()


@CASES.claim("Write with context.log(text) or the module logging; print goes into its log, too.")
def it_does_not_write_where_the_program_does(subject: Subject) -> None:
    """Nothing of it comes out at the program's standard output and error."""
    with subject.running() as running:
        _ = running.plugins
        with _listened() as heard:
            _used(running)
        hold(not heard.getvalue(), f"it wrote {heard.getvalue()!r:.200}")


@contextlib.contextmanager
def _listened() -> Iterator[io.StringIO]:
    heard = io.StringIO()
    own: tuple[Any, Any] = (sys.stdout, sys.stderr)
    sys.stdout = sys.stderr = heard
    try:
        yield heard
    finally:
        sys.stdout, sys.stderr = own
