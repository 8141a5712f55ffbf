"""The functions as their callers meet them: a conversation, pushes that nobody may forge, and health."""

from __future__ import annotations

import base64
import json
import secrets
import time

from scripts.smoke import Json, Row, Target, result_of

AGENT = "shop"


async def conversation(target: Target) -> list[Row]:
    """Two turns of one session, the second sent twice under one idempotency key: it must be the same run."""
    session, key = f"smoke-{secrets.token_hex(6)}", secrets.token_hex(8)
    begun = time.perf_counter()
    first = await _invoke(target, session, "Where is order 1042?", secrets.token_hex(8))
    seconds = round(time.perf_counter() - begun, 3)
    second = await _invoke(target, session, "Thank you!", key)
    again = await _invoke(target, session, "Thank you!", key)
    answered = all(turn["status"] == "answered" and turn["text"] for turn in (first, second))
    good = answered and first["run"] != second["run"] == again["run"]
    return [Row(check="conversation", result=result_of(good), values={"first_answer_seconds": seconds})]


async def _invoke(target: Target, session: str, text: str, key: str) -> Json:
    address = f"{target.urls['run_agent']}/v1/agents/{AGENT}/invoke"
    headers = {"Authorization": f"Bearer {target.api_key}", "Idempotency-Key": key}
    answer = await target.http.post(address, json={"input": text, "session": session}, headers=headers, timeout=330)
    return dict(answer.raise_for_status().json())


PUSHES = (
    ("run_agent", "/wakes"),
    ("callbacks", "/deliveries"),
    ("callbacks", "/results"),
    ("callbacks", "/results/dead"),
    ("callbacks", "/tick"),
)


async def tokens(target: Target) -> list[Row]:
    """Pushes that must be refused with 401, at each address that takes pushes.

    They come without a token, with garbage, with claims that nobody signed, and with tokens that Google has signed
    for another account: one for this audience, one for another.
    """
    rows = []
    for function, path in PUSHES:
        audience = target.urls[function]
        forged = {"none": "", "garbage": "garbage", "unsigned": _unsigned(audience)}
        if target.id_token:
            forged["another account's"] = await target.id_token(audience)
            forged["another audience's"] = await target.id_token("https://another.example")
        for name, token in forged.items():
            values: Json = {"path": path, "token": name}
            if name.startswith("another") and not token:
                rows.append(Row(check="tokens", result="not measured", values=values))
                continue
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            status = (await target.http.post(audience + path, json={}, headers=headers)).status_code
            rows.append(Row(check="tokens", result=result_of(status == 401), values={**values, "status": status}))
    return rows


def _unsigned(audience: str) -> str:
    now = int(time.time())
    claims = {"iss": "https://accounts.google.com", "aud": audience, "iat": now, "exp": now + 3600}
    return ".".join((_part({"alg": "none", "typ": "JWT"}), _part({**claims, "email_verified": True}), ""))


def _part(value: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def health(target: Target) -> list[Row]:
    """What the control plane says about its parts: Firestore, Pub/Sub and the database."""
    headers = {"Authorization": f"Bearer {target.api_key}"}
    answer = await target.http.get(f"{target.urls['api']}/health/detailed", headers=headers)
    return [Row(check="health", result=result_of(answer.status_code == 200), values={"status": answer.status_code})]
