"""How do tests ask what an editor asks? By a client over the standard streams of a real `lpc lsp` process."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from lsprotocol import types
from pygls.lsp.client import LanguageClient
from pygls.uris import from_fs_path

T = TypeVar("T")
PATIENCE = 60  # seconds; a test that waits so long has failed


class Editor:
    """A client of one server process; `§` in a text is the cursor."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.client = LanguageClient("tests", "1")
        self.told: dict[tuple[str, int], list[types.Diagnostic]] = {}
        self.news = threading.Condition()
        self.versions: dict[str, int] = {}
        # The client marks the functions that it is given, which a method does not allow.
        self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: self._told(params))

    def _told(self, params: types.PublishDiagnosticsParams) -> None:
        with self.news:
            self.told[params.uri, params.version or -1] = list(params.diagnostics)
            self.news.notify_all()

    def wait(self, made: Callable[[], Awaitable[T]]) -> T:
        """Return what an asynchronous call returns."""

        async def called() -> T:
            return await made()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(PATIENCE)

    def start(self, encodings: list[types.PositionEncodingKind] | None = None) -> types.InitializeResult:
        general = types.GeneralClientCapabilities(position_encodings=encodings)
        self.wait(lambda: self.client.start_io(sys.executable, "-m", "lpc", "lsp"))
        params = types.InitializeParams(capabilities=types.ClientCapabilities(general=general))
        started = self.wait(lambda: self.client.initialize_async(params))
        self.client.initialized(types.InitializedParams())
        return started

    def stop(self) -> None:
        self.wait(lambda: self.client.shutdown_async(None))
        self.client.exit(None)
        self.wait(self.client.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def write(self, path: Path, text: str) -> list[types.Diagnostic]:
        """Open a document, or change the whole of it; return what the server then says is wrong with it."""
        uri = self.send(path, text)
        return self.problems(uri, self.versions[uri])

    def send(self, path: Path, text: str) -> str:
        """Open a document, or change the whole of it, and wait for nothing; return its URI."""
        uri = from_fs_path(str(path))
        assert uri is not None
        version = self.versions.get(uri, 0) + 1
        self.versions[uri] = version
        if version == 1:
            item = types.TextDocumentItem(uri, "lpc" if path.suffix == ".lpc" else "yaml", version, text)
            self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        else:
            change = types.TextDocumentContentChangeWholeDocument(text)
            named = types.VersionedTextDocumentIdentifier(version, uri)
            self.client.text_document_did_change(types.DidChangeTextDocumentParams(named, [change]))
        return uri

    def problems(self, uri: str, version: int) -> list[types.Diagnostic]:
        with self.news:
            assert self.news.wait_for(lambda: (uri, version) in self.told, PATIENCE), "no diagnostics were told"
            return self.told[uri, version]

    def put(self, path: Path, marked: str, typed: bool = False) -> dict[str, Any]:
        """Write a text and return its cursor's place as the parameters of a request, which follows at once if typed."""
        before, found, after = marked.partition("§")
        assert found
        (self.send if typed else self.write)(path, before + after)
        position = types.Position(before.count("\n"), len(before.rpartition("\n")[2]))
        return {"text_document": types.TextDocumentIdentifier(from_fs_path(str(path)) or ""), "position": position}

    def completed(self, path: Path, marked: str) -> dict[str, types.CompletionItem]:
        params = types.CompletionParams(**self.put(path, marked, typed=True))
        found = self.wait(lambda: self.client.text_document_completion_async(params))
        assert isinstance(found, types.CompletionList)
        return {item.label: item for item in found.items}

    def explained(self, path: Path, marked: str) -> str:
        params = types.HoverParams(**self.put(path, marked))
        found = self.wait(lambda: self.client.text_document_hover_async(params))
        if found is None:
            return ""
        assert isinstance(found.contents, types.MarkupContent)
        return found.contents.value

    def led(self, path: Path, marked: str) -> list[tuple[str, str]]:
        """Return the files and the texts that the cursor leads to."""
        params = types.DefinitionParams(**self.put(path, marked))
        found = self.wait(lambda: self.client.text_document_definition_async(params))
        assert isinstance(found, list)
        return [_shown(place, path, marked.replace("§", "", 1)) for place in found]

    def laid_out(self, path: Path, text: str) -> str:
        self.write(path, text)
        named = types.TextDocumentIdentifier(from_fs_path(str(path)) or "")
        params = types.DocumentFormattingParams(named, types.FormattingOptions(2, True))
        edits = self.wait(lambda: self.client.text_document_formatting_async(params))
        return edited(text, edits or [])

    def actions(self, path: Path, text: str) -> list[types.CodeAction]:
        self.write(path, text)
        end = types.Position(text.count("\n"), 0)
        named = types.TextDocumentIdentifier(from_fs_path(str(path)) or "")
        params = types.CodeActionParams(named, types.Range(types.Position(0, 0), end), types.CodeActionContext([]))
        found = self.wait(lambda: self.client.text_document_code_action_async(params))
        return [action for action in found or [] if isinstance(action, types.CodeAction)]


def _shown(place: Any, path: Path, text: str) -> tuple[str, str]:
    file = Path(place.uri.removeprefix("file://"))
    inside = text if file == path else file.read_text()
    start, end = place.range.start, place.range.end
    line = inside.split("\n")[start.line]
    return file.name, line[start.character : end.character if end.line == start.line else None]


def edited(text: str, edits: Any) -> str:
    """Return a text with an editor's changes made, the last first."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for edit in sorted(edits, key=lambda edit: (edit.range.start.line, edit.range.start.character), reverse=True):
        start, end = (starts[at.line] + at.character for at in (edit.range.start, edit.range.end))
        text = text[:start] + edit.new_text + text[end:]
    return text


@pytest.fixture(scope="session")
def editor() -> Iterator[Editor]:
    """A client of one server for all tests; each test writes documents of its own."""
    editor = Editor()
    editor.start()
    yield editor
    editor.stop()
