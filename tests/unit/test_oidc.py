import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.auth.oidc import PushVerifier
from shared.auth.tokens import KEEP, LEEWAY_SECONDS, PAUSE, REFETCH, Tokens
from shared.errors import Retryable, Unauthenticated
from tests.clock import FakeClock
from tests.engines import free_port
from tests.servers.loopback import served

AUDIENCE = "https://run-agent.example/wakes"
ACCOUNT = "push@project.iam.gserviceaccount.com"
pytestmark = pytest.mark.asyncio(loop_scope="module")
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    """One key for each name, made once: it takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


@cache
def certificate(name: str) -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "federated-signon.system.example")])
    builder = x509.CertificateBuilder(subject, subject, key(name).public_key(), 1, NOW, NOW + timedelta(days=14))
    return builder.sign(key(name), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


class Issuer:
    """Publishes its certificates as Google does and signs tokens; a test changes what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.published = {"first": certificate("first")}
        self.headers: dict[str, str] = {}
        self.answer: Response | None = None
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        answer = self.answer or Response(json.dumps(self.published), headers=self.headers)
        await answer(scope, receive, send)

    def token(self, kid: str = "first", signed_by: str = "", **changes: Any) -> str:
        """`Bearer` and a good token, but for the claims in `changes`; None leaves one out."""
        claims = good_claims() | changes
        kept = {name: value for name, value in claims.items() if value is not None}
        return f"Bearer {jwt.encode(kept, key(signed_by or kid), algorithm='RS256', headers={'kid': kid})}"


def good_claims() -> dict[str, Any]:
    begin = int(NOW.timestamp())
    return {
        "iss": "https://issuer.example",
        "aud": AUDIENCE,
        "iat": begin,
        "exp": begin + 3600,
        "sub": "113774264463038321964",
        "email": ACCOUNT,
        "email_verified": True,
    }


class Door:
    """One server for all tests here, as ending one takes a fifth of a second: each test puts its issuer behind it."""

    def __init__(self) -> None:
        self.issuer = Issuer("")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.issuer(scope, receive, send)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    door = Door()
    async with served(door) as door.issuer.url:
        yield door


@pytest.fixture
def issuer(door: Door) -> Issuer:
    door.issuer = Issuer(door.issuer.url)
    return door.issuer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


def verifier_at(url: str, http: httpx.AsyncClient, clock: FakeClock, **changes: str) -> PushVerifier:
    settings = {"audience": AUDIENCE, "service_account": ACCOUNT, "issuer": "https://issuer.example"} | changes
    tokens = Tokens(
        audience=settings["audience"], issuer=settings["issuer"], certificates_url=url, http=http, clock=clock
    )
    return PushVerifier(tokens, settings["service_account"])


@pytest.fixture
def verifier(issuer: Issuer, http: httpx.AsyncClient, clock: FakeClock) -> PushVerifier:
    return verifier_at(issuer.url, http, clock)


async def test_good_tokens_are_accepted_and_the_certificates_asked_for_once(
    verifier: PushVerifier, issuer: Issuer
) -> None:
    await verifier.verify(issuer.token())
    await verifier.verify(issuer.token().replace("Bearer", "bearer"))
    assert issuer.asked == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://other.example"}, "another audience"),
        ({"aud": None}, "needs aud, iss, exp and iat"),
        ({"iss": "https://accounts.google.com"}, "another issuer"),
        ({"iss": None}, "needs aud, iss, exp and iat"),
        ({"email": "someone@project.iam.gserviceaccount.com"}, "another account"),
        ({"email": None}, "another account"),
        ({"email_verified": False}, "not verified"),
        ({"email_verified": "true"}, "not verified"),
        ({"email_verified": None}, "not verified"),
        ({"exp": int(NOW.timestamp()) - LEEWAY_SECONDS}, "expired"),
        ({"exp": None}, "needs aud, iss, exp and iat"),
        ({"exp": "tomorrow"}, "must be numbers"),
        ({"iat": int(NOW.timestamp()) + LEEWAY_SECONDS + 1}, "in the future"),
        ({"signed_by": "stranger"}, "signature is wrong"),
        ({"kid": "stranger"}, "does not publish"),
    ],
)
async def test_a_token_that_is_wrong_in_one_thing_is_refused_for_it(
    verifier: PushVerifier, issuer: Issuer, changes: dict[str, Any], reason: str
) -> None:
    token = issuer.token(**changes)
    with pytest.raises(Unauthenticated, match=reason) as refused:
        await verifier.verify(token)
    assert token.removeprefix("Bearer ") not in str(refused.value)


async def test_clocks_may_differ_by_the_leeway(verifier: PushVerifier, issuer: Issuer) -> None:
    await verifier.verify(issuer.token(exp=int(NOW.timestamp()) - LEEWAY_SECONDS + 1))
    await verifier.verify(issuer.token(iat=int(NOW.timestamp()) + LEEWAY_SECONDS))


async def test_a_good_token_expires(verifier: PushVerifier, issuer: Issuer, clock: FakeClock) -> None:
    token = issuer.token()
    await verifier.verify(token)
    await clock.sleep(3600 + LEEWAY_SECONDS)
    with pytest.raises(Unauthenticated, match="expired"):
        await verifier.verify(token)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer not-a-token", "Bearer a.b.c"]
)
async def test_what_is_not_a_token_is_refused_without_asking_the_issuer(
    verifier: PushVerifier, issuer: Issuer, header: str | None
) -> None:
    with pytest.raises(Unauthenticated, match="token"):
        await verifier.verify(header)
    assert issuer.asked == 0


async def test_a_token_without_a_signature_is_refused(verifier: PushVerifier, issuer: Issuer) -> None:
    unsigned = jwt.encode(good_claims(), "", algorithm="none", headers={"kid": "first"})
    with pytest.raises(Unauthenticated, match="must be signed by RS256"):
        await verifier.verify(f"Bearer {unsigned}")


async def test_a_token_that_takes_the_public_key_for_a_shared_secret_is_refused(
    verifier: PushVerifier, issuer: Issuer
) -> None:
    def segment(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    public = key("first").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (public, certificate("first").encode()):
        header = {"alg": "HS256", "typ": "JWT", "kid": "first"}
        signed = f"{segment(json.dumps(header).encode())}.{segment(json.dumps(good_claims()).encode())}"
        forged = f"{signed}.{segment(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
        with pytest.raises(Unauthenticated, match="must be signed by RS256"):
            await verifier.verify(f"Bearer {forged}")


async def test_a_key_that_the_issuer_added_is_found_by_asking_again(
    verifier: PushVerifier, issuer: Issuer, clock: FakeClock
) -> None:
    await verifier.verify(issuer.token())
    issuer.published = {"second": certificate("second")}
    await clock.sleep(REFETCH.total_seconds())
    await verifier.verify(issuer.token("second"))
    with pytest.raises(Unauthenticated, match="does not publish"):
        await verifier.verify(issuer.token("first"))
    assert issuer.asked == 2


async def test_unknown_keys_cannot_make_it_ask_more_often(verifier: PushVerifier, issuer: Issuer) -> None:
    for _ in range(5):
        with pytest.raises(Unauthenticated, match="does not publish"):
            await verifier.verify(issuer.token("stranger"))
    assert issuer.asked == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [("public, max-age=60, must-revalidate", 60), ("", KEEP.total_seconds())]
)
async def test_certificates_are_kept_as_long_as_the_issuer_says(
    verifier: PushVerifier, issuer: Issuer, clock: FakeClock, header: str, seconds: float
) -> None:
    issuer.headers = {"cache-control": header}
    token = issuer.token(exp=int(NOW.timestamp()) + 86_400)
    await verifier.verify(token)
    await clock.sleep(seconds - 1)
    await verifier.verify(token)
    assert issuer.asked == 1
    await clock.sleep(1)
    await verifier.verify(token)
    assert issuer.asked == 2


@pytest.mark.parametrize(
    "answer", [Response(status_code=500), Response("not JSON"), Response("[]"), Response('{"first": "x"}')]
)
async def test_certificates_that_cannot_be_read_prove_nothing_about_the_caller(
    verifier: PushVerifier, issuer: Issuer, clock: FakeClock, answer: Response
) -> None:
    issuer.answer = answer
    with pytest.raises(Retryable, match="certificates could not be read"):
        await verifier.verify(issuer.token())
    issuer.answer = None
    with pytest.raises(Retryable, match="a moment ago"):
        await verifier.verify(issuer.token())
    assert issuer.asked == 1
    await clock.sleep(PAUSE.total_seconds())
    await verifier.verify(issuer.token())


async def test_an_issuer_that_is_not_there_proves_nothing_about_the_caller(
    issuer: Issuer, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    with pytest.raises(Retryable, match="ConnectError"):
        await verifier_at(f"http://127.0.0.1:{free_port()}", http, clock).verify(issuer.token())


@pytest.mark.parametrize("unset", ["audience", "service_account", "issuer"])
async def test_without_its_settings_nothing_is_accepted(
    issuer: Issuer, http: httpx.AsyncClient, clock: FakeClock, unset: str
) -> None:
    claim = {"audience": "aud", "service_account": "email", "issuer": "iss"}[unset]
    with pytest.raises(Unauthenticated, match="is set, so no token can be accepted"):
        await verifier_at(issuer.url, http, clock, **{unset: ""}).verify(issuer.token(**{claim: ""}))
