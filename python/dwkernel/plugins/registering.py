"""Registers the section `plugins` of the configuration; loaded before the first model is made."""

from __future__ import annotations

from dwkernel.config.registry import register
from dwkernel.plugins.options import check
from dwkernel.plugins.settings import PluginsSection

__all__: list[str] = []

register("plugins", PluginsSection, check=check)
