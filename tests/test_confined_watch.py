"""When a confined plugin has used enough; without a process."""

from __future__ import annotations

import os

from dwkernel.plugins.confined import Limits
from dwkernel.plugins.confined.line import Call
from dwkernel.plugins.confined.watch import Usage, Watch, usage

LIMITS = Limits(cpu_s=1.0, wall_s=10.0, memory_bytes=100 << 20, processes=10)
FREE = Usage(0.0, 1 << 20, 5)


def call(number: int, started: float = 0.0) -> Call:
    return Call(number, f"m{number}", started, started + LIMITS.wall_s)


def test_calls_at_once_share_what_is_used() -> None:
    watch, calls = Watch(LIMITS), [call(1), call(2)]
    assert watch.judge(0.0, FREE, calls) == ("", None)
    assert watch.judge(1.0, FREE._replace(cpu_s=1.9), calls) == ("", None)
    reason, culprit = watch.judge(2.0, FREE._replace(cpu_s=2.1), calls)
    assert culprit is calls[0]
    assert "more than 1.0 s of processors" in reason


def test_what_was_used_before_a_call_is_not_its_fault() -> None:
    watch = Watch(LIMITS)
    watch.judge(0.0, FREE, [])
    watch.judge(3.0, FREE._replace(cpu_s=0.9), [])
    late = call(1, 3.0)
    assert watch.judge(4.0, FREE._replace(cpu_s=1.8), [late]) == ("", None)
    assert late.cpu_s < 1.0


def test_between_calls_a_quarter_of_a_processor_may_be_used_for_ever() -> None:
    watch = Watch(LIMITS)
    for second in range(1000):
        assert watch.judge(second, FREE._replace(cpu_s=second * 0.24), []) == ("", None)
    watch = Watch(LIMITS)
    reasons = [watch.judge(n, FREE._replace(cpu_s=n * 0.5), [])[0] for n in range(10)]
    assert "without a call" in reasons[-1]


def test_time_memory_and_tasks_have_their_limits() -> None:
    watch, slow = Watch(LIMITS), call(1)
    assert watch.judge(10.0, FREE, [slow]) == ("", None)
    assert watch.judge(10.1, FREE, [slow])[1] is slow
    watch = Watch(LIMITS)
    assert "memory" in watch.judge(0.0, FREE._replace(rss_bytes=101 << 20), [])[0]
    assert "threads" in watch.judge(0.0, FREE._replace(tasks=11), [])[0]


def test_a_process_is_measured_and_one_that_is_gone_uses_nothing() -> None:
    mine = usage(os.getpid(), group=False)
    assert mine.rss_bytes > 1 << 20
    assert mine.tasks >= 1
    assert usage(os.getpgrp(), group=True).tasks >= 0
    assert usage(2**22 + 1, group=False) == Usage(0, 0, 0)
