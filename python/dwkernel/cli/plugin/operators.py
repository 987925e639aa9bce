"""`list`, `info`, `check`, `install`, `enable`, `disable`, `reload`: for those who run plugins."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel import errors
from dwkernel.cli import output
from dwkernel.cli.arguments import Json, all_utf8, utf8
from dwkernel.cli.output import Output
from dwkernel.cli.plugin.places import (
    Config,
    Folders,
    PluginId,
    Target,
    looked_at,
    one_of,
    section_of,
)
from dwkernel.reports import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.plugins import PluginInfo, Plugins
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.report import Check
    from dwkernel.plugins.resolve import Row

ConfigFile = Annotated[
    str,
    typer.Option(
        "--config",
        help="the TOML file that the program follows; it is made if it is not there",
        show_default=False,
        callback=utf8,
    ),
]


_Places = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FOLDER]...",
        help="folders of plugins, or of one each",
        show_default=False,
        callback=all_utf8,
    ),
]


def list_(
    places: _Places = None, folders: Folders = None, config: Config = None, as_json: Json = False
) -> None:
    """List plugins that are found.

    The kernel's own are among them; none is started.
    """
    out = Output(as_json=as_json)
    with (
        out.errors_told(),
        looked_at(config, [*(places or ()), *(folders or ())]) as plugins,
    ):
        found = plugins.list()
        wrong = plugins.check().wrong
        starting = {one.id: _starts(plugins, one) for one in found}
        if as_json:
            shown = [{**one.to_dict(), "starts": starting[one.id]} for one in found]
            out.done({"plugins": shown, "wrong": wrong})
            return
        _show_list(out, found, starting)
        for text in wrong.values():
            out.note(f"! {text}")
        _tell_empty(out, plugins)


# From so many columns on there is room for places; `info` has them, too.
_WIDE = 120


def _show_list(out: Output, found: list[PluginInfo], starting: dict[str, bool]) -> None:
    with_places = not out.console.is_terminal or out.console.width >= _WIDE
    rows = []
    for one in found:
        place = "" if one.source == "kernel" else one.place
        rows.append(
            (
                one.id,
                one.version,
                " ".join(one.kinds),
                "yes" if starting[one.id] else "",
                one.source,
                *((place,) if with_places else ()),
                one.summary,
            )
        )
    places = ("place",) if with_places else ()
    head = ("plugin", "version", "kinds", "starts", "from", *places, "")
    out.table(head, rows, set(), whole=range(5))


def _starts(plugins: Plugins, one: PluginInfo) -> bool:
    from dwkernel.plugins.fitting import starts  # noqa: PLC0415 - only here

    section = plugins.section
    return one.id not in section.disabled if one.source == "kernel" else starts(section, one.id)


def _tell_empty(out: Output, plugins: Plugins) -> None:
    """Name folders in which nothing was found: a word that is wrong leads there, too."""
    from dwkernel.plugins.discovery import discover  # noqa: PLC0415 - only here

    for folder in plugins.section.folders:
        found = discover([folder], ())
        if not found.plugins and not found.wrong:
            out.note(f"! {folder} holds no plugin: a plugin is a folder with a plugin.toml")


def info(
    target: Target, folders: Folders = None, config: Config = None, as_json: Json = False
) -> None:
    """Show what a plugin says of itself.

    What it needs, what it may do, and how it is configured.
    """
    from dwkernel.plugins.fitting import ungranted  # noqa: PLC0415 - help does without

    out = Output(as_json=as_json)
    with out.errors_told(), one_of(target, config, folders) as (plugins, plugin_id):
        told = plugins.info(plugin_id)
        said = _manifest(plugins, plugin_id)
        missing = ungranted(plugins.section, said)
        about = {**_about(told, said, missing), "starts": _starts(plugins, told)}
        if as_json:
            out.done(about)
            return
        out.lines(f"{told.id} {told.version} ({', '.join(told.kinds)})")
        if told.summary:
            out.lines(out.name(told.summary))
        rows = [(name, _shown(value)) for name, value in about.items() if name not in _FIRST]
        out.table(("", ""), [(name.replace("_", " "), text) for name, text in rows if text], set())


def _manifest(plugins: Plugins, plugin_id: str) -> Manifest:
    from dwkernel.plugins import builtin  # noqa: PLC0415 - only here
    from dwkernel.plugins.catalogue import Catalogue  # noqa: PLC0415 - as above

    own = {found.id: found.manifest for found, _ in builtin.builtins()}
    if plugin_id in own:
        return own[plugin_id]
    return Catalogue(lambda: plugins.section).newest(plugin_id).manifest


_FIRST = ("id", "version", "kinds", "summary", "config")


def _about(told: PluginInfo, said: Manifest, missing: list[str]) -> dict[str, Any]:
    return {
        "id": told.id,
        "version": told.version,
        "kinds": list(told.kinds),
        "summary": told.summary,
        "place": told.place,
        "source": told.source,
        "entry": said.entry,
        "kernel": str(said.kernel),
        "requires": {name: str(range_) for name, range_ in said.requires.items()},
        "capabilities": {kind: list(names) for kind, names in told.capabilities.items()},
        "runs": said.run,
        "asks_for": said.asks(),
        "not_granted": missing,
        "state_version": said.state_version,
        "keeps_state": said.keep_state,
        "options": _options(said),
        "config": dict(said.config),
    }


def _options(said: Manifest) -> dict[str, str]:
    """Return its options with their types, defaults and descriptions, for people."""
    if "model" in said.config:
        return {"model": f"{said.config['model']}, a pydantic model in the plugin"}
    found = {}
    for name, part in said.config.get("properties", {}).items():
        default = f" = {part['default']!r}" if "default" in part else ""
        default = ", required" if name in said.config.get("required", ()) else default
        found[name] = f"{part.get('type', 'any')}{default}. {part.get('description', '')}".strip()
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value in (0, False) else "yes" if value is True else str(value)


def check(
    places: _Places = None, folders: Folders = None, config: Config = None, as_json: Json = False
) -> None:
    """Check what each needs, and its manifest.

    With --config also what is enabled: whether it is there, and may do what it asks for. Exit
    status 1 if something is not met, or can't be used.
    """
    out = Output(as_json=as_json)
    with (
        out.errors_told(),
        looked_at(config, [*(places or ()), *(folders or ())]) as plugins,
    ):
        found = plugins.check()
        rows = [row for row in found.rows if not row.plugin.startswith("kernel.")]
        if as_json:
            shown = [row._asdict() for row in rows]
            out.done({"is_good": found.is_good, "rows": shown, "wrong": found.wrong})
        else:
            _show_check(out, rows, found)
            _tell_empty(out, plugins)
        if not found.is_good:
            raise typer.Exit(output.FAILED)


def _show_check(out: Output, rows: list[Row], found: Check) -> None:
    head = ("plugin", "version", "needs", "range", "there", "")
    cells = [
        (
            row.plugin,
            row.version,
            row.needs,
            row.range,
            row.found or "-",
            "met" if row.is_met else "missing" if row.found is None else "not met",
        )
        for row in rows
    ]
    if cells:
        out.table(head, cells, set(), whole={0, 1, 2, 4, 5})
    elif not found.wrong:
        out.note("no plugin is there: name folders, or a file with --config")
        return
    for where, text in found.wrong.items():
        # A place that its sentence does not name is told before it.
        out.lines(f"! {text}" if where in text else f"! {where}: {text}")
    unmet = sum(not row.is_met for row in rows)
    if unmet or found.wrong:
        wrong = f"{counted(unmet, 'need')} not met, {counted(len(found.wrong), 'plugin')} unusable"
        out.note(wrong)
    else:
        count = len({row.plugin for row in rows})
        out.note(f"{counted(count, 'plugin')}: everything is met")


def install(
    archive: Annotated[
        str,
        typer.Argument(metavar="ARCHIVE", help="a .zip or .tar.*", callback=utf8),
    ],
    folder: Annotated[
        str | None,
        typer.Option("--folder", "-f", help="the folder of plugins; else the first of --config's"),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Unpack a plugin into a folder.

    Its hash is written into plugins.lock there. A wheel is for pip: what that installs is found by
    itself.
    """
    from dwkernel.plugins.archive import install as unpack  # noqa: PLC0415 - only here

    out = Output(as_json=as_json)
    with out.errors_told():
        known = section_of(config, [folder] if folder is not None else None).folders
        if not known:
            raise typer.BadParameter("give --folder, or --config with plugins.folders")  # noqa: TRY003
        if archive.endswith(".whl"):
            text = f"{archive} is a wheel: pip installs it, and an installed plugin is found"
            raise typer.BadParameter(text)
        if Path(archive).is_dir():
            text = f"{archive} is a folder, and no archive: name it in plugins.folders"
            raise typer.BadParameter(text)
        target = Path(folder) if folder is not None else known[0]
        found = unpack(Path(archive), target)
        version = str(found.manifest.version)
        done = {"id": found.id, "version": version, "place": found.place}
        text = f"{found.id} {version} is in {found.place}"
        asked = found.manifest.asks()
        if asked:
            text += f"\nit asks for {', '.join(asked)}: plugins.grant gives that, or not"
        out.done({**done, "asks_for": asked}, text)


def enable(plugin_id: PluginId, config: ConfigFile, as_json: Json = False) -> None:
    """Enable a plugin in a file of settings."""
    _switch(plugin_id, config, enabled=True, as_json=as_json)


def disable(plugin_id: PluginId, config: ConfigFile, as_json: Json = False) -> None:
    """Disable a plugin in a file of settings.

    It does not start then, whoever asks for it.
    """
    _switch(plugin_id, config, enabled=False, as_json=as_json)


def _switch(plugin_id: str, config: str, *, enabled: bool, as_json: bool) -> None:
    from dwkernel.cli.plugin.settings import file_of, switch  # noqa: PLC0415 - only here
    from dwkernel.plugins.fitting import near  # noqa: PLC0415 - only here

    out = Output(as_json=as_json)
    with out.errors_told():
        path = file_of(config)
        # First: a file with something wrong in it is left alone.
        with looked_at(str(path) if path.exists() else None, None) as plugins:
            known = {"*", *(one.id for one in plugins.list())}
        changed = switch(path, plugin_id, enabled=enabled)
        word = "enabled" if enabled else "disabled"
        text = f"{plugin_id} is {word} in {path}" + ("" if changed else ", as it was")
        wrong = None
        if plugin_id not in known:
            wrong = f"{plugin_id} is neither in that file's plugins.folders nor installed"
            wrong += near(plugin_id, known)
        elif enabled:
            with looked_at(str(path), None) as plugins:
                wrong = plugins.check().wrong.get(plugin_id)
        done = {"id": plugin_id, "enabled": enabled, "changed": changed, "file": str(path)}
        out.done({**done, "wrong": wrong}, text)
        if wrong is not None:
            out.note(f"! {wrong}")


def _tell_place(out: Output, error: errors.DwError, place: Callable[[], Path]) -> None:
    """Name the line of the plugin, if an error came from one."""
    from dwkernel.conformance.plugins.where import failed_at  # noqa: PLC0415 - seldom
    from dwkernel.plugins import discovery  # noqa: PLC0415 - as above

    try:
        home = discovery.at(place()).home
    except errors.DwError:
        return  # installed, or gone
    text = failed_at(error, home).strip(" ()")
    if text:
        out.note(f"at {text}")


_HOW = (
    "A program that runs takes it over by kernel.plugins.reload({id!r}) in that program, or by "
    "itself when its files change if it has plugins.watch = true"
)


def reload(
    target: Target,
    source: Annotated[
        str | None,
        typer.Option("--from", help="the folder of the new version", show_default=False),
    ] = None,
    folders: Folders = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Try whether a new version takes over.

    All steps are gone through in this process: load, start, state, health, swap, unload. Without
    --config the plugin gets what its manifest asks for.
    """
    out = Output(as_json=as_json)
    with out.errors_told(), one_of(target, config, folders, grants=True) as (plugins, plugin_id):
        logging.getLogger("dwkernel.plugins").addHandler(logging.NullHandler())
        home = None
        try:
            plugins.load(plugin_id)
            # What an error is about is what was loaded last.
            home = None if source is None else Path(source)
            report = plugins.reload(plugin_id, source)
        except errors.DwError as error:
            _tell_place(out, error, lambda: home or Path(plugins.info(plugin_id).place))
            raise error.with_traceback(None) from None
        is_good = report.is_unloaded and not report.wrong
        how = _HOW.format(id=plugin_id)
        out.done({**report.to_dict(), "is_good": is_good, "how": how}, f"{report}\n{how}.")
        if not is_good:
            raise typer.Exit(output.FAILED)
