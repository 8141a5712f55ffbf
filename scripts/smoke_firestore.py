"""Firestore itself: its TTL, its rules, and how often one document may be written."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scripts.smoke import Json, Result, Row, Target, result_of

if TYPE_CHECKING:
    from google.cloud.firestore import AsyncDocumentReference

EXPIRING = ("runs", "unreadable", "receipts", "dead_results")
CANARIES = "tenants/smoke-ttl/receipts"
LATEST = timedelta(hours=72)
"""Google deletes "typically within 24 hours" of the expiry: https://cloud.google.com/firestore/docs/ttl."""

SIZES_KB = (10, 100, 500)
RATES = (1, 2, 5, 10)


async def ttl(target: Target) -> list[Row]:
    """The policies are active, and what expired on an earlier day is gone; leaves a document that expires now."""
    now = datetime.now(UTC)
    return [await _policy(target, group) for group in EXPIRING] + [await canaries(target, now)]


async def _policy(target: Target, group: str) -> Row:
    values: Json = {"collection_group": group}
    if target.firestore_emulator:
        return Row(check="ttl", result="not measured", values=values)
    field = await target.firestore("GET", f"/collectionGroups/{group}/fields/expires_at")
    values["state"] = field.get("ttlConfig", {}).get("state", "none")
    return Row(check="ttl", result=result_of(values["state"] == "ACTIVE"), values=values)


async def canaries(target: Target, now: datetime) -> Row:
    """Leave one document that expires at `now`; fails when an earlier one outlived its expiry by three days."""
    expires = {"expires_at": {"timestampValue": now.isoformat()}}
    name = now.strftime("%Y%m%dT%H%M%S")
    await target.firestore("PATCH", f"/documents/{CANARIES}/{name}", {"fields": expires})
    found = await target.firestore("GET", f"/documents/{CANARIES}?pageSize=300")
    names = [document["name"].rpartition("/")[2] for document in found.get("documents", [])]
    left = [name for name in names if name < (now - LATEST).strftime("%Y%m%dT%H%M%S")]
    return Row(check="ttl", result=result_of(not left), values={"waiting": len(names), "outlived": len(left)})


async def rules(target: Target) -> list[Row]:
    """A contact who has just signed in reads their own view, and neither another's nor the session itself."""
    if not target.web_api_key:
        return [Row(check="rules", result="not measured", values={"reason": "give --web-api-key"})]
    sign_up = f"https://identitytoolkit.googleapis.com/v1/accounts:signUp?key={target.web_api_key}"
    answer = await target.http.post(sign_up, json={"returnSecureToken": True})
    signed_in = answer.raise_for_status().json()
    root = f"https://firestore.googleapis.com/v1/projects/{target.project}/databases/(default)/documents"
    return await as_contact(target, root, signed_in["localId"], signed_in["idToken"])


async def as_contact(target: Target, root: str, uid: str, token: str) -> list[Row]:
    """What Firestore's REST interface at `root` answers to the contact with this ID token."""
    session = f"smoke-{secrets.token_hex(6)}"
    view = f"tenants/smoke/contacts/{uid}/views/{session}"
    await target.firestore("PATCH", f"/documents/{view}", {"fields": {}})
    expected = (
        ("GET", view, 200),
        ("GET", f"tenants/smoke/contacts/somebody-else/views/{session}", 403),
        ("GET", f"tenants/smoke/sessions/{session}", 403),
        ("GET", f"tenants/smoke/consoles/{session}", 403),
        ("PATCH", view, 403),
    )
    rows = []
    for method, path, status in expected:
        body: Json | None = {"fields": {}} if method == "PATCH" else None
        answer = await target.http.request(
            method, f"{root}/{path}", json=body, headers={"Authorization": f"Bearer {token}"}
        )
        values = {"method": method, "path": path.replace(uid, "<me>"), "status": answer.status_code}
        rows.append(Row(check="rules", result=result_of(answer.status_code == status), values=values))
    await target.firestore("DELETE", f"/documents/{view}")
    return rows


async def writes(target: Target) -> list[Row]:
    """Latency and aborts of commits on one document, for each size and rate; the emulator's say nothing of Google's."""
    from google.cloud.firestore import AsyncClient

    client = AsyncClient(project=target.project)
    document = client.document(f"tenants/smoke/blobs/{secrets.token_hex(6)}")
    rows = []
    try:
        for size in SIZES_KB:
            for rate in RATES:
                row = await _paced(document, size, rate, target.seconds)
                result: Result = "not measured" if target.firestore_emulator else "ok"
                rows.append(Row(check="writes", result=result, values={"kb": size, "per_second": rate, **row}))
        await document.delete()
    finally:
        await client._firestore_api.transport.close()  # noqa: SLF001  the public client has no asynchronous close
    return rows


async def _paced(document: AsyncDocumentReference, size_kb: int, rate: int, seconds: float) -> Json:
    """Begins a write every 1/rate seconds, whether the one before has ended or not: as many writers would."""
    begun = time.perf_counter()
    tasks = []
    for number in range(max(1, round(rate * seconds))):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(_write(document, size_kb)))
    return summary(await asyncio.gather(*tasks))


async def _write(document: AsyncDocumentReference, size_kb: int) -> tuple[str, float]:
    """How the write ended, and after how many milliseconds; nothing is repeated."""
    from google.api_core.exceptions import GoogleAPICallError

    content = os.urandom(size_kb << 10)
    begun = time.perf_counter()
    try:
        await document.set({"state": content}, retry=None, timeout=30)
        ended = "done"
    except GoogleAPICallError as error:
        ended = type(error).__name__
    return ended, (time.perf_counter() - begun) * 1000


def summary(ended: list[tuple[str, float]]) -> Json:
    """p50 and p95 of the writes that were done, in milliseconds, and how many were aborted or failed otherwise."""
    done = sorted(milliseconds for how, milliseconds in ended if how == "done")
    values: Json = {"writes": len(ended), "done": len(done)}
    if done:
        values["p50_ms"] = round(statistics.median(done), 1)
        values["p95_ms"] = round(done[min(len(done) - 1, round(0.95 * len(done)))], 1)
    errors = Counter(how for how, _ in ended if how != "done")
    return {**values, "aborts": errors.pop("Aborted", 0), "errors": dict(errors)}
