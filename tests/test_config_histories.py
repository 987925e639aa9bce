"""Random histories of changes, with subscribers that refuse, raise and hang."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwkernel import config, errors
from expect import PATIENCE_S, until

_BEHAVIOURS = st.sampled_from(["ok"] * 6 + ["refuse", "raise", "hang in prepare", "hang"])
_STEP = st.tuples(
    st.sampled_from(["set", "set", "set", "rollback", "reload", "subscribe", "unsubscribe"]),
    st.integers(1, 3),
    st.sampled_from(["limits.rate", "limits.burst"]),
    st.lists(_BEHAVIOURS, min_size=4, max_size=4),
)


class Model:
    """A subscriber whose last word must always be what counts."""

    def __init__(self, made: config.Configuration, path: str) -> None:
        self.path = path
        self.value = self.now(made)
        self.mood = "ok"
        # What it raises would be a refusal like any other: so it is noted.
        self.surprises: list[tuple[Any, Any]] = []
        self.release = threading.Event()
        self.stop = made.on_change(path, self.hear, self.ask)

    def now(self, made: config.Configuration) -> Any:
        return getattr(made.current.limits, self.path.split(".")[1])

    def ask(self, old: Any, new: Any) -> None:
        if old != self.value or new == old:
            self.surprises.append((old, new))
        if self.mood == "refuse":
            raise ValueError
        if self.mood == "hang in prepare":
            self.release.wait(PATIENCE_S)

    def hear(self, old: Any, new: Any) -> None:
        if old != self.value or new == old:
            self.surprises.append((old, new))
        self.value = new
        mood, self.mood = self.mood, "ok"
        if mood == "raise":
            raise RuntimeError
        if mood == "hang":
            self.release.wait(PATIENCE_S)


def step(made: config.Configuration, subscribers: list[Model], what: str, value: Any) -> None:
    """Do one thing."""
    number, path = value
    if what == "set":
        made.set({path: number})
    elif what == "rollback":
        made.rollback()
    elif what == "reload":
        made.reload()
    elif what == "subscribe" and len(subscribers) < 4:
        subscribers.append(Model(made, path))
    elif what == "unsubscribe" and subscribers:
        subscribers.pop(number % len(subscribers)).stop()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEP, max_size=12))
def test_what_everybody_was_told_last_is_always_what_counts(steps: list[Any]) -> None:
    with config.Configuration(values={}, environment={}, timeout="30ms") as made:
        subscribers: list[Model] = []
        refusals: list[bool] = []
        for what, number, path, moods in steps:
            for one, mood in zip(subscribers, moods, strict=False):
                one.mood, one.release = mood, threading.Event()
            before = made.current
            try:
                step(made, subscribers, what, (number, path))
            except (errors.Conflict, errors.Timeout, errors.NotFound):
                refusals.append(made.current is before)
            for one in subscribers:
                one.release.set()
            until(lambda: not made.status().stuck)
            for one in subscribers:
                one.mood = "ok"
                assert one.value == one.now(made)
                assert not one.surprises
        assert all(refusals)
        assert made.version == made.history()[-1].version
