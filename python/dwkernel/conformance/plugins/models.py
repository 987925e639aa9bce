"""The kind `ai_provider`. What a model answers is not judged, but what comes of the call is."""

from __future__ import annotations

import math

from dwkernel.conformance.plugins.core import Cases, Subject, hold
from dwkernel.conformance.plugins.drives import together

__all__ = ["CASES"]

CASES = Cases("ai_provider")
_TEXTS = ("hello", "", "Ünïcode 日本", "two words")


@CASES.claim("Yield str, a piece at a time; join(pieces) is the answer.")
def an_answer_comes_in_pieces_of_text(subject: Subject) -> None:
    """`complete` yields text, for any prompt, and comes to an end."""
    with subject.running() as running, running.used() as it:
        for prompt in _TEXTS:
            for piece in it.complete(prompt, dict(subject.samples.options)):
                hold(isinstance(piece, str), f"a piece is {type(piece).__name__}, not str")


@CASES.claim("Clean up in a finally of the generator: who has read enough leaves it.")
def an_answer_need_not_be_read_to_its_end(subject: Subject) -> None:
    """An answer that is left in the middle does not hinder the next."""
    with subject.running() as running, running.used() as it:
        for _ in range(3):
            answer = iter(it.complete("hello", dict(subject.samples.options)))
            next(answer, None)
            del answer
        list(it.complete("hello", dict(subject.samples.options)))


@CASES.claim("Return a vector of finite floats for each text, all of one length, in their order.")
def each_text_has_a_vector(subject: Subject) -> None:
    """`embed` returns vectors of one length, for each text one, the same for the same text."""
    with subject.running() as running, running.used() as it:
        hold(list(it.embed([])) == [], "for no text there is a vector")
        found = [list(vector) for vector in it.embed(list(_TEXTS))]
        hold(len(found) == len(_TEXTS), f"for {len(_TEXTS)} texts there are {len(found)} vectors")
        hold(len({len(vector) for vector in found}) == 1, "their lengths differ")
        is_good = all(math.isfinite(one) for vector in found for one in vector)
        hold(is_good and found[0], "they are empty, or hold what is no number")
        backwards = [list(vector) for vector in it.embed(list(reversed(_TEXTS)))]
        near = all(
            math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3)
            for one, other in zip(found, reversed(backwards), strict=True)
            for a, b in zip(one, other, strict=True)
        )
        hold(near, "they are not in the order of the texts")


@CASES.claim("Guard what threads share with a lock.")
def many_ask_at_once(subject: Subject) -> None:
    """Eight threads ask at once, and each gets vectors for its own texts."""
    with subject.running() as running, running.used() as it:

        def work(number: int) -> None:
            for _ in range(3):
                list(it.complete("hello", dict(subject.samples.options)))
                hold(len(list(it.embed(["x"] * (number + 1)))) == number + 1, "vectors are lost")

        together(work)
