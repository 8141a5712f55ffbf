"""The workload on google-adk, with litellm and its sessions in SQLite."""

from google.adk.agents import LlmAgent
from google.adk.models.lite_llm import LiteLlm


def get_weather(city: str) -> str:
    """What the weather is like in a city."""
    return f"sunny in {city}"


root_agent = LlmAgent(
    name="weather",
    model=LiteLlm(model="openai/of-the-benchmark"),
    instruction="Answer in one sentence.",
    tools=[get_weather],
)
