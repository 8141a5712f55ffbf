"""The exception tree. What a run raises decides what becomes of it.

RecadoError
├── Retryable              nothing is wrong with the request: the bus or the channel should bring it again (503)
│   ├── StoreDown          the store did not answer, or not in time; the write may or may not have happened
│   ├── BusDown            a wake could not be published
│   ├── Conflict           the document changed since it was read: read again and decide again
│   └── Fenced             another process holds the session now: stop at once, change nothing
├── ModelError             one model did not answer; the route decides what follows
│   ├── ModelUnavailable   the same model later, or another one now, may answer
│   └── ModelRefused       this model will never answer this request: bad key, unknown model, rejected input
├── PlatformError          recorded in the run, told to its owner
│   ├── ModelFailed        no model of the route answered
│   ├── BudgetSpent        the run used what its plan allows
│   ├── Stalled            several attempts in a row recorded nothing
│   ├── Cancelled          somebody asked to stop
│   └── Blocked            the run may not start: disabled, not published, not allowed
├── SendError              a channel did not take a delivery
│   ├── NotSent            surely not delivered; may be sent again after `retry_after` seconds
│   ├── Refused            surely not delivered, and never will be
│   └── SendUnknown        may have been delivered: never repeated blindly
└── BadRequest             the caller's mistake; names the field and the fix (400)
    ├── Unauthenticated    no proof, or a wrong one, of who calls (401)
    ├── Forbidden          known, but not allowed (403)
    ├── NotFound           no such thing for this tenant (404)
    ├── Gone               it was there, and is over: an approval already decided or expired (410)
    ├── TooLarge           more than the limit named in the message (413)
    └── Unreadable         a well-formed payload that no schema fits
Parked (BaseException)     this attempt is over, the run is not; no `except Exception` of a tool can swallow it
├── Suspended              the run waits for a verdict or a time
└── SliceOver              the attempt has used its time; another goes on
"""

from __future__ import annotations

from shared.domain import Outcome


class RecadoError(Exception):
    """Everything that Recado raises on purpose, except the suspension of a run."""


class Retryable(RecadoError):
    """Nothing is wrong with the request: bring it again later."""


class StoreDown(Retryable):
    """The store did not answer in time; a write may or may not have happened."""


class BusDown(Retryable):
    """A wake could not be published."""


class Conflict(Retryable):
    """The document changed since it was read."""


class Fenced(Retryable):
    """Another process holds the session now: stop at once, change nothing. The wake, brought again, will see that."""


class PlatformError(RecadoError):
    """Ends a run with this `outcome`; the message is for the operator, never for the contact."""

    outcome: Outcome = "failed"


class ModelFailed(PlatformError):
    """No model of the route answered; the message names each model and why."""


class BudgetSpent(PlatformError):
    """The run used what its plan allows; the message names the limit."""

    outcome: Outcome = "stopped"


class Blocked(PlatformError):
    """The run may not start; the message says why."""

    outcome: Outcome = "blocked"


class Stalled(PlatformError):
    """Several attempts in a row recorded nothing."""


class Cancelled(PlatformError):
    """Somebody asked to stop; the message says who."""

    outcome: Outcome = "cancelled"


class ModelError(RecadoError):
    """One model did not answer; the message names the model and the reason, without message text or keys."""


class ModelUnavailable(ModelError):
    """The same model later, or another one now, may answer."""


class ModelRefused(ModelError):
    """This model will never answer this request."""


class SendError(RecadoError):
    """A channel did not take a delivery."""


class NotSent(SendError):
    """Surely not delivered; may be sent again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(SendError):
    """Surely not delivered, and never will be."""


class SendUnknown(SendError):
    """May have been delivered: the answer was lost."""


class BadRequest(RecadoError):
    """The caller's mistake. `message` names the field and the fix; `status` is the HTTP status."""

    status = 400
    title = "Bad request"


class Unauthenticated(BadRequest):
    """No proof, or a wrong one, of who calls."""

    status = 401
    title = "Not authenticated"


class Forbidden(BadRequest):
    """The principal is known but may not do this."""

    status = 403
    title = "Not allowed"


class NotFound(BadRequest):
    """No such thing for this tenant."""

    status = 404
    title = "Not found"


class Gone(BadRequest):
    """It was there and is over."""

    status = 410
    title = "No longer possible"


class TooLarge(BadRequest):
    """More than the limit that the message names."""

    status = 413
    title = "Too large"


class Unreadable(BadRequest):
    """A well-formed payload that no schema fits; a channel would repeat it for days, so it is kept aside."""


class Parked(BaseException):
    """This attempt at the run is over, the run is not. Not an `Exception`: tools and nodes may catch those."""


class Suspended(Parked):
    """The run waits for a verdict or a time: that is committed."""


class SliceOver(Parked):
    """The attempt has used the time that one wake may take."""
