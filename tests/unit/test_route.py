import subprocess
import sys

import pytest

from shared.domain import Message, ModelReply, ModelRequest
from shared.errors import ModelFailed, ModelRefused, ModelUnavailable
from shared.llm import Gateway, OnText
from shared.llm.route import Route
from tests.clock import FakeClock

REQUEST = ModelRequest(model="any", instructions="Be kind.", messages=(Message(role="contact", text="Hi", id="m1"),))


class Models:
    """Each model gives its answers in turn; one that says `text` first streams it before it fails."""

    def __init__(self, **answers: list[str | Exception]) -> None:
        self.asked: list[ModelRequest] = []
        self._answers = answers

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        self.asked.append(request)
        answer = self._answers[request.model].pop(0)
        if on_text:
            on_text("Hello" if isinstance(answer, str) else "Hel")
        if isinstance(answer, Exception):
            raise answer
        return ModelReply(model=request.model, text=answer)


def busy(model: str) -> ModelUnavailable:
    return ModelUnavailable(f"{model}: busy")


def refuses(model: str) -> ModelRefused:
    return ModelRefused(f"{model}: bad key")


async def ask(models: Models, *names: str) -> tuple[ModelReply, FakeClock]:
    clock = FakeClock()
    return await Route({"": lambda: models}, clock).complete(names, REQUEST), clock


async def test_the_first_model_that_answers_is_enough() -> None:
    models = Models(a=["Hello"], b=["no"])
    reply, clock = await ask(models, "a", "b")
    assert (reply.model, reply.text, clock.slept) == ("a", "Hello", [])
    assert [(request.model, request.messages) for request in models.asked] == [("a", REQUEST.messages)]


async def test_a_busy_model_is_asked_once_more_after_a_pause() -> None:
    models = Models(a=[busy("a"), "Hello"])
    reply, clock = await ask(models, "a", "b")
    assert (reply.text, clock.slept) == ("Hello", [0.5])


async def test_a_model_that_stays_busy_gives_way_to_the_next() -> None:
    models = Models(a=[busy("a"), busy("a")], b=["Hello"])
    reply, _ = await ask(models, "a", "b")
    assert reply.model == "b"
    assert [request.model for request in models.asked] == ["a", "a", "b"]


async def test_a_model_that_refuses_is_not_asked_again() -> None:
    models = Models(a=[refuses("a")], b=["Hello"])
    reply, clock = await ask(models, "a", "b")
    assert (reply.model, clock.slept, len(models.asked)) == ("b", [], 2)


async def test_when_no_model_answers_each_is_named_with_its_reason() -> None:
    with pytest.raises(ModelFailed) as failure:
        await ask(Models(a=[busy("a"), busy("a")], b=[refuses("b")]), "a", "b")
    assert str(failure.value) == "a: busy; b: bad key"


async def test_a_plan_without_models_fails_with_that_reason() -> None:
    with pytest.raises(ModelFailed, match="the plan names no model"):
        await ask(Models())


async def test_another_error_is_not_taken_for_a_model_that_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        await ask(Models(a=[ZeroDivisionError()], b=["Hello"]), "a", "b")


async def test_the_pieces_of_an_attempt_that_fails_are_taken_back() -> None:
    route = Route({"": lambda: Models(a=[busy("a"), "Hello"])}, FakeClock())
    seen: list[str] = []
    await route.complete(("a",), REQUEST, seen.append, seen.clear)
    assert seen == ["Hello"]


async def test_nothing_is_taken_back_when_nothing_was_streamed() -> None:
    resets: list[None] = []
    route = Route({"": lambda: Models(a=[busy("a"), "Hello"])}, FakeClock())
    await route.complete(("a",), REQUEST, None, lambda: resets.append(None))
    assert not resets


async def test_a_gateway_is_picked_by_prefix_and_made_once_when_it_is_needed() -> None:
    made: list[str] = []

    def maker(name: str) -> Gateway:
        made.append(name)
        answers: dict[str, list[str | Exception]] = {"scripted/demo": ["s", "s"], "openai/x": ["o"], "plain": ["p"]}
        return Models(**answers)

    route = Route({"scripted": lambda: maker("scripted"), "": lambda: maker("others")}, FakeClock())
    assert (await route.complete(("scripted/demo",), REQUEST)).text == "s"
    assert (await route.complete(("scripted/demo",), REQUEST)).text == "s"
    assert made == ["scripted"]
    assert (await route.complete(("openai/x",), REQUEST)).text == "o"
    assert (await route.complete(("plain",), REQUEST)).text == "p"
    assert made == ["scripted", "others"]


def test_importing_the_gateways_loads_no_vendor_library() -> None:
    code = "import sys, shared.llm.route, shared.llm.scripted, shared.llm.litellm; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"litellm", "openai", "pydantic", "httpx", "aiohttp"} & set(loaded)
