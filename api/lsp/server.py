"""How does the language server run? A table of what editors ask, each answered by a module of this package."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument

from lpc.lsp import reports
from lpc.lsp.definitions import definitions
from lpc.lsp.documents import Documents, is_ours, path_of, positions_of
from lpc.lsp.layout import layout
from lpc.lsp.meanings import meaning
from lpc.lsp.offers import Offer, offers
from lpc.lsp.places import place_in, word_in
from lpc.lsp.positions import Positions, location, uri_of
from lpc.specs.source import Span

# A keystroke's own questions come right behind it and are answered first.
PAUSE = 0.005  # seconds
TRIGGERS = [" ", ":", "(", ",", "=", "[", "{", '"', ">", "-"]

KINDS = {
    "key": types.CompletionItemKind.Property,
    "word": types.CompletionItemKind.EnumMember,
    "term": types.CompletionItemKind.Function,
    "argument": types.CompletionItemKind.Field,
    "name": types.CompletionItemKind.Reference,
}


class Server(LanguageServer):
    """The language server: the open documents, and the folder in which it explains codes."""

    def __init__(self, folder: Path) -> None:
        super().__init__("lpc", version("lpc"))
        self.documents = Documents()
        self.explained = reports.explained_in(folder)
        self.pending: dict[str, asyncio.TimerHandle] = {}

    def document(self, uri: str) -> TextDocument:
        """Return an open document."""
        return self.workspace.get_text_document(uri)

    def diagnose(self, uri: str) -> None:
        """Tell the editor what is wrong with a document."""
        self.pending.pop(uri, None)
        document = self.document(uri)
        if is_ours(document):
            found = self.diagnostics(document)
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, document.version))

    def diagnostics(self, document: TextDocument) -> list[types.Diagnostic]:
        """Return the editor's diagnostics of a document, in the order of its problems."""
        positions, own = positions_of(document), str(path_of(document))
        problems = self.documents.analysed(document).problems
        return [reports.reported(found, document.uri, own, positions, self.explained) for found in problems]

    def diagnose_soon(self, uri: str) -> None:
        """Diagnose a document once nothing has changed for a moment."""
        if uri in self.pending:
            self.pending[uri].cancel()
        self.pending[uri] = asyncio.get_running_loop().call_later(PAUSE, self.diagnose, uri)


def serve() -> None:
    """Serve one editor over standard input and output, until it says that it is done."""
    with tempfile.TemporaryDirectory(prefix="lpc-explained-") as folder:
        server = Server(Path(folder))
        for name, (answer, options) in FEATURES.items():
            server.feature(name, options)(answer)
        # What is loaded stays: the collector need not walk it again in the middle of an answer, nor look for garbage
        # several times in one reading, which makes a hundred thousand objects.
        gc.freeze()
        gc.set_threshold(100_000)
        server.start_io()


def opened(server: Server, params: types.DidOpenTextDocumentParams) -> None:
    """A document is opened: look at it at once."""
    server.diagnose(params.text_document.uri)


def edited(server: Server, params: types.DidChangeTextDocumentParams) -> None:
    """A document is changed: look at it soon."""
    server.diagnose_soon(params.text_document.uri)


def saved(server: Server, params: types.DidSaveTextDocumentParams) -> None:
    """A file is written: other documents may extend it."""
    for uri in list(server.documents.known):
        server.documents.forget(uri)
        server.diagnose_soon(uri)
    server.diagnose_soon(params.text_document.uri)


def closed(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    """A document is closed: nothing is wrong with it any more."""
    uri = params.text_document.uri
    if uri in server.pending:
        server.pending.pop(uri).cancel()
    server.documents.forget(uri)
    server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))


def completion(server: Server, params: types.CompletionParams) -> types.CompletionList:
    """Return what can be written at a position."""
    document = server.document(params.text_document.uri)
    analysis, positions = server.documents.latest(document), positions_of(document)
    place = place_in(analysis, positions.offset(params.position))
    written = types.Range(positions.position(place.start), params.position)
    bare = analysis.text[positions.offset(params.position) :][:1] in ("", "\n", "\r", " ", "}", ")", "]", ",")
    items = [_item(offer, number, written, bare) for number, offer in enumerate(offers(place, analysis))]
    return types.CompletionList(is_incomplete=False, items=items)


def _item(offer: Offer, number: int, written: types.Range, bare: bool) -> types.CompletionItem:
    """Return an offer for the editor; behind a key or argument that is already there, only its name is put."""
    return types.CompletionItem(
        label=offer.label,
        kind=KINDS[offer.kind],
        detail=offer.detail or None,
        documentation=types.MarkupContent(types.MarkupKind.Markdown, offer.doc) if offer.doc else None,
        sort_text=f"{number:04}",
        text_edit=types.TextEdit(written, (offer.insert if bare else "") or offer.label),
    )


def hover(server: Server, params: types.HoverParams) -> types.Hover | None:
    """Return what the word at a position means."""
    document = server.document(params.text_document.uri)
    analysis, positions = server.documents.latest(document), positions_of(document)
    place, end = word_in(analysis, positions.offset(params.position))
    text = meaning(place, analysis, analysis.text[end:])
    if text is None:
        return None
    span = types.Range(positions.position(place.start), positions.position(end))
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, text), span)


def definition(server: Server, params: types.DefinitionParams) -> list[types.Location]:
    """Return where the name at a position is given."""
    document = server.document(params.text_document.uri)
    analysis, positions = server.documents.analysed(document), positions_of(document)
    place, _ = word_in(analysis, positions.offset(params.position))
    found = (_location(target, document, positions) for target in definitions(place, analysis))
    return [target for target in found if target is not None]


def _location(target: Span | Path, document: TextDocument, positions: Positions) -> types.Location | None:
    if isinstance(target, Path):
        return types.Location(uri_of(target), reports.START)
    if target.source.name == str(path_of(document)):
        return types.Location(document.uri, positions.range(target))
    return location(target, positions.codec)


def formatting(server: Server, params: types.DocumentFormattingParams) -> list[types.TextEdit]:
    """Return the edits that lay a document out."""
    document = server.document(params.text_document.uri)
    return layout(server.documents.analysed(document), positions_of(document))


def code_action(server: Server, params: types.CodeActionParams) -> Sequence[types.CodeAction]:
    """Return the fixes of the problems in a range."""
    document = server.document(params.text_document.uri)
    problems = server.documents.analysed(document).problems
    found = reports.actions(
        problems, server.diagnostics(document), document.uri, str(path_of(document)), positions_of(document)
    )
    return [action for action in found if _touches(action, params.range)]


def _touches(action: types.CodeAction, wanted: types.Range) -> bool:
    here = (action.diagnostics or [])[0].range
    return here.start <= wanted.end and wanted.start <= here.end


FEATURES: dict[str, tuple[Callable[..., Any], Any]] = {
    types.TEXT_DOCUMENT_DID_OPEN: (opened, None),
    types.TEXT_DOCUMENT_DID_CHANGE: (edited, None),
    types.TEXT_DOCUMENT_DID_SAVE: (saved, None),
    types.TEXT_DOCUMENT_DID_CLOSE: (closed, None),
    types.TEXT_DOCUMENT_COMPLETION: (completion, types.CompletionOptions(trigger_characters=TRIGGERS)),
    types.TEXT_DOCUMENT_HOVER: (hover, None),
    types.TEXT_DOCUMENT_DEFINITION: (definition, None),
    types.TEXT_DOCUMENT_FORMATTING: (formatting, None),
    types.TEXT_DOCUMENT_CODE_ACTION: (
        code_action,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    ),
}
