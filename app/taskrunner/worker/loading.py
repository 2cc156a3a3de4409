"""Handlers: the built-in ones and those of the user's modules."""

import importlib
import sys
from collections.abc import Mapping, Sequence

import structlog

from taskrunner.domain.errors import ConfigurationError
from taskrunner.sdk import Handler, handlers_in

log = structlog.get_logger()


def import_handlers(modules: Sequence[str]) -> dict[str, Handler]:
    """The handlers in ``modules``, by task type. The current directory is looked into first, as ``python -m`` does.

    Raises ConfigurationError for a module that cannot be imported or has none, and for two handlers of one type.
    """
    if modules and "" not in sys.path:
        sys.path.insert(0, "")
    found: dict[str, Handler] = {}
    for name in modules:
        for task_type, handler in _handlers_of(name).items():
            other = found.setdefault(task_type, handler)
            if other.function is not handler.function:
                where = f"{other.function.__module__} and {name}"
                raise ConfigurationError(f"TASKRUNNER_HANDLERS: {where} both have a handler for the task type {task_type!r}; keep one")
    return found


def all_handlers(builtin: Mapping[str, Handler], modules: Sequence[str]) -> dict[str, Handler]:
    """The built-in handlers, and over them those of ``modules``."""
    own = import_handlers(modules)
    for task_type in builtin.keys() & own.keys():
        log.info("a handler of yours replaces a built-in one", task_type=task_type, module=own[task_type].function.__module__)
    return {**builtin, **own}


def _handlers_of(name: str) -> dict[str, Handler]:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigurationError(f"TASKRUNNER_HANDLERS: the module {name!r} cannot be imported: {why}") from error
    try:
        found = handlers_in(module)
    except ValueError as error:
        raise ConfigurationError(f"TASKRUNNER_HANDLERS: {error}; keep one") from error
    if not found:
        raise ConfigurationError(f"TASKRUNNER_HANDLERS: the module {name!r} has no handlers; put @task above a function in it")
    return found
