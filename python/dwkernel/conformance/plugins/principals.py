"""The kind `principal_source`."""

from __future__ import annotations

from dwkernel.conformance.plugins.core import Cases, LeftOut, Subject, hold
from dwkernel.conformance.plugins.drives import together

__all__ = ["CASES"]

CASES = Cases("principal_source")
_STRANGERS: tuple[dict[str, str], ...] = (
    {},
    {"user": "nobody-conformance", "password": "wrong"},
    {"token": ""},
    {"token": "x" * 10_000},
    {"Ünïcode": "\u202e"},
)


@CASES.claim("Return principal, tenant and roles as text; roles are joined by commas.")
def who_is_known_is_said_in_full(subject: Subject) -> None:
    """Who shows the credentials of `conformance.toml` has a principal, a tenant and roles."""
    shown = dict(subject.samples.credentials)
    if not shown:
        raise LeftOut("credentials in conformance.toml show nobody")  # noqa: TRY003 - told
    with subject.running() as running, running.used() as it:
        found = it.authenticate(shown)
        hold(found is not None, "it does not know who shows these credentials")
        said = {name: found.get(name) for name in ("principal", "tenant", "roles")}
        hold(all(isinstance(text, str) for text in said.values()), f"it said {said}")
        hold(said["principal"], "it said no principal")


@CASES.claim("Return None for credentials that you don't know, whatever they are.")
def who_is_not_known_is_nobody(subject: Subject) -> None:
    """No, wrong and odd credentials are answered with None, and nothing is raised."""
    with subject.running() as running, running.used() as it:
        for shown in _STRANGERS:
            found = it.authenticate(shown)
            hold(found is None, f"{shown!r:.60} is {found!r:.80}")


@CASES.claim("Guard what threads share with a lock.")
def many_show_themselves_at_once(subject: Subject) -> None:
    """Eight threads ask at once, and each gets its own answer."""
    shown = dict(subject.samples.credentials)
    with subject.running() as running, running.used() as it:
        wanted = it.authenticate(shown)

        def work(number: int) -> None:
            for turn in range(50):
                if (number + turn) % 2:
                    hold(it.authenticate(dict(shown)) == wanted, "somebody is somebody else")
                else:
                    hold(it.authenticate(_STRANGERS[1]) is None, "a stranger is somebody")

        together(work)
