"""What the suites of the configuration put in, and how they read what was published."""

from __future__ import annotations

from shared import codec
from shared.config.drafts import AgentDraft, ConnectionDraft
from shared.domain import Connection, ExecutionPlan, ToolSpec
from shared.published import connection_path, plan_path
from tests.fakes import FakeDocuments

LOOKUP = ToolSpec(
    name="lookup", description="Look it up.", parameters={"type": "object"}, effect="pure", implementation="builtin:x"
)
SHOP = AgentDraft(id="shop", instructions="Help.", models=("scripted/demo",))
BOT = ConnectionDraft(id="bot", channel="telegram", agent="shop", api_root="https://example.org")


def connection_of(documents: FakeDocuments, id_: str) -> Connection:
    return codec.decode(Connection, documents.bodies[connection_path(id_)])


def plan_of(documents: FakeDocuments, id_: str) -> ExecutionPlan:
    connection = connection_of(documents, id_)
    return codec.decode(ExecutionPlan, documents.bodies[plan_path(connection.tenant, connection.plan)])
