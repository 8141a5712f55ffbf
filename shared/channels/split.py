"""Cutting a long answer into messages that a channel takes."""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t]*(?P<mark>`{3,16}|~{3,16})[ \t]*(?P<language>[\w+#.-]{0,20})")
_RESERVE = 2 * 16 + 20 + 2  # the longest line that opens a fence again, the one that closes it, two line ends
_BORDERS = tuple(re.compile(pattern) for pattern in (r"\n[ \t]*\n", r"\n", r"[.!?…。！？][\"')\]*_]*\s", r"\s"))  # noqa: RUF001 full-width marks end Chinese and Japanese sentences
LEAST_LIMIT = 2 * _RESERVE


def units(text: str) -> int:
    """Length in UTF-16 code units, as Telegram counts entities; never less than in characters."""
    return len(text) + sum(character > "\uffff" for character in text)


def split(text: str, limit: int) -> tuple[str, ...]:
    """The text in pieces of at most `limit` UTF-16 code units each, nothing but blanks lost; () for a blank text.

    A piece ends at the last paragraph, line, sentence or word border in its second half, in this order of preference,
    and inside a word only when there is no border at all. A code fence that is cut is closed, and opened again with
    its language in the next piece. `limit` is at least `LEAST_LIMIT`; raises ValueError below.
    """
    if limit < LEAST_LIMIT:
        raise ValueError(f"limit is {limit}: use at least {LEAST_LIMIT}")
    pieces: list[str] = []
    rest, opening = text.strip("\n").rstrip(), ""
    while rest.strip():
        head = f"{opening}\n" if opening else ""
        if units(head + rest) <= limit:
            return (*pieces, head + rest)
        piece, rest = _cut(rest, limit - _RESERVE)
        opening = _open_fence(head + piece)
        before, _, line = piece.rpartition("\n")
        if opening and before.strip() and line.lstrip().startswith(opening):  # goes with the code that follows it
            piece, rest, opening = before, f"{line}\n{rest}", _open_fence(head + before)
        mark = _mark(opening)
        if piece.strip() not in ("", opening):
            pieces.append(f"{head}{piece}\n{mark}" if mark else head + piece)
        if mark and _closes(rest.partition("\n")[0], mark):
            rest, opening = rest.partition("\n")[2], ""
        if not opening:
            rest = rest.lstrip("\n")
    return tuple(pieces)


def _cut(text: str, limit: int) -> tuple[str, str]:
    window = text[: _fitting(text, limit)]
    for least in (len(window) // 2, 0):
        for border in _BORDERS:
            ends = [match.end() for match in border.finditer(window) if match.start() > least]
            if ends:
                return window[: ends[-1]].rstrip(), text[ends[-1] :]
    return window, text[len(window) :]


def _fitting(text: str, limit: int) -> int:
    used = 0
    for index, character in enumerate(text[:limit]):
        used += 1 + (character > "\uffff")
        if used > limit:
            return index
    return min(len(text), limit)


def _open_fence(text: str) -> str:
    """The line that opened the fence which the text leaves open, without indentation; empty when none is open."""
    opening = ""
    for line in text.split("\n"):
        if opening:
            opening = "" if _closes(line, _mark(opening)) else opening
        elif match := _FENCE.match(line):
            opening = match["mark"] + match["language"]
    return opening


def _mark(opening: str) -> str:
    match = _FENCE.match(opening)
    return match["mark"] if match else ""


def _closes(line: str, mark: str) -> bool:
    line = line.strip()
    return len(line) >= len(mark) and set(line) == {mark[0]}
