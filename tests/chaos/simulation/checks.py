"""What must hold once everything is quiet: the invariants of the session protocol, on what the outside saw."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

from shared.codec import decode
from shared.domain import Texts
from shared.sessions.document import Run, Session, read_state
from shared.sessions.events import events
from shared.sessions.projection import contact_view
from tests.chaos.simulation.agents import ANA, TENANT, Talk
from tests.chaos.simulation.history import MARK, Sent
from tests.chaos.simulation.town import Town
from tests.chaos.simulation.world import FETCHED

TEXTS = Texts()


@dataclass
class Ended:
    """One session at the end."""

    talk: Talk
    session: Session
    runs: list[Run]


def check(town: Town) -> None:
    """Every violation is noted in the town's history."""
    for talk in town.talks:
        kept = town.store.kept.get(talk.key)
        if kept is None or kept.state is None:
            if town.history.accepted[talk.key]:
                town.history.wrong("lost", f"{talk.key.session[:4]}: nothing is left of it")
            continue
        session = read_state(kept.state)
        bodies = [town.store.archived.get((talk.key, number)) for number in range(1, session.runs + 1)]
        runs = [decode(Run, body) for body in bodies if body is not None]
        if len(runs) != session.runs - (session.run is not None):
            town.history.wrong("archive", f"{talk.key.session[:4]}: {len(runs)} of {session.runs} runs are archived")
        ended = Ended(talk, session, runs)
        for look in (_inputs, _told, _order, _replies, _shown, _sends, _events, _waits, _stops, _view):
            look(town, ended)
    _tools(town)
    _aside(town)
    if town.program.calm:
        _calm(town)


def _inputs(town: Town, ended: Ended) -> None:
    """Every accepted message is in exactly one run."""
    taken = Counter(
        message.id for run in ended.runs for message in (*run.inputs, *(arrival.message for arrival in run.arrivals))
    )
    accepted = {id_ for id_, entry in town.history.accepted[ended.talk.key].items() if entry.kind == "message"}
    for id_ in sorted(accepted - taken.keys()):
        town.history.wrong("lost", f"{_name(ended)}: message {id_[:6]} is in no run")
    for id_, times in taken.items():
        if times > 1:
            town.history.wrong("twice", f"{_name(ended)}: message {id_[:6]} is in {times} runs")
        if id_ not in town.history.appended[ended.talk.key]:
            town.history.wrong("invented", f"{_name(ended)}: message {id_[:6]} was never brought")
    texts = {entry.id: entry.text for entry in ended.talk.said}
    for run in ended.runs:
        for message in run.inputs:
            if texts.get(message.id) != message.text:
                town.history.wrong("text", f"{_name(ended)} run {run.number}: {message.text[:40]} is not what was said")


def _told(town: Town, ended: Ended) -> None:
    """What the caller of an invoke was given is what the archive has."""
    for (key, id_), (number, reply) in town.history.told.items():
        if key != ended.talk.key:
            continue
        run = next((run for run in ended.runs if run.number == number), None)
        messages = () if run is None else (*run.inputs, *(arrival.message for arrival in run.arrivals))
        if run is None or run.reply != reply or id_ not in {message.id for message in messages}:
            town.history.wrong(
                "told", f"{_name(ended)}: the caller of {id_[:6]} was given run {number}, {reply[:40]!r}"
            )


def _order(town: Town, ended: Ended) -> None:
    """What was in the inbox when messages were taken, and came earlier in the channel's order, was not left behind."""
    followed, appended = town.history.followed[ended.talk.key], town.history.appended[ended.talk.key]
    orders = {entry.id: entry.order for entry in ended.talk.said}
    for run in ended.runs:
        inputs = [orders.get(message.id, 0) for message in run.inputs]
        if inputs != sorted(inputs):
            town.history.wrong("order", f"{_name(ended)} run {run.number}: {inputs}")
    if town.program.room < len(orders):
        return
    begun = {message.id: followed.taken[message.id] for run in ended.runs for message in run.inputs}
    for first, at in begun.items():
        for second, later in followed.taken.items():
            if later > at > appended.get(second, at) and orders.get(second, 0) < orders.get(first, 0):
                town.history.wrong("order", f"{_name(ended)}: {orders[second]} was left behind {orders[first]}")


def _replies(town: Town, ended: Ended) -> None:
    """One reply for each run: a model's recorded one, or what the platform says of how it ended; none where an earlier
    run has told of the stop already."""
    for run in ended.runs:
        name = f"{_name(ended)} run {run.number}"
        if run.outcome is None:
            town.history.wrong("no_reply", f"{name}: it has no outcome")
            continue
        if run.outcome != "answered":
            if run.reply != ("" if run.unwanted else TEXTS.of(run.outcome)):
                town.history.wrong("reply", f"{name}: {run.outcome} says {run.reply!r}")
        elif (mark := MARK.search(run.reply)) is None or mark.group() not in "".join(
            step.result or "" for step in run.steps if step.kind == "model" and not step.dropped
        ):
            town.history.wrong("reply", f"{name}: {run.reply[:40]!r} is no recorded reply of a model")
        parts = [done for done in run.deliveries if done.id.startswith(f"{run.number}/reply/")]
        said = "".join(part.text for part in sorted(parts, key=lambda part: int(part.id.rpartition("/")[2])))
        if _letters(said) != _letters(run.reply):
            town.history.wrong("reply", f"{name}: sent {said[:60]!r}, not {run.reply[:60]!r}")
        for id_, times in Counter(done.id for done in run.deliveries).items():
            if times > 1:
                town.history.wrong("marked_twice", f"{name}: {id_}")


def _shown(town: Town, ended: Ended) -> None:
    """The contact saw what the record says, in the order of the runs; the text of a delivery never changed."""
    sent = [sent for sent in town.history.sent if sent.key == ended.talk.key]
    texts: dict[str, str] = {}
    for call in sent:
        if texts.setdefault(call.delivery.id, call.delivery.text) != call.delivery.text:
            town.history.wrong("text_changed", f"{_name(ended)}: {call.delivery.id}")
    first = list(dict.fromkeys(call.delivery.id for call in sent if "/reply/" in call.delivery.id))
    places = [(int(id_.split("/")[0]), int(id_.split("/")[2])) for id_ in first]
    for earlier, later in pairwise(places):
        if later < earlier:
            town.history.wrong("shown_order", f"{_name(ended)}: {later} after {earlier}")
    for run in ended.runs:
        for done in run.deliveries:
            seen = done.id in texts or ("/reply/" in done.id and ended.talk.connection.channel in FETCHED)
            if (done.status == "sent" and not seen) or done.status in ("pending", "sending"):
                town.history.wrong("not_shown", f"{_name(ended)}: {done.id} is {done.status}, seen {seen}")


def _sends(town: Town, ended: Ended) -> None:
    """Nothing is sent again by somebody who could know that it was sent, and what was sent again is counted."""
    followed = town.history.followed[ended.talk.key]
    calls: dict[str, list[Sent]] = defaultdict(list)
    for call in town.history.sent:
        if call.key == ended.talk.key and not call.settles and call.channel in ("telegram", "whatsapp"):
            calls[call.delivery.id].append(call)
    counted = {done.id: done.repeated for run in ended.runs for done in run.deliveries}
    for id_, sends in calls.items():
        settled = followed.settled_at.get(id_, 1 << 30)
        for earlier, later in pairwise(sends):
            if later.known >= settled:
                town.history.wrong("sent_again", f"{_name(ended)}: {id_}, though it was known to be sent")
            if later.by is earlier.by and later.channel == "telegram":
                town.history.wrong("sent_again", f"{_name(ended)}: {id_}, twice in one attempt")
        known = sum(not call.stale for call in sends[1:])
        if id_ in counted and known > counted[id_]:
            town.history.wrong("not_counted", f"{_name(ended)}: {id_} was seen {len(sends)} times")


def _events(town: Town, ended: Ended) -> None:
    """Events are numbered without gaps."""
    if ended.session.run is not None:
        return
    numbers = [event.sequence for run in ended.runs for event in events(run)]
    if numbers != list(range(1, ended.session.sequence + 1)):
        town.history.wrong("events", f"{_name(ended)}: {numbers} of {ended.session.sequence}")


def _waits(town: Town, ended: Ended) -> None:
    """Every wait ended, once."""
    for run in ended.runs:
        name = f"{_name(ended)} run {run.number}"
        if run.open:
            town.history.wrong("wait_open", name)
        for id_, times in Counter(wait.id for wait in run.waits).items():
            if times > 1:
                town.history.wrong("wait_twice", f"{name}: {id_} ended {times} times")
        for wait in run.waits:
            step = run.step(wait.step)
            if (step is None or step.result is None) and run.outcome != "cancelled":
                town.history.wrong("wait_without_result", f"{name}: {wait.step}")
            by = json.loads(step.result).get("by") if step is not None and step.result and wait.approvers else ANA.name
            if by == "Max":
                town.history.wrong("forged", f"{name}: {wait.step} was decided by somebody who may not")


def _stops(town: Town, ended: Ended) -> None:
    """A run is cancelled only when somebody asked for it, and the contact told once."""
    stops = sum(entry.kind == "stop" for entry in town.history.accepted[ended.talk.key].values())
    cancelled = sum(run.outcome == "cancelled" and not run.unwanted for run in ended.runs)
    if any(run.outcome == "cancelled" for run in ended.runs) and not cancelled:
        town.history.wrong("cancelled", f"{_name(ended)}: nobody was told")
    if cancelled > stops:
        town.history.wrong("cancelled", f"{_name(ended)}: {cancelled} runs for {stops} stops")


def _view(town: Town, ended: Ended) -> None:
    """The contact's view shows what the session ended with."""
    if not ended.session.viewer:
        return
    body = town.store.documents.get(contact_view(TENANT, ended.session.viewer, ended.session.id))
    view = json.loads(body) if body is not None else {}
    if view.get("sequence") != ended.session.sequence or view.get("status") != "idle":
        town.history.wrong("view", f"{_name(ended)}: {view.get('status')} at {view.get('sequence')}")


def _tools(town: Town) -> None:
    """A `once` tool at most once; a `keyed` one always with the same key, and its result is the recorded one."""
    times = Counter(used.key for used in town.history.used if used.effect == "once")
    for key, count in times.items():
        if count > 1:
            town.history.wrong("once_twice", f"{key[:4]} {key.split('-', 1)[1]}: {count} times")
    for talk in town.talks:
        for (run, step), result in town.history.followed[talk.key].steps.items():
            kept = town.world.kept.get(f"{talk.key.session}-{run}-{step}")
            done = json.loads(result).get("done") if step.startswith("tool-") else None
            if done is not None and done not in town.world.given[f"{talk.key.session}-{run}-{step}"]:
                town.history.wrong("result", f"{talk.key.session[:4]} run {run} {step}: {done}, not {kept}")


def _aside(town: Town) -> None:
    """No run is set aside unless so much went wrong that it recorded nothing in five claims. A wake that is delivered
    again and again at the same time does that too: each delivery takes over from the one before."""
    counts = town.faults.counts
    kinds = ("kill", "pause", "down", "lost", "tool", "doubled", "wake_doubled", "poison")
    troubles = sum(counts[name] for name in kinds)
    for path in town.store.documents:
        if "/dead_runs/" in path and troubles < 4:
            town.history.wrong("dead_run", path)


def _calm(town: Town) -> None:
    """When nothing goes wrong, nothing is done twice."""
    sends = Counter((call.key, call.delivery.id) for call in town.history.sent if not call.settles)
    for (key, id_), times in sends.items():
        if times > 1:
            town.history.wrong("calm_sent_again", f"{key.session[:4]}: {id_} {times} times")
    for step, times in Counter(used.key for used in town.history.used).items():
        if times > 1:
            town.history.wrong("calm_executed_again", f"{step[:4]} {step.split('-', 1)[1]}: {times} times")


def _name(ended: Ended) -> str:
    return ended.talk.key.session[:4]


def _letters(text: str) -> str:
    return "".join(text.split())
