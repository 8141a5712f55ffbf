"""Ids that a channel may still bring again: the latest in the session's document, older ones in segments beside it.

A session that is written to all day would carry thousands of ids through every commit. Past `KEPT` the oldest move
into a document of their own, a segment, and only a Bloom filter of them stays: 16 bits an id and 8 probes give an id
that was never seen one chance in about 1,700 to be taken for one that was (Bloom 1970,
https://doi.org/10.1145/362686.362692). Then, and only then, the segment is read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import lru_cache

from shared.codec import decode, encode
from shared.domain import SessionKey
from shared.sessions.document import Seen, Segment, Session
from shared.store import Document, Documents

KEPT = 32
MOVED = 28
"""Ids that move out at once, at least."""
_BITS_EACH = 16
_PROBES = 8


def note(session: Session, seen: Iterable[Seen], now: datetime) -> Session:
    """The session that knows these ids too, without those that no channel brings any more."""
    kept = (*(known for known in session.seen if now - known.at < known.seen_for), *seen)
    segments = tuple(segment for segment in session.segments if segment.until > now)
    session = replace(session, seen=kept, segments=segments)
    if len(kept) <= KEPT or session.forgotten:
        return session
    moved = kept[: max(MOVED, len(kept) - KEPT)]
    segment = Segment(
        number=_last_segment(session) + 1,
        filter=_filter([known.id for known in moved]),
        until=max(known.at + known.seen_for for known in moved),
    )
    return replace(session, seen=kept[len(moved) :], segments=(*segments, segment), forgotten=moved)


def suspects(session: Session, id_: str) -> tuple[Segment, ...]:
    """The segments that may have this id; nearly always none."""
    if not session.segments:
        return ()
    hashes = _hashes(id_)
    return tuple(segment for segment in session.segments if _may_have(segment.filter, hashes))


def segment_path(key: SessionKey, number: int) -> str:
    """Where a segment's document lies."""
    return f"tenants/{key.tenant}/sessions/{key.session}/seen/{number}"


def segment_document(session: Session) -> tuple[str, Document] | None:
    """What the session's commit writes of the ids that it moves out."""
    if not session.forgotten:
        return None
    segment = session.segments[-1]
    return segment_path(session.key, segment.number), Document(
        body=encode({known.id: known.run for known in session.forgotten}), expires_at=segment.until
    )


async def run_of(documents: Documents, session: Session, id_: str) -> int | None:
    """Number of the run that took this message, if one did and the channel may still bring it. Raises `StoreDown`."""
    number = session.run_of(id_)
    for segment in suspects(session, id_) if number is None else ():
        body = await documents.get(segment_path(session.key, segment.number))
        found = decode(dict[str, int], body).get(id_) if body is not None else None
        number = found if found is not None else number
    return number


def _last_segment(session: Session) -> int:
    return session.segments[-1].number if session.segments else session.runs


def _hashes(id_: str) -> tuple[int, int]:
    hashed = hashlib.sha256(id_.encode()).digest()
    return int.from_bytes(hashed[:8], "big"), int.from_bytes(hashed[8:16], "big") | 1


def _places(hashes: tuple[int, int], bits: int) -> Iterator[int]:
    """An id's of so many bits, by double hashing (Kirsch and Mitzenmacher 2008)."""
    first, second = hashes
    return ((first + probe * second) % bits for probe in range(_PROBES))


def _filter(ids: Collection[str]) -> str:
    bits, size = 0, _BITS_EACH * len(ids)
    for id_ in ids:
        for place in _places(_hashes(id_), size):
            bits |= 1 << place
    return base64.b64encode(bits.to_bytes(size // 8, "big")).decode()


def _may_have(filter_: str, hashes: tuple[int, int]) -> bool:
    body = _decoded(filter_)
    # the first probe that finds nothing ends it: two on average
    return all(body[-1 - (place >> 3)] >> (place & 7) & 1 for place in _places(hashes, 8 * len(body)))


@lru_cache(maxsize=2_048)
def _decoded(filter_: str) -> bytes:
    return base64.b64decode(filter_)
