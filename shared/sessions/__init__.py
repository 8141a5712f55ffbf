"""The session is an actor in one document.

document.py     what the document holds, and its bytes
transitions.py  every change of it, as pure functions from session to session
transcript.py   a run as the messages that a model is given
actor.py        one process's hold on it: claim, journal, commit by compare-and-swap
running.py      what the orchestrator may do with a run: take steps, wait
outbox.py       replies on their way to the channel
partial.py      the text of an answer while it grows
projection.py   what a reader may see of it
events.py       what a reader may follow of it
accept.py       how entries get in; callback.py, receipts.py: those that come back from outside
results.py      what becomes of results for callers
"""
