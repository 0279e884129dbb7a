"""What does a diagnostic code mean? Its row of the table, and an example of it."""

from __future__ import annotations

from textwrap import indent

from lpc.specs.codes import CODES
from lpc.specs.diagnostics import did_you_mean
from lpc.specs.examples import EXAMPLES
from lpc.specs.problems import Problems


def explanation(code: str) -> str:
    """Return the explanation of a code, written `LPC0120`, `0120` or `120`.

    Raises:
        LpcError: 0706, for a code that does not exist.
    """
    number = code.upper().removeprefix("LPC").zfill(4)
    if number not in CODES:
        problems = Problems()
        help = did_you_mean(number, CODES) or "the codes are listed in docs/errors.md"
        problems.add("0706", f"there is no diagnostic `{code}`", None, ("code",), help=help)
        problems.raise_any()
    row, example = CODES[number], EXAMPLES.get(number)
    lines = [f"LPC{number}: {row.title}", f"help: {row.help}"]
    if example is not None:
        lines = [lines[0], "", example.meaning, ""]
        if example.python:
            lines += ["in a file nets.py:", indent(example.python, "    ").rstrip(), ""]
        lines += ["wrong:", indent(example.bad, "    ").rstrip()]
        lines += ["", "right:", indent(example.good, "    ").rstrip(), "", f"help: {row.help}"]
    return "\n".join(lines) + "\n"
