"""How long does an editor wait for `lpc lsp`? Completion, hover and diagnostics of a 300-line spec, in both spellings.

    python benchmarks/lsp.py [ROUNDS]

A client of a real server process types a character and asks, or waits to be told; from the first byte sent to the
answer read: the median, what one in twenty exceeds, and the processor time of the server alone, which other work on the
machine does not stretch. The command exits with 1 where a median is over the limit.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import mean, median, quantiles

import psutil
from check import spec
from lsprotocol import types
from pygls.lsp.client import LanguageClient

from lpc.specs.formatting import format_spec

LIMIT = 0.1  # seconds
BLOCKS = {"yaml": 82, "lpc": 124}  # 300 lines of each
MARK = {"yaml": "optimizer: ", "lpc": "optimizer "}

# The seconds that each question took: by the clock, and of the server's processor time.
Times = dict[str, list[tuple[float, float]]]


def sample(spelling: str, folder: Path) -> str:
    """Return a spec of 300 lines."""
    text = spec(BLOCKS[spelling])
    return text if spelling == "yaml" else format_spec(folder / "long.yaml", text, "dsl")


class Typist:
    """An editor with one document, whose last entry's optimizer is being typed, and the server's news of it."""

    def __init__(self, client: LanguageClient, path: Path, text: str) -> None:
        self.client, self.uri, self.text = client, path.as_uri(), text
        self.named = types.TextDocumentIdentifier(self.uri)
        self.version = 0
        self.told: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()
        begun = text.rindex(MARK[path.suffix[1:]]) + len(MARK[path.suffix[1:]])
        line = text.count("\n", 0, begun)
        self.cursor = types.Position(line, begun - (text.rfind("\n", 0, begun) + 1) + 2)

    def open(self) -> None:
        item = types.TextDocumentItem(self.uri, "yaml", self.version, self.text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def type(self) -> None:
        """Change one character, so that no answer is one that is known: `ad` to `ax`, or back."""
        self.version += 1
        span = types.Range(types.Position(self.cursor.line, self.cursor.character - 1), self.cursor)
        change = types.TextDocumentContentChangePartial(span, "x" if self.version % 2 else "d")
        named = types.VersionedTextDocumentIdentifier(self.version, self.uri)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(named, [change]))

    async def diagnostics(self) -> None:
        while (await self.told.get()).version != self.version:
            pass

    async def completion(self) -> None:
        found = await self.client.text_document_completion_async(types.CompletionParams(self.named, self.cursor))
        assert isinstance(found, types.CompletionList)
        assert any(item.label == "adam" for item in found.items)

    async def hover(self) -> None:
        at = types.Position(self.cursor.line, self.cursor.character - len("optimizer"))
        assert await self.client.text_document_hover_async(types.HoverParams(self.named, at)) is not None


def processor(server: psutil.Process) -> float:
    """Return the processor time that a process has used, in steps of a clock tick."""
    used = server.cpu_times()
    return used.user + used.system


async def measure(path: Path, text: str, rounds: int) -> Times:
    """Return how long each question took that was asked right after a keystroke."""
    client = LanguageClient("benchmark", "1")
    typist = Typist(client, path, text)
    client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: typist.told.put_nowait(params))
    before = {child.pid for child in psutil.Process().children()}
    await client.start_io(sys.executable, "-m", "lpc", "lsp")
    (server,) = (child for child in psutil.Process().children() if child.pid not in before)
    await client.initialize_async(types.InitializeParams(capabilities=types.ClientCapabilities()))
    typist.open()
    await typist.diagnostics()
    asked: dict[str, Callable[[], Awaitable[None]]] = {
        "diagnostics": typist.diagnostics, "completion": typist.completion, "hover": typist.hover
    }  # fmt: skip
    times: Times = {name: [] for name in asked}
    for _ in range(rounds):
        for name, ask in asked.items():
            busy, start = processor(server), time.perf_counter()
            typist.type()
            await ask()
            times[name].append((time.perf_counter() - start, processor(server) - busy))
            if name != "diagnostics":
                await typist.diagnostics()
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return times


def main(rounds: int) -> None:
    """Print a row a spelling and question."""
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        for spelling in BLOCKS:
            path = Path(folder, f"long.{spelling}")
            text = sample(spelling, path.parent)
            for name, pairs in asyncio.run(measure(path, text, rounds)).items():
                taken, used = zip(*pairs, strict=True)
                slow |= median(taken) > LIMIT
                figures = (median(taken), quantiles(taken, n=20)[-1], mean(used))
                columns = " | ".join(f"{1e3 * seconds:.0f}" for seconds in figures)
                print(f"| {spelling} | {text.count(chr(10))} | {name} | {columns} |")
    sys.exit(slow)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
