"""Which problems can lpc report? The table of diagnostic codes as the page docs/errors.md."""

from __future__ import annotations

from collections.abc import Iterator

from lpc.specs.codes import CODES
from lpc.specs.examples import EXAMPLES, Example

STAGES = {
    "01": "Spec text and model",
    "02": "Network and trace",
    "03": "Partition",
    "04": "Local problems and capture",
    "05": "Plan",
    "06": "Data and run",
    "07": "Command line",
}

HEAD = """\
# Diagnostics

Every problem that a user can mend is told as a diagnostic: a code, what was found, where it was written, and
one thing to try. The command prints it on standard error and ends with exit code 2; through Python it is a
`lpc.LpcError` whose `diagnostics` hold it. `lpc explain CODE` explains one, `lpc check --format json` tells them
to programs, and `lpc fix` mends misspelt words. The codes below are stable. (Written by `make docs` from
`specs/codes.py` and `specs/examples`; the
tests run the examples.)
"""


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join([HEAD, *_stages()])


def _stages() -> Iterator[str]:
    for prefix, stage in STAGES.items():
        codes = {code: row for code, row in sorted(CODES.items()) if code.startswith(prefix)}
        if codes:
            yield f"## {prefix}xx {stage}\n\n| code | problem | to try |\n|---|---|---|"
            yield from (f"| {code} | {cell(row.title)} | {cell(row.help)} |" for code, row in codes.items())
            yield ""
            yield from (_example(code, EXAMPLES[code]) for code in codes if code in EXAMPLES)


def _example(code: str, example: Example) -> str:
    found = f"In a file `nets.py`:\n\n```text\n{example.python.rstrip()}\n```\n\n" if example.python else ""
    fenced = f"{found}Wrong:\n\n```text\n{example.bad}\n```\n\nRight:\n\n```text\n{example.good}\n```\n"
    return f"### {code} {CODES[code].title}\n\n{example.meaning}\n\n{fenced}"


def cell(text: str) -> str:
    """Return text that can stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")
