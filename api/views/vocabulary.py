"""Which words can a spec use? Every vocabulary of the language as the page docs/vocabulary.md."""

from __future__ import annotations

from collections.abc import Iterator

from lpc.specs.signatures import REQUIRED, VOCABULARIES, Parameter, Signature, Vocabulary
from lpc.specs.term import print_value
from lpc.views.errors import cell

HEAD = """\
# Vocabulary

Every word that a spec can use, with its arguments; an argument without a default must be given. An operator
of `network.layers` also takes `from=`: the layers or inputs that it reads instead of the layer before it.
Optimizers are those of `torch.optim`, in lower case, with the arguments they have there. (Written by
`make docs` from `specs/signatures`.)
"""


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join(
        [HEAD, *(line for name, words in VOCABULARIES.items() for line in _section(name, words))]
    )


def _section(name: str, words: Vocabulary) -> Iterator[str]:
    yield f"## {name}\n\n| word | meaning |\n|---|---|"
    yield from (f"| `{cell(_written(word))}` | {cell(_meaning(word))} |" for word in words.values())
    yield ""


def _written(word: Signature) -> str:
    arguments = [_argument(parameter) for parameter in word.parameters] + ["..."] * word.open
    return f"{word.name}({', '.join(arguments)})" if arguments else word.name


def _argument(parameter: Parameter) -> str:
    default = parameter.default
    return parameter.name if default is REQUIRED else f"{parameter.name}={print_value(default)}"


def _meaning(word: Signature) -> str:
    explained = [f"`{p.name}`: {p.doc}" for p in word.parameters if p.doc]
    return "; ".join([word.doc, *explained]) if word.doc else "; ".join(explained)
