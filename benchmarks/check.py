"""How long do `lpc --help` and `lpc check` of a 300-line spec take, beside the imports that they cannot do without?

    python benchmarks/check.py [ROUNDS]

Whole processes, one of each kind in turn, so that other work on the machine meets all of them; the medians.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LIMIT = 3.0
BLOCKS = 82


def spec() -> str:
    """Return a spec of 300 lines: a network of as many layers, and a block for each."""
    layers = "".join(f"    - fc{i}: linear({64 + i % 7})\n    - relu\n" for i in range(BLOCKS))
    blocks = "".join(f"    b{i}: fc{i}\n" for i in range(BLOCKS))
    learn = "".join(f'  - {{blocks: "b{i}", optimizer: adam(lr=1e-3)}}\n' for i in range(38))
    return (
        "name: long\nnetwork:\n  inputs: {image: [1, 8, 8]}\n  layers:\n"
        f"    - flatten\n{layers}    - out: linear(10)\n"
        f"data: {{source: digits, batch: 64}}\nloss: cross_entropy\ndecompose:\n  links: stop\n  blocks:\n{blocks}"
        "    head: out\nlearn:\n"
        f'  - {{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}}\n{learn}run: {{epochs: 1}}\n'
    )


def seconds(arguments: list[str]) -> float:
    """Return how long a process takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    """Print a row a command."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.yaml")
        path.write_text(spec())
        commands = {
            "import pydantic, lark": ["-c", "import pydantic, lark"],
            "lpc --help": ["-m", "lpc", "--help"],
            "lpc check": ["-m", "lpc", "check", str(path)],
        }
        for command in commands.values():
            seconds(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command))
    base = median(times["import pydantic, lark"])
    print(f"a spec of {spec().count(chr(10))} lines, {rounds} rounds")
    for name, taken in times.items():
        print(f"| {name} | {median(taken):.3f} | {median(taken) / base:.2f} |")
    sys.exit(any(median(taken) > LIMIT * base for taken in times.values()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
