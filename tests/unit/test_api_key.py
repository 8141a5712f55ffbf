from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from shared import codec
from shared.auth.api_key import authenticate
from shared.domain import Principal
from shared.errors import Unauthenticated
from shared.published import ApiKey, Published, api_key_path
from tests.clock import FakeClock
from tests.fakes import FakeDocuments

SECRET = "5e" * 32
KEY = ApiKey(id="1a2b", tenant="demo", secret_sha256=hashlib.sha256(SECRET.encode()).hexdigest(), role="operator")


def with_keys(*keys: ApiKey) -> Published:
    documents = FakeDocuments()
    documents.bodies.update({api_key_path(key.id): codec.encode(key) for key in keys})
    return Published(documents, FakeClock())


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_says_who_calls(scheme: str) -> None:
    principal = await authenticate(f"{scheme} rk_1a2b_{SECRET}", with_keys(KEY))
    assert principal == Principal(tenant="demo", id="1a2b", role="operator")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dTpw",
        f"rk_1a2b_{SECRET}",
        "Bearer rk_1a2b_",
        f"Bearer rk__{SECRET}",
        f"Bearer rk_../x_{SECRET}",
        f"Bearer rk_1a2b_{SECRET} ",
        f"Bearer rk_1a2b_{SECRET}\n",
        "Bearer rk_1a2b_" + "x" * 10_000,
    ],
)
async def test_what_is_not_a_key_is_told_what_is_expected(header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="Bearer rk_<id>_<secret>"):
        await authenticate(header, with_keys(KEY))


async def test_unknown_wrong_and_disabled_keys_are_refused_in_the_same_words() -> None:
    disabled = replace(KEY, id="off", enabled=False)
    refused = []
    for presented in (f"rk_other_{SECRET}", f"rk_1a2b_{'0' * 64}", f"rk_off_{SECRET}", "rk_1a2b_x"):
        with pytest.raises(Unauthenticated) as error:
            await authenticate(f"Bearer {presented}", with_keys(KEY, disabled))
        refused.append(str(error.value))
    assert len(set(refused)) == 1
    assert SECRET not in refused[0]


async def test_the_stored_hash_is_not_a_key() -> None:
    with pytest.raises(Unauthenticated):
        await authenticate(f"Bearer rk_1a2b_{KEY.secret_sha256}", with_keys(KEY))
