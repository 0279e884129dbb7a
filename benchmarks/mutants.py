"""What becomes of a spec in which somebody slips? Specs, mutations of them, and what is wrong with an answer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import lpc
from lpc.specs import Spec, load_spec
from lpc.specs.checking import check as apply_rules
from lpc.specs.examples import BASE, whole
from lpc.specs.formatting import format_spec
from lpc.specs.recipes.recipe import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
# What mutations put in: what YAML or a term may stumble over, and words of the language in wrong places.
STUMBLES = """
none null true ~ 0 -1 1e400 .nan .inf 0x10 1_000 '' [] {} [1] {a:1} *x &x !!int " ' % @ ` ? : - , # | > ( ) [ ] { } é <<
linear(3) linear(0) linear( conv relu() sgd(lr=) sgd(lr=0.1,) adam stop gradient every(epoch) repeat(99999999) residual
branch each(*) balanced(count=2) ${HOME} a.b.c extends lpc 999999999999999999999
"""
WORDS = (*STUMBLES.split(), "{a: 1}", "\t", "\x00", "\u2028", "\ud7ff", "😀", " ")
Mutation = Callable[[str, random.Random], str]

_RECIPE = re.compile(r"^recipe: (\w+)\n(?:.*\n)*?template:", re.MULTILINE)
_INTERNALS = re.compile(r"Input should|pydantic|ruamel|Traceback|<class|object at 0x")


def character(text: str, draw: random.Random) -> str:
    """Replace, insert or drop characters."""
    at = draw.randrange(len(text) + 1)
    dropped = draw.choice((0, 1, 1, 3))
    new = draw.choice(("", chr(draw.randrange(32, 127)), draw.choice(WORDS)))
    return text[:at] + new + text[at + dropped :]


def line(text: str, draw: random.Random) -> str:
    """Drop, repeat, move, cut or shift a line."""
    lines = text.split("\n")
    at = draw.randrange(len(lines))
    taken = lines.pop(at)
    kept = draw.choice(((), (taken, taken), (taken[: len(taken) // 2],), (" " + taken,), (taken.lstrip(),)))
    lines[at:at] = kept
    if not kept:
        lines.insert(draw.randrange(len(lines) + 1), taken)
    return "\n".join(lines)


def key(text: str, draw: random.Random) -> str:
    """Give a key another name, that of another key, or none."""
    keys = list(re.finditer(r"[\w.*]+(?=:| *=|\()", text))
    if not keys:
        return text
    found = draw.choice(keys)
    name = draw.choice((draw.choice(keys)[0], found[0][:-1], found[0] + "s", draw.choice(WORDS)))
    return text[: found.start()] + name + text[found.end() :]


def value(text: str, draw: random.Random) -> str:
    """Give a key or an argument another value."""
    values = list(re.finditer(r"(?<=[:=(,]) *[^,\n{}\[\]()]+|(?<=\w ) *[\w.]+", text))
    if not values:
        return text
    found = draw.choice(values)
    new = draw.choice((draw.choice(values)[0].strip(), draw.choice(WORDS)))
    return f"{text[: found.start()]} {new}{text[found.end() :]}"


# A spec that says as little as one with a recipe can.
USER = "".join(BASE[key] for key in ("network", "data", "run")) + "recipes: {r: mutant.yaml}\nrecipe: "

MUTATIONS: tuple[Mutation, ...] = (character, line, key, key, value, value, value)  # the structural ones reach deeper


@dataclass(frozen=True)
class Text:
    """A text in a file's place: its suffix tells the spelling; `recipe` is one that a spec in `path`'s folder uses."""

    path: Path
    text: str
    recipe: bool = False


def seeds(folder: Path) -> list[Text]:
    """Return the specs and recipes that mutants descend from, in YAML: those of examples/, tests/, README and docs/.

    What stands in a page is written into `folder`, for others to extend.
    """
    found = [Text(folder / "starter.yaml", files("lpc").joinpath("starter.yaml").read_text("utf-8"))]
    for place in ("examples", "tests/specs/samples"):
        found += [Text(path, path.read_text("utf-8")) for path in sorted((ROOT / place).rglob("*.yaml"))]
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        found += _of_page(page, folder / page.stem)
    for name in SHIPPED:
        text = files("lpc.specs.recipes").joinpath(f"{name}.yaml").read_text("utf-8")
        found.append(Text(folder / f"{name}.yaml", text, recipe=True))
    return found


def both_spellings(texts: Iterable[Text]) -> list[Text]:
    """Return texts, and those that are specs in YAML in the DSL as well."""
    texts = list(texts)
    specs = [text for text in texts if text.path.suffix == ".yaml" and not text.recipe]
    return [*texts, *(Text(s.path.with_suffix(".lpc"), format_spec(s.path, s.text, "dsl")) for s in specs)]


def _of_page(page: Path, folder: Path) -> Iterator[Text]:
    """Yield a page's specs, parts of specs made whole, and recipes."""
    folder.mkdir(parents=True, exist_ok=True)
    fences = re.finditer(r"^```(yaml|lpc|text)(?: file=(\S+))?\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    for number, (language, name, text) in enumerate(match.groups() for match in fences):
        if name:
            (folder / name).write_text(text, "utf-8")
            yield Text(folder / name, text)
        elif language == "yaml":
            yield Text(folder / f"{number}.yaml", whole(text))
        elif recipe := _RECIPE.match(text):
            yield Text(folder / f"{recipe[1]}.yaml", text, recipe=True)


def mutant(texts: list[Text], draw: random.Random) -> Text:
    """Return a text with one to four mutations."""
    seed = draw.choice(texts)
    text = seed.text
    for _ in range(draw.choice((1, 1, 2, 4))):
        text = draw.choice(MUTATIONS)(text, draw)
    return Text(seed.path, text + "\n", seed.recipe)


def check(text: Text) -> Spec:
    """Check a text as `lpc check` does the file; a recipe is checked in a spec that uses it.

    Raises LpcError.
    """
    if not text.recipe:
        spec = load_spec(text.path, text=text.text)
    else:
        call = "r(rate=0.1)" if re.search(r"\brate:", text.text) else "r"
        text.path.with_name("mutant.yaml").write_text(text.text, "utf-8")
        spec = load_spec(text.path.with_name("user.yaml"), text=f"{USER}{call}\n")
    apply_rules(spec)
    return spec


def complaints(problems: Iterable[lpc.Diagnostic]) -> Iterator[str]:
    """Yield what is wrong with diagnostics: no line and column, one outside its text, or words of the inside."""
    for problem in problems:
        span = problem.span
        if span is None and not re.fullmatch(r".+:\d+", problem.place or ""):
            yield f"not located: {problem.code} {problem.message}"
        elif span is not None and not (1 <= span.line <= len(span.source.text.splitlines()) + 2 and span.column >= 1):
            yield f"outside the text: {span} {problem.message}"
        if _INTERNALS.search(problem.render()):
            yield f"internals: {problem.message}"
