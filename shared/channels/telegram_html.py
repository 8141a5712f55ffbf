"""The Markdown that models write, as the HTML that Telegram reads.

Telegram knows few tags (b, i, s, code, pre, a, blockquote) and no blocks
(https://core.telegram.org/bots/api#html-style). Every tag is closed and every `<`, `>` and `&` escaped.
"""

from __future__ import annotations

from html import escape

from shared.channels.markdown import Mark, Markup

_TAGS: dict[Mark, str] = {"strong": "b", "em": "i", "s": "s"}
_LINKS = ("http://", "https://", "tg://", "mailto:")


def render(markdown: str) -> str:
    """HTML for `parse_mode=HTML`; raw HTML in the text is shown as it was written."""
    return _Html().render(markdown)


class _Html(Markup):
    def text(self, raw: str) -> str:
        return escape(raw, quote=False)

    def mark(self, mark: Mark, inner: str) -> str:
        return f"<{_TAGS[mark]}>{inner}</{_TAGS[mark]}>"

    def code(self, raw: str) -> str:
        return f"<code>{self.text(raw)}</code>"

    def pre(self, raw: str, language: str = "") -> str:
        text = self.text(raw)
        if not language:
            return f"<pre>{text}</pre>"
        return f'<pre><code class="language-{escape(language)}">{text}</code></pre>'

    def quote(self, inner: str) -> str:
        return f"<blockquote>{inner}</blockquote>"

    def link(self, inner: str, address: str) -> str:
        """The address in brackets where Telegram would drop it without a word: it links no relative ones."""
        shown = self.text(address)
        if address.startswith(_LINKS):
            return f'<a href="{escape(address)}">{inner or shown}</a>'
        return f"{inner} ({shown})" if address and inner != shown else inner or shown
