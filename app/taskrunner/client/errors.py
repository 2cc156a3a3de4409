"""What can go wrong with a call, with all that the service said about it."""

from collections.abc import Mapping
from typing import Any

from taskrunner.domain.errors import TaskrunnerError


class ApiError(TaskrunnerError):
    """The service answered with a problem (RFC 9457): ``code`` is the stable word for programs, the message a sentence for people.

    ``errors`` names each place that is wrong, as ``{"pointer": …, "detail": …}``; ``retry_after`` is in seconds; ``document`` is all of it.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        super().__init__(str(document.get("detail") or document.get("error") or f"the service answered {status}"))
        self.status = status
        self.document = document
        self.code = str(document.get("code") or "")
        self.errors: list[dict[str, str]] = list(document.get("errors") or ())
        self.retry_after = retry_after


class NotFound(ApiError):
    """404: there is no such task; it never existed, was deleted, or its retention is over."""


class Refused(ApiError):
    """Another 4xx: the request is wrong, or the task's state forbids it (409). Sending it again changes nothing."""


class Unreachable(TaskrunnerError):
    """The service gave no answer. A call that changes something may have been done."""


class Unsendable(TaskrunnerError, ValueError):
    """What was given cannot be sent as it is; nothing was sent. The service would read another value than was meant, or none."""


def error_of(status: int, document: Mapping[str, Any], retry_after: float | None) -> ApiError:
    """The exception for an answer of 400 or more."""
    kind = NotFound if status == 404 else Refused if status < 500 else ApiError
    return kind(status, document, retry_after)
