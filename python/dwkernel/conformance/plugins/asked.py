"""What policies and authorisers have in common: a verdict for each request."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dwkernel.conformance.plugins import fake
from dwkernel.conformance.plugins.core import Cases, LeftOut, Subject, hold
from dwkernel.conformance.plugins.drives import together
from dwkernel.plugins.kinds.policy import Request, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["verdicts_of"]

_SIZES = (0, 1, 2, 7, 256)
_BATCH_LIMIT_S = 0.1
_TURNS = 5


def verdicts_of(kind: str, method: str) -> Cases:  # noqa: C901 - five cases
    """Return the cases of a kind that gives verdicts."""
    cases = Cases(kind)

    @cases.claim("Return a list with one Verdict for each request, also of none and of 256.")
    def each_request_has_a_verdict(subject: Subject) -> None:
        """Batches of any size are answered, a verdict for each request."""
        with _asking(subject, method) as ask:
            for size in _SIZES:
                ask(fake.requests(size, seed=size))

    @cases.claim("Take any text: keys, principals and tenants may be empty or long, in any script.")
    def any_request_has_a_verdict(subject: Subject) -> None:
        """Whatever a request says, it is answered; notes are text by name."""
        with _asking(subject, method) as ask:
            answers = [one for seed in range(20) for one in ask(fake.requests(50, seed=seed))]
        for one in answers:
            notes = dict(one.annotations)
            is_text = all(isinstance(text, str) for pair in notes.items() for text in pair)
            hold(is_text, f"its notes are {notes!r:.100}")
            hold(one.kind in ("allow", "refuse"), f"its kind is {one.kind!r}")

    @cases.claim("Give the verdicts in the order of the requests.")
    def verdicts_are_in_the_order_of_requests(subject: Subject) -> None:
        """A request has the same verdict in a batch as alone, if it has the same twice."""
        given = fake.requests(40, seed=3)
        with _asking(subject, method) as ask:
            alone = [ask([one])[0] for one in given]
            batch, again = ask(given), [ask([one])[0] for one in given]
        if alone != again:
            raise LeftOut("it does not say the same twice")  # noqa: TRY003 - told
        hold(batch == alone, "in a batch it said something else")

    @cases.claim("Look things up in memory; do what takes longer on a thread of your own.")
    def a_batch_is_answered_at_once(subject: Subject) -> None:
        """256 requests are answered within 100 ms, in the best of five turns."""
        given = fake.requests(256, seed=4)
        with subject.running() as running, running.used() as it:
            took = []
            for _ in range(_TURNS):
                began = time.perf_counter()
                getattr(it, method)(given)
                took.append(time.perf_counter() - began)
        hold(min(took) <= _BATCH_LIMIT_S, f"it took {min(took) * 1000:.0f} ms")

    @cases.claim("Guard what threads share with a lock.")
    def many_threads_ask_at_once(subject: Subject) -> None:
        """Eight threads ask at once, and each gets its own answers."""
        with subject.running() as running, running.used() as it:

            def work(number: int) -> None:
                for turn in range(20):
                    given = fake.requests(number + turn, seed=number)
                    hold(len(list(getattr(it, method)(given))) == len(given), "answers are lost")

            together(work)

    return cases


@contextlib.contextmanager
def _asking(
    subject: Subject, method: str
) -> Iterator[Callable[[Sequence[Request]], list[Verdict]]]:
    """Let requests be asked, and hold the answers to their number and class."""
    with subject.running() as running, running.used() as it:

        def ask(given: Sequence[Request]) -> list[Verdict]:
            answers = list(getattr(it, method)(given))
            hold(len(answers) == len(given), f"it answered {len(answers)} of {len(given)} requests")
            wrong = [one for one in answers if not isinstance(one, Verdict)]
            hold(not wrong, f"{wrong[:1]!r:.100} is no Verdict")
            return answers

        yield ask
