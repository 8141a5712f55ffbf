"""What must be true of a history whatever was done to the system: pure functions, one a promise.

Each gives the violations that it found, as (kind, what was seen). The I-numbers are those of docs/durability.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from tests.chaos import script
from tests.chaos.history import Commit, Fault, History, ModelCall, Sent, ToolCall

Violation = tuple[str, str]
WINDOW_SECONDS = 12.0
"""How long after a fault something may still be its consequence, if the fault itself has no end."""
SENDING_SECONDS = 1.0
"""How long before a channel has a text its sending may have begun."""
CLAIMS = 5
"""So often a run may come to nothing before it is set aside."""
TWO_AT_WORK = frozenset({"stop", "duplicate", "emulator"})
"""Faults after which two processes may hold themselves for the owner: one of them finds out at its next write."""


def violations(history: History, otherwise: frozenset[str] = frozenset()) -> list[Violation]:
    """All that the checks below find. `otherwise` are messages whose runs end without a reply of the model's."""
    found: list[Violation] = []
    for here in history.by_chat().values():
        for check in CHECKS:
            found += check(here)
        found += [*lost(here, otherwise), *gave_up(here, otherwise)]
    return [*found, *fenced_commits(history.commits)]


def lost(history: History, otherwise: frozenset[str]) -> Iterator[Violation]:
    """I1: what was accepted is answered."""
    named = {name for _, said in _replies(history) for name in said.inputs}
    for event in history.accepted:
        if event.message not in named | otherwise:
            yield "lost", f"{event.message} was accepted and is in no reply"


def answered_twice(history: History) -> Iterator[Violation]:
    """I1, I3, I7: a message is in one run, and a run has one reply, whose text never changes."""
    texts: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for sent, said in _replies(history):
        texts[said.inputs].add(sent.text)
    for inputs, said_so in texts.items():
        if len(said_so) > 1:
            yield "reply_changed", f"{inputs}: {sorted(said_so)}"
    for name, times in Counter(name for inputs in texts for name in inputs).items():
        if times > 1:
            yield "answered_twice", f"{name} is in {times} runs"


def out_of_order(history: History) -> Iterator[Violation]:
    """I2, I3: inputs in the channel's order, replies in the order of their runs. Contacts here write one message after
    the other was accepted, so nothing is ever late."""
    orders = {event.message: event.order for event in history.accepted}
    firsts = {said.inputs: sent.at for sent, said in reversed(list(_replies(history)))}
    replies = sorted(firsts, key=lambda inputs: firsts[inputs])
    for before, after in pairwise([orders.get(name, 0) for inputs in replies for name in inputs]):
        if after < before:
            yield "out_of_order", f"message {after} was answered behind {before}"


def parts_out_of_order(history: History) -> Iterator[Violation]:
    """I3: the parts of a reply come one after the other."""
    seen: set[str] = set()
    for sent in history.sent:
        for number, head in script.parts(sent.text):
            before = head if number == 2 else f"part {number - 1} of {head}"
            if before not in seen:
                yield "part_out_of_order", f"part {number} of {head} came before what it follows"
        seen.update(script.heads(sent.text))


def sent_twice(history: History) -> Iterator[Violation]:
    """I12: a text is sent again only when a fault came between its sending and the record of it."""
    for first, again in repeated_sends(history):
        if not _between(history.faults, first, again):
            yield "sent_twice", f"{first.text[:60]!r} by {first.worker}, then by {again.worker}, without a fault"


def sent_twice_despite_receipts(history: History) -> Iterator[Violation]:
    """I12: where a provider says what it took, nothing is sent twice, and a delivery has one text."""
    texts: dict[str, list[str]] = defaultdict(list)
    for sent in history.sent:
        if sent.reference:
            texts[sent.reference].append(sent.text)
    for reference, found in texts.items():
        if len(found) > 1:
            yield "sent_twice_despite_receipts", f"{reference}: {[text[:60] for text in found]}"


def model_went_back(history: History) -> Iterator[Violation]:
    """I4: what the model answered and was recorded is not asked again."""
    for calls in _runs(history).values():
        highest = 0
        for call in calls:
            if call.turn < highest and not _stale(history, call.chat, call.worker, call.at):
                yield "asked_again", f"{call.run}: turn {call.turn} by {call.worker} after turn {highest}"
            highest = max(highest, call.turn)


def model_record_changed(history: History) -> Iterator[Violation]:
    """I4: the record of an answer is the last that the model gave, and stays what it is."""
    for run, calls in _runs(history).items():
        recorded: dict[int, int] = {}
        for call in calls:
            for turn, number in call.turns.items():
                if recorded.setdefault(turn, number) != number:
                    yield "record_changed", f"{run}: turn {turn} was {recorded[turn]}, then {number}"
        for turn, number in recorded.items():
            first = min((call.at for call in calls if turn in call.turns), default=0.0)
            last = max((call.number for call in calls if call.turn == turn and call.at < first), default=number)
            if last != number and not _stale(history, calls[0].chat, "", first):
                yield "record_not_last", f"{run}: turn {turn} is on record as {number}, the model last gave {last}"


def inputs_changed(history: History) -> Iterator[Violation]:
    """I7: a run keeps its inputs; messages that come meanwhile stand behind them."""
    for run, calls in _runs(history).items():
        for before, after in pairwise(calls):
            shorter, longer = sorted((before.inputs, after.inputs), key=len)
            if longer[: len(shorter)] != shorter:
                yield "inputs_changed", f"{run}: {before.inputs}, then {after.inputs}"


def tools_repeated(history: History) -> Iterator[Violation]:
    """I4, I5: a call has one key for ever, `once` is carried out once, and nothing is after its record."""
    keys: dict[str, set[str]] = defaultdict(set)
    for use in history.tools:
        keys[use.call].add(use.key)
        if use.kind == "once" and use.number > 0:
            yield "once_repeated", f"{use.call} was carried out {use.number + 1} times"
        for call in _with_result(history, use.call, pure=use.kind == "pure"):
            if call.at < use.at and not _stale(history, use.chat, use.worker, use.at):
                yield "used_again", f"{use.call} by {use.worker} after its result was on record"
                break
    for name, found in keys.items():
        if len(found) > 1:
            yield "key_changed", f"{name} has keys {sorted(found)}"


def tool_record_changed(history: History) -> Iterator[Violation]:
    """I4: the record of a tool's result stays what it is."""
    pure = {use.call for use in history.tools if use.kind == "pure"}
    seen: dict[str, str] = {}
    for call in history.models:
        for name, result in call.results.items():
            if name in pure and call.turn < _turn(name) + 2:
                continue  # its record shares the next commit
            if seen.setdefault(name, result) != result:
                yield "result_changed", f"{name} was {seen[name]}, then {result}"


def gave_up(history: History, otherwise: frozenset[str]) -> Iterator[Violation]:
    """The contact is never told that it went wrong when it only was made difficult."""
    expected = any(event.message in otherwise for event in history.accepted)
    for sent in history.sent:
        if sent.text in script.GAVE_UP and not expected:
            yield "gave_up", f"{sent.chat} was told: {sent.text}"


def fenced_commits(commits: Iterable[Commit]) -> Iterator[Violation]:
    """I6: epochs increase in the order in which the store wrote them."""
    written: dict[str, list[Commit]] = defaultdict(list)
    for commit in commits:
        if commit.method == "commit" and commit.applied:
            written[commit.session].append(commit)
    for session, found in written.items():
        for before, after in pairwise(sorted(found, key=lambda commit: commit.version)):
            if after.epoch < before.epoch:
                yield "fenced_commit", f"{session}: epoch {after.epoch} of {after.worker} after {before.epoch}"


CHECKS: Sequence[Callable[[History], Iterator[Violation]]] = (
    answered_twice,
    out_of_order,
    parts_out_of_order,
    sent_twice,
    sent_twice_despite_receipts,
    model_went_back,
    model_record_changed,
    inputs_changed,
    tools_repeated,
    tool_record_changed,
)


def repeated_sends(history: History) -> Iterator[tuple[Sent, Sent]]:
    """Each text that a contact was sent again, with the time before."""
    last: dict[tuple[str, str], Sent] = {}
    for sent in history.sent:
        if sent.edit or not (script.answered(sent.text) or script.parts(sent.text)):
            continue
        if (before := last.get((sent.chat, sent.text))) is not None:
            yield before, sent
        last[sent.chat, sent.text] = sent


def set_aside(history: History) -> frozenset[str]:
    """Messages whose run was given up after so many processes died of it that this is what is promised."""
    found: set[str] = set()
    for here in history.by_chat().values():
        answered = {name for _, said in _replies(here) for name in said.inputs}
        for sent in here.sent:
            open_ = [event for event in here.accepted if event.message not in answered and event.at < sent.at]
            if sent.text not in script.GAVE_UP or not open_:
                continue
            chat, since = open_[0].chat, open_[0].at
            kills = [fault for fault in here.faults if chat in fault.chats and since <= fault.at <= sent.at]
            if len(kills) >= CLAIMS:
                found.update(event.message for event in open_)
    return frozenset(found)


def wasted(history: History) -> int:
    """Calls of the model whose answer was not recorded, by how many more there were than turns."""
    return len(history.models) - len({(call.run, call.turn) for call in history.models})


def turns(history: History) -> int:
    """Runs that were answered."""
    return len({said.inputs for _, said in _replies(history)})


def recoveries(history: History) -> list[float]:
    """Seconds from the kill of a process, for each run that it was driving, to the next that the world heard of it."""
    chats = history.by_chat()
    kills = [fault for fault in history.faults if fault.kind == "kill"]
    times = (_recovery(chats[chat], fault) for fault in kills for chat in fault.chats if chat in chats)
    return [seconds for seconds in times if seconds is not None]


def _recovery(history: History, fault: Fault) -> float | None:
    """None when nothing was left to do."""
    answered = {name for sent, said in _replies(history) if sent.at <= fault.at for name in said.inputs}
    if not any(event.message not in answered for event in history.accepted if event.at <= fault.at):
        return None
    calls: list[ModelCall | ToolCall | Sent] = [*history.models, *history.tools, *history.sent]
    later = [call.at for call in calls if call.at > fault.at and call.worker != fault.worker]
    return min(later) - fault.at if later else None


def _replies(history: History) -> Iterator[tuple[Sent, script.Answered]]:
    for sent in history.sent:
        if not sent.edit and (said := script.answered(sent.text)) is not None:
            yield sent, said


def _runs(history: History) -> dict[str, list[ModelCall]]:
    runs: dict[str, list[ModelCall]] = defaultdict(list)
    for call in history.models:
        runs[call.run].append(call)
    return runs


def _with_result(history: History, name: str, *, pure: bool) -> Iterator[ModelCall]:
    least = _turn(name) + 2 if pure else 0
    return (call for call in history.models if name in call.results and call.turn >= least)


def _turn(call: str) -> int:
    return int(call.split("-")[1])


def _stale(history: History, chat: str, worker: str, at: float) -> bool:
    """Whether somebody else may have taken over from that process without its knowing yet."""
    return any(
        fault.kind in TWO_AT_WORK
        and fault.at <= at <= (fault.until or fault.at) + WINDOW_SECONDS
        and (fault.kind == "emulator" or chat in fault.chats or (fault.worker and fault.worker == worker))
        for fault in history.faults
    )


def _between(faults: Sequence[Fault], first: Sent, again: Sent) -> bool:
    """Whether a fault that concerns a sender came soon enough after the first sending to explain the second."""
    return any(
        first.at - SENDING_SECONDS <= (fault.until or fault.at)
        and fault.at <= again.at
        and (fault.worker in ("", first.worker) or first.chat in fault.chats)
        for fault in faults
    ) or any(_woke(fault, first, again) for fault in faults)


def _woke(fault: Fault, first: Sent, again: Sent) -> bool:
    """Whether the second sender had been stopped: it may find a push in its socket that was brought to another process
    meanwhile, and takes over from that one, as it cannot tell that it lives."""
    stopped = fault.kind == "stop" and fault.worker == again.worker
    return stopped and first.at - WINDOW_SECONDS <= fault.until <= again.at
