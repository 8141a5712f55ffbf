"""Where the entries of an inbox lie in Firestore: in the session's document while they fit, else beside it.

An entry that finds the document full is written as a document of its own, `…/inbox/{id}`; then the session's document
is marked with `overflow`. So an append reads nothing and needs no transaction. Why nobody misses such an entry:

- A document that refuses a mark is full, and who loads a large document looks beside it, marked or not.
- Every commit that replaces a large document, or leaves one, marks it: an entry may have been put beside it and the
  mark refused, which no version tells.
- The mark is taken away only by a commit that builds on a load which found the document small and read all that lay
  beside it, and that removes all of that. An entry put there after that was read is marked after it too: either the
  document has changed and the commit conflicts, or it is marked again.

Nor does the tick miss its session: a mark is the size of what it replaces once a commit has made one, so only a
document that filled since the last commit can refuse it, and that has the `due` of the last append.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LARGE = 700_000
"""Bytes of state and inbox beyond which a document counts as large: no smaller one is full, whatever Firestore counts
besides (1 MiB with the names of fields)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """What one version of a session's document tells of where its entries are."""

    inside: Mapping[str, int]
    """Entries in the document, with their bytes."""
    beside: frozenset[str]
    """Entries that were found beside it."""
    settled: bool
    """Whether no others are there, for as long as the document has this version."""
    marked: bool

    def after(self, state: int, remove: Collection[str], spill: Collection[str]) -> Placing:
        """What a commit of a state of that many bytes makes of it."""
        leave = {*remove, *spill}
        inside = {id_: size for id_, size in self.inside.items() if id_ not in leave}
        beside = (self.beside | (self.inside.keys() & spill)).difference(remove)
        settled = self.settled and small(state, inside)
        return Placing(inside=inside, beside=beside, settled=settled, marked=bool(beside) or not settled)


NOTHING = Placing(inside={}, beside=frozenset(), settled=True, marked=False)
"""Where there is no document."""


def small(state: int, inside: Mapping[str, int]) -> bool:
    """Whether a document with a state of that many bytes can take a mark, and nearly any entry."""
    return state + sum(len(id_) + size for id_, size in inside.items()) <= LARGE
