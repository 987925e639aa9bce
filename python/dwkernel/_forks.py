"""Says to queues and buses that they are in a child that a fork made.

Threads that held their locks or slept in their lines are not there: so they are refused.
"""

from __future__ import annotations

import os

from dwkernel import _native

__all__: list[str] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_native.forked)
