"""Which texts are open in the editor, and what is in each?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pygls import uris
from pygls.workspace import TextDocument

from lpc.lsp.analysis import Analysis, analyse
from lpc.lsp.positions import Positions
from lpc.specs.spelling import DSL_SUFFIX

SUFFIXES = (DSL_SUFFIX, ".yaml", ".yml")


class Documents:
    """The analyses of open documents, by URI; each is of the text at some version, and is made again when asked."""

    def __init__(self) -> None:
        self.known: dict[str, Analysis] = {}

    def latest(self, document: TextDocument) -> Analysis:
        """Return what was last found, with the text as it is now: at once, for what answers a keystroke."""
        before = self.known.get(document.uri)
        return replace(before, text=document.source) if before else self.analysed(document)

    def analysed(self, document: TextDocument) -> Analysis:
        """Return what is in the text as it is now."""
        before = self.known.get(document.uri)
        if before is None or before.text != document.source:
            self.known[document.uri] = analyse(path_of(document), document.source, before)
        return self.known[document.uri]

    def forget(self, uri: str) -> None:
        """Drop a document that is closed, or whose files on the disk have changed."""
        self.known.pop(uri, None)


def path_of(document: TextDocument) -> Path:
    """Return a document's path; one that is no file yet gets the suffix of its language."""
    name = uris.to_fs_path(document.uri) or document.uri.rpartition(":")[2] or "untitled"
    suffix = DSL_SUFFIX if document.language_id == "lpc" else ".yaml"
    return Path(name) if name.endswith(SUFFIXES) else Path(f"{name}{suffix}")


def is_ours(document: TextDocument) -> bool:
    """Tell whether a document can be a spec, by its name or by its language."""
    return document.uri.endswith(SUFFIXES) or document.language_id in ("lpc", "yaml")


def positions_of(document: TextDocument) -> Positions:
    """Return how places of the document's text become the editor's."""
    return Positions(document.source, document.position_codec)
