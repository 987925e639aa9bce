"""Sinks: they carry the messages of a durable stream to somewhere else.

`attach(stream, sink, name=…)` returns a `Pump` that sends what is in the stream and what comes,
tries again what failed, and remembers across restarts what was delivered. Sinks are `Webhook`,
`Files`, `Forward` (into another stream), `Call` (any function), and classes of your own.

>>> from dwkernel import sinks
>>> sinks.verify("whsec_" + "A" * 32, {}, b"unsigned")
False
"""

import importlib
from typing import TYPE_CHECKING

from dwkernel.sinks.outcome import Outcome
from dwkernel.sinks.pump import Pump, attach
from dwkernel.sinks.sink import Sink
from dwkernel.sinks.status import PumpStatus

if TYPE_CHECKING:
    from dwkernel.sinks.call import Call
    from dwkernel.sinks.files import Files
    from dwkernel.sinks.forward import Forward
    from dwkernel.sinks.signing import verify
    from dwkernel.sinks.webhook import Webhook

# Each sink is loaded when it is used: a webhook needs more than a file does.
_LAZY = {
    "Call": "dwkernel.sinks.call",
    "Files": "dwkernel.sinks.files",
    "Forward": "dwkernel.sinks.forward",
    "Webhook": "dwkernel.sinks.webhook",
    "verify": "dwkernel.sinks.signing",
}

__all__ = [
    "Call",
    "Files",
    "Forward",
    "Outcome",
    "Pump",
    "PumpStatus",
    "Sink",
    "Webhook",
    "attach",
    "verify",
]


def __getattr__(name: str) -> object:
    """Load what `name` means and keep it (PEP 562)."""
    try:
        module = importlib.import_module(_LAZY[name])
    except KeyError:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message) from None
    value: object = getattr(module, name)
    globals()[name] = value
    return value
