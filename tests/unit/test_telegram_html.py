"""Markdown as models write it comes out as HTML that Telegram takes."""

from __future__ import annotations

import random

import pytest

from shared.channels.telegram_html import render
from shared.cli.simulators.telegram_checks import BadMarkup, visible


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("plain", "plain"),
        ("a **bold** *word* ~~gone~~ `x < y`", "a <b>bold</b> <i>word</i> <s>gone</s> <code>x &lt; y</code>"),
        ("1 < 2 & 3 > 2", "1 &lt; 2 &amp; 3 &gt; 2"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("snake_case_name and 2*3*4", "snake_case_name and 2<i>3</i>4"),
        ("# Title\n\nText", "<b>Title</b>\n\nText"),
        ("one\ntwo\n\nthree", "one\ntwo\n\nthree"),
        ("- a\n- b\n  - c\n  - d\n- e", "• a\n• b\n  • c\n  • d\n• e"),
        ("3. a\n4. b", "3. a\n4. b"),
        ("> said\n> so", "<blockquote>said\nso</blockquote>"),
        ("> a\n> > b", "<blockquote>a\n\nb</blockquote>"),
        ("```py\nif a < b:\n    pass\n```", '<pre><code class="language-py">if a &lt; b:\n    pass</code></pre>'),
        ("```\nx\n```", "<pre>x</pre>"),
        ("```\nnever closed", "<pre>never closed</pre>"),
        ("[site](https://example.com/?a=1&b=2)", '<a href="https://example.com/?a=1&amp;b=2">site</a>'),
        ('[x](https://example.com/"onclick)', '<a href="https://example.com/%22onclick">x</a>'),
        ("[page](/relative)", "page (/relative)"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("![a cat](https://example.com/cat.png)", '<a href="https://example.com/cat.png">a cat</a>'),
        ("![](https://example.com/c.png)", '<a href="https://example.com/c.png">https://example.com/c.png</a>'),
        ("[![alt](https://e.com/i.png)](https://e.com)", '<a href="https://e.com">alt</a>'),
        ("a\n\n---\n\nb", "a\n\n———\n\nb"),
        ("a\n---", "a\n\n———"),
        ("| a | b |\n|---|---|\n| 1 | **22** |", "<pre>a | b\n--+---\n1 | 22</pre>"),
        ("", ""),
    ],
)
def test_markdown_becomes_the_html_of_telegram(markdown: str, html: str) -> None:
    assert render(markdown) == html


def test_code_in_a_nested_list_keeps_its_own_indentation() -> None:
    markdown = "- a\n  - b\n    ```\n    if x:\n        y\n    ```"

    assert "<pre>if x:\n    y</pre>" in render(markdown)


def test_whatever_is_written_telegram_can_parse_it() -> None:
    chance = random.Random(11)  # noqa: S311 a repeatable shuffle
    parts = [
        *"*_~`<>[]()!#-|\n \\&\"'",
        "**",
        "```",
        "~~",
        "\n\n",
        "- ",
        "> ",
        "1. ",
        "http://x.y",
        "a",
        "<b>",
        "](",
        "|-|\n",
    ]
    for _ in range(2000):
        markdown = "".join(chance.choice(parts) for _ in range(chance.randrange(1, 60)))
        visible(render(markdown))


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("<b>x", "Can't find end tag corresponding to start tag b"),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("ü<b><i>x</b></i>", 'Unmatched end tag at byte offset 9, expected "</i>", found "</b>"'),
        ("<h1>x</h1>", 'Unsupported start tag "h1" at byte offset 0'),
        ("a < b", 'Unsupported start tag "" at byte offset 2'),
        ("<a href>x</a>", 'Expected equal sign in declaration of an attribute of the tag "a" at byte offset 0'),
        ('<a href="x>y</a>', "Unclosed start tag at byte offset 0"),
    ],
)
def test_the_simulator_refuses_markup_that_telegram_refuses(html: str, reason: str) -> None:
    with pytest.raises(BadMarkup) as refused:
        visible(html)

    assert str(refused.value) == reason


def test_the_simulator_shows_entities_as_characters_and_only_those_of_telegram() -> None:
    assert visible("&lt;b&gt; &amp;amp; &#39; &quot; &nbsp;") == "<b> &amp; ' \" &nbsp;"
