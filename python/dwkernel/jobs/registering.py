"""Registers the section `jobs` of the configuration; loaded before the first model is made."""

from __future__ import annotations

from dwkernel.config.registry import register
from dwkernel.jobs.settings import JobsSection

__all__: list[str] = []

register("jobs", JobsSection)
