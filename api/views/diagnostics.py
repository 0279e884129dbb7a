"""How does a diagnostic look on a terminal? Its plain rendering, with colour on the parts that matter."""

from __future__ import annotations

from rich.text import Text

from lpc.specs.diagnostics import Diagnostic

# Patterns over the plain rendering, so that text and colour cannot say different things.
STYLES = (
    (r"^error\[\w+\]", "bold red"),
    (r"^warning\[\w+\]", "bold yellow"),
    (r"^ +-->.*", "blue"),
    (r"^ +\d+ \|", "blue"),
    (r"^ +\| +\^+", "red"),
    (r"^  note:", "bold"),
    (r"^  help:", "bold green"),
)


def diagnostic(problem: Diagnostic) -> Text:
    """Return the rendering of one diagnostic; its plain text is `problem.render()`."""
    text = Text(problem.render())
    for pattern, style in STYLES:
        text.highlight_regex(f"(?m){pattern}", style)
    return text
