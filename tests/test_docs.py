"""Does every block of README and docs/ work as it stands? Each is executed, in order, in a folder of its own.

The first word after the fence says how a block is read:

    yaml file=NAME   written to NAME; a whole spec must be well formed
    lpc file=NAME    the same, in the DSL
    lpc              the same as below, in the DSL
    yaml             a whole spec, or some of its sections, laid over `BASE`; must be well formed
    yaml wrong=NAME  written to NAME: a spec with a mistake in it
    sh               run by bash, in the folder where the files are; where all lines are `lpc`'s, in this process
    sh fails         the same, and the command ends with the exit code of a user's mistake
    python           run, after the page's earlier python blocks
    text output      the last block printed these lines, in this order; `...` stands for anything
    text error       the last command said exactly this
    text             shown only

Pages that are written from tables must be what the tables say.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import lpc
from lpc.cli import USER_MISTAKE, main
from lpc.specs.dsl_text import read_dsl
from lpc.specs.source import Source
from lpc.specs.tree import lower
from lpc.views.pages import PAGES

ROOT = Path(__file__).resolve().parents[1]
BOOKS = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

BASE: dict[str, Any] = {
    "network": {
        "inputs": {"image": [1, 8, 8]},
        "layers": ["flatten", {"fc1": "linear(16)"}, {"out": "linear(10)"}],
    },
    "data": {"source": "digits"},
    "loss": "cross_entropy",
    "decompose": {"blocks": "per_layer"},
    "learn": [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "adam"}],
    "run": {"epochs": 1},
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after that, its text and the line of its fence."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    for match in FENCE.finditer(page):
        language, *words = match["info"].split() or [""]
        yield Block(language, tuple(words), match["text"], page[: match.start()].count("\n") + 1)


@pytest.mark.parametrize("name", BOOKS)
def test_every_block_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    printed, said = "", ""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks((ROOT / name).read_text()):
        place = f"{name}:{block.line}"
        match block.language, block.words:
            case "yaml", (file,) if file.startswith("wrong="):
                (tmp_path / file.removeprefix("wrong=")).write_text(block.text)
            case "yaml" | "lpc", (file,):
                (tmp_path / file.removeprefix("file=")).write_text(block.text)
                lpc.check(tmp_path / file.removeprefix("file="))
            case "yaml", ():
                lpc.check(BASE | YAML(typ="safe").load(block.text))
            case "lpc", ():
                part = lower(read_dsl(Source(place, block.text)))
                assert isinstance(part, dict)
                lpc.check(BASE | part)
            case "sh", () | ("fails",):
                printed, said = run(block.text, tmp_path, place, USER_MISTAKE if block.words else 0)
            case "python", ():
                with redirect_stdout(StringIO()) as out:
                    exec(compile(block.text, place, "exec"), names)
                printed = out.getvalue()
            case "text", ("error",):
                assert said == block.text, f"{place} is not what the command above said:\n{said}"
            case "text", ("output",):
                assert shows(printed, block.text), f"{place} is not what the block above printed:\n{printed}"
            case "text", ():
                pass
            case _:
                pytest.fail(f"{place}: no way to test a block `{block.language} {' '.join(block.words)}`")


def run(script: str, folder: Path, place: str, code: int) -> tuple[str, str]:
    """Run the lines of a shell block; return what they printed, on stdout and stderr.

    Lines of nothing but `lpc` run in this process, which has all libraries loaded; a bash takes each of the others.
    """
    assert "\\\n" not in script, f"{place}: lines are run one by one"
    parts = (run_line(line, folder, place, code) for line in script.splitlines())
    return tuple("".join(texts) for texts in zip(*parts, strict=True))


def run_line(script: str, folder: Path, place: str, code: int) -> tuple[str, str]:
    words = shlex.split(script, comments=True)
    if words[:1] == ["lpc"] and not set("|><;&$`") & set("".join(words)):
        return command(words[1:], place, code)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    line = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        line, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, f"{place} ends with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def command(arguments: list[str], place: str, code: int) -> tuple[str, str]:
    """Run `lpc` with these arguments in this process."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, pytest.raises(SystemExit) as left:
        main(arguments)
    ended = left.value.code or 0
    assert ended == code, f"{place} ends with {ended}:\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue(), err.getvalue()


def shows(printed: str, wanted: str) -> bool:
    """Tell whether the wanted lines occur in this order; `...` matches anything."""
    parts = [
        re.escape(line.rstrip()).replace(r"\.\.\.", ".*") for line in wanted.splitlines() if line.strip()
    ]
    pattern = r"[^\n]*\n(?:[^\n]*\n)*?".join(f"[^\\S\\n]*{part}" for part in parts)
    lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return re.search(rf"(?:^|\n){pattern}[^\S\n]*\n", lines) is not None


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run `make docs`"


def test_readme_starts_with_something_that_runs() -> None:
    """One sentence, then a block by line 15; spec, plan, `make run` and `make test` on the first screen."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("```") for line in lines[:15])
    screen = "\n".join(lines[:70])
    for word in ("decompose:", "= call ", "lpc build", "lpc run", "make run", "make test"):
        assert word in screen


def test_links_lead_somewhere() -> None:
    for name in BOOKS:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
            assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"
