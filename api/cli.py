"""What does the command `lpc` do? A function a subcommand: call the API, print a view of the result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lpc
from lpc import formatting, language
from lpc.calibrating import calibrate
from lpc.collecting import keeping_all, load
from lpc.comparing import diff
from lpc.inspecting import inspect, named_length
from lpc.leaving import eject
from lpc.lsp.command import lsp
from lpc.naming import is_plan
from lpc.output import say, show, tell
from lpc.specs.kept import LIMIT
from lpc.timing import profile
from lpc.usage import UsageError, continuation, misuse
from lpc.verifying import verify

# Modules that only some commands need are imported where they are used: `lpc --help` shall not wait for them.
if TYPE_CHECKING:
    from lpc.estimating import Estimate
    from lpc.plan import Plan

USER_MISTAKE = 2
RESTARTS, KEPT = 20, LIMIT // 2**20  # of workers; MiB
INTERRUPTED = 130  # as a shell has it: 128 + SIGINT

app = typer.Typer(
    name="lpc",
    help="A declarative compiler for local learning.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="a spec: NAME.yaml or NAME.lpc", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a value, such as run.seed=1", show_default=False
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="PACKAGE|PATH", help="let `module:` import from here as well", show_default=False),
]


class ReportFormat(StrEnum):
    """The forms in which `check` tells its outcome."""

    text = "text"
    json = "json"


def _version(wanted: bool) -> None:
    if wanted:
        say(f"lpc {lpc.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Compile a network and a description of its local learning to a plan, and run it."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="where to write it")] = Path("spec.yaml"),
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="begin with this recipe", show_default=False)
    ] = None,
    recipes: Annotated[bool, typer.Option("--recipes", help="list the recipes and write nothing")] = False,
) -> None:
    """Write a commented starter spec."""
    from lpc import starting
    from lpc.specs.files import write_atomically

    if recipes:
        say(starting.recipes(), end="")
        return
    text = starting.starter(recipe)
    if path.exists() and not force:
        raise lpc.LpcError(lpc.Diagnostic("0702", "a file is already there and is left as it is", place=str(path)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    say(f"wrote {path}; try: lpc run {path}")
    if recipe is None:
        say(f"or begin with a recipe, `lpc init --recipe NAME`:\n{starting.recipes()}", end="")


@app.command()
@keeping_all()
def check(
    spec: SpecPath,
    set_: Set = None,
    format_: Annotated[ReportFormat, typer.Option("--format", help="how the outcome is told")] = ReportFormat.text,
) -> None:
    """Check a spec, without torch."""
    try:
        found = lpc.check(spec, set_ or ())
    except lpc.LpcError as error:
        if format_ is ReportFormat.text:
            raise
        say(language.report(error))
        raise typer.Exit(USER_MISTAKE) from None
    if format_ is ReportFormat.json:
        say(language.report(found))
        return
    say(f"{spec}: `{found.name}` is well formed")


@app.command()
def expand(spec: SpecPath, set_: Set = None) -> None:
    """Print a spec with every default written out."""
    say(lpc.expand(lpc.check(spec, set_ or ())), end="")


@app.command()
def build(
    spec: SpecPath,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PLAN", help="folder or .zip; default: SPEC's name + .plan"),
    ] = None,
    set_: Set = None,
    allow: Allow = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="write nothing: tell memory and operations, without making weights")
    ] = False,
    devices: Annotated[int, typer.Option(metavar="N", min=1, help="with --estimate: this many devices")] = 1,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="with --estimate: samples in a batch", show_default=False)
    ] = None,
    length: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="with --estimate: a length such as T=128", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="with --estimate: as JSON")] = False,
) -> None:
    """Compile a spec to a plan. An earlier plan there is replaced only by a finished one."""
    load("lpc.building")
    from lpc.views import building, partition, units

    if estimate:
        known = dict(map(named_length, length or ()))
        _estimated(
            lpc.estimate(spec, set_ or (), allow=allow or (), batch=batch, lengths=known, devices=devices), json
        )
        return
    if json or batch is not None or length or devices > 1:
        raise typer.BadParameter("belongs to --estimate", param_hint="--batch, --length, --devices or --json")
    start = time.perf_counter()
    plan = lpc.build(spec, set_ or (), allow=allow or ())
    target = output or Path(f"{spec.stem}.plan")
    target.parent.mkdir(parents=True, exist_ok=True)
    plan.save(target)
    say(building.trace(plan.data.report))
    show(partition.blocks(plan.data))
    say(f"built {target} in {units.duration(time.perf_counter() - start)}")


@app.command()
def run(
    source: Annotated[
        Path, typer.Argument(metavar="SPEC|PLAN", help="a spec, or a plan", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="checkpoints and metrics; default: runs/NAME")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="continue from the last checkpoint")] = False,
    epochs: Annotated[
        int | None, typer.Option(help="short for --set run.epochs=N", show_default=False)
    ] = None,
    set_: Set = None,
    allow: Allow = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="write event files as well")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="measure the peak memory of the first steps")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="write when each process computes: trace.json")] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="processes; default: as the spec says", show_default=False),
    ] = None,
    restarts: Annotated[
        int, typer.Option(metavar="N", min=0, help="how often dead workers are started again")
    ] = RESTARTS,
    patience: Annotated[float, typer.Option(metavar="SECONDS", help="how long a silent worker is waited for")] = 600.0,
    keep: Annotated[
        int,
        typer.Option(metavar="MIB", min=0, help="of what a worker has sent, so that one that dies goes on alone"),
    ] = KEPT,
    threads: Annotated[
        bool, typer.Option("--threads", help="workers are threads of one process, on a GPU each with its stream")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="ORDER", help="the order.jsonl of a run with `staleness`: do the same, in one process"),
    ] = None,
) -> None:
    """Train a plan, or a spec that is built first."""
    load("lpc.trainer" if is_plan(source) else "lpc.building")
    from lpc import parallel
    from lpc.locating import located

    if replay is not None and (resume or workers is not None or memory or trace or tensorboard or threads):
        message = "goes without --workers, --threads, --resume, --memory, --trace and --tensorboard"
        raise typer.BadParameter(message, param_hint="--replay")
    if threads and (restarts, keep) != (RESTARTS, KEPT):
        message = "goes without --restarts and --keep: no thread is started again"
        raise typer.BadParameter(message, param_hint="--threads")

    overrides = [*(set_ or ()), *([] if epochs is None else [f"run.epochs={epochs}"])]
    written = None if is_plan(source) else lpc.check(source, overrides)
    plan = lpc.build(written, allow=allow or ()) if written is not None else _built(source, overrides)
    folder = out or Path("runs", plan.spec.name if replay is None else f"{plan.spec.name}.replay")
    how = parallel.Fit(folder, device, resume, tensorboard, memory, trace, patience, keep, threads)
    with located(plan, source, written):
        launched = None if replay is not None else parallel.launch(plan, how, workers, restarts)
        summary = parallel.fit(plan, how, replay, workers) if launched is None else launched
    _outcome(summary, folder)


def _outcome(summary: Mapping[str, Any], folder: Path) -> None:
    """Show what a run came to; workers but the first one have nothing to say."""
    from lpc.views import running

    if summary:
        show(running.metrics(summary))
        say(running.memory(summary), end="")
        say(running.trace(summary), end="")
        say(running.staleness(summary), end="")
        say(f"{running.outcome(summary)}\nwrote {folder}")


_PLANS = (inspect, verify, diff, profile, calibrate, eject)
for _command in (*_PLANS, formatting.fmt, language.explain, language.fix, language.schema, lsp):
    app.command()(_command)


def _estimated(found: Estimate, json: bool) -> None:
    from lpc.views import estimate

    if json:
        say(estimate.text(found))
        return
    for view in estimate.shown(found):
        say(view) if isinstance(view, str) else show(view)


def _built(source: Path, overrides: Sequence[str]) -> Plan:
    """Load a plan. Nothing in it can be overridden."""
    if overrides:
        raise lpc.LpcError(lpc.Diagnostic("0703", f"`{overrides[0]}` cannot change a built plan", place=str(source)))
    return lpc.load(source)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. A user's mistake is told in diagnostics and ends with code 2, never in a traceback."""
    # No other package has a say in how a spec is read; pydantic would search all of them for one that wants to.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="lpc", standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except lpc.LpcError as error:
        code = _told(*error.diagnostics)
    except UsageError as error:
        code = _told(misuse(error, given))
    except OSError as error:
        code = _told(_inaccessible(error))
    if code == INTERRUPTED:
        sys.stderr.write(f"interrupted{continuation(given)}\n")
    sys.exit(code)


def _told(*problems: lpc.Diagnostic) -> int:
    for problem in problems:
        tell(problem)
    return USER_MISTAKE


def _inaccessible(error: OSError) -> lpc.Diagnostic:
    return lpc.Diagnostic("0701", error.strerror or str(error), place=str(error.filename or "unnamed file"))
