"""The suite finds what is wrong with a plugin, and only that: each case has a plugin that fails it.

Mutants are what `plugin new` makes, with a few words of it changed.
"""

from __future__ import annotations

import inspect
import re
import threading
import unittest
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import plugin_maker
from dwkernel import errors, jobs
from dwkernel.cli.plugin.making import make
from dwkernel.conformance import plugins
from dwkernel.conformance.plugins import core, doors, exporters, fake, life, logs
from dwkernel.plugins import KINDS
from expect import code_of
from python_drive import DictDrives

if TYPE_CHECKING:
    from pathlib import Path

# What a call does that must not be under way twice.
BUSY = """
        if getattr(self, "busy", False):
            raise RuntimeError("two at once")
        self.busy = True
        __import__("time").sleep(0.002)
        self.busy = False
"""


class Mutant(NamedTuple):
    """A plugin with a mistake, and the cases that find it."""

    kind: str
    fails: set[str]
    old: str
    new: str
    file: str = "plugin.py"


NAME = 'name = "'
LIFE = [
    Mutant(
        "policy", {"its_manifest_says_what_it_is"}, "Begun as a plugin", "", file="plugin.toml"
    ),
    Mutant(
        "policy", {"it_loads_and_starts"},
        "        self._prefix = context",
        "        raise ValueError(0)\n        self._prefix = context",
    ),
    Mutant(
        "policy", {"two_of_it_run_side_by_side"},
        "    def export_state", "    def __reduce__(self): return ''\n\n    def export_state",
    ),
    Mutant(
        "policy", {"it_goes_through_its_life_in_time"},
        "    def export_state", "    def pause(self): raise OSError\n\n    def export_state",
    ),
    Mutant(
        "policy",
        {
            "it_goes_through_its_life_in_time", "it_follows_itself_while_it_is_used",
            "no_thread_is_left",
        },
        "    def export_state",
        "    def stop(self): import time; time.sleep(1)\n\n    def export_state",
    ),
    Mutant(
        "policy", {"its_state_comes_over_a_reload"},
        'self._asked = state["asked"]', "self._asked = 0",
    ),
    Mutant(
        "policy", {"nothing_is_left_of_an_old_version"},
        "    def export_state",
        "    def start(self):\n        import string\n"
        "        string._own = [*getattr(string, '_own', []), self]\n\n    def export_state",
    ),
    Mutant(
        "policy", {"no_thread_is_left"},
        "    def export_state",
        "    def run(self):\n        import time\n        for _ in range(500): time.sleep(0.01)\n\n"
        "    def start(self): threading.Thread(target=self.run, daemon=True).start()\n\n"
        "    def export_state",
    ),
    Mutant(
        "policy", {"the_process_stays_as_it_was"},
        "        with self._lock:\n            self._asked +=",
        "        import os\n        os.environ['DWK_CONFORMANCE'] = '1'\n"
        "        with self._lock:\n            self._asked +=",
    ),
    Mutant(
        "policy", {"the_process_stays_as_it_was"},
        "    def export_state",
        "    def resume(self): import os; os.chdir('/')\n\n    def export_state",
    ),
    Mutant(
        "policy", {"it_does_not_write_where_the_program_does"},
        "        with self._lock:\n            self._asked +=",
        "        import sys\n        sys.stdout.write('x')\n"
        "        with self._lock:\n            self._asked +=",
    ),
]  # fmt: skip

VERDICTS = "        return [self._verdict(request) for request in requests]"
OF_KINDS = [
    Mutant("policy", {"each_request_has_a_verdict"}, VERDICTS, VERDICTS + "[:200]"),
    Mutant("authoriser", {"each_request_has_a_verdict"}, VERDICTS, VERDICTS + "[:200]"),
    Mutant(
        "policy", {"any_request_has_a_verdict"},
        "        return Verdict.allow()", "        return Verdict('allow', annotations={'n': 1})",
    ),
    Mutant("authoriser", {"verdicts_are_in_the_order_of_requests"}, VERDICTS, VERDICTS + "[::-1]"),
    Mutant(
        "policy", {"a_batch_is_answered_at_once"},
        VERDICTS, "        if len(requests) > 200: __import__('time').sleep(0.15)\n" + VERDICTS,
    ),
    Mutant("policy", {"many_threads_ask_at_once"}, VERDICTS, BUSY + VERDICTS),
    Mutant(
        "policy", {"it_hears_how_anything_ended"},
        '        """Hear how operations ended."""', "        finished[0]",
    ),
    Mutant("codec", {"its_name_can_be_stored"}, NAME, 'name = "A '),
    Mutant(
        "codec", {"what_is_decoded_is_what_was_encoded"},
        "        content = bytes(data)", "        content = bytes(data)[: 15 << 20]",
    ),
    Mutant(
        "codec", {"it_takes_any_buffer_and_leaves_it_alone"},
        "        content = bytes(data)", "        content = data; content.hex; data.find(b'')",
    ),
    Mutant(
        "codec", {"it_adds_no_more_than_it_says"},
        " if len(packed) < len(content) else _AS_IT_IS + content", "",
    ),
    Mutant(
        "codec", {"many_threads_encode_at_once"},
        "        content = bytes(data)", BUSY + "        content = bytes(data)",
    ),
    Mutant(
        "codec", {"what_is_damaged_is_noticed_or_has_its_length"},
        "        if len(content) != length:", "        if False:",
    ),
    Mutant(
        "key_source", {"a_key_has_32_bytes_and_stays_the_same"},
        "        return key", "        return key.hex()",
    ),
    Mutant(
        "key_source", {"a_key_that_is_not_there_is_refused"},
        "        try:\n", "        if 'no' in name: return bytes(32)\n        try:\n",
    ),
    Mutant(
        "principal_source", {"who_is_known_is_said_in_full"}, ', "roles": roles', "",
    ),
    Mutant(
        "principal_source", {"who_is_not_known_is_nobody"},
        'credentials.get("token", "")', '(credentials.get("token", "") if credentials else None)',
    ),
    Mutant(
        "principal_source", {"many_show_themselves_at_once"},
        "        token = credentials", BUSY + "        token = credentials",
    ),
    Mutant(
        "sink", {"each_message_has_an_outcome"},
        "* len(messages)", "* (len(messages) if len(messages) < 50 else 1)",
    ),
    Mutant(
        "sink", {"a_message_may_come_twice"},
        "        return [Outcome.taken()]",
        "        self.seen = getattr(self, 'seen', 0) + 1\n"
        "        if self.seen == 2: return [Outcome.failed('')] * len(messages)\n"
        "        return [Outcome.taken()]",
    ),
    Mutant("sink", {"its_wishes_can_be_followed"}, "    batch = 100", "    order = 'any'"),
    Mutant("sink", {"its_wishes_can_be_followed"}, "    batch = 100", "    batch = 4097"),
    Mutant("sink", {"its_wishes_can_be_followed"}, "    in_flight = 1", "    in_flight = 65"),
    Mutant(
        "sink", {"its_wishes_can_be_followed"},
        "    in_flight = 1", "    in_flight = 2\n    order = 'stream'",
    ),
    Mutant(
        "sink", {"calls_under_way_do_not_mix"},
        "    in_flight = 1", "    in_flight = 4\n",
    ),
    Mutant(
        "sink", {"it_can_be_closed_at_any_time"},
        "    def deliver", "    def close(self): raise OSError\n\n    def deliver",
    ),
    Mutant(
        "metrics_exporter", {"it_takes_the_figures_of_a_store"},
        "        beside.replace(self._path)",
        "        beside.replace(self._path)\n        return len(lines) or None",
    ),
    Mutant(
        "metrics_exporter", {"it_takes_a_snapshot_without_figures"},
        "        lines = [", "        snapshot.families[0]\n        lines = [",
    ),
    Mutant(
        "metrics_exporter", {"it_takes_no_longer_than_until_the_next"},
        "        lines = [",
        "        if snapshot.families: __import__('time').sleep(0.4)\n        lines = [",
    ),
    Mutant(
        "index_stage", {"each_object_has_fields"},
        "for one in objects]", "for one in objects][:10]",
    ),
    Mutant("index_stage", {"fields_are_plain_data"}, "sorted(words)[:_WORDS_MAX]", "words"),
    Mutant(
        "index_stage", {"what_was_never_known_can_be_forgotten"},
        '        """Drop', '        keys[0]\n        """Drop',
    ),
    Mutant("search_provider", {"any_query_is_answered"}, "scores[key] / len(words)}", "str(1)}"),
    Mutant(
        "search_provider", {"the_best_hits_come_first_and_no_more_than_asked_for"},
        "best[:limit]", "best[: limit + 1]",
    ),
    Mutant(
        "search_provider", {"many_search_at_once"},
        "        del tenant", BUSY + "        del tenant",
    ),
    Mutant(
        "ai_provider", {"an_answer_comes_in_pieces_of_text"}, 'yield f"{word} "', "yield b'x'",
    ),
    Mutant(
        "ai_provider", {"an_answer_need_not_be_read_to_its_end"},
        "        words = prompt",
        "        import threading\n        own = threading.get_ident()\n"
        "        self.open = getattr(self, 'open', [])\n"
        "        if own in self.open: raise RuntimeError('another answer is open')\n"
        "        self.open.append(own)\n"
        "        yield from list(self._pieces(prompt, options)) or [' ']\n"
        "        self.open.remove(own)\n\n"
        "    def _pieces(self, prompt, options):\n        words = prompt",
    ),
    Mutant(
        "ai_provider", {"each_text_has_a_vector"},
        "for text in texts]", "for text in sorted(texts)]",
    ),
    Mutant(
        "ai_provider", {"many_ask_at_once"},
        "        return [self._vector", BUSY + "        return [self._vector",
    ),
    Mutant("door", {"it_opens_at_once_and_says_where"}, 'return f"tcp://', "return 7  # "),
    Mutant(
        "door", {"it_closes_by_its_deadline"},
        "            thread.join(deadline_s)",
        "            thread.join(deadline_s)\n            __import__('time').sleep(0.7)",
    ),
    Mutant(
        "door", {"it_can_be_opened_again"},
        "        listener = socket",
        "        self.opened = getattr(self, 'opened', 0) + 1\n"
        "        assert self.opened < 2\n        listener = socket",
    ),
    Mutant(
        "door", {"it_can_be_closed_when_it_is_not_open"},
        "        if thread is not None:", "        if True:",
    ),
    Mutant("job", {"it_can_be_submitted_by_its_name"}, NAME, 'name = "A '),
    Mutant("job", {"options_are_filled_in_once"}, '{"upto": upto}', '{"upto": upto + 1}'),
    Mutant(
        "job", {"options_that_it_does_not_know_are_refused"},
        "        if unknown:", "        if False:",
    ),
    Mutant("job", {"it_runs_to_its_end"}, 'return {"sum": total}', "return {total}"),
    Mutant("job", {"it_runs_to_its_end"}, 'return {"sum": total}', "return b'1'"),
    Mutant("job", {"it_runs_to_its_end"}, 'return {"sum": total}', "return 'x' * 20_000"),
    Mutant(
        "job", {"it_runs_to_its_end", "it_goes_on_where_it_was"},
        '{"next": done, "sum": total})', '{"next": done, "sum": total, "more": "x" * 21_000})',
    ),

    Mutant(
        "job", {"it_ends_when_it_is_told_to"},
        "            context.check()\n", "            context.looks += 1\n",
    ),
    Mutant("job", {"it_goes_on_where_it_was"}, "context.checkpoint or", "None or"),
    Mutant(
        "drive", {"a_reload_under_a_store_loses_nothing"},
        'self._locks.update(state["locks"])', "self._locks.clear()",
    ),
]  # fmt: skip


def project(folder: Path, kind: str) -> Path:
    """Make a plugin as `plugin new` does."""
    make(kind, f"own-{kind.replace('_', '-')}", folder / kind)
    return folder / kind


def failed(subject: plugins.Subject) -> dict[str, str]:
    """Return which cases of its kind fail, and why."""
    results = list(plugins.check(subject, life=False))
    assert any(one.status == "passed" for one in results)
    return {one.name: one.text for one in results if one.status == "failed"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_new_passes_every_case_of_its_kind(tmp_path: Path, kind: str) -> None:
    results = list(plugins.check(plugins.Subject(project(tmp_path, kind))))
    assert not [(one.name, one.text) for one in results if one.status == "failed"]
    left_out = {one.name for one in results if one.status == "left out"}
    # The one has no logs, most have no state.
    allowed = {case.name for case in logs.CASES} if kind == "drive" else set()
    assert left_out <= allowed | {"its_state_comes_over_a_reload"}


def mutate(tmp_path: Path, mutant: Mutant) -> plugins.Subject:
    folder = project(tmp_path, mutant.kind)
    path = next(folder.glob(f"src/*/{mutant.file}"))
    text = path.read_text()
    assert mutant.old in text, "the template has changed: change the mutant, too"
    path.write_text(text.replace(mutant.old, mutant.new, 1))
    if mutant.old == NAME:
        # A manifest that lists another name would be refused before any case runs.
        manifest = path.with_name("plugin.toml")
        manifest.write_text(manifest.read_text().split("[capabilities]")[0])
    return plugins.Subject(folder)


@pytest.mark.parametrize("mutant", LIFE, ids=lambda one: "-".join(sorted(one.fails)))
def test_a_plugin_with_a_mistake_in_its_life_fails_the_case_for_it(
    tmp_path: Path, mutant: Mutant
) -> None:
    subject = mutate(tmp_path, mutant)
    if "two_of_it_run_side_by_side" in mutant.fails:
        path = next((tmp_path / "policy").glob("src/*/plugin.py"))
        own = "OwnPolicy"
        with path.open("a") as file:
            file.write(f"\n\nimport string\n{own} = string.__dict__.setdefault('_own', {own})\n")
    if mutant.file == "plugin.toml":
        path = next((tmp_path / "policy").glob("src/*/plugin.toml"))
        path.write_text(path.read_text().replace('summary = "', 'summary = ""  # "'))
        subject = plugins.Subject(tmp_path / "policy")
    subject.samples = core.Samples(limits={"stop": 0.3})
    try:
        results = [core.result_of(case, subject, 30) for case in life.CASES]
        assert {one.name for one in results if one.status == "failed"} == mutant.fails
    finally:
        import string

        vars(string).pop("_own", None)


@pytest.mark.parametrize("mutant", OF_KINDS, ids=lambda one: f"{one.kind}-{min(one.fails)}")
def test_a_plugin_with_a_mistake_fails_the_case_for_it_and_no_other(
    tmp_path: Path, mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "_LIMIT_S", 0.3)
    if mutant.kind == "door":
        monkeypatch.setattr(doors, "_DEADLINE_S", 0.3)
        monkeypatch.setattr(doors, "_GRACE_S", 0.3)
    subject = mutate(tmp_path, mutant)
    if "calls_under_way_do_not_mix" in mutant.fails:
        path = next((tmp_path / "sink").glob("src/*/plugin.py"))
        text = path.read_text()
        path.write_text(text.replace("        lines = [", BUSY + "        lines = ["))
    assert set(failed(subject)) == mutant.fails


def test_each_case_has_a_plugin_that_fails_it() -> None:
    found = {(one.kind, name) for one in (*LIFE, *OF_KINDS) for name in one.fails}
    names = {name for _, name in found}
    for kind in KINDS:
        for case in plugins.cases(kind, life=kind == "policy"):
            # Authorisers have the policies' cases; drives are in the other file, and one is here.
            if kind not in ("authoriser", "drive"):
                assert case.name in names, f"{kind}: {case.name}"


def test_a_case_that_hangs_has_failed_and_the_others_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "_CLOSE_S", 4)  # longer than a case may take
    old = "        return [self._verdict"
    hangs = f"        if len(requests) == 50: __import__('time').sleep(60)\n{old}"
    subject = mutate(tmp_path, Mutant("policy", set(), old, hangs))
    results = {}
    for one in plugins.check(subject, life=False, limit_s=3):
        results[one.name] = one
        # What held something has let it go: a drive's scheme, say.
        assert not [it for it in threading.enumerate() if it.name == "conformance:closing"]
    failed = {name: one.text for name, one in results.items() if one.status == "failed"}
    line = subject.home and (subject.home / "plugin.py").read_text().splitlines()
    number = next(n for n, text in enumerate(line or [], 1) if "sleep(60)" in text)
    place = f"own_policy/plugin.py:{number}, in before)"
    assert set(failed) == {"any_request_has_a_verdict"}
    assert "did not end in 3 s (" in failed["any_request_has_a_verdict"]
    assert failed["any_request_has_a_verdict"].endswith(place)


@pytest.mark.parametrize(
    ("old", "new", "text", "place"),
    [
        ("        return Verdict.allow()", "        return request.kee",
         "the plugin raised AttributeError: 'Request' object has no", "in _verdict)"),
        (VERDICTS, "        return None",
         "what it returned can't be used: TypeError: 'NoneType'", ""),
        ("        self._asked = 0", "        self._asked = {}['x']",
         "making of own-policy raised KeyError: 'x' [plugin.failed] (", "in __init__)"),
        ("    def after", "    def (after", "can't be imported: SyntaxError: invalid syntax", ")"),
        ("import threading", "import threading\nfrom own_policy import rules",
         "cannot import name 'rules' from 'own_policy'", ")"),
    ],
)  # fmt: skip
def test_a_failure_says_where_in_the_plugin_it_is(
    tmp_path: Path, old: str, new: str, text: str, place: str
) -> None:
    subject = mutate(tmp_path, Mutant("policy", set(), old, new))
    assert subject.home is not None
    names = ("it_loads_and_starts", "each_request_has_a_verdict")
    cases = [case for case in plugins.cases("policy") if case.name in names]
    told = [plugins.result_of(case, subject, 60).text for case in cases]
    found = next(one for one in told if one and one != "it does not load")
    assert text in found
    assert "dwkernel_plugin" not in found
    if place:
        lines = (subject.home / "plugin.py").read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if new.splitlines()[-1] in line)
        at = f"({subject.home / 'plugin.py'}:{number}{', ' if place != ')' else ''}{place}"
        assert found.endswith(at)


def test_what_fails_when_it_is_used_is_told_by_the_cases_of_its_kind(tmp_path: Path) -> None:
    subject = mutate(
        tmp_path, Mutant("codec", set(), "        content = bytes(data)", "        1 / 0")
    )
    results = {one.name: one for one in plugins.check(subject)}
    of_life = {case.name for case in life.CASES}
    failed = {name for name, one in results.items() if one.status == "failed"}
    assert failed & of_life == {"it_goes_through_its_life_in_time"}
    assert "what_is_decoded_is_what_was_encoded" in failed
    assert results["no_thread_is_left"].text == "it fails when it is used"


def test_pytest_is_told_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    cases = {case.name: case for case in plugins.cases("drive")}
    subject = plugins.of(lambda: DictDrives(logs=False), "drive")
    plugins.run(cases["a_blob_is_written_once"], subject)
    with pytest.raises(unittest.SkipTest, match="no logs"):
        plugins.run(cases["a_new_log_is_zeroes"], subject)
    broken = mutate(tmp_path, OF_KINDS[0])
    case = next(one for one in plugins.cases("policy") if one.name == min(OF_KINDS[0].fails))
    with pytest.raises(AssertionError, match=r"answered 200 of 256.*What to do: Return a list"):
        plugins.run(case, broken)


def test_what_a_plugin_needs_is_looked_for_in_folders_and_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    fields: dict[str, Any] = {"permissions": {"network": True}, "summary": "x"}
    for name in ("inst", "p"):  # another version of itself is installed, too
        plugin_maker.write(site / f"{name}_package", plugin_id=name, **fields)
        (site / f"{name}_package" / "__init__.py").write_text("")
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dwkernel.plugins]\n{name} = {name}_package\n")
    monkeypatch.syspath_prepend(str(site))
    plugin_maker.write(tmp_path / "q", plugin_id="q", requires={"inst": ">=1"}, **fields)
    home = plugin_maker.write(tmp_path / "p", version="1.1", requires={"q": ">=1"}, **fields)
    case = next(one for one in life.CASES if one.name == "it_loads_and_starts")
    with pytest.raises(AssertionError, match=r"p 1\.1 needs q >=1, and no q is there"):
        plugins.run(case, plugins.Subject(home))
    plugins.run(case, plugins.Subject(home, folders=[tmp_path / "q"]))


def test_a_job_that_works_on_a_store_is_tested_with_one(tmp_path: Path) -> None:
    old = "        upto = context.options"
    uses = f'        context.kernel.put("c/worked", b"done")\n{old}'
    subject = mutate(tmp_path, Mutant("job", set(), old, uses))
    assert {one.name: one.text for one in plugins.check(subject) if one.status == "failed"} == {}


def test_the_context_of_a_job_is_that_of_a_real_one() -> None:
    # What runs jobs sees more of it.
    inside = {"does", "latest", "stop", "write", "is_dirty", "has_saved", "is_abandoned"}
    inside |= {"group", "seen_s", "cancelled_s", "is_stalled", "is_overdue"}
    code = inspect.getsource(jobs.JobContext)
    real = {*re.findall(r"self\.([a-z]\w*)(?:: .*)? = ", code), *vars(jobs.JobContext)} - inside
    real = {name for name in real if not name.startswith("_")}
    assert {"id", "options", "check", "submitter", "log"} <= real
    assert not [name for name in real if not hasattr(fake.JobContext({}), name)]


def test_wrong_kinds_and_samples_are_refused(tmp_path: Path) -> None:
    folder = project(tmp_path, "codec")
    assert code_of(lambda: plugins.cases("codex")) == "plugin.kind"
    assert code_of(lambda: plugins.Subject(folder, kind="drive")) == "plugin.kind"
    assert code_of(lambda: plugins.Subject(tmp_path / "no")) == "plugin.not_found"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("expand_by_max = 1", "expand_by_max is not known, did you mean 'expands_by_max'?"),
        ("expands_by_max = '1'", "expands_by_max is of the type integer, not '1'"),
        ("keys = 'example'", "keys is of the type array, not 'example'"),
        ("options = 3", "options is a table, not 3"),
        ("[credentials]\ntoken = 3", "credentials.token is of the type string, not 3"),
        ("location = 'x:///y'", "location lacks {name}"),
        ("[limits]\nstart = 'soon'\nquery = 3", "limits.start: a duration is a number"),
        ("[limits]\nstrt = 3", "limits.strt: "),
        ("[config", "Expected ']'"),
    ],
)
def test_samples_that_are_wrong_are_refused_with_what_is_meant(
    tmp_path: Path, text: str, says: str
) -> None:
    folder = project(tmp_path, "codec")
    (folder / "conformance.toml").write_text(text)
    with pytest.raises(errors.Invalid, match=r"conformance\.toml.*its fields are config") as caught:
        plugins.Subject(folder)
    assert says in str(caught.value)
    assert caught.value.code == "plugin.option"


def test_the_example_plugin_passes() -> None:
    results = list(plugins.check(plugins.Subject(plugin_maker.EXAMPLE)))
    assert {one.status for one in results} == {"passed"}
