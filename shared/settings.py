"""The process's environment, read once, here and nowhere else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from shared.errors import RecadoError


class SettingsError(RecadoError):
    """The environment cannot be used; the message names the variable and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says. Each field is followed by its variable and what it means."""

    project: str = ""
    """`GOOGLE_CLOUD_PROJECT`: the project of Firestore and Pub/Sub; empty: the embedded stores and bus."""
    home: Path = Path(".recado")
    """`RECADO_HOME`: the folder of the embedded database, key file and log; made with mode 0700."""
    database_url: str = ""
    """`DATABASE_URL`: SQLAlchemy URL of the configuration; empty: SQLite in `home`."""
    files: str = ""
    """`RECADO_FILES`: where blobs lie: `gs://bucket/prefix`, `s3://bucket/prefix` (with `pip install recado[s3]`, and
    the AWS variables) or `file:///folder`, with or without a prefix; empty: the folder `files` in `home`, which Cloud
    Run refuses."""
    wake_topic: str = "wakes"
    """`RECADO_WAKE_TOPIC`: the Pub/Sub topic of wakes."""
    delivery_topic: str = "deliveries"
    """`RECADO_DELIVERY_TOPIC`: the Pub/Sub topic of receipts."""
    result_topic: str = "results"
    """`RECADO_RESULT_TOPIC`: the Pub/Sub topic of results for callers."""
    push_audience: str = ""
    """`RECADO_PUSH_AUDIENCE`: the `aud` that the push's OIDC token must have."""
    push_service_account: str = ""
    """`RECADO_PUSH_SERVICE_ACCOUNT`: the `email` that the push's OIDC token must have."""
    push_issuer: str = "https://accounts.google.com"
    """`RECADO_PUSH_ISSUER`: the `iss` that the push's OIDC token must have."""
    push_certificates_url: str = "https://www.googleapis.com/oauth2/v1/certs"
    """`RECADO_PUSH_CERTIFICATES_URL`: where the issuer's public keys are."""
    pubsub_emulator: str = ""
    """`PUBSUB_EMULATOR_HOST`: with it a push without a token is accepted; never together with `K_SERVICE`."""
    firestore_emulator: str = ""
    """`FIRESTORE_EMULATOR_HOST`: read by the client library as well; never together with `K_SERVICE`."""
    auth_emulator: str = ""
    """`FIREBASE_AUTH_EMULATOR_HOST`: with it the emulator's unsigned ID tokens are accepted; never with `K_SERVICE`."""
    storage_emulator: str = ""
    """`STORAGE_EMULATOR_HOST`: an emulator of Cloud Storage, for `gs://`; never together with `K_SERVICE`."""
    service: str = ""
    """`K_SERVICE`: set by Cloud Run; says that this is not a development machine."""
    platform_key: str = field(default="", repr=False)
    """`RECADO_PLATFORM_KEY`: 32 bytes in URL-safe base64 (from Secret Manager); empty: the key file in `home`."""
    log_level: str = "INFO"
    """`LOG_LEVEL`: DEBUG, INFO, WARNING or ERROR."""
    log_format: str = "text"
    """`LOG_FORMAT`: `text`, readable lines, or `json`, Cloud Logging's; empty: `json` on Cloud Run, else `text`."""
    model: str = "scripted/demo"
    """`RECADO_MODEL`, or what the provider keys in the environment suggest: the model of the demo agent."""
    openai_base_url: str = ""
    """`OPENAI_BASE_URL`: an OpenAI-compatible server that serves `openai/` models in OpenAI's place."""
    openai_api_key: str = field(default="", repr=False)
    """`OPENAI_API_KEY`: the key of that server; OpenAI's own is read by litellm."""
    telegram_api: str = "https://api.telegram.org"
    """`RECADO_TELEGRAM_API`: root of the Telegram Bot API."""
    port: int = 8080
    """`PORT`: where the server listens."""
    slice_seconds: float = 480.0
    """`RECADO_SLICE_SECONDS`: how long one push may hold a run (the Pub/Sub ack deadline is 600 s)."""
    stream_seconds: float = 3300.0
    """`RECADO_STREAM_SECONDS`: how long one stream of events lasts; the reader then comes again (Cloud Run cuts a
    request at its time-out, at most an hour)."""
    web_origin: str = ""
    """`RECADO_WEB_ORIGIN`: where the web client is served, such as `https://<project>.web.app`; empty: the functions'
    own origin."""
    firebase: str = ""
    """`RECADO_FIREBASE_CONFIG`: the web app's configuration as JSON, as `firebase apps:sdkconfig` prints it; with it
    the web client signs in and listens by Firebase."""
    addresses: str = ""
    """`RECADO_ADDRESSES`: JSON object from `ingest`, `run_agent`, `callbacks` and `api` to their addresses; empty: one
    origin serves all."""
    web_connection: str = "demo-web"
    """`RECADO_WEB_CONNECTION`: the connection that the web client talks to."""
    lease_seconds: float = 30.0
    """`RECADO_LEASE_SECONDS`: how long a silent process keeps a session."""
    retention_days: int = 90
    """`RECADO_RETENTION_DAYS`: how long finished runs, failed receipts and unreadable updates are kept."""

    @property
    def config_url(self) -> str:
        """SQLAlchemy URL of the configuration."""
        return self.database_url or f"sqlite:///{self.home / 'config.db'}"

    @property
    def files_url(self) -> str:
        """Where blobs lie: a URL of one of the forms of `files`, never empty."""
        return self.files or (self.home / "files").absolute().as_uri()

    @property
    def own_models(self) -> str:
        """Where `openai/` models are served by a server of one's own; empty when OpenAI serves them."""
        host = urlsplit(self.openai_base_url).hostname or ""
        return "" if host == "openai.com" or host.endswith(".openai.com") else self.openai_base_url

    @property
    def embedded(self) -> bool:
        """Whether sessions, wakes and published configuration stay in this process's folder."""
        return not self.project

    @property
    def development(self) -> bool:
        """Whether this is a development machine: embedded, or on emulators."""
        return self.embedded or bool(self.pubsub_emulator or self.firestore_emulator)


_PROVIDERS = (
    ("OPENAI_API_KEY", "openai/gpt-5-mini"),
    ("OPENAI_BASE_URL", "openai/gpt-5-mini"),
    ("GEMINI_API_KEY", "gemini/gemini-2.5-flash"),
    ("ANTHROPIC_API_KEY", "anthropic/claude-haiku-4-5"),
)
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS = ("text", "json")
_BUCKET = re.compile(r"(gs|s3)://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[A-Za-z0-9_.:-]+)*")
_FOLDER = re.compile(r"file:///.+")


def current() -> Settings:
    """The settings of this process. Raises `SettingsError`."""
    return from_environment(os.environ)


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings of this environment, where an empty variable counts as none.

    Raises `SettingsError`, naming the variable, when one cannot be used.
    """
    environment = {variable: text for variable, text in environment.items() if text}
    defaults = Settings()
    settings = Settings(
        project=environment.get("GOOGLE_CLOUD_PROJECT", ""),
        home=Path(environment.get("RECADO_HOME", str(defaults.home))),
        database_url=environment.get("DATABASE_URL", ""),
        files=environment.get("RECADO_FILES", "").rstrip("/"),
        wake_topic=environment.get("RECADO_WAKE_TOPIC", defaults.wake_topic),
        delivery_topic=environment.get("RECADO_DELIVERY_TOPIC", defaults.delivery_topic),
        result_topic=environment.get("RECADO_RESULT_TOPIC", defaults.result_topic),
        push_audience=environment.get("RECADO_PUSH_AUDIENCE", ""),
        push_service_account=environment.get("RECADO_PUSH_SERVICE_ACCOUNT", ""),
        push_issuer=environment.get("RECADO_PUSH_ISSUER", defaults.push_issuer),
        push_certificates_url=environment.get("RECADO_PUSH_CERTIFICATES_URL", defaults.push_certificates_url),
        pubsub_emulator=environment.get("PUBSUB_EMULATOR_HOST", ""),
        firestore_emulator=environment.get("FIRESTORE_EMULATOR_HOST", ""),
        auth_emulator=environment.get("FIREBASE_AUTH_EMULATOR_HOST", ""),
        storage_emulator=environment.get("STORAGE_EMULATOR_HOST", ""),
        service=environment.get("K_SERVICE", ""),
        platform_key=environment.get("RECADO_PLATFORM_KEY", ""),
        log_level=environment.get("LOG_LEVEL", defaults.log_level).upper(),
        log_format=environment.get("LOG_FORMAT") or ("json" if environment.get("K_SERVICE") else defaults.log_format),
        model=_model(environment),
        openai_base_url=environment.get("OPENAI_BASE_URL", "").rstrip("/"),
        openai_api_key=environment.get("OPENAI_API_KEY", ""),
        telegram_api=environment.get("RECADO_TELEGRAM_API", defaults.telegram_api).rstrip("/"),
        port=_number(environment, "PORT", defaults.port, least=1, most=65_535),
        stream_seconds=_number(environment, "RECADO_STREAM_SECONDS", int(defaults.stream_seconds), least=1, most=3600),
        web_origin=environment.get("RECADO_WEB_ORIGIN", "").rstrip("/"),
        firebase=_json(environment, "RECADO_FIREBASE_CONFIG"),
        addresses=_json(environment, "RECADO_ADDRESSES"),
        web_connection=environment.get("RECADO_WEB_CONNECTION", defaults.web_connection),
        slice_seconds=_number(environment, "RECADO_SLICE_SECONDS", int(defaults.slice_seconds), least=1, most=540),
        lease_seconds=_number(environment, "RECADO_LEASE_SECONDS", int(defaults.lease_seconds), least=2, most=600),
        retention_days=_number(environment, "RECADO_RETENTION_DAYS", defaults.retention_days, least=2, most=3650),
    )
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.log_level not in _LEVELS:
        raise SettingsError(f"LOG_LEVEL is {settings.log_level!r}: use one of {', '.join(_LEVELS)}")
    if settings.log_format not in _FORMATS:
        raise SettingsError(f"LOG_FORMAT is {settings.log_format!r}: use one of {', '.join(_FORMATS)}")
    emulators = {
        "PUBSUB_EMULATOR_HOST": settings.pubsub_emulator,
        "FIRESTORE_EMULATOR_HOST": settings.firestore_emulator,
        "FIREBASE_AUTH_EMULATOR_HOST": settings.auth_emulator,
        "STORAGE_EMULATOR_HOST": settings.storage_emulator,
    }
    if settings.service and (found := [variable for variable, host in emulators.items() if host]):
        raise SettingsError(
            f"{', '.join(found)} set on Cloud Run (K_SERVICE): unset that, or what nobody signed would be accepted "
            "and every write would go nowhere"
        )
    if settings.openai_base_url and not settings.openai_base_url.startswith(("http://", "https://")):
        raise SettingsError(f"OPENAI_BASE_URL is {settings.openai_base_url!r}: use a URL such as http://vllm:8000/v1")
    if settings.service and settings.embedded:
        raise SettingsError("GOOGLE_CLOUD_PROJECT is empty on Cloud Run: set it, a local file would be lost")
    bucket = bool(_BUCKET.fullmatch(settings.files))
    if settings.files and not bucket and not _FOLDER.fullmatch(settings.files):
        raise SettingsError(
            f"RECADO_FILES is {settings.files!r}: use gs://bucket/prefix, s3://bucket/prefix or file:///folder"
        )
    if settings.service and not bucket:
        raise SettingsError(
            "RECADO_FILES names no bucket on Cloud Run: set it to one, such as "
            f"gs://{settings.project}-recado-files, a local file would be lost"
        )


def _model(environment: Mapping[str, str]) -> str:
    if chosen := environment.get("RECADO_MODEL"):
        return chosen
    return next((model for variable, model in _PROVIDERS if environment.get(variable)), Settings().model)


def _number(environment: Mapping[str, str], variable: str, default: int, *, least: int, most: int) -> int:
    text = environment.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or not least <= int(text) <= most:
        raise SettingsError(f"{variable} is {text!r}: use a whole number from {least} to {most}")
    return int(text)


def _json(environment: Mapping[str, str], variable: str) -> str:
    text = environment.get(variable, "")
    try:
        usable = not text or isinstance(json.loads(text), dict)
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"{variable} is not a JSON object: use one such as {{}}, or leave it empty")
    return text
