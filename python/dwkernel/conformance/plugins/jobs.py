"""The kind `job`."""

from __future__ import annotations

import re
from typing import Any

from dwkernel import errors
from dwkernel.conformance.plugins import fake
from dwkernel.conformance.plugins.core import Broken, Cases, LeftOut, Subject, hold
from dwkernel.jobs.record import OPTIONS_BYTES_MAX, RESULT_BYTES_MAX, plain_data
from dwkernel.plugins.watchdog import said
from dwkernel.reports import plain

__all__ = ["CASES"]

CASES = Cases("job")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_WRONG: tuple[dict[str, Any], ...] = ({"no-such-option-conformance": 1},)


def _kept(value: object, what: str, bytes_max: int) -> Any:
    """Return what comes back from the store."""
    try:
        return plain_data(value, what, bytes_max)
    except errors.Invalid as error:
        raise Broken(said(error)) from error


@CASES.claim("Give it a name of 1 to 64 of a-z, 0-9, '.', '-' and '_'.")
def it_can_be_submitted_by_its_name(subject: Subject) -> None:
    """Its name is 1 to 64 of `a-z 0-9 . - _`."""
    with subject.running() as running, running.used() as it:
        hold(isinstance(it.name, str) and _NAME.fullmatch(it.name), f"its name is {it.name!r}")


@CASES.claim(
    "Return all options with their defaults as JSON has them, and take them back unchanged."
)
def options_are_filled_in_once(subject: Subject) -> None:
    """`validate` returns plain options, and the same ones when it gets these."""
    with subject.running() as running, running.used() as it:
        given = dict(subject.samples.options)
        options = _kept(dict(it.validate(given)), "options", OPTIONS_BYTES_MAX)
        hold(given == dict(subject.samples.options), "validate changed what it was given")
        again = _kept(dict(it.validate(options)), "options", OPTIONS_BYTES_MAX)
        hold(again == options, f"{options!r:.100} became {again!r:.100}")


@CASES.claim("Raise errors.new('job.option', …), or a ValueError, for options that you don't know.")
def options_that_it_does_not_know_are_refused(subject: Subject) -> None:
    """An unknown option is refused before the job begins."""
    with subject.running() as running, running.used() as it:
        for wrong in _WRONG:
            try:
                it.validate({**subject.samples.options, **wrong})
            except ValueError as error:
                code = getattr(error, "code", "job.option")
                is_good = not isinstance(error, errors.DwError) or code == "job.option"
                hold(is_good, f"it was refused with {code}, and not with job.option")
                continue
            raise Broken(f"the options {wrong} were taken")  # noqa: EM102, TRY003 - told


@CASES.claim("Return what JSON can hold from run, 16 KiB at most, and save 20 KiB at most of it.")
def it_runs_to_its_end(subject: Subject) -> None:
    """With the options of `conformance.toml` it ends; result and checkpoints can be kept."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        context = fake.JobContext(it.validate(dict(subject.samples.options)), kernel=kernel)
        result = it.run(context)
        _kept(plain(result), "the result", RESULT_BYTES_MAX)
        for done, total in context.told:
            hold(total is None or 0 <= done <= total, f"it said {done} of {total}")


@CASES.claim("Call context.check() in every loop, outside of `except BaseException`.")
def it_ends_when_it_is_told_to(subject: Subject) -> None:
    """A job that is cancelled at its first look at `check` or `should_stop` ends there."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        context = fake.JobContext(
            it.validate(dict(subject.samples.options)), kernel=kernel, stop_after=0
        )
        try:
            it.run(context)
        except fake.Stopped:
            hold(context.looks == 1, "it went on after it was told to end")
            return
        hold(context.looks, "it never looks whether it is to end")
        hold(context.looks == 1, "it went on after it was told to end")


@CASES.claim("Begin at context.checkpoint if there is one, and save one as the work goes on.")
def it_goes_on_where_it_was(subject: Subject) -> None:
    """A job that was stopped goes on from its checkpoint, and comes to the same result."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        options = it.validate(dict(subject.samples.options))
        whole = fake.JobContext(options, kernel=kernel)
        wanted = it.run(whole)
        if len(whole.saved) < 2:  # noqa: PLR2004 - one in the middle and one more
            raise LeftOut("it saves no checkpoint in the middle")  # noqa: TRY003 - told
        later = fake.JobContext(options, whole.saved[len(whole.saved) // 2 - 1], kernel=kernel)
        found = it.run(later)
        hold(found == wanted, f"it came to {found!r:.100}, and not to {wanted!r:.100}")
        hold(len(later.saved) < len(whole.saved), "it began anew")
