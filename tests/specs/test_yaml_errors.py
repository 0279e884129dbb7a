"""Is a slip in YAML told in words that say how to mend it, instead of the parser's?"""

from __future__ import annotations

import pytest

from lpc.specs.diagnostics import LpcError
from lpc.specs.source import Source
from lpc.specs.yaml_text import read_yaml

# The text; what the message and the help must say; where it points.
SLIPS = {
    "a:\n  b:\n    - c\n   - d\n": ("column 4", "column 5, as line 3", "4:4"),
    "a:\n  b: 1\n   c: 2\n": ("column 4", "column 3, as line 2", "3:5"),
    "a:\n    b: 1\n  # no\n  c: 2\n": ("column 3", "column 5, as line 2", "4:3"),
    "- a\nb: 1\n": ("does not go on", "`- `", "2:1"),
    "a: b: c\n": ("second `: `", "quotes", "1:5"),
    "a:b\nc: 1\n": ("line 1 has no `: `", "`key: value` on line 1", "2:2"),
    "a: {b: 1\nc: 2\n": ("expected `,` or `}`", "close the bracket", "2:2"),
    "a: [1, 2\nc: 2\n": ("expected `,` or `]`", "close the bracket", "2:2"),
    "a: 'x\nb: 1\n": ("quote is not closed", "close the quote", "3:1"),
    "a:\n\tb: 1\n": ("a tab", "blanks", "2:1"),
    "a: @x\n": ("cannot begin with `@`", "quotes", "1:4"),
    "a:\n - b\nc\n": ("without `: `", "`key: value`", "3:1"),
    "a: [1,,2]\n": ("missing before `,`", "remove the comma", "1:7"),
    'a: "x\\q"\n': ("no escape `\\q`", "`\\\\`", "1:7"),
    "a: *\n": ("an alias lacks its name", "quotes", "1:5"),
}


@pytest.mark.parametrize("text", SLIPS, ids=repr)
def test_the_message_suffices(text: str) -> None:
    message, help, place = SLIPS[text]
    with pytest.raises(LpcError) as raised:
        read_yaml(Source("x", text))
    (told,) = raised.value.diagnostics
    assert told.code == "0101"
    assert message in told.message
    assert help in (told.help or "")
    assert str(told.span) == f"x:{place}"


def test_what_was_begun_is_shown() -> None:
    with pytest.raises(LpcError, match=r"::: x:1:4: this begins here\n +1 \| a: \[1, 2"):
        read_yaml(Source("x", "a: [1, 2\nc: 2\n"))
