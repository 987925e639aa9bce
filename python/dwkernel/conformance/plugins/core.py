"""Cases, and what they are run against."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dwkernel import errors
from dwkernel.config.values import Table
from dwkernel.conformance.plugins import where
from dwkernel.conformance.plugins.samples import Samples, samples_in
from dwkernel.plugins import discovery, effects, kinds
from dwkernel.plugins.manager import Plugins
from dwkernel.plugins.settings import LimitsSection, PluginsSection
from dwkernel.plugins.watchdog import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.reload import ReloadReport
    from dwkernel.plugins.swap import Slot

__all__ = [
    "Broken",
    "Case",
    "Cases",
    "LeftOut",
    "Result",
    "Running",
    "Samples",
    "Subject",
    "hold",
    "refused",
]

# Longer than any case needs on a busy machine; only what hangs takes as long.
CASE_LIMIT_S = 60.0
# Ending well is a case of its own.
_CLOSE_S = 1.0


class Broken(AssertionError):
    """A claim does not hold; `advice` is what to do about it, if that is not the case's."""

    def __init__(self, text: str, advice: str = "") -> None:
        """Say what is wrong."""
        super().__init__(text)
        self.advice = advice


class LeftOut(Exception):
    """A case says nothing about this plugin, and why."""


def hold(is_so: object, otherwise: str) -> None:
    """Raise `Broken` with a sentence unless something is so."""
    if not is_so:
        raise Broken(otherwise)


def refused(call: Callable[[], object], code: str, what: str) -> errors.DwError:
    """Return the error that a call raises; raise `Broken` if it has another code, or none is."""
    try:
        answer = call()
    except errors.DwError as error:
        hold(error.code == code, f"{what} raised {error.code}, and not {code}")
        return error
    except Exception as error:
        text = f"{what} raised {type(error).__name__} ({error}), and not dwkernel's {code}"
        raise Broken(text) from error
    text = f"{what} returned {answer!r:.80}, and did not raise {code}"
    raise Broken(text)


class Case(NamedTuple):
    """A claim about all plugins of a kind.

    Attributes:
        kind: the kind; `"any"` for what all plugins have to do.
        name: the claim as a name.
        says: the claim as a sentence.
        advice: what to do when it fails.
        run: raises `Broken` if the claim does not hold, `LeftOut` if it does not apply.

    """

    kind: str
    name: str
    says: str
    advice: str
    run: Callable[[Subject], None]


class Cases(list[Case]):
    """The cases of a kind, gathered by decorating functions."""

    def __init__(self, kind: str) -> None:
        """Begin with none."""
        super().__init__()
        self._kind = kind

    def claim(self, advice: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """Take a function as a case: its name and its first line are the claim."""

        def take(run: Callable[[Any], None]) -> Callable[[Any], None]:
            says = (run.__doc__ or "").strip().split("\n")[0]
            self.append(Case(self._kind, run.__name__, says, advice, run))
            return run

        return take


@dataclass(frozen=True)
class Result:
    """How a case went.

    Attributes:
        kind: the case's kind.
        name: the claim.
        says: the claim as a sentence.
        status: `"passed"`, `"failed"` or `"left out"`.
        text: what was wrong, or why it was left out.
        advice: what to do about it; empty unless it failed.
        seconds: how long it took.

    """

    kind: str
    name: str
    says: str
    status: Literal["passed", "failed", "left out"]
    text: str = ""
    advice: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)


class Running:
    """A plugin that runs, for one case."""

    def __init__(
        self, subject: Subject, slot: Slot[Any] | None, made: Any, plugins: Plugins | None
    ) -> None:
        """Made by `Subject.running`."""
        self.subject = subject
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._slot = slot
        self._made = made
        self._plugins = plugins

    @property
    def plugins(self) -> Plugins:
        """What manages it; raises `LeftOut` for an object that is no plugin's."""
        if self._plugins is None:
            raise LeftOut("it is an object, and not a plugin in a folder")  # noqa: TRY003 - told
        return self._plugins

    @contextlib.contextmanager
    def used(self) -> Iterator[Any]:
        """Use what the plugin is; nothing of it may be kept."""
        if self._slot is None:
            yield self._made
            return
        with self._slot.use() as instance:
            yield instance

    def reload(self) -> ReloadReport:
        """Put the same version in its own place."""
        try:
            return self.plugins.reload(self.subject.id)
        except errors.DwError as error:
            text = f"{said(error)}{self.subject.place_of(error)}"
            raise Broken(text) from error

    def end(self) -> list[str]:
        """Drain, stop and unload it; return what went wrong."""
        self.plugins.disable(self.subject.id)
        told = [data for subject, data in self.events if subject == "plugin.stopped"]
        return [text for data in told for text in data["wrong"]]


class Subject:
    """A plugin, or an object that does what a kind has to."""

    def __init__(
        self,
        place: Path | str | None,
        *,
        kind: str | None = None,
        samples: Samples | None = None,
        folders: Sequence[Path] = (),
        make: Callable[[], Any] | None = None,
    ) -> None:
        """Look at a plugin; nothing of it runs.

        Args:
            place: its folder, or that of its project.
            kind: of several kinds the one that is meant.
            samples: by default what `conformance.toml` says.
            folders: where others are that it needs, besides those that are installed.
            make: makes an object, instead of a plugin; `kind` is needed then.

        Raises:
            NotFound: `plugin.not_found`
            Invalid: `plugin.manifest`, `plugin.kind`, `plugin.option`

        """
        self.found: Found | None = None if place is None else discovery.at(Path(place))
        self._make = make
        self._folders, self._needs = _needed(self.found, folders)
        own = self.found.manifest.kinds if self.found else ()
        self.kind = kind or (own[0] if own else "")
        kinds.protocol(self.kind)
        if self.found and self.kind not in own:
            text = f"{self.found.id} is {' and '.join(own)}, and no {self.kind}"
            raise errors.new("plugin.kind", text, kind=self.kind)
        places = [] if place is None else [Path(place), *filter(None, [self.home])]
        self.samples = samples or samples_in(places)
        self._open: list[Plugins] = []
        self.folder = Path(tempfile.mkdtemp(prefix="dwk-conformance-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def id(self) -> str:
        """The plugin's id; empty for an object."""
        return self.found.id if self.found else ""

    @property
    def home(self) -> Path | None:
        """The folder with its manifest; None for an object."""
        return self.found.home if self.found else None

    def place_of(self, error: BaseException) -> str:
        """Return where in the plugin something was raised, in brackets; empty if nowhere."""
        return where.failed_at(error, self.home)

    @property
    def is_confined(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.found is not None and self.found.manifest.run == "confined"

    @property
    def scheme(self) -> str:
        """The scheme of its URLs, of the kinds that have some."""
        known = self.found.manifest.capabilities.get(self.kind, ()) if self.found else ()
        return known[0] if known else "conformance"

    def location(self, name: str = "") -> str:
        """Return a URL that was never used."""
        name = f"{name or 'drive'}-{uuid.uuid4().hex[:8]}"
        place = self.samples.location.replace("{scheme}", self.scheme)
        return place.replace("{folder}", str(self.folder)).replace("{name}", name)

    def section(self) -> PluginsSection:
        """Return the settings that it runs with: all that it and those that it needs ask for."""
        return PluginsSection(
            installed=False,
            folders=self._folders,
            grant=dict.fromkeys((self.id, *self._needs), ("*",)),
            config=Table({self.id: dict(self.samples.config)}),
            limits=LimitsSection.model_validate(dict(self.samples.limits)),
        )

    @contextlib.contextmanager
    def running(self, *, is_claim: bool = False) -> Iterator[Running]:
        """Run it for the rest of a case; `close` ends it.

        With `is_claim` one that does not load is `Broken`, without it that is another case's, and
        this one is `LeftOut`.
        """
        if self._make is not None:
            yield Running(self, None, self._make(), None)
            return
        assert self.found is not None  # noqa: S101 - one of the two is given
        assert self.found.home is not None  # noqa: S101 - it lies in a folder
        plugins = Plugins(self.section())
        self._open.append(plugins)
        try:
            plugins.load(self.found.home)
        except errors.DwError as error:
            if is_claim:
                text = where.readable(f"{said(error)}{self.place_of(error)}", self.home)
                raise Broken(text, errors.registry()[error.code].advice) from error
            raise LeftOut("it does not load") from error  # noqa: TRY003 - told
        entry = plugins.registry.entry(self.id)
        assert entry is not None  # noqa: S101 - it has just been loaded
        running = Running(self, entry.handle.slot, None, plugins)
        plugins.on(lambda subject, data: running.events.append((subject, data)))
        yield running

    def close(self) -> None:
        """End what ran in a case; its frames are gone by now, and hold nothing of the plugin."""
        opened, self._open = self._open, []
        while opened:
            opened.pop().close(_CLOSE_S)


def _needed(
    found: Found | None, folders: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return where those are that a plugin needs, and their ids.

    Of what is installed only these: the plugin itself may be there, too, in another version.
    """
    wanted = [*found.manifest.requires] if found is not None else []
    places, ids = list(folders), list[str]()
    if wanted:
        here = discovery.discover(folders, ()).plugins
        installed = discovery.discover().plugins
        while wanted:
            name = wanted.pop()
            several = here.get(name) or installed.get(name, [])
            if name in ids or not several:
                continue
            ids.append(name)
            if name not in here:
                places += [one.home for one in several if one.home is not None]
            wanted += [more for one in several for more in one.manifest.requires]
    return tuple(places), tuple(ids)


def result_of(case: Case, subject: Subject, limit_s: float) -> Result:
    """Run a case on a thread of its own; one that hangs is left alone, and has failed."""
    box: list[Result] = []
    began = time.perf_counter()

    def result(
        status: Literal["passed", "failed", "left out"], text: str = "", advice: str = ""
    ) -> Result:
        seconds = time.perf_counter() - began
        return Result(case.kind, case.name, case.says, status, text, advice, seconds)

    def work() -> None:
        done: Result
        try:
            case.run(subject)
            done = result("passed")
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: it is a plugin's
            if isinstance(error, LeftOut):
                done = result("left out", str(error))
            else:
                text, advice = _told(error, subject)
                done = result("failed", text, advice or case.advice)
            # With its frames it would keep what they hold of the plugin.
            error.__traceback__ = error.__cause__ = error.__context__ = None
        subject.close()
        box.append(done)

    before = effects.look()
    thread = threading.Thread(target=work, name=f"conformance:{case.name}", daemon=True)
    thread.start()
    thread.join(limit_s)
    hangs_at = "" if box else where.is_at(subject.id, subject.home, case.name)
    effects.put_back(before)  # what a call changed must not hide what the next one changes
    if not box:
        hung = result("failed", f"it did not end in {limit_s:g} s{hangs_at}", case.advice)
        # Not in the time of the next case, which needs what this one holds, such as a scheme.
        closing = threading.Thread(target=subject.close, name="conformance:closing", daemon=True)
        closing.start()
        closing.join(2 * _CLOSE_S)
        return hung
    return box[0]


def _told(error: BaseException, subject: Subject) -> tuple[str, str]:
    """Return what an error says, with the place in the plugin, and advice if it has some."""
    if isinstance(error, Broken):
        return str(error), error.advice
    place = subject.place_of(error)
    if isinstance(error, errors.DwError):
        return f"{said(error)}{place}", ""
    text = where.readable(f"{type(error).__name__}: {error}", subject.home)
    if place:
        return f"the plugin raised {text}{place}", ""
    return f"what it returned can't be used: {text}", ""
