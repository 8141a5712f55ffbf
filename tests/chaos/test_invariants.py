"""Each check finds the history that it is there for, and nothing in one that is as it must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.domain import Texts
from tests.chaos import invariants, script
from tests.chaos.archive import Kept, archive_violations
from tests.chaos.history import Accepted, Commit, Fault, History, ModelCall, Sent, ToolCall
from tests.chaos.report import Report

CHAT = "7"


def whole() -> History:
    """Two messages, two runs, one tool call: nothing wrong."""
    return History(
        accepted=[accepted("7.1", 1, at=0.0), accepted("7.2", 2, at=4.0)],
        models=[model("7.1", 1, at=1.0), model("7.1", 2, at=2.0, turns={1: 0}, results={CALL: '{"n":0}'}), second()],
        tools=[tool(at=1.5)],
        sent=[sent("re #7.1 | x=0 | 0", at=3.0), sent("re #7.2 | x=0 | -", at=6.0)],
        commits=[commit(1, "01"), commit(2, "02"), commit(2, "03")],
    )


CALL = "7.1-1-0"


def accepted(name: str, order: int, *, at: float) -> Accepted:
    return Accepted(at=at, chat=CHAT, message=name, order=order)


def model(
    run: str,
    turn: int,
    *,
    at: float,
    inputs: tuple[str, ...] = (),
    number: int = 0,
    turns: dict[int, int] | None = None,
    results: dict[str, str] | None = None,
    worker: str = "a",
) -> ModelCall:
    return ModelCall(
        at=at,
        chat=CHAT,
        worker=worker,
        run=run,
        inputs=inputs or (run,),
        turn=turn,
        number=number,
        turns=turns or {},
        results=results or {},
    )


def second() -> ModelCall:
    return model("7.2", 1, at=5.0)


def tool(*, at: float, kind: str = "keyed", key: str = "k", number: int = 0) -> ToolCall:
    return ToolCall(at=at, chat=CHAT, worker="a", call=CALL, kind=kind, key=key, number=number)


def sent(text: str, *, at: float, worker: str = "a") -> Sent:
    return Sent(at=at, chat=CHAT, worker=worker, text=text, id=str(at))


def commit(epoch: int, version: str) -> Commit:
    return Commit(
        worker="a", session="s", method="commit", epoch=epoch, applied=True, version=version, writes=1, reads=0
    )


def kill(*, at: float, worker: str = "a") -> Fault:
    return Fault(at=at, kind="kill", worker=worker, chats=(CHAT,))


def test_a_history_in_order_has_no_violation() -> None:
    assert invariants.violations(whole()) == []


def lose(history: History) -> None:
    del history.sent[1]


def answer_in_two_runs(history: History) -> None:
    history.sent.append(sent("re #7.1 #7.2 | x=0 | -", at=7.0))


def change_a_reply(history: History) -> None:
    history.sent.append(sent("re #7.2 | x=1 | -", at=7.0))


def answer_the_second_first(history: History) -> None:
    history.sent.reverse()
    history.sent[:] = [replace(each, at=place) for place, each in enumerate(history.sent)]


def swap_inputs(history: History) -> None:
    history.sent[:] = [sent("re #7.2 #7.1 | x=0 | -", at=3.0)]


def send_twice(history: History) -> None:
    history.sent.append(sent("re #7.2 | x=0 | -", at=6.2))


def send_again_what_has_a_receipt(history: History) -> None:
    history.sent += [replace(sent("Approved.", at=7.0 + place), reference="acme/s/1/reply/1") for place in range(2)]


def send_the_second_part_first(history: History) -> None:
    history.sent.append(sent("part 2 of re #7.3 | x=0 | -", at=7.0))


def ask_again(history: History) -> None:
    history.models.append(model("7.1", 1, at=2.5, number=1))


def forget_a_record(history: History) -> None:
    history.models.append(model("7.1", 3, at=2.5, turns={1: 1, 2: 0}, results={CALL: '{"n":0}'}))


def keep_the_first_of_two_answers(history: History) -> None:
    history.models.insert(1, model("7.1", 1, at=1.2, number=1))


def change_inputs(history: History) -> None:
    history.models.append(model("7.1", 3, at=2.5, inputs=("7.1", "7.2"), turns={1: 0, 2: 0}))
    history.models.append(model("7.1", 4, at=2.6, inputs=("7.1", "7.3"), turns={1: 0, 2: 0, 3: 0}))


def repeat_once(history: History) -> None:
    history.tools[:] = [tool(at=1.4, kind="once"), tool(at=1.5, kind="once", number=1)]


def change_a_key(history: History) -> None:
    history.tools.append(tool(at=1.6, key="other"))


def use_after_the_record(history: History) -> None:
    history.tools.append(tool(at=2.5, number=1))


def change_a_result(history: History) -> None:
    history.models.append(model("7.1", 3, at=2.5, turns={1: 0, 2: 0}, results={CALL: '{"n":1}'}))


def give_up(history: History) -> None:
    history.sent.append(sent(Texts().failed, at=7.0))


def commit_when_fenced(history: History) -> None:
    history.commits.append(commit(1, "04"))


@pytest.mark.parametrize(
    ("harm", "kinds"),
    [
        (lose, {"lost"}),
        (answer_in_two_runs, {"answered_twice", "out_of_order"}),
        (change_a_reply, {"reply_changed"}),
        (answer_the_second_first, {"out_of_order"}),
        (swap_inputs, {"out_of_order"}),
        (send_twice, {"sent_twice"}),
        (send_again_what_has_a_receipt, {"sent_twice_despite_receipts"}),
        (send_the_second_part_first, {"part_out_of_order"}),
        (ask_again, {"asked_again"}),
        (forget_a_record, {"record_changed"}),
        (keep_the_first_of_two_answers, {"record_not_last"}),
        (change_inputs, {"inputs_changed"}),
        (repeat_once, {"once_repeated"}),
        (change_a_key, {"key_changed"}),
        (use_after_the_record, {"used_again"}),
        (change_a_result, {"result_changed"}),
        (give_up, {"gave_up"}),
        (commit_when_fenced, {"fenced_commit"}),
    ],
)
def test_what_is_wrong_in_a_history_is_found(harm: Callable[[History], None], kinds: set[str]) -> None:
    history = whole()
    harm(history)
    assert {kind for kind, _ in invariants.violations(history)} == kinds


def test_a_reply_sent_again_by_the_process_after_a_killed_one_is_counted_and_no_violation() -> None:
    history = whole()
    send_twice(history)
    history.faults.append(kill(at=6.1))
    assert invariants.violations(history) == []
    assert len(list(invariants.repeated_sends(history))) == 1


def test_a_kill_long_before_or_of_another_process_does_not_excuse_that_a_reply_was_sent_twice() -> None:
    for fault in (kill(at=1.0), Fault(at=6.1, kind="kill", worker="b", chats=("8",))):
        history = whole()
        send_twice(history)
        history.faults.append(fault)
        assert [kind for kind, _ in invariants.violations(history)] == ["sent_twice"]


def test_a_process_that_was_stopped_may_ask_once_more_before_it_knows_that_it_lost_its_session() -> None:
    history = whole()
    ask_again(history)
    history.faults.append(Fault(at=0.5, kind="stop", worker="a", until=2.4))
    assert invariants.violations(history) == []
    assert invariants.wasted(history) == 1


def test_a_pure_tool_may_be_used_again_until_the_answer_that_follows_it_is_on_record() -> None:
    history = whole()
    history.tools[:] = [tool(at=1.5, kind="pure"), tool(at=2.1, kind="pure", number=1)]
    history.models.append(model("7.1", 2, at=2.2, number=1, turns={1: 0}, results={CALL: '{"n":1}'}))
    history.sent[0] = sent("re #7.1 | x=1 | 1", at=3.0)
    assert invariants.violations(history) == []


def test_a_message_whose_run_ends_otherwise_may_be_in_no_reply_and_its_contact_be_told_so() -> None:
    history = whole()
    lose(history)
    give_up(history)
    assert invariants.violations(history, frozenset({"7.2"})) == []


def test_only_a_run_that_five_processes_died_of_may_be_set_aside() -> None:
    history = whole()
    lose(history)
    give_up(history)
    history.faults += [kill(at=5.0 + place / 10, worker=f"w{place}") for place in range(4)]
    assert invariants.set_aside(history) == frozenset()
    history.faults.append(kill(at=6.0))
    assert invariants.set_aside(history) == {"7.2"}


def test_recovery_is_from_the_kill_to_the_next_call_of_another_process() -> None:
    history = whole()
    history.models[1] = model("7.1", 2, at=2.0, turns={1: 0}, results={CALL: '{"n":0}'}, worker="b")
    history.faults += [kill(at=1.6), kill(at=3.5)]  # nothing is left to do after the second
    assert invariants.recoveries(history) == [pytest.approx(0.4)]


def test_the_archive_has_each_message_in_exactly_one_run_and_no_gap() -> None:
    def run(number: int, *names: str, outcome: str = "answered") -> Kept:
        return Kept(chat=CHAT, number=number, outcome=outcome, messages=names)

    names = ("7.1", "7.2", "7.3")
    assert list(archive_violations([run(1, "7.1"), run(2, "7.2", "7.3")], names)) == []
    wrong = [run(1, "7.1"), run(3, "7.1", "7.2", outcome="failed")]
    found = [kind for kind, _ in archive_violations(wrong, names)]
    assert found == ["not_in_one_run", "not_in_one_run", "gap_in_archive", "ended_badly"]


def test_what_the_model_is_asked_is_read_from_the_messages_of_the_run_alone() -> None:
    def user(text: str) -> dict[str, object]:
        return {"role": "user", "content": text}

    earlier: list[dict[str, object]] = [user("#7.1 k=1"), {"role": "assistant", "content": "re #7.1 | x=0 | -"}]
    first = script.asked([*earlier, user("#7.2 k=2 t=1 e=once"), user("#7.3")])
    assert first is not None
    assert (first.run, first.inputs, first.turn) == ("7.2", ("7.2", "7.3"), 1)
    called = script.answer(first, 4)
    result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": '{"n": 3}'}
    then = script.asked([*earlier, user("#7.2 k=2 t=1 e=once"), user("#7.3"), called, result])
    assert then is not None
    assert (then.turn, then.turns) == (2, {1: 4})
    said = script.answered(script.answer(then, 0)["content"])
    assert said == script.Answered(CHAT, ("7.2", "7.3"), 0, "3")


def test_a_report_is_as_it_must_be_without_violations_and_a_control_with_one() -> None:
    assert Report("random", 1).ok
    assert not Report("control", 1, control=True).ok
    report = Report("random", 1, recoveries=[1.0, 9.0])
    report.check_recovery()
    assert (report.ok, dict(report.violations)) == (False, {"slow_recovery": 1})
    assert '"recovery_s": {"p50": 9.0, "p95": 9.0, "max": 9.0}' in report.line()
