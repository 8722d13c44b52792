"""Everything that can go wrong, as one tree.

    KnowmeError                 what happened, with the value; ``hint`` is the command that mends it
    ├── ConfigError             a key or a value in config.yaml, .env, the environment or a flag
    ├── HomeError               the home folder: missing, not ours, not writable, in use
    ├── StoreError              memory.db: locked, full disk, damaged, of a newer version
    ├── SourceError             a source that cannot be read at all (a bad line is not an error)
    ├── InputError              what a caller sent: empty, of the wrong type, too large
    │   └── NotFoundError       an id, a name or a job that does not exist
    ├── ModelError              an engine or an embedder that cannot do its work
    │   ├── ModelMissingError   the model is not there; the hint says how to get it
    │   ├── ModelDownError      the server refused, timed out, died
    │   ├── TooLongError        the prompt is longer than the model's window
    │   └── OfflineError        it lies beyond this machine, and ``offline`` is set
    ├── TrainError              a training, a conversion or a measurement that could not be done
    └── JobError                a job that cannot be queued, run or retried

Promises: foreign exceptions are wrapped at the edge where they arise; none reaches a user.
Refuses to know: how an error is shown. The CLI prints it, the service maps it to a status.
"""

from __future__ import annotations

from typing import Literal


class KnowmeError(Exception):
    """Something a person can act on.

    ``message`` says what happened, with the value; ``hint`` says what to do about it.
    """

    status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(KnowmeError):
    """A key or a value in the settings."""

    status = 400


class HomeError(KnowmeError):
    """The home folder is missing, not ours, not writable, or in use."""


class StoreError(KnowmeError):
    """memory.db is locked, damaged, newer than this program, or the disk is full."""

    status = 507


class SourceError(KnowmeError):
    """A source cannot be read at all."""


class InputError(KnowmeError):
    """What the caller sent cannot be taken."""

    status = 422


class NotFoundError(InputError):
    """What the caller named does not exist."""

    status = 404


class ModelError(KnowmeError):
    """An engine or an embedder cannot do its work.

    ``reached`` says how far the request came: "no" (it was never sent, or refused before any work:
    asking again costs nothing twice), "maybe" (it was sent and its fate is unknown: asking again
    may be paid twice), "yes" (an answer had begun). ``retry_after`` is what the server asked us
    to wait, in seconds; None where it said nothing.
    """

    status = 503

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        reached: Literal["no", "maybe", "yes"] = "no",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.reached = reached
        self.retry_after = retry_after


class ModelMissingError(ModelError):
    """The model is not on this machine."""


class ModelDownError(ModelError):
    """The model's server refused, timed out or died."""


class TooLongError(ModelError):
    """The prompt is longer than the model's window."""

    status = 400


class OfflineError(ModelError):
    """What was asked for lies beyond this machine, and the setting ``offline`` forbids it."""


class TrainError(KnowmeError):
    """A training, a conversion or a measurement could not be done."""


class JobError(KnowmeError):
    """A job cannot be queued, run or retried."""

    status = 409
