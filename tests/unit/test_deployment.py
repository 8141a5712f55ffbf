"""What deploys the project agrees with what it deploys, and with the pages that explain it."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from shared.config.database import open_engine
from shared.settings import Settings, from_environment

ROOT = Path(__file__).parents[2]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_variable_is_explained() -> None:
    variables = re.findall(r'^variable "(\w+)"', read("terraform/variables.tf"), re.MULTILINE)
    assert variables == sorted(variables)
    assert re.findall(r"^\| `(\w+)` \|", read("terraform/README.md"), re.MULTILINE) == variables


def test_every_alert_says_what_to_do() -> None:
    alerts = re.findall(r'^    "([^"]+)" = \{', read("terraform/alerts.tf"), re.MULTILINE)
    assert alerts
    assert re.findall(r"^### (.+)$", read("docs/operations.md"), re.MULTILINE) == alerts


def test_each_function_is_deployed_from_its_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/main.py")}
    deployed = read("terraform/functions.tf").partition("urls = {")[0]
    assert set(re.findall(r"^    (\w+) = \{$", deployed, re.MULTILINE)) == folders


def test_the_environment_has_only_what_the_settings_read() -> None:
    environment = read("terraform/functions.tf").partition("environment = {")[2].partition("}\n  secrets")[0]
    given = {*re.findall(r"^    ([A-Z_]+) +=", environment, re.MULTILINE), "RECADO_PLATFORM_KEY", "DATABASE_URL"}
    documented = set(re.findall(r'^    """`([A-Z_]+)`', read("shared/settings.py"), re.MULTILINE))
    assert len(given) > 8
    assert given <= documented


def test_a_deployed_function_can_use_its_environment() -> None:
    settings = from_environment(
        {
            "K_SERVICE": "callbacks",
            "GOOGLE_CLOUD_PROJECT": "shop",
            "LOG_LEVEL": "INFO",
            "RECADO_ADDRESSES": json.dumps({"api": "https://api-1.europe-west1.run.app"}),
            "RECADO_FILES": "gs://shop-recado-files",
            "RECADO_PUSH_AUDIENCE": "https://callbacks-1.europe-west1.run.app",
            "RECADO_PUSH_SERVICE_ACCOUNT": "recado-push@shop.iam.gserviceaccount.com",
        }
    )
    assert not settings.embedded
    assert {field.name for field in fields(Settings)} >= {"push_audience", "push_service_account"}


def test_the_database_is_reached_through_cloud_runs_socket() -> None:
    form = re.findall(r"'(postgresql\+pg8000://[^']+)'", read("terraform/secrets.sh"))
    engine = open_engine(form[0] % ("0123456789abcdef", "shop:europe-west1:recado"))
    assert engine.dialect.create_connect_args(engine.url) == (
        [],
        {
            "user": "recado",
            "password": "0123456789abcdef",
            "database": "recado",
            "unix_sock": "/cloudsql/shop:europe-west1:recado/.s.PGSQL.5432",
        },
    )


@pytest.mark.parametrize("field", ["wake_topic", "delivery_topic", "result_topic"])
def test_topics_have_the_names_that_functions_expect(field: str) -> None:
    topic = getattr(from_environment({}), field)
    assert f'name       = "{topic}"' in read("terraform/pubsub.tf")


def test_pages_go_to_services_that_there_are() -> None:
    rewrites = json.loads(read("firebase.json"))["hosting"]["rewrites"]
    services = {rewrite["run"]["serviceId"] for rewrite in rewrites if "run" in rewrite}
    assert services <= {path.parent.name.replace("_", "-") for path in (ROOT / "functions").glob("*/main.py")}
    assert rewrites[-1] == {"source": "**", "destination": "/index.html"}
