"""The house rules that no compiler checks: layers, sizes, bans. tidy.toml has limits and grants."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
RULES = tomllib.loads((ROOT / "tests" / "tidy.toml").read_text(encoding="utf-8"))


def tracked_files() -> list[str]:
    """Return every file of the repository, or of an unpacked archive of it."""
    git = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if git.returncode == 0:
        return [name for name in git.stdout.splitlines() if (ROOT / name).is_file()]
    outside = {".venv", "target", "dist", ".git"}
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not outside & set(path.parts))


FILES = tracked_files()
RUST = [name for name in FILES if name.startswith("rust/") and name.endswith(".rs")]
PYTHON = [name for name in FILES if name.endswith(".py")]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def is_rust_test(name: str) -> bool:
    parts = Path(name).parts
    return bool({"tests", "benches", "examples"} & set(parts)) or parts[-1].endswith("tests.rs")


# --- Rust as text ---------------------------------------------------------------------------------

_RUST_QUIET = re.compile(
    r"//[^\n]*"
    r"|/\*.*?\*/"
    r'|b?r(?P<hashes>#*)".*?"(?P=hashes)'
    r'|b?"(?:\\.|[^"\\])*"'
    r"|b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\\n])'",
    re.DOTALL,
)


def rust_code(text: str) -> str:
    """Return `text` with comments, strings and characters blanked, line by line."""
    return _RUST_QUIET.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def closing(code: str, opening: int) -> int:
    """Return the index of the brace that closes the one at `opening`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, opening):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.start()
    return len(code) - 1


def without_tests(code: str) -> str:
    """Return `code` with every `#[cfg(test)]` item blanked."""
    for match in reversed(list(re.finditer(r"#\[cfg\((?:all\()?test\b[^\]]*\]", code))):
        brace, semicolon = code.find("{", match.end()), code.find(";", match.end())
        if semicolon != -1 and (brace == -1 or semicolon < brace):
            end = semicolon
        else:
            end = closing(code, brace)
        blank = re.sub(r"[^\n]", " ", code[match.start() : end + 1])
        code = code[: match.start()] + blank + code[end + 1 :]
    return code


def product_code(name: str) -> str:
    """Return the part of a Rust file that is neither test nor comment nor string."""
    return "" if is_rust_test(name) else without_tests(rust_code(read(name)))


class Function(NamedTuple):
    """A function's place and how many lines it takes."""

    where: str
    lines: int


def rust_functions(name: str) -> list[Function]:
    code = product_code(name)
    found = []
    for match in re.finditer(r"\bfn\s+(\w+)", code):
        end = re.compile(r"[{;]").search(
            re.sub(r"\[[^\]\n]*\]", lambda m: " " * len(m.group()), code), match.end()
        )
        if end is not None and end.group() == "{":
            last = closing(code, end.start())
            lines = code.count("\n", match.start(), last) + 1
            found.append(Function(f"{name}::{match.group(1)}", lines))
    return found


def python_functions(name: str) -> list[Function]:
    return [
        Function(f"{name}::{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(read(name)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def product_lines(name: str) -> int:
    """Return the lines of a file without what tests only (comments count)."""
    text = read(name)
    if name.endswith(".py"):
        return text.count("\n")
    code = without_tests(rust_code(text)).split("\n")
    blanked = rust_code(text).split("\n")
    tests = sum(
        1 for kept, had in zip(code, blanked, strict=True) if had.strip() and not kept.strip()
    )
    return text.count("\n") - tests


# --- Layers ---------------------------------------------------------------------------------------


class Floor(NamedTuple):
    """A crate's row of the table in ARCHITECTURE.md."""

    number: int
    may_use: set[str]


def floors() -> dict[str, Floor]:
    section = read("ARCHITECTURE.md").split("## Floors", 1)[1].split("\n## ", 1)[0]
    table: dict[str, Floor] = {}
    for row in re.findall(r"^\|\s*(\d+)\s*\|([^|]*)\|[^|]*\|([^|]*)\|", section, re.MULTILINE):
        for crate in re.findall(r"`(\w+)`", row[1]):
            table[crate] = Floor(int(row[0]), set(re.findall(r"\w+", row[2])))
    return table


def crates() -> dict[str, dict[str, set[str]]]:
    """Return each workspace crate's dependencies by kind: normal, build, dev."""
    cargo = ["cargo", "metadata", "--format-version=1", "--no-deps", "--offline"]
    out = subprocess.run(cargo, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, set[str]]] = {}
    for package in json.loads(out)["packages"]:
        kinds: dict[str, set[str]] = {"normal": set(), "build": set(), "dev": set()}
        for dependency in package["dependencies"]:
            kinds[dependency["kind"] or "normal"].add(dependency["name"])
        found[package["name"].removeprefix("dwk-")] = kinds
    return found


def test_every_crate_stands_on_a_floor_of_the_table() -> None:
    assert set(crates()) == set(floors())


def test_no_arrow_of_the_table_goes_up_or_sideways() -> None:
    table = floors()
    for crate, floor in table.items():
        for used in floor.may_use:
            assert table[used].number < floor.number, f"{crate} may not use {used}"


def test_no_crate_depends_on_what_the_table_does_not_grant() -> None:
    table = floors()
    for crate, kinds in crates().items():
        ours = {
            name.removeprefix("dwk-") for name in kinds["normal"] | kinds["build"] if "dwk-" in name
        }
        assert ours <= table[crate].may_use, f"{crate} depends on {ours - table[crate].may_use}"


def test_pyo3_appears_in_one_crate() -> None:
    assert [crate for crate, kinds in crates().items() if "pyo3" in set.union(*kinds.values())] == [
        "python"
    ]


# --- Sizes ----------------------------------------------------------------------------------------


def ratchet(kind: str, sizes: dict[str, int], limit: int) -> list[str]:
    """Return what is over `limit` or its grant, and grants that are larger than they need be."""
    granted: dict[str, int] = RULES[kind]
    wrong = [
        f"{name} has {size}, the limit is {granted.get(name, limit)}"
        for name, size in sizes.items()
        if size > granted.get(name, limit)
    ]
    idle = [
        f"{name} needs its grant of {grant} no more (now {sizes.get(name, 0)}): lower or remove it"
        for name, grant in granted.items()
        if sizes.get(name, 0) < grant and (sizes.get(name, 0) <= limit or sizes[name] < grant * 0.8)
    ]
    return wrong + idle


def test_files_stay_within_their_size() -> None:
    product = [name for name in RUST if not is_rust_test(name)] + PYTHON
    sizes = {name: product_lines(name) for name in product}
    assert not ratchet("files", sizes, RULES["limits"]["file_lines"])


def test_functions_stay_within_their_size() -> None:
    functions = [function for name in RUST for function in rust_functions(name)]
    functions += [function for name in PYTHON for function in python_functions(name)]
    sizes: dict[str, int] = {}
    for where, lines in functions:
        sizes[where] = max(lines, sizes.get(where, 0))
    assert not ratchet("functions", sizes, RULES["limits"]["function_lines"])


# --- Bans -----------------------------------------------------------------------------------------

RUST_BANS = {
    "clock": r"\b(?:Instant|SystemTime)\b|\bthread::sleep\b|\bCLOCK_\w+|\bclock_gettime\b",
    "randomness": r"\bgetrandom\b|\brand::|\bthread_rng\b|\bfastrand\b",
    "unwrap": r"\.unwrap\(\)|\.unwrap_err\(\)|\bpanic!",
    "unsafe": r"\bunsafe\b",
    "print": r"\b(?:e?println|e?print|dbg)!",
}


@pytest.mark.parametrize("ban", RUST_BANS)
def test_rust_keeps_the_ban_on(ban: str) -> None:
    allowed: list[str] = RULES["allowed"][ban]
    found = [
        f"{name}:{code.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name in RUST
        if not any(name == path or name.startswith(path.rstrip("/") + "/") for path in allowed)
        for code in [product_code(name)]
        for match in re.finditer(RUST_BANS[ban], code)
    ]
    assert not found, f"{ban}: use the seams of rust/base, or argue an exception in tests/tidy.toml"


def test_expect_stays_rare() -> None:
    counts = {name: len(re.findall(r"\.expect\(", product_code(name))) for name in RUST}
    assert not ratchet("expects", counts, RULES["limits"]["expects_per_file"])


# Put together from halves, so that this file does not hold what it looks for.
REGISTRY_HOSTS = [
    "crates" + ".io",
    "pypi" + ".org",
    "python" + "hosted",
    "npm" + "js",
    "proxy.go" + "lang.org",
]
OPEN_ENDS = [
    "TO" + "DO",
    "FIX" + "ME",
    "X" + "XX",
    "HA" + "CK",
    "to" + "do!",
    "unimple" + "mented!",
    "place" + "holder",
]
MACHINE_PATHS = ["/wo" + "rk/", "/ro" + "ot/"]


@pytest.mark.parametrize("word", REGISTRY_HOSTS + OPEN_ENDS + MACHINE_PATHS)
def test_no_file_contains(word: str) -> None:
    # Lock files name their registry by design, and binary golden files hold any bytes.
    text = [name for name in FILES if not name.endswith((".lock", ".bin", ".gz", ".png"))]
    pattern = re.compile(
        rf"(?<![A-Za-z0-9]){re.escape(word)}" if word[0].isalpha() else re.escape(word)
    )
    found = [name for name in text if pattern.search(read(name))]
    assert not found


def test_every_unsafe_block_is_argued() -> None:
    for name in RUST:
        lines = read(name).split("\n")
        code = rust_code(read(name)).split("\n")
        for index, line in enumerate(code):
            if re.search(r"\bunsafe\s*(?:\{|impl\b)", line):
                above = "\n".join(lines[max(0, index - 8) : index + 1])
                assert "SAFETY" in above, f"{name}:{index + 1} has no SAFETY line"


# --- The checks themselves ------------------------------------------------------------------------


def test_the_scanner_sees_code_and_only_code() -> None:
    text = """
        fn a() { /* unsafe */ let s = "unsafe {"; let c = '{'; // }
            let l: &'static str = r#"}"#; }
        fn b() {}
    """
    assert "unsafe" not in rust_code(text)
    assert "'static" in rust_code(text)
    code = rust_code(text)
    assert closing(code, code.index("{")) == code.index("}")
    assert "keep" in without_tests("#[cfg(test)]\nmod tests { x }\nfn keep() {}")
    assert "x" not in without_tests("#[cfg(test)]\nmod tests { x }\n")


def test_each_ban_bites() -> None:
    samples = {
        "clock": "let now = std::time::Instant::now();",
        "randomness": "getrandom::fill(&mut bytes)",
        "unwrap": "value.unwrap()",
        "unsafe": "unsafe { run() }",
        "print": 'println!("x")',
    }
    for ban, pattern in RUST_BANS.items():
        assert re.search(pattern, rust_code(samples[ban]))


def test_a_ratchet_holds_growth_and_idle_grants() -> None:
    assert ratchet("files", {"a": 601}, 600)
    assert not ratchet("files", {"a": 600}, 600)
