"""The workload on agno's AgentOS, with its sessions in SQLite."""

import os

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.models.openai import OpenAIChat
from agno.os import AgentOS


def get_weather(city: str) -> str:
    """What the weather is like in a city."""
    return f"sunny in {city}"


agent = Agent(
    id="weather",
    model=OpenAIChat(id="of-the-benchmark"),
    instructions="Answer in one sentence.",
    tools=[get_weather],
    db=SqliteDb(db_file=os.environ["BENCH_DATABASE"]),
    telemetry=False,
)
app = AgentOS(agents=[agent], telemetry=False).get_app()
