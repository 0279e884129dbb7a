"""Does any spec at all end in something else than success or diagnostics that say where? Mutants, checked and built.

    python benchmarks/fuzz.py [--checks 200000] [--builds 2000] [--seed 0]

All checks run in this process, which may not grow; each build runs in a fork of it, under limits of time and memory.
Prints a table a part, and every mutant that went wrong; the exit code is 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mutants
from mutants import Text

import lpc
from lpc.specs.codes import CODES

CHECK_SECONDS = 3.0  # of this process's own time; more is a hang
BUILD_SECONDS = 60  # the same
WAIT_SECONDS = 900.0  # of the clock, whatever else the machine does
BUILD_BYTES = 3 * 2**30  # beyond what the process has when it forks
GROWTH_BYTES = 256 * 2**20  # of all checks together
# What makes the larger specs small, so that a build takes a second: patterns and what stands there instead.
SMALL = {
    "structures": [
        ("from=.stem, wide.", "from=[stem, branch1]"),
        (r'"\*\.weight": kaiming', '"stem.weight": kaiming'),  # a vector has no fans
        (r'low: .stem, "stack.0".', "low: [stem, batch_norm1]"),
        ("high: .mix, out.", "high: [branch1, mix, out]"),
        (r"low->stack\.1", "low->stack.0"),
        (r"mse\(weight", "cross_entropy(weight"),
        (r"(?s)^data:.*?(?=^loss)", "fields: {label: {shape: [], dtype: int64}}\n"),
    ],
    "localmixer": [
        (r"\[3, 32, 32\], side: 8, blocks: 4", "[1, 8, 8], side: 2, blocks: 1"),
        ("channels: 512, groups: 16", "channels: 8, groups: 2"),
        ("source: parquet, root: cifar10, batch: 128", "source: digits, batch: 16"),
        ("crop.32, padding=4.", "crop(8, padding=1)"),
        ("out=128", "out=4"),
    ],
    "deep_supervision": [("root: data", 'root: "${LPC_DATA}"')],
    "resnet50": [
        ("num_labels: 1000", "num_labels: 5, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]"),
        (r"\[3, 224, 224\]", "[3, 32, 32]"),
        ("count=4", "count=2"),
    ],
}
# To build; what goes wrong with them goes wrong with smaller networks, and adapters are in tests/specs/samples too.
SLOW = ("resnet18", "resnet50_lokr", "vit", "vit_lora", "gpt2", "bert")
QUICK = 6.0  # seconds that building a seed may take the second time
CHUNK = 50  # builds that one process does in a row


class HangError(BaseException):
    """A check took too long. No `except Exception` in the way can swallow it."""


@dataclass
class Tally:
    """What mutants ended in: kinds of outcome counted, the slowest, and what went wrong."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, Text]] = field(default_factory=list)
    slowest: float = 0.0
    total: int = 0

    def add(self, text: Text, codes: list[str], complaint: str | None, seconds: float) -> None:
        """Count one outcome: diagnostics by their codes, `success` without any."""
        self.outcomes.update(sorted(set(codes)) or ["success"])
        self.total += 1
        self.slowest = max(self.slowest, seconds)
        if complaint is not None:
            self.outcomes["WRONG"] += 1
            self.wrong.append((complaint, text))
            print(f"--- {complaint}\n{text.path}\n{text.text}", file=sys.stderr, flush=True)

    def take(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.outcomes.update(other.outcomes)
        self.wrong += other.wrong
        self.slowest = max(self.slowest, other.slowest)
        self.total += other.total


def outcome(act: Callable[[], Any]) -> tuple[list[str], str | None]:
    """Return the codes of the diagnostics that an act ends in, and what is wrong with how it ends."""
    try:
        act()
    except lpc.LpcError as error:
        codes = [problem.code for problem in error.diagnostics]
        return codes, next(mutants.complaints(error.diagnostics), None)
    except HangError:
        return ["hang"], "hang"
    except RecursionError as error:
        return ["crash"], f"RecursionError: {error}"
    except Exception as error:
        return ["crash"], f"{type(error).__name__}: {error}"
    return [], None


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise HangError after some time of this process."""

    def late(*_: object) -> None:
        raise HangError

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def checks(texts: list[Text], count: int, draw: random.Random) -> Tally:
    """Check mutants, one after another in this process."""
    tally = Tally()
    for _ in range(count):
        text = mutants.mutant(texts, draw)
        start = time.process_time()
        with limited(CHECK_SECONDS):
            codes, complaint = outcome(lambda text=text: mutants.check(text))  # type: ignore[misc]
        tally.add(text, codes, complaint, time.process_time() - start)
    return tally


def build(text: Text) -> tuple[list[str], str | None]:
    """Build a text in this process, and return how that ends."""
    return outcome(lambda: lpc.build(mutants.check(text)))


def forked(text: Text) -> tuple[list[str], str | None, float]:
    """Build a text in a fork of this process, under limits, and return how that ends and how long it takes."""
    reading, writing = os.pipe()
    before = _children()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _limit()
        os.write(writing, json.dumps(build(text)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = _children() - before
    if told:
        codes, complaint = json.loads(told)
        return codes, complaint, seconds
    hung = code in (-signal.SIGALRM, -signal.SIGXCPU)
    return ["hang" if hung else "crash"], "hang" if hung else f"the process ended with {code}", seconds


def _children() -> float:
    """Return the time that ended children of this process took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _limit() -> None:
    """Bound the time and memory of this process; silence it."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + BUILD_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    latest = math.ceil(used.ru_utime + used.ru_stime) + BUILD_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (latest, latest + 5))  # told by SIGXCPU, then killed
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS)


def builds(texts: list[Text], count: int, draw: random.Random) -> Tally:
    """Build mutants that the checker finds nothing wrong with, each in a fork."""
    tally = Tally()
    while tally.total < count:
        text = mutants.mutant(texts, draw)
        if not outcome(lambda text=text: mutants.check(text))[0]:  # type: ignore[misc]
            tally.add(text, *forked(text))
    return tally


def shared(texts: list[Text], count: int, seed: int, workers: int) -> Tally:
    """Build mutants in several processes, which are the same whatever their number."""
    sizes = [min(CHUNK, count - done) for done in range(0, count, CHUNK)]
    chunks = [(texts, size, random.Random(f"{seed}.{number}")) for number, size in enumerate(sizes)]
    whole = Tally()
    with get_context("fork").Pool(workers) as pool:
        for tally in pool.imap(_builds, chunks):
            whole.take(tally)
            print(f"{whole.total} of {count} built", file=sys.stderr, flush=True)
    return whole


def _builds(chunk: tuple[list[Text], int, random.Random]) -> Tally:
    return builds(*chunk)


def buildable(texts: list[Text]) -> list[Text]:
    """Return specs that build quickly, in both spellings; what they import is then there for all forks."""
    specs = [small(text) for text in texts if not text.recipe and text.path.stem not in SLOW]
    return mutants.both_spellings(text for text in specs if build(text) == ([], None) and is_quick(text))


def is_quick(text: Text) -> bool:
    """Does a spec build in seconds, once what it imports is there?"""
    start = time.process_time()
    build(text)
    return time.process_time() - start < QUICK


def small(text: Text) -> Text:
    """Return a spec with a smaller network."""
    written = text.text
    for pattern, instead in SMALL.get(text.path.stem, ()):
        written = re.sub(pattern, instead, written, flags=re.MULTILINE)
    return Text(text.path, written)


def images(folder: Path) -> None:
    """Write a little noise in the format of MNIST, and let specs find it."""
    folder.mkdir()
    for split in ("train", "t10k"):
        for kind, shape in {"images-idx3": (20, 28, 28), "labels-idx1": (20,)}.items():
            head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + bytes(i % 10 for i in range(math.prod(shape))))
    os.environ["LPC_DATA"] = str(folder)


def report(title: str, tally: Tally, seconds: float) -> None:
    """Print a part's table: how many mutants met each kind of outcome."""
    print(f"\n{title}: {tally.total} mutants in {seconds:.0f} s, the slowest {tally.slowest:.1f} s of its own")
    print("| outcome | mutants |\n|---|---:|")
    for name, number in tally.outcomes.most_common():
        kind = f"LPC{name} {CODES[name].title}" if name in CODES else name
        print(f"| {kind} | {number} |")
    for complaint, number in Counter(complaint for complaint, _ in tally.wrong).most_common():
        print(f"WRONG {number}: {complaint}")


def main(arguments: list[str]) -> int:
    """Check, build, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"checks": 200_000, "builds": 2_000, "seed": 0, "workers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # a mutant fetches nothing
    with tempfile.TemporaryDirectory() as place:
        images(Path(place, "data"))
        texts = mutants.seeds(Path(place))
        start = time.perf_counter()
        checked = checks(mutants.both_spellings(texts), wanted.checks, random.Random(wanted.seed))
        report("checked", checked, time.perf_counter() - start)
        if not wanted.builds:
            return bool(checked.wrong)
        specs = buildable(texts)
        start = time.perf_counter()
        built = shared(specs, wanted.builds, wanted.seed, wanted.workers)
        report(f"built, of {len(specs)} specs", built, time.perf_counter() - start)
    return bool(checked.wrong or built.wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
