import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shared.domain import Message, ModelRequest
from shared.errors import ModelRefused
from shared.llm.litellm import LiteLLM
from tests.servers.model_server import ModelServer, running

ASKED = (Message(role="contact", text="my pin is swordfish"),)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with running() as server:
        yield server


async def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelRefused, match="ANTHROPIC_API_KEY"):
        await LiteLLM().complete(ModelRequest(model="anthropic/claude-haiku-4-5", instructions="", messages=()))


async def test_a_model_of_no_provider_is_refused_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelRefused, match="nonsense: BadRequestError 400"):
        await LiteLLM().complete(ModelRequest(model="nonsense", instructions="", messages=ASKED))
    assert capfd.readouterr() == ("", "")


ONLY_AN_ADDRESS = """
import asyncio, sys
from shared.domain import Message, ModelRequest
from shared.llm.litellm import LiteLLM

heavy = {"litellm", "openai", "pydantic", "httpx", "aiohttp"} & set(sys.modules)
assert not heavy, f"imported too early: {heavy}"

async def main():
    gateway = LiteLLM()
    request = ModelRequest(model="openai/of-our-own", instructions="", messages=(Message(role="contact", text="Hi"),))
    call, turns = asyncio.create_task(gateway.complete(request)), 0
    while not call.done():
        turns += "litellm" not in sys.modules or not hasattr(sys.modules["litellm"], "acompletion")
        await asyncio.sleep(0.01)
    print((await call).text, turns > 10)
    await gateway.aclose()

asyncio.run(main())
"""


def test_the_first_call_of_a_process_needs_only_an_address_and_lets_the_loop_run(server: ModelServer) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", ONLY_AN_ADDRESS],
        env={"PATH": os.environ["PATH"], "OPENAI_BASE_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Hello, I am the test model. True\n", "")
