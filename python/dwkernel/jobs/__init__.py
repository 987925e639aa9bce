"""Jobs: work that outlives the process, `kernel.jobs`.

Overview. A job is a row in the store itself: what is to be done, by which kind, how far it is, and
what came out. Threads of whoever has the store open run what waits. A process that ends, however,
leaves its jobs where they were, and the next opening goes on from their checkpoints.

How to use. `kernel.jobs.submit("scrub")` returns a `Job`; `register` adds a kind of one's own, an
object with `name`, `validate` and `run` (see `JobKind`).

>>> from dwkernel._records import MemoryRecords
>>> class Sum:
...     name = "sum"
...
...     def validate(self, options):
...         return {"numbers": [int(number) for number in options["numbers"]]}
...
...     def run(self, context):
...         return sum(context.options["numbers"])
>>> jobs = Jobs(MemoryRecords())
>>> _ = jobs.register(Sum())
>>> jobs.submit("sum", {"numbers": [1, 2, 3]}).wait(timeout="1min")
6
>>> jobs.close()

Consistency. Every change of a job's state is one commit with compare-and-set: of two that race,
such as the end and a cancellation, one counts. A job runs in one thread of one opening at a time,
and one that has ended never runs again. What a run does between two checkpoints may be done twice.

Retries. An attempt that raises is followed by another one after a wait, up to `max_attempts`. A
process that dies is no attempt; after ten in a row, with no checkpoint in between, a job has
failed.

Cancellation. A job looks at `context.check()`: cancelling, pausing, closing, and the end of its
time come that way. One that does not look in time is left alone, and named.
"""

import logging

from dwkernel.jobs.context import JobContext, JobProgress, Stop
from dwkernel.jobs.job import Job
from dwkernel.jobs.jobs import Jobs
from dwkernel.jobs.kinds import JobKind
from dwkernel.jobs.record import Submitter
from dwkernel.jobs.schedule import Schedule
from dwkernel.jobs.settings import JobsSection, ScheduleSection

__all__ = [
    "Job",
    "JobContext",
    "JobKind",
    "JobProgress",
    "Jobs",
    "JobsSection",
    "Schedule",
    "ScheduleSection",
    "Stop",
    "Submitter",
]

# Programs that set up logging hear of what goes wrong; others are told by the jobs themselves.
logging.getLogger("dwkernel.jobs").addHandler(logging.NullHandler())
