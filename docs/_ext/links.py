"""Links that need no markup: names of dense_imb, commands and pages in code link to their page."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

from command_pages import page_name
from dense_imb import cli

_NOT_IN = (nodes.reference, nodes.title, addnodes.pending_xref, addnodes.desc_signature)
_CALL = re.compile(r"([A-Za-z_][\w.]*)(\(.*\))?", re.DOTALL)
_WORD = re.compile(r"[a-z]+")  # `train` may be an option, or a command; `train()` is the function
_OURS = {"dense_imb", "ours", "here"}  # headings of columns in tables that compare libraries
_PAGE = re.compile(r"docs/([\w/]+)\.md")


class LinkedCode(SphinxPostTransform):
    """Link code that is a public name, a command or a page, to the page of it."""

    default_priority = 8  # before references are resolved to plain nodes

    def run(self, **options: Any) -> None:
        """Link the code of one page, and the types of its signatures."""
        for literal in list(self.document.findall(nodes.literal)):
            page = self._page_of(literal.astext())
            inside = any(isinstance(one, _NOT_IN) for one in _ancestors(literal))
            if page in (None, self.env.docname) or inside or _is_of_others(literal):
                continue
            uri = self.app.builder.get_relative_uri(self.env.docname, page)
            link = nodes.reference("", "", internal=True, refuri=uri)
            literal.replace_self(link)
            link += literal
        for node in list(self.document.findall(addnodes.pending_xref)):
            if any(isinstance(one, addnodes.desc_signature) for one in _ancestors(node)):
                self._resolve_type(node)

    def _page_of(self, text: str) -> str | None:
        words = text.split()
        if words[:1] == ["dense-imb"]:
            return _page_of_command(words[1:])
        if match := _PAGE.fullmatch(text):
            return match[1] if match[1] in self.env.found_docs else None
        match = _CALL.fullmatch(text)
        if match is None or (match[2] is None and _WORD.fullmatch(text)):
            return None
        path = self._path_of(match[1]) or self._path_of(match[1].rpartition(".")[0])
        return f"api/{path}" if path else None

    def _path_of(self, name: str) -> str | None:
        """Return the page of a name, rather of the room that this page belongs to."""
        names = self.config.dense_imb_names
        room = self.env.docname.removeprefix("api/")
        while room:
            if path := names.get(f"{room}.{name}"):
                return str(path)
            room = room.rpartition(".")[0]
        return names.get(name)

    def _resolve_type(self, node: addnodes.pending_xref) -> None:
        """Link a type of a signature; those of other libraries stay text, as builds are offline."""
        path = self._path_of(node["reftarget"])
        made: nodes.Node = nodes.inline("", "", *node.children)
        if path:
            uri = self.app.builder.get_relative_uri(self.env.docname, f"api/{path}")
            made = nodes.reference("", "", *node.children, internal=True, refuri=uri)
        node.replace_self(made)


def resolve_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve roles with another spelling of a name: `dense_imb.FocalLoss`, or its module."""
    path = app.config.dense_imb_names.get(node.get("reftarget"))
    if node.get("refdomain") != "py" or path is None:
        return None
    uri = app.builder.get_relative_uri(node["refdoc"], f"api/{path}")
    link = nodes.reference("", "", internal=True, refuri=uri)
    link += content
    return link


def _page_of_command(words: list[str]) -> str | None:
    for n_words in (2, 1):
        name = " ".join(words[:n_words])
        if name in cli.COMMANDS:
            return f"commands/{page_name(name)}"
    return None


def _is_of_others(literal: nodes.literal) -> bool:
    """Return whether code stands in a table's column of another library."""
    above = [literal, *_ancestors(literal)]
    entry = next((one for one in above if isinstance(one, nodes.entry)), None)
    table = next((one for one in above if isinstance(one, nodes.table)), None)
    if entry is None or table is None:
        return False
    head = next(table.findall(nodes.row))
    is_ours = [cell.astext().strip() in _OURS for cell in head]
    return any(is_ours) and not is_ours[entry.parent.index(entry)]


def _ancestors(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found
