"""Plugins that nobody trusts, each in a process of its own, which cannot do harm.

    process = confined.start(confined.Spec("thumbs", folder, "thumbs:Plugin"))
    process.call("render", b"...")

Such a process has its own interpreter, sees the standard library, its own files and a scratch
folder, and of everything else what `Permissions` name; Landlock and seccomp hold it to that, and
`Limits` to its share. It can be ended at any time, and nothing else ends with it.
docs/decisions/0016-confinement.md says how and why.
"""

from dwkernel.plugins.confined.process import Process, start
from dwkernel.plugins.confined.spec import Limits, Permissions, Spec
from dwkernel.plugins.confined.status import Confinement, Event, Status
from dwkernel.plugins.confined.supervisor import Supervisor

__all__ = [
    "Confinement",
    "Event",
    "Limits",
    "Permissions",
    "Process",
    "Spec",
    "Status",
    "Supervisor",
    "start",
]
