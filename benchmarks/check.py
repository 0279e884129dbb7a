"""How long do `lpc --help` and `lpc check` of a 300-line spec take, beside the imports that they cannot do without?

    python benchmarks/check.py [ROUNDS]

Whole processes, one of each kind in turn, so that other work on the machine meets all of them; the medians of
the time that passes and of the time that a core is busy, which other work changes less. The limit is on the latter.
All modules are compiled before, as those of an installed package are, whatever PYTHONDONTWRITEBYTECODE says here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LIMIT = 3.0
BLOCKS = 82


def spec(count: int = BLOCKS) -> str:
    """Return a spec of 300 lines, with a layer for each of `count` blocks."""
    layers = "".join(f"    - fc{i}: linear({64 + i % 7})\n    - relu\n" for i in range(count))
    blocks = "".join(f"    b{i}: fc{i}\n" for i in range(count))
    learn = "".join(f'  - {{blocks: "b{i}", optimizer: adam(lr=1e-3)}}\n' for i in range(min(38, count)))
    return (
        "name: long\nnetwork:\n  inputs: {image: [1, 8, 8]}\n  layers:\n"
        f"    - flatten\n{layers}    - out: linear(10)\n"
        f"data: {{source: digits, batch: 64}}\nloss: cross_entropy\ndecompose:\n  links: stop\n  blocks:\n{blocks}"
        "    head: out\nlearn:\n"
        f'  - {{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}}\n{learn}run: {{epochs: 1}}\n'
    )


def dsl(folder: Path, path: Path) -> Path:
    """Write the same spec in the other spelling, and return its path."""
    written = subprocess.run(
        [sys.executable, "-m", "lpc", "fmt", "--to", "dsl", str(path)], check=True, capture_output=True, text=True
    )
    other = folder / "long.lpc"
    other.write_text(written.stdout)
    return other


def compiled(folder: Path) -> dict[str, str]:
    """Return an environment in which Python keeps the bytecode of all modules, in a folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def seconds(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return how long a process takes, and for how long of that it keeps a core busy (user and system time)."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{arguments} failed")
    return wall, usage.ru_utime + usage.ru_stime


def main(rounds: int) -> None:
    """Print a row a command."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.yaml")
        path.write_text(spec())
        commands = {
            "import pydantic, lark": ["-c", "import pydantic, lark"],
            "lpc --help": ["-m", "lpc", "--help"],
            "lpc check, YAML": ["-m", "lpc", "check", str(path)],
            "lpc check, DSL": ["-m", "lpc", "check", str(dsl(Path(folder), path))],
        }
        environment = compiled(Path(folder))
        for command in commands.values():
            seconds(command, environment)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command, environment))
    print(f"a spec of {spec().count(chr(10))} lines, {rounds} rounds")
    rows = {name: [median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()}
    base = rows["import pydantic, lark"]
    for name, (wall, busy) in rows.items():
        print(f"| {name} | {wall:.3f} | {wall / base[0]:.2f} | {busy:.3f} | {busy / base[1]:.2f} |")
    sys.exit(any(busy > LIMIT * base[1] for _, busy in rows.values()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
