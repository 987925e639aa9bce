"""Kinds of jobs that plugins bring: taken over reloads, and waiting while nobody can do them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from expect import PATIENCE_S, code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URLS = [f"memory://jobs-{number}" for number in range(3)]

# Steps are done while the file `open` is not there and `to` is not reached; each says by whom.
STEPS = """
import time
from pathlib import Path

class Plugin:
    name = "steps"
    max_attempts = 3

    def validate(self, options):
        if not isinstance(options.get("to"), int):
            raise ValueError("to is a number of steps")
        return {{"gate": "", **options}}

    def run(self, context):
        done = context.checkpoint or []
        while len(done) < context.options["to"]:
            while context.options["gate"] and not Path(context.options["gate"]).exists():
                context.check()
                time.sleep(0.002)
                if not done:
                    break
            done = [*done, {version!r}]
            context.save(done, now=True)
        return done
"""


def write(home: Path, version: str = "1.0", **fields: Any) -> Path:
    code = textwrap.dedent(STEPS).format(version=version)
    given = {"kinds": ["job"], "version": version, **fields}
    return plugin_maker.write(home, files={"main.py": code}, **given)


@pytest.fixture
def kernel() -> Iterator[dw.Kernel]:
    with dw.open(drives=URLS, geometry="2+1", create=True) as kernel:
        yield kernel


def begun(kernel: dw.Kernel, gate: Path) -> dw.jobs.Job:
    """Submit a job that stands before its second step."""
    job = kernel.jobs.submit("steps", {"to": 3, "gate": str(gate)})
    until(lambda: job.state == "running" and job._record.checkpoint == ["1.0"])
    return job


@pytest.mark.parametrize("first", ["plugins", "jobs"])
def test_a_kind_comes_with_its_plugin_and_goes_with_it(
    kernel: dw.Kernel, tmp_path: Path, first: str
) -> None:
    assert getattr(kernel, first) is not None
    kernel.plugins.load(write(tmp_path / "p"))
    assert "steps" in kernel.jobs.kinds()
    job = kernel.jobs.submit("steps", {"to": 2})
    assert job.wait(PATIENCE_S) == ["1.0", "1.0"]
    assert job._record.max_attempts == 3
    kernel.plugins.disable("p")
    assert "steps" not in kernel.jobs.kinds()
    assert code_of(lambda: kernel.jobs.submit("steps", {"to": 1})) == "job.kind"
    kernel.plugins.enable("p")
    assert kernel.jobs.submit("steps", {"to": 1}).wait(PATIENCE_S) == ["1.0"]


@pytest.mark.parametrize("keep_state", [True, False])
def test_a_job_goes_on_with_the_new_version_from_its_checkpoint(
    kernel: dw.Kernel, tmp_path: Path, keep_state: bool
) -> None:
    gate = tmp_path / "gate"
    kernel.plugins.load(write(tmp_path / "p", keep_state=keep_state))
    job = begun(kernel, gate)
    write(tmp_path / "p", "1.1", keep_state=keep_state)
    report = kernel.plugins.reload("p")
    assert (report.unused, report.is_unloaded, report.alive) == (True, True, [])
    gate.touch()
    assert job.wait(PATIENCE_S) == ["1.0", "1.1", "1.1"]
    assert job.attempts == 1


def test_a_reload_that_fails_leaves_the_job_to_the_old_version(
    kernel: dw.Kernel, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    kernel.plugins.load(write(tmp_path / "p"))
    job = begun(kernel, gate)
    (write(tmp_path / "p", "1.1") / "main.py").write_text("1 / 0")
    assert code_of(lambda: kernel.plugins.reload("p")) == "plugin.reload"
    gate.touch()
    assert job.wait(PATIENCE_S) == ["1.0", "1.0", "1.0"]
    assert job.attempts == 1


def test_jobs_of_a_plugin_that_is_paused_wait_for_it(kernel: dw.Kernel, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    kernel.plugins.load(write(tmp_path / "p"))
    job = begun(kernel, gate)
    kernel.plugins.pause("p")
    until(lambda: job.state == "interrupted")
    assert "steps" not in kernel.jobs.kinds()
    gate.touch()
    kernel.plugins.resume("p")
    assert job.wait(PATIENCE_S) == ["1.0", "1.0", "1.0"]
    assert job.attempts == 1


@pytest.mark.parametrize("raised", ["ValueError(", "errors.new('job.option', "])
def test_what_a_plugin_can_not_do_is_an_option_that_is_refused(
    kernel: dw.Kernel, tmp_path: Path, raised: str
) -> None:
    home = write(tmp_path / "p")
    code = (home / "main.py").read_text().replace("ValueError(", raised)
    (home / "main.py").write_text(f"from dwkernel import errors\n{code}")
    kernel.plugins.load(home)
    with pytest.raises(dw.errors.Invalid, match="to is a number of steps") as caught:
        kernel.jobs.submit("steps", {"to": "many"})
    assert caught.value.code == "job.option"
    # Who keeps the error keeps nothing of the plugin.
    write(tmp_path / "p", "1.1")
    assert kernel.plugins.reload("p").is_unloaded


def test_a_plugin_does_not_take_the_place_of_a_kind_that_every_store_has(
    kernel: dw.Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = write(tmp_path / "p")
    code = (home / "main.py").read_text()
    (home / "main.py").write_text(code.replace('"steps"', '"scrub"'))
    kernel.plugins.load(home)
    kernel.containers.create("c")
    kernel.put("c/a", b"x" * 100_000)
    assert kernel.jobs.submit("scrub").wait(PATIENCE_S)["stripes"] == 1
    kernel.plugins.disable("p")
    assert "scrub" in kernel.jobs.kinds()
    assert caplog.text.count("the kind of job of p is not taken") == 1


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (
            "name = property(lambda self: 1 // 0 if Path('GATE').exists() else 'other')",
            "modulo by zero",
        ),
        ("group = property(lambda self: 1 // 0)", "modulo by zero"),
        ("max_attempts = 0", "max_attempts=0 is no number from 1"),
        ("group = ['g']", "its group is a name"),
    ],
)
def test_a_plugin_whose_kind_cannot_be_is_named_and_others_are_taken(
    kernel: dw.Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, why: str
) -> None:
    home = write(tmp_path / "bad", plugin_id="bad")
    code = (home / "main.py").read_text().replace('"steps"', '"other"')
    gate = tmp_path / "gate"
    if "GATE" in field:
        code = code.replace('name = "other"', "")
    code = code.replace("max_attempts = 3", field.replace("GATE", str(gate)))
    (home / "main.py").write_text(code)
    kernel.plugins.load(home)
    gate.touch()
    kernel.plugins.load(write(tmp_path / "p"))
    assert kernel.jobs.submit("steps", {"to": 1}).wait(PATIENCE_S) == ["1.0"]
    assert caplog.text.count("the kind of job of bad is not taken") == 1
    assert why in caplog.text


def test_a_plugin_that_hangs_over_options_does_not_hang_who_submits(
    kernel: dw.Kernel, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    home = write(tmp_path / "p")
    wait = f"""
        while not Path({str(gate)!r}).exists():
            time.sleep(0.002)
        return options
    """
    head = "def validate(self, options):"
    code = (home / "main.py").read_text().replace(head, head + wait)
    (home / "main.py").write_text(code)
    kernel.config.set({"plugins.limits.call": "0.05s"})
    kernel.plugins.load(home)
    try:
        assert code_of(lambda: kernel.jobs.submit("steps", {"to": 1})) == "plugin.timeout"
        assert kernel.jobs.submit("scrub").wait(PATIENCE_S)
    finally:
        gate.touch()
        until(lambda: kernel.plugins.info("p").stuck == 0)


def test_a_job_that_a_process_left_is_done_when_the_configuration_brings_its_plugin(
    tmp_path: Path,
) -> None:
    home = write(tmp_path / "plugins" / "p")
    plugins = {"folders": [str(home.parent)], "enabled": ["p"]}
    given = {"plugins": plugins}
    with dw.open(drives=URLS, geometry="2+1", create=True, config=given) as kernel:
        left = kernel.jobs.submit("steps", {"to": 2}, start=False).id
    with dw.open(drives=URLS) as kernel:
        kernel.jobs.start()
        assert kernel.jobs.submit("scrub").wait(PATIENCE_S)
        assert kernel.jobs.get(left).state == "waiting"
    with dw.open(drives=URLS, config=given) as kernel:
        kernel.jobs.start()
        assert kernel.jobs.get(left).wait(PATIENCE_S) == ["1.0", "1.0"]


@pytest.mark.parametrize("attribute", ["name", "timeout"])
@pytest.mark.parametrize("first", ["plugins", "jobs"])
def test_a_kind_that_raises_when_it_is_looked_at_takes_neither_the_jobs_nor_the_others_away(
    kernel: dw.Kernel, tmp_path: Path, first: str, attribute: str
) -> None:
    # It is well when its plugin is held to its kind, and not any more once it has started.
    raises = f"""
    is_started = False
    def start(self): self.is_started = True
    def validate(self, options): return options
    def run(self, context): return None
    @property
    def {attribute}(self):
        if self.is_started:
            raise RuntimeError("no")
        return "early"
"""
    name = 'name = "bad"' if attribute == "timeout" else ""
    code = f"class Plugin:\n    {name}\n{raises}"
    bad = plugin_maker.write(tmp_path / "a", plugin_id="a", kinds=["job"], files={"main.py": code})
    assert getattr(kernel, first) is not None
    kernel.plugins.load(bad)
    kernel.plugins.load(write(tmp_path / "p"))
    assert kernel.jobs.submit("steps", {"to": 1}).wait(PATIENCE_S) == ["1.0"]
    assert "bad" not in kernel.jobs.kinds()
    assert kernel.plugins.info("a").state == "started"
