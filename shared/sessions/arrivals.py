"""What becomes of messages: which of them a run takes, and what is done with those that come while it is at work.

Pure functions from session to session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from shared.domain import Delivery, Entry, Queueing, Result, Texts
from shared.sessions.document import Arrival, Run, Seen, Session, Stop, message_of
from shared.sessions.journal import active
from shared.sessions.seen import note, suspects
from shared.sessions.transcript import stored
from shared.sessions.waits import without

INPUT_BYTES = 64_000
"""How much of what contacts wrote one run takes at once; the next run takes the rest."""
INPUTS = 200
"""How many messages one run takes at once."""
ARRIVALS_BYTES = 2 * INPUT_BYTES
"""What one run takes of messages that come while it is at work; the next run takes the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What was read of an inbox before a change looks at it; entries that came later are left for the next time."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """Of blobs, by their names."""
    repeats: Mapping[str, bool] = field(default_factory=dict)
    """Of ids that a segment may have: whether it has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """With what messages are taken from the inbox."""

    now: datetime
    plan: str = ""
    """What a new run gets; a run that exists keeps its own."""
    queueing: Queueing = field(default_factory=Queueing)
    texts: Texts = field(default_factory=Texts)
    prepared: Prepared = field(default_factory=Prepared)


def start(session: Session, taking: Taking) -> Session:
    """A run for the messages that wait in the inbox, in the channel's order; unchanged when none does.

    It takes at most `INPUTS` messages of `INPUT_BYTES` together. One that is to be stopped takes what came before that
    was said; where nothing did, the contact is told so.
    """
    session = drop_seen(session, taking.prepared)
    stops = stop_entries(session, taking.prepared)
    messages = [entry for entry in messages_of(session) if not stops or _is_before(entry, _stop(stops[0]))]
    unwanted = [entry for entry in messages if session.stopped is not None and _is_before(entry, session.stopped)]
    batch = list(_batch(session, unwanted or messages, taking))
    if not batch:
        return session if messages or not stops else _nothing_to_stop(session, stops, taking)
    number = session.runs + 1
    session = replace(
        session,
        runs=number,
        run=Run(
            number=number,
            plan=taking.plan,
            inputs=(),
            first_sequence=session.sequence + 1,
            started_at=taking.now,
            queue_mode=taking.queueing.mode,
        ),
    )
    inputs = tuple(
        message_of(entry, _text(entry, taking.prepared), sequence)
        for sequence, entry in enumerate(batch, session.sequence + 1)
    )
    session = _taken(session, batch, taking.now)
    return replace(session, run=replace(active(session), inputs=inputs, unwanted=bool(unwanted)))


def arrive(session: Session, ids: Collection[str], taking: Taking, *, after: int, rejected: bool = False) -> Session:
    """The messages of these ids become part of the run: the model sees them behind its `after`-th turn, or, `rejected`,
    their contact is told to wait."""
    run = active(session)
    came = [entry for entry in messages_of(session) if entry.id in ids]
    arrivals = tuple(
        Arrival(
            message=message_of(entry, _text(entry, taking.prepared), sequence),
            after=after,
            rejected=rejected,
            attempt=run.attempt,
        )
        for sequence, entry in enumerate(came, session.sequence + 1)
    )
    session = replace(session, run=replace(run, arrivals=(*run.arrivals, *arrivals)))
    session = _taken(session, came, taking.now)
    if not rejected:
        return session
    told = tuple(_busy(session, run, entry, taking.texts) for entry in came)
    return replace(session, outbox=(*session.outbox, *told), rejected=session.rejected + len(came))


def cancel(session: Session, taking: Taking, *, after: int) -> Session:
    """The run takes what came before it was told to stop, and that it was."""
    session = drop_seen(session, taking.prepared)
    stops = stop_entries(session, taking.prepared)
    earlier = {entry.id for entry in messages_of(session) if stops and _is_before(entry, _stop(stops[-1]))}
    together = replace(taking, queueing=replace(taking.queueing, mode="collect"))
    ready = [entry.id for entry in _batch(session, messages_of(session), together) if entry.id in earlier]
    session = _taken(arrive(session, ready, taking, after=after), stops, taking.now)
    return replace(session, stopped=_stop(stops[-1])) if stops else session


def news(session: Session, taking: Taking) -> list[str]:
    """Ids of the messages in the inbox that can be taken now, in order."""
    return [entry.id for entry in _batch(session, messages_of(session), taking)]


def pause(session: Session, queueing: Queueing, now: datetime) -> float:
    """Seconds until a run may begin, so that a burst of messages is answered at once; 0 when nothing is to wait for.

    Button taps, commands and callers of an invoke do not wait.
    """
    entries = [entry for entry in session.inbox.values() if entry.kind != "watch"]
    busy = session.run is not None or session.outbox
    if busy or not entries or not queueing.debounce_seconds or any(_hurries(entry) for entry in entries):
        return 0.0
    came = [entry.received_at for entry in entries]
    quiet = max(came) + timedelta(seconds=queueing.debounce_seconds)
    longest = min(came) + timedelta(seconds=queueing.debounce_most_seconds)
    return max(0.0, (min(quiet, longest) - now).total_seconds())


def drop_seen(session: Session, prepared: Prepared) -> Session:
    """The session whose inbox is without what a run has already taken."""
    seen = {seen.id for seen in session.seen}
    return without(session, [key for key in session.inbox if key in seen or prepared.repeats.get(key, False)])


def messages_of(session: Session) -> list[Entry]:
    """The messages in the inbox in the channel's order, as far as it was read without a gap."""
    last = session.read_to if session.more and session.read_to is not None else None
    messages = (
        entry for entry in session.inbox.values() if entry.kind == "message" and (last is None or entry.order <= last)
    )
    return sorted(messages, key=lambda entry: (entry.order, entry.received_at, entry.id))


def stop_entries(session: Session, prepared: Prepared | None = None) -> list[Entry]:
    """What in the inbox says to stop and was not heeded before, in the channel's order; what may have been is left out
    until that is `prepared`."""
    prepared = prepared or Prepared()
    stops = (entry for entry in session.inbox.values() if entry.kind == "stop")
    return sorted((entry for entry in stops if _is_new(session, entry, prepared)), key=lambda entry: entry.order)


def has_room(run: Run) -> bool:
    """Whether the run can take more of what comes in while it is at work, be it to turn it away."""
    return stored(tuple(arrival.message for arrival in run.arrivals)) < ARRIVALS_BYTES


def overtakes(session: Session) -> bool:
    """Whether a message came that surely no run has taken, and this one has room for it."""
    if session.run is not None and not has_room(session.run):
        return False
    return any(_is_new(session, entry, Prepared()) for entry in messages_of(session))


def wanted(session: Session) -> tuple[list[str], list[str]]:
    """What has to be read before messages can be taken: names of blobs, and ids that a segment may have."""
    size, blobs = 0, []
    entries = messages_of(session)
    for entry in entries[:INPUTS]:
        size += entry.size
        if entry.blob:
            blobs.append(entry.blob)
        if size > INPUT_BYTES:
            break
    others = (entry for entry in session.inbox.values() if entry.kind != "message")
    return blobs, [entry.id for entry in (*entries[:INPUTS], *others) if suspects(session, entry.id)]


def _batch(session: Session, messages: list[Entry], taking: Taking) -> Iterator[Entry]:
    """The first of the messages, as many as one run may take."""
    size = 0
    first = last = messages[0].received_at if messages else taking.now
    queueing = taking.queueing
    for place, entry in enumerate(messages):
        size += entry.size or len(entry.text.encode())
        full = place > 0 and (size > INPUT_BYTES or place == INPUTS)
        if full or not _ready(session, entry, taking.prepared):
            return
        if queueing.mode == "followup" and place > 0:
            # They may arrive out of order.
            gap, since_first = abs(entry.received_at - last), abs(entry.received_at - first)
            longest = timedelta(seconds=queueing.debounce_most_seconds)
            if gap > timedelta(seconds=queueing.debounce_seconds) or since_first > longest:
                return
        last = entry.received_at
        yield entry


def _ready(session: Session, entry: Entry, prepared: Prepared) -> bool:
    known = entry.id in prepared.repeats or not suspects(session, entry.id)
    return known and (not entry.blob or entry.blob in prepared.texts)


def _stop(entry: Entry) -> Stop:
    return Stop(order=entry.order, received_at=entry.received_at, by_operator=bool(entry.posted_by))


def _is_before(entry: Entry, stop: Stop) -> bool:
    """Whether the message is older than the word to stop."""
    if stop.by_operator:
        return entry.received_at <= stop.received_at
    return (entry.order, entry.received_at) < (stop.order, stop.received_at)


def _is_new(session: Session, entry: Entry, prepared: Prepared) -> bool:
    if session.run_of(entry.id) is not None:
        return False
    return not prepared.repeats.get(entry.id, bool(suspects(session, entry.id)))


def _text(entry: Entry, prepared: Prepared) -> str:
    return prepared.texts[entry.blob] if entry.blob else entry.text


def _taken(session: Session, entries: list[Entry], now: datetime) -> Session:
    """The session whose inbox is without these entries, and that knows them again."""
    if not entries:
        return session
    messages = [entry for entry in entries if entry.kind == "message"]
    session = without(session, [entry.id for entry in entries])
    seen = [Seen(id=entry.id, run=session.runs, at=now, seen_for=entry.seen_for) for entry in entries]
    return replace(
        note(session, seen, now),
        sequence=session.sequence + len(messages),
        last_order=max([session.last_order, *(entry.order for entry in messages)]),
        late=session.late + sum(entry.order < session.last_order for entry in messages),
    )


def _nothing_to_stop(session: Session, stops: list[Entry], taking: Taking) -> Session:
    session = _taken(session, stops, taking.now)
    told = Delivery(id=f"stop/{stops[-1].id}", text=taking.texts.idle)
    return replace(session, outbox=(*session.outbox, told))


def _busy(session: Session, run: Run, entry: Entry, texts: Texts) -> Delivery:
    result = Result(
        key=session.key,
        conversation=session.conversation,
        run=run.number,
        message=entry.id,
        url=entry.callback_url,
        outcome="blocked",
        reason="the agent was at work on an earlier message",
    )
    results = (result,) if entry.callback_url else ()
    return Delivery(id=f"{run.number}/busy/{entry.id}", text=texts.busy, results=results)


def _hurries(entry: Entry) -> bool:
    return entry.kind != "message" or bool(entry.posted_by) or entry.text.startswith("/")
