"""The Markdown that models write, walked once for every channel.

No channel knows its blocks: paragraphs become blank lines, list items lines with a bullet, tables fixed-width text,
headings bold, images links. Rendering a syntax tree instead of replacing characters closes all that is opened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

Mark = Literal["strong", "em", "s"]


class Markup(ABC):
    """How one channel writes what Markdown means. `raw` is text as it was written, `inner` is rendered already."""

    def render(self, markdown: str) -> str:
        """The text in this channel's markup; HTML in it is shown as it was written."""
        from markdown_it.tree import SyntaxTreeNode

        return self._blocks(SyntaxTreeNode(_parser().parse(markdown)))

    @abstractmethod
    def text(self, raw: str) -> str:
        """Text that means nothing but itself."""

    @abstractmethod
    def mark(self, mark: Mark, inner: str) -> str:
        """Bold, italic or struck out."""

    @abstractmethod
    def code(self, raw: str) -> str:
        """Code within a line."""

    @abstractmethod
    def pre(self, raw: str, language: str = "") -> str:
        """Lines of fixed width."""

    @abstractmethod
    def quote(self, inner: str) -> str:
        """A quotation. Those inside another one are part of it."""

    @abstractmethod
    def link(self, inner: str, address: str) -> str:
        """A link; `inner` may be empty."""

    def _blocks(self, node: SyntaxTreeNode, depth: int = 0) -> str:
        return "\n\n".join(self._block(child, depth) for child in node.children)

    def _block(self, node: SyntaxTreeNode, depth: int) -> str:
        match node.type:
            case "paragraph":
                shown = self._inlines(node.children[0])
            case "heading":
                shown = self.mark("strong", self._inlines(node.children[0]))
            case "fence":
                shown = self.pre(node.content.rstrip("\n"), node.info.partition(" ")[0])
            case "bullet_list" | "ordered_list":
                shown = self._list(node, depth)
            case "blockquote":
                inner = self._blocks(node)
                shown = inner if _inside(node, "blockquote") else self.quote(inner)
            case "table":
                shown = self._table(node)
            case "hr":
                shown = "———"
            case _:
                shown = self.text(node.content)
        return shown

    def _list(self, node: SyntaxTreeNode, depth: int) -> str:
        first = int(node.attrs.get("start", 1))
        lines = []
        for number, item in enumerate(node.children, first):
            mark = f"{number}." if node.type == "ordered_list" else "•"
            text = "\n".join(self._block(child, depth + 1) for child in item.children)
            lines.append(f"{'  ' * depth}{mark} {text}")
        return "\n".join(lines)

    def _table(self, node: SyntaxTreeNode) -> str:
        rows = [[_plain(cell) for cell in row.children] for part in node.children for row in part.children]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [" | ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines.insert(1, "-+-".join("-" * width for width in widths))
        return self.pre("\n".join(lines))

    def _inlines(self, node: SyntaxTreeNode) -> str:
        return "".join(self._inline(child) for child in node.children)

    def _inline(self, node: SyntaxTreeNode) -> str:
        match node.type:
            case "strong" | "em" | "s" as mark:
                inner = self._inlines(node)
                repeated = _inside(node, mark) or (mark == "strong" and _inside(node, "heading"))
                return inner if repeated else self.mark(mark, inner)
            case "code_inline":
                return self.code(node.content)
            case "softbreak" | "hardbreak":
                return "\n"
            case "link":
                return self.link(self._inlines(node), str(node.attrs["href"]))
            case "image":
                inner = self.text(node.content)
                return inner if _inside(node, "link") else self.link(inner, str(node.attrs["src"]))
        return self.text(node.content)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return parser.disable(["code", "lheading"])  # in a chat, indented or underlined text is seldom meant as either


def _inside(node: SyntaxTreeNode, kind: str) -> bool:
    return node.parent is not None and (node.parent.type == kind or _inside(node.parent, kind))


def _plain(node: SyntaxTreeNode) -> str:
    """The text of a table's cell: within fixed width no channel knows other markup."""
    if node.type in ("text", "code_inline", "image"):
        return str(node.content)
    return "".join(_plain(child) for child in node.children)
