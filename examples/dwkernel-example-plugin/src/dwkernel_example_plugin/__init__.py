"""An example of a plugin of dwkernel."""

__version__ = "1.0.0"
