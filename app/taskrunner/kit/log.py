"""One way for every log line: ours, and those that libraries write with ``logging``."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TextIO

import structlog
from structlog.typing import Processor

QUIET = ("asyncio", "hpack", "grpclib.protocol")
SILENT = ("psycopg.pool",)  # it warns of each connection that we give up; why we did is said by whoever did

Form = Literal["text", "json"] | None


class Subject(Protocol):
    """What lines may be about."""

    def log_fields(self) -> Mapping[str, object]:
        """What such a line says besides its own words."""


# What all lines of this context are about: the attempt whose handler runs. Not structlog's own variables: setting one of ours costs 0.1 µs
# a task, and nothing is formatted unless a line is written.
ABOUT: ContextVar[Subject] = ContextVar("about")


def is_text(form: Form, stream: TextIO) -> bool:
    """Whether lines to ``stream`` are text for people: as ``form`` says, and without it on a terminal."""
    return form == "text" or (form is None and stream.isatty())


def configure(level: str, form: Form = None, *, stream: TextIO | None = None) -> None:
    """Send log lines of at least ``level`` to ``stream`` (standard error, so that answers have standard output for themselves).

    ``form`` is ``text`` or ``json``, one object a line; None takes text on a terminal and else json. Tracebacks are plain text without
    local variables: those would put payloads into the log.
    """
    stream = stream or sys.stderr
    text = is_text(form, stream)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_subject,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_last(text=text, colors=stream.isatty())))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)


def _name_subject(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: what the line says itself comes first."""
    subject = ABOUT.get(None)
    if subject is not None:
        for name, value in subject.log_fields().items():
            line.setdefault(name, value)
    return line


def _last(*, text: bool, colors: bool) -> list[Processor]:
    clean = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if text:
        return [clean, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
    return [clean, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
