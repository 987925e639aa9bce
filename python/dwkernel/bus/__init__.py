"""Topics in memory: publish, subscribe, ask.

Every kernel has a bus, `kernel.bus`; a program without a store makes its own:

>>> from dwkernel.bus import Bus
>>> with Bus() as bus:
...     echo = bus.subscribe("svc.echo", lambda message: message.data.upper())
...     bus.request("svc.echo", b"hello", timeout="5s").data
b'HELLO'

A subject is tokens joined by dots. In a pattern `*` stands for one token, a last `>` for one and
more. What a subscription can't take makes the publisher wait, unless its policy says otherwise.
Messages are in memory: what has not been handled when the process ends is gone.
"""

from dwkernel._native import Message
from dwkernel.bus.consumer import Consumer, ConsumerStatus, DeadLetter
from dwkernel.bus.outcome import Failure, Outcome, Published
from dwkernel.bus.settings import ConsumerSettings, StreamSettings
from dwkernel.bus.space import Bus
from dwkernel.bus.stream import Group, Routed, Stream, StreamStatus
from dwkernel.bus.subscription import Subscription, SubscriptionStats

__all__ = [
    "Bus",
    "Consumer",
    "ConsumerSettings",
    "ConsumerStatus",
    "DeadLetter",
    "Failure",
    "Group",
    "Message",
    "Outcome",
    "Published",
    "Routed",
    "Stream",
    "StreamSettings",
    "StreamStatus",
    "Subscription",
    "SubscriptionStats",
]
