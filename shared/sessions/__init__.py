"""The session is an actor in one document.

document.py     what the document holds, and its bytes
transitions.py  every change of it, as pure functions from session to session
actor.py        one process's hold on it: claim, journal, commit by compare-and-swap
outbox.py       replies on their way to the channel
accept.py       how a message gets in
events.py       what a reader may follow of it
"""
