"""The signature on a result: what its receiver accepts."""

from __future__ import annotations

import pytest

from shared.auth.signature import WINDOW_SECONDS, sign, verify

KEY, BODY, AT = "0" * 64, '{"text": "Grüße"}'.encode(), 1_795_000_000


def test_the_form_is_the_documented_one() -> None:
    assert sign("secret", b"{}", AT + 0.9) == (
        f"t={AT},v1=6b4c7e66d3b69c810f27c4aa67ee370757d4dfdabf1fbb338ea7cf6aba9e0494"
    )


@pytest.mark.parametrize("late", [0, WINDOW_SECONDS, -WINDOW_SECONDS])
def test_within_five_minutes_it_is_accepted(late: int) -> None:
    assert verify(KEY, BODY, sign(KEY, BODY, AT), AT + late)


@pytest.mark.parametrize("late", [WINDOW_SECONDS + 1, -WINDOW_SECONDS - 1, 10**9])
def test_outside_of_them_it_is_not(late: int) -> None:
    assert not verify(KEY, BODY, sign(KEY, BODY, AT), AT + late)


def test_another_body_key_or_time_is_not_accepted() -> None:
    header = sign(KEY, BODY, AT)
    assert not verify(KEY, BODY + b" ", header, AT)
    assert not verify("1" * 64, BODY, header, AT)
    assert not verify(KEY, BODY, header.replace(f"t={AT}", f"t={AT + 1}"), AT)


@pytest.mark.parametrize("header", ["", "t=1", "v1=00", f"t={AT},v1={'0' * 64}", f"t={AT},v1={'é' * 64}", "t=x,v1=y"])
def test_anything_else_is_not_accepted(header: str) -> None:
    assert not verify(KEY, BODY, header, AT)
