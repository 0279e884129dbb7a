"""What do the commands of docs/inspect.md look like in a terminal? Their output as pictures (SVG), beside this file.

    python docs/pictures/draw.py

The specs are those of the page. Colours are rich's; no picture names a font or anything else of a network.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from contextlib import chdir, redirect_stdout, suppress
from pathlib import Path

WIDTH, LINES = 108, 44
FILES = re.compile(r"^```yaml file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECRETLY = ("build small.yaml -o small.plan", "eject small.plan -o small-code")  # run first, and not shown
SHOWN = {
    "diff": "diff small.yaml joined.yaml",
    "verify": "verify small.plan",
    "profile": "profile small.plan --steps 20 --device cpu",
}
CODE = ("eject", "small-code/small_plan/sections.py")
# rich's own frame, but for the fonts that it fetches
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>{styles} .{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px;
line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def output(command: str) -> str:
    """Return what a command prints on a terminal of `WIDTH` columns."""
    from lpc.cli import main

    with redirect_stdout(io.StringIO()) as said, suppress(SystemExit):
        main(command.split())
    return said.getvalue()


def draw(name: str, title: str, text: str) -> None:
    """Write the first `LINES` lines of a text with colours as `name.svg`."""
    from rich.console import Console
    from rich.text import Text

    lines = text.rstrip().splitlines()
    shown = lines[:LINES] + (["..."] if len(lines) > LINES else [])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(shown)))
    drawn = console.export_svg(title=title, code_format=FRAME, unique_id=name)
    trimmed = "\n".join(line.rstrip() for line in drawn.splitlines())
    Path(__file__).with_name(f"{name}.svg").write_text(trimmed + "\n", encoding="utf-8")


def main() -> None:
    """Draw them all."""
    os.environ |= {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    page = Path(__file__).resolve().parents[1] / "inspect.md"
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, text in FILES.findall(page.read_text(encoding="utf-8")):
            Path(name).write_text(text, encoding="utf-8")
        for command in SECRETLY:
            output(command)
        for name, command in SHOWN.items():
            draw(name, f"lpc {command}", output(command))
        name, file = CODE
        found = re.search(r"^def step.*?(?=^\S)", Path(file).read_text() + "\nend", re.MULTILINE | re.DOTALL)
        assert found is not None, file
        draw(name, file, found[0])


if __name__ == "__main__":
    main()
