"""The Markdown that models write, as WhatsApp formats text: *bold*, _italic_, ~struck out~, `code`, ```fixed width```.

https://faq.whatsapp.com/539178204879377 - there is no way to escape a mark, to make a link from a word, or to let a
mark span lines.
"""

from __future__ import annotations

from shared.channels.markdown import Mark, Markup

_MARKS: dict[Mark, str] = {"strong": "*", "em": "_", "s": "~"}


def render(markdown: str) -> str:
    """The text with WhatsApp's marks."""
    return _Text().render(markdown)


class _Text(Markup):
    def text(self, raw: str) -> str:
        return raw

    def mark(self, mark: Mark, inner: str) -> str:
        sign = _MARKS[mark]
        return "\n".join(f"{sign}{line}{sign}" if line.strip() else line for line in inner.split("\n"))

    def code(self, raw: str) -> str:
        return f"`{raw}`"

    def pre(self, raw: str, language: str = "") -> str:
        return f"```{raw}```" if raw else ""

    def quote(self, inner: str) -> str:
        return "\n".join(f"> {line}".rstrip() for line in inner.split("\n"))

    def link(self, inner: str, address: str) -> str:
        if inner in (address, address.removeprefix("mailto:")):
            return inner
        return f"{inner} ({address})" if inner and address else inner or address
