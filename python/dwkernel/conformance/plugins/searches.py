"""The kind `search_provider`."""

from __future__ import annotations

from dwkernel.conformance.plugins.core import Cases, LeftOut, Subject, hold
from dwkernel.conformance.plugins.drives import together

__all__ = ["CASES"]

CASES = Cases("search_provider")
_QUERIES = ("", " ", "words", '"', "a AND (", "*", "Ünïcode 日本", "x" * 10_000, "\x00", "-- ;")


@CASES.claim("Answer any text: a query that means nothing has no hits, and is no error.")
def any_query_is_answered(subject: Subject) -> None:
    """Odd queries have hits or none; a hit has a key and a score."""
    with subject.running() as running, running.used() as it:
        for query in (*_QUERIES, subject.samples.query):
            for hit in it.search(query, 10, ""):
                key, score = hit.get("key"), hit.get("score")
                is_good = isinstance(key, str) and isinstance(score, int | float)
                hold(is_good, f"for {query!r:.40} there is the hit {dict(hit)!r:.100}")


@CASES.claim("Sort hits by score, the highest first, and return `limit` at most.")
def the_best_hits_come_first_and_no_more_than_asked_for(subject: Subject) -> None:
    """Hits are by score, and not more than the limit; fewer are the first of more."""
    if not subject.samples.query:
        raise LeftOut("query in conformance.toml names nothing that it finds")  # noqa: TRY003 - told
    with subject.running() as running, running.used() as it:
        everything = list(it.search(subject.samples.query, 100, ""))
        hold(everything, f"it finds nothing for {subject.samples.query!r}")
        scores = [hit["score"] for hit in everything]
        hold(scores == sorted(scores, reverse=True), f"the scores are {scores[:10]}")
        for limit in (0, 1, 2):
            found = len(list(it.search(subject.samples.query, limit, "")))
            hold(found == min(limit, len(everything)), f"with the limit {limit} it found {found}")


@CASES.claim("Guard what threads share with a lock.")
def many_search_at_once(subject: Subject) -> None:
    """Eight threads search at once, and each finds what it asked for."""
    with subject.running() as running, running.used() as it:
        wanted = {query: len(list(it.search(query, 5, ""))) for query in _QUERIES}

        def work(number: int) -> None:
            for turn in range(20):
                query = _QUERIES[(number + turn) % len(_QUERIES)]
                hold(len(list(it.search(query, 5, ""))) == wanted[query], "hits are mixed")

        together(work)
