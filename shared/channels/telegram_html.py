"""The Markdown that models write, as the HTML that Telegram reads.

Telegram knows few tags (b, i, s, code, pre, a, blockquote) and no blocks: paragraphs are blank lines, list items lines
with a bullet, tables fixed-width text, headings bold, images links (https://core.telegram.org/bots/api#html-style).
Rendering a syntax tree instead of replacing characters makes every tag closed and every `<`, `>` and `&` escaped.
"""

from __future__ import annotations

from functools import cache
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

_TAGS = {"strong": "b", "em": "i", "s": "s"}
_LINKS = ("http://", "https://", "tg://", "mailto:")


def render(markdown: str) -> str:
    """HTML for `parse_mode=HTML`; raw HTML in the text is shown as it was written."""
    from markdown_it.tree import SyntaxTreeNode

    return _blocks(SyntaxTreeNode(_parser().parse(markdown)))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return parser.disable(["code", "lheading"])  # in a chat, indented or underlined text is seldom meant as either


def _blocks(node: SyntaxTreeNode, depth: int = 0) -> str:
    return "\n\n".join(_block(child, depth) for child in node.children)


def _block(node: SyntaxTreeNode, depth: int) -> str:
    match node.type:
        case "paragraph":
            html = _inlines(node.children[0])
        case "heading":
            html = f"<b>{_inlines(node.children[0])}</b>"
        case "fence":
            html = _code(node)
        case "bullet_list" | "ordered_list":
            html = _list(node, depth)
        case "blockquote":
            quoted = any(parent.type == "blockquote" for parent in _parents(node))
            html = _blocks(node) if quoted else f"<blockquote>{_blocks(node)}</blockquote>"  # they cannot be nested
        case "table":
            html = _table(node)
        case "hr":
            html = "———"
        case _:
            html = escape(node.content, quote=False)
    return html


def _parents(node: SyntaxTreeNode) -> list[SyntaxTreeNode]:
    return [] if node.parent is None else [node.parent, *_parents(node.parent)]


def _code(node: SyntaxTreeNode) -> str:
    text = escape(node.content.rstrip("\n"), quote=False)
    language = node.info.partition(" ")[0]
    return f'<pre><code class="language-{escape(language)}">{text}</code></pre>' if language else f"<pre>{text}</pre>"


def _list(node: SyntaxTreeNode, depth: int) -> str:
    first = int(node.attrs.get("start", 1))
    lines = []
    for number, item in enumerate(node.children, first):
        mark = f"{number}." if node.type == "ordered_list" else "•"
        text = "\n".join(_block(child, depth + 1) for child in item.children)
        lines.append(f"{'  ' * depth}{mark} {text}")
    return "\n".join(lines)


def _table(node: SyntaxTreeNode) -> str:
    rows = [[_plain(cell) for cell in row.children] for part in node.children for row in part.children]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return f"<pre>{escape(chr(10).join(lines), quote=False)}</pre>"


def _plain(node: SyntaxTreeNode) -> str:
    """The text of a cell: inside `pre` Telegram allows no other tags."""
    if node.type in ("text", "code_inline", "image"):
        return str(node.content)
    return "".join(_plain(child) for child in node.children)


def _inlines(node: SyntaxTreeNode) -> str:
    return "".join(_inline(child) for child in node.children)


def _inline(node: SyntaxTreeNode) -> str:
    match node.type:
        case "code_inline":
            return f"<code>{escape(node.content, quote=False)}</code>"
        case "softbreak" | "hardbreak":
            return "\n"
        case "link":
            return _link(_inlines(node), str(node.attrs["href"]))
        case "image":
            text = escape(node.content, quote=False)
            linked = any(parent.type == "link" for parent in _parents(node))
            return text if linked else _link(text, str(node.attrs["src"]))
    if tag := _TAGS.get(node.type):
        return f"<{tag}>{_inlines(node)}</{tag}>"
    return escape(node.content, quote=False)


def _link(text: str, address: str) -> str:
    """A link, or the address in brackets where Telegram would drop it without a word (it links no relative ones)."""
    shown = escape(address, quote=False)
    if address.startswith(_LINKS):
        return f'<a href="{escape(address)}">{text or shown}</a>'
    return f"{text} ({shown})" if address and text != shown else text or shown
