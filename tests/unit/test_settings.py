"""The environment: every variable, and what a person is told when one cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.settings import Settings, SettingsError, from_environment

EVERY = {
    "GOOGLE_CLOUD_PROJECT": ("project", "my-project"),
    "RECADO_HOME": ("home", Path("/var/lib/recado")),
    "DATABASE_URL": ("database_url", "postgresql+pg8000://u:p@h/d"),
    "RECADO_FILES": ("files", "gs://my-project-recado-files/blobs"),
    "RECADO_WAKE_TOPIC": ("wake_topic", "other-wakes"),
    "RECADO_DELIVERY_TOPIC": ("delivery_topic", "other-deliveries"),
    "RECADO_RESULT_TOPIC": ("result_topic", "other-results"),
    "RECADO_STREAM_SECONDS": ("stream_seconds", 600),
    "RECADO_WEB_ORIGIN": ("web_origin", "https://my-project.web.app"),
    "RECADO_WEB_CONNECTION": ("web_connection", "shop-web"),
    "RECADO_FIREBASE_CONFIG": ("firebase", '{"apiKey": "x"}'),
    "RECADO_ADDRESSES": ("addresses", '{"api": "https://api.example"}'),
    "RECADO_PUSH_AUDIENCE": ("push_audience", "https://run-agent.example/wakes"),
    "RECADO_PUSH_SERVICE_ACCOUNT": ("push_service_account", "push@my-project.iam.gserviceaccount.com"),
    "RECADO_PUSH_ISSUER": ("push_issuer", "https://issuer.example"),
    "RECADO_PUSH_CERTIFICATES_URL": ("push_certificates_url", "https://issuer.example/certs"),
    "PUBSUB_EMULATOR_HOST": ("pubsub_emulator", "127.0.0.1:8085"),
    "FIRESTORE_EMULATOR_HOST": ("firestore_emulator", "127.0.0.1:8086"),
    "FIREBASE_AUTH_EMULATOR_HOST": ("auth_emulator", "127.0.0.1:9099"),
    "STORAGE_EMULATOR_HOST": ("storage_emulator", "127.0.0.1:9023"),
    "RECADO_PLATFORM_KEY": ("platform_key", "AAAA"),
    "LOG_LEVEL": ("log_level", "DEBUG"),
    "LOG_FORMAT": ("log_format", "json"),
    "RECADO_MODEL": ("model", "openai/gpt-5"),
    "OPENAI_BASE_URL": ("openai_base_url", "http://vllm:8000/v1"),
    "OPENAI_API_KEY": ("openai_api_key", "sk-of-the-test"),
    "RECADO_TELEGRAM_API": ("telegram_api", "https://telegram.example"),
    "PORT": ("port", 9090),
    "RECADO_SLICE_SECONDS": ("slice_seconds", 60),
    "RECADO_LEASE_SECONDS": ("lease_seconds", 10),
    "RECADO_RETENTION_DAYS": ("retention_days", 30),
}
ON_CLOUD_RUN = {
    "K_SERVICE": "run-agent",
    "GOOGLE_CLOUD_PROJECT": "my-project",
    "RECADO_FILES": "gs://my-project-recado-files",
}
A_PLACE_FOR_FILES = "use gs://bucket/prefix, s3://bucket/prefix or file:///folder"


def test_an_empty_environment_gives_the_embedded_defaults() -> None:
    settings = from_environment({})

    assert settings == Settings()
    assert settings.embedded
    assert settings.config_url == "sqlite:///.recado/config.db"


def test_every_variable_is_read() -> None:
    settings = from_environment({variable: str(value) for variable, (_, value) in EVERY.items()})

    assert settings == Settings(**dict(EVERY.values()))  # type: ignore[arg-type]  # each value has its field's type
    assert {field for field, _ in EVERY.values()} == set(Settings.__slots__) - {"service"}
    assert settings.config_url == settings.database_url
    assert not settings.embedded


@pytest.mark.parametrize("variable", [*EVERY, "K_SERVICE"])
def test_an_empty_variable_counts_as_none(variable: str) -> None:
    assert from_environment({variable: ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "fix"),
    [
        ("PORT", "http", "use a whole number from 1 to 65535"),
        ("PORT", "0", "use a whole number from 1 to 65535"),
        ("PORT", "65536", "use a whole number from 1 to 65535"),
        ("PORT", "80.5", "use a whole number from 1 to 65535"),
        ("PORT", "-1", "use a whole number from 1 to 65535"),
        ("RECADO_SLICE_SECONDS", "0", "use a whole number from 1 to 540"),
        ("RECADO_SLICE_SECONDS", "600", "use a whole number from 1 to 540"),
        ("RECADO_LEASE_SECONDS", "1", "use a whole number from 2 to 600"),
        ("RECADO_LEASE_SECONDS", "601", "use a whole number from 2 to 600"),
        ("RECADO_RETENTION_DAYS", "1", "use a whole number from 2 to 3650"),
        ("LOG_LEVEL", "LOUD", "use one of DEBUG, INFO, WARNING, ERROR"),
        ("LOG_FORMAT", "xml", "use one of text, json"),
        ("OPENAI_BASE_URL", "vllm:8000/v1", "use a URL such as http://vllm:8000/v1"),
        ("RECADO_FILES", "my-bucket", A_PLACE_FOR_FILES),
        ("RECADO_FILES", "ftp://my-bucket/blobs", A_PLACE_FOR_FILES),
        ("RECADO_FILES", "gs://ab", A_PLACE_FOR_FILES),
        ("RECADO_FILES", "gs://my-bucket/a prefix", A_PLACE_FOR_FILES),
        ("RECADO_FILES", "gs://my-bucket?endpoint=x", A_PLACE_FOR_FILES),
        ("RECADO_FILES", "file://blobs", A_PLACE_FOR_FILES),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_the_fix(variable: str, text: str, fix: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_environment({variable: text})

    assert str(refused.value) == f"{variable} is {text!r}: {fix}"


def test_a_level_may_be_written_small() -> None:
    assert from_environment({"LOG_LEVEL": "debug"}).log_level == "DEBUG"


def test_a_slash_at_the_end_of_an_address_does_not_matter() -> None:
    assert from_environment({"RECADO_TELEGRAM_API": "http://127.0.0.1:1/"}).telegram_api == "http://127.0.0.1:1"


@pytest.mark.parametrize("variable", [variable for variable in EVERY if "EMULATOR" in variable])
def test_an_emulator_on_cloud_run_is_refused(variable: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable} set on Cloud Run \(K_SERVICE\): unset that"):
        from_environment(ON_CLOUD_RUN | {variable: "127.0.0.1:8085"})


def test_cloud_run_without_a_project_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"GOOGLE_CLOUD_PROJECT is empty.*set it"):
        from_environment({"K_SERVICE": "run-agent"})


@pytest.mark.parametrize("files", ["", "file:///tmp/files"])
def test_cloud_run_without_a_bucket_for_files_is_refused(files: str) -> None:
    with pytest.raises(SettingsError, match=r"RECADO_FILES names no bucket.*set it to one, such as gs://my-project-"):
        from_environment(ON_CLOUD_RUN | {"RECADO_FILES": files})


def test_files_lie_in_a_folder_at_home_unless_said_otherwise() -> None:
    assert from_environment({"RECADO_HOME": "/var/lib/recado"}).files_url == "file:///var/lib/recado/files"
    assert from_environment({"RECADO_FILES": "file:///srv/files"}).files_url == "file:///srv/files"
    assert from_environment({"RECADO_FILES": "s3://shop/a/b/"}).files_url == "s3://shop/a/b"


def test_on_cloud_run_lines_are_json_unless_text_is_asked_for() -> None:
    assert from_environment(ON_CLOUD_RUN).log_format == "json"
    assert from_environment(ON_CLOUD_RUN | {"LOG_FORMAT": "text"}).log_format == "text"
    assert from_environment({}).log_format == "text"


@pytest.mark.parametrize(
    ("variable", "model"),
    [
        ("OPENAI_API_KEY", "openai/gpt-5-mini"),
        ("OPENAI_BASE_URL", "openai/gpt-5-mini"),
        ("GEMINI_API_KEY", "gemini/gemini-2.5-flash"),
        ("ANTHROPIC_API_KEY", "anthropic/claude-haiku-4-5"),
    ],
)
def test_a_providers_key_chooses_its_model(variable: str, model: str) -> None:
    assert from_environment({variable: "http://x"}).model == model
    assert from_environment({variable: "http://x", "RECADO_MODEL": "scripted/demo"}).model == "scripted/demo"
    assert from_environment({variable: ""}).model == "scripted/demo"


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "RECADO_PLATFORM_KEY"])
def test_no_key_is_shown_with_the_settings(variable: str) -> None:
    assert "sk-very-secret" not in repr(from_environment({variable: "sk-very-secret"}))


@pytest.mark.parametrize(
    ("base_url", "own"),
    [
        ("", ""),
        ("http://vllm:8000/v1/", "http://vllm:8000/v1"),
        ("https://openai.com.example/v1", "https://openai.com.example/v1"),
        ("https://api.openai.com/v1", ""),
        ("https://eu.api.openai.com/v1", ""),
    ],
)
def test_a_server_of_ones_own_is_any_but_openais(base_url: str, own: str) -> None:
    assert from_environment({"OPENAI_BASE_URL": base_url}).own_models == own
