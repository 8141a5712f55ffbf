"""Costs are litellm's own, to the last digit, for every chat model of OpenAI on its list."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

from shared.llm.prices import Prices, Tokens

USES = (
    Tokens(input=1_000, output=100),
    Tokens(input=1_000, output=100, cached=600),
    Tokens(input=5_000, output=50, cached=1_000, written=2_000),
    Tokens(input=272_000, output=1),
    Tokens(input=300_000, output=50, cached=1_000, written=200),
)


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    return litellm


def test_every_model_costs_what_litellm_says(litellm: ModuleType) -> None:
    prices = Prices.of("openai")
    models = [
        name
        for name, entry in litellm.model_cost.items()
        if entry.get("litellm_provider") == "openai" and entry.get("mode") == "chat"
    ]
    assert len(models) > 50
    for model in models:
        for tokens in USES:
            details = {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.written}
            used = litellm.Usage(
                prompt_tokens=tokens.input, completion_tokens=tokens.output, prompt_tokens_details=details
            )
            expected = sum(litellm.cost_per_token(model=f"openai/{model}", usage_object=used))
            assert prices.cost(model, tokens) == pytest.approx(expected, rel=1e-9), (model, tokens)


def test_a_model_that_is_not_listed_costs_nothing() -> None:
    assert Prices.of("openai").cost("of-our-own", USES[0]) == 0.0
