"""What a confined plugin may ask of its kernel; the only part of dwkernel that is inside with it.

A plugin needs none of it: its methods are called, and what they return goes back. For the rest:

    from dwkernel_inside import cancelled, emit, log

Everything here works from any thread of the plugin, and does nothing where no kernel listens.
"""

from .host import cancelled, emit, log

__all__ = ["cancelled", "emit", "log"]
