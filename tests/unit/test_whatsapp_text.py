"""Markdown as models write it comes out as WhatsApp formats text."""

from __future__ import annotations

import pytest

from shared.channels.whatsapp_text import render


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("plain", "plain"),
        ("a **bold** *word* ~~gone~~ `x < y`", "a *bold* _word_ ~gone~ `x < y`"),
        ("***both***", "_*both*_"),
        ("**one\ntwo**", "*one*\n*two*"),
        ("1 < 2 & <b>3</b>", "1 < 2 & <b>3</b>"),
        ("snake_case_name", "snake_case_name"),
        ("# The **big** title\n\nText", "*The big title*\n\nText"),
        ("- a\n- b\n  - c", "• a\n• b\n  • c"),
        ("3. a\n4. b", "3. a\n4. b"),
        ("> said\n>\n> > so", "> said\n>\n> so"),
        ("```py\nif a < b:\n    pass\n```", "```if a < b:\n    pass```"),
        ("[site](https://example.com/?a=1&b=2)", "site (https://example.com/?a=1&b=2)"),
        ("<https://example.com> <ana@example.com>", "https://example.com ana@example.com"),
        ("![a cat](https://example.com/cat.png)", "a cat (https://example.com/cat.png)"),
        ("[](https://example.com)", "https://example.com"),
        ("a\n\n---\n\nb", "a\n\n———\n\nb"),
        ("| a | b |\n|---|---|\n| 1 | **22** |", "```a | b\n--+---\n1 | 22```"),
        ("", ""),
    ],
)
def test_markdown_becomes_the_text_of_whatsapp(markdown: str, text: str) -> None:
    assert render(markdown) == text
