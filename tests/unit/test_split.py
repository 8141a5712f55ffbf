"""Long answers are cut where a reader would cut them, and nothing is lost."""

from __future__ import annotations

import random
import re

import pytest

from shared.channels.split import LEAST_LIMIT, split, units

WORDS = ["order", "Lieferung", "não", "配送", "😀", "x" * 30, "a.b", "end.", "Why?", "日本。", "`code`", "**bold**"]


def test_a_blank_text_has_no_pieces() -> None:
    assert split("", 4096) == ()
    assert split(" \n\n\t", 4096) == ()


def test_a_text_within_the_limit_is_one_piece() -> None:
    assert split("a" * 4096, 4096) == ("a" * 4096,)


@pytest.mark.parametrize(
    ("border", "first_ends", "second_begins"),
    [("\n\n", "a", "b"), ("\n", "a", "b"), (". ", "a.", "b"), ("。 ", "a。", "b"), (" ", "a", "b")],
)
def test_pieces_end_at_a_border_of_the_text(border: str, first_ends: str, second_begins: str) -> None:
    pieces = split("a" * 100 + border + "b" * 150, 200)

    assert len(pieces) == 2
    assert pieces[0].endswith(first_ends)
    assert pieces[1].startswith(second_begins)


def test_a_paragraph_border_is_preferred_to_a_later_line_sentence_or_word() -> None:
    pieces = split("a" * 110 + "\n\n" + "b c. d\ne " + "f" * 200, 250)

    assert pieces == ("a" * 110, "b c. d\ne " + "f" * 200)


def test_a_word_without_a_border_is_cut_at_the_limit() -> None:
    pieces = split("x" * 1000, 300)

    assert "".join(pieces) == "x" * 1000
    assert all(len(piece) <= 300 for piece in pieces)


def test_the_limit_counts_utf16_units_and_no_character_is_halved() -> None:
    pieces = split("😀" * 3000, 4096)

    assert "".join(pieces) == "😀" * 3000
    assert all(units(piece) <= 4096 for piece in pieces)


def test_a_cut_code_fence_is_closed_and_opened_again_with_its_language() -> None:
    code = "\n".join(f"line_{number} = {number}" for number in range(100))

    pieces = split(f"Before:\n\n```python\n{code}\n```\n\nAfter.", 500)

    inner = [line for piece in pieces for line in piece.split("\n") if line.startswith("line_")]
    assert inner == code.split("\n")
    assert all(piece.count("```") == 2 for piece in pieces)
    assert all(piece.startswith("```python\n") for piece in pieces[1:])
    assert pieces[-1].endswith("After.")


def test_a_fence_that_begins_at_the_cut_moves_to_the_next_piece_whole() -> None:
    pieces = split("a" * 190 + "\n```py\n" + "b" * 150 + "\n```", 300)

    assert pieces == ("a" * 190, "```py\n" + "b" * 150 + "\n```")


def test_a_fence_that_ends_at_the_cut_is_not_opened_again() -> None:
    pieces = split("```py\n" + "b" * 210 + "\n```\n" + "c" * 200, 300)

    assert pieces == ("```py\n" + "b" * 210 + "\n```", "c" * 200)


def test_a_long_code_line_loses_nothing() -> None:
    pieces = split("```\n" + "x" * 1000 + "\n```", 300)

    assert "".join(re.findall("x+", "".join(pieces))) == "x" * 1000
    assert all(len(piece) <= 300 and piece.count("```") == 2 for piece in pieces)


def test_an_answer_of_twenty_thousand_characters_survives() -> None:
    paragraph = "Your order 1042 left the warehouse on Monday. It should arrive within three days, rain or shine.\n"
    text = "\n".join([paragraph * 7] * 30)[:20_000]

    pieces = split(text, 4096)

    assert [word for piece in pieces for word in piece.split()] == text.split()
    assert len(pieces) <= 8


def test_whatever_the_text_every_piece_fits_and_every_word_comes_through() -> None:
    chance = random.Random(7)  # noqa: S311 a repeatable shuffle
    for _ in range(300):
        text = "".join(
            chance.choice(WORDS) + chance.choice([" ", " ", " ", "\n", "\n\n", "  \n \n", "\n```py\n", "\n~~~\n"])
            for _ in range(chance.randrange(1, 200))
        )
        limit = chance.randrange(LEAST_LIMIT, 400)
        pieces = split(text, limit)
        assert all(units(piece) <= limit for piece in pieces)
        assert all(piece.strip() for piece in pieces)
        assert _letters("\n".join(pieces)) == _letters(text)


def test_a_limit_too_small_for_a_fence_is_refused() -> None:
    with pytest.raises(ValueError, match="use at least"):
        split("text", LEAST_LIMIT - 1)


def _letters(text: str) -> str:
    """The text without blanks and without the fences that a cut adds."""
    return re.sub(r"(?m)^(```(py)?|~~~)$|\s", "", text)
