"""The orchestrator: `loop` asks the model and carries out what it asks for, `drive` does that for whatever a session
needs, `invoke` does it for a caller who waits."""
