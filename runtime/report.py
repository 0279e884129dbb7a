"""What does a run show? A progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

MOST_LINES = 16  # below the bar: what a terminal has room for


class Reporter(Protocol):
    """Hears what happens in a run; called at log points only, never for every step."""

    def start(self, done: int, total: int) -> None:
        """The run starts at step `done` of `total`."""

    def phase(self, number: int, count: int, trains: Sequence[str]) -> None:
        """A phase begins, or goes on: `number` of `count`, in which the blocks and readouts `trains` learn."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Training metrics since the last call."""

    def held_out(self, split: str, step: int, values: Mapping[str, float], best: bool) -> None:
        """Metrics on a split that is not trained on; `best` where they are the best so far."""

    def end(self) -> None:
        """The run is over, or is left by an error."""


class Quiet:
    """Shows nothing."""

    def start(self, done: int, total: int) -> None:
        pass

    def phase(self, number: int, count: int, trains: Sequence[str]) -> None:
        pass

    def step(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def held_out(self, split: str, step: int, values: Mapping[str, float], best: bool) -> None:
        pass

    def end(self) -> None:
        pass


class Lines(Quiet):
    """One line a report, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = 0

    def start(self, done: int, total: int) -> None:
        self.total = total

    def phase(self, number: int, count: int, trains: Sequence[str]) -> None:
        self._say(f"phase {number}/{count}  {', '.join(trains)}")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self._say(f"step {step}/{self.total}  {shown(values)}")

    def held_out(self, split: str, step: int, values: Mapping[str, float], best: bool) -> None:
        self._say(f"step {step}/{self.total}  {split}  {shown(values)}{'  best' if best else ''}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Status(Progress):
    """A progress bar with lines of text below it."""

    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar and the lines; rich draws them anew many times a second."""
        yield from super().get_renderables()
        yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in self.below)


class Bar(Lines):
    """A progress bar with each block's latest training metrics below it; held-out metrics scroll above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Status(*columns, console=console)
        self.task = self.progress.add_task("train")

    def start(self, done: int, total: int) -> None:
        super().start(done, total)
        self.progress.update(self.task, completed=done, total=total)
        self.progress.start()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self.progress.below = by_block(values)
        self.progress.update(self.task, completed=step)

    def end(self) -> None:
        self.progress.stop()


def default_reporter(console: Console | None = None) -> Reporter:
    """Return a bar on a terminal, else lines; both on standard error."""
    console = console or Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)


def shown(values: Mapping[str, float]) -> str:
    """Return metrics as text: `b1.loss 0.1234  b1.accuracy 98.1%`."""
    return "  ".join(f"{name} {_number(name, value)}" for name, value in values.items())


def by_block(values: Mapping[str, float]) -> list[str]:
    """Return a line for each of the last blocks: `  b1  loss 0.1234  accuracy 98.1%`."""
    blocks: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        block, _, metric = name.rpartition(".")
        blocks.setdefault(block, {})[metric] = value
    width = max(map(len, blocks), default=0)
    return [f"  {block:{width}}  {shown(metrics)}" for block, metrics in blocks.items()][-MOST_LINES:]


def _number(name: str, value: float) -> str:
    share = name.rpartition(".")[2] in ("accuracy", "top5", "error")
    return f"{100 * value:.1f}%" if share else f"{value:.4g}"
