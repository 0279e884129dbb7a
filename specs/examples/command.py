"""What do mistakes on the command line look like? 07xx."""

from __future__ import annotations

from lpc.specs.examples.example import COMMAND, SHOWN, Example

COMMANDS: dict[str, Example] = {
    "0701": Example(
        "A file or folder cannot be read or written.",
        "lpc run digits.plan --out spec.yaml",
        "lpc run digits.plan --out runs/digits",
        COMMAND,
    ),
    "0702": Example(
        "A file is in the way and would be lost.", "lpc init spec.yaml", "lpc init spec.yaml --force", COMMAND
    ),
    "0703": Example(
        "A plan holds what it was built from; only a spec can be changed.",
        "lpc run digits.plan --set run.seed=2",
        "lpc run spec.yaml --set run.seed=2",
        COMMAND,
    ),
    "0704": Example(
        "A plan's kernels are named after its blocks, and those as the spec says.",
        "lpc inspect digits.plan --kernel b1.locall",
        "lpc inspect digits.plan --kernel b1.local",
        COMMAND,
    ),
    "0705": Example(
        "The command, or one of its options, does not exist or lacks a value.",
        "lpc chekc spec.yaml",
        "lpc check spec.yaml",
        COMMAND,
    ),
    "0706": Example("There is no diagnostic with this code.", "lpc explain LPC9999", "lpc explain LPC0120", COMMAND),
    "0707": Example(
        "The language server needs a library that is installed with an extra.",
        "lpc lsp",
        "pip install 'lpc[lsp]'",
        SHOWN,
    ),
    "0708": Example(
        "`lpc eject` writes most of what a plan can hold, and says what it does not write before it writes anything.",
        "data: {source: huggingface(ylecun/mnist)}",
        "data: {source: npz, root: data/mnist}",
        SHOWN,
    ),
    "0709": Example(
        "What was measured is of another plan or of other lengths, or the file is damaged.",
        "lpc inspect digits.plan --timeline --workers 2 --costs spec.yaml",
        "lpc calibrate digits.plan --output costs.json",
        COMMAND,
    ),
}
