"""What can go wrong between the rooms, by name."""


class TaskrunnerError(Exception):
    """Base of our errors: the message is one clear sentence for the person who sees it."""


class Unavailable(TaskrunnerError):
    """The database does not answer or refuses us for now; nothing was written. Ask again later."""


class TooSlow(Unavailable):
    """The database gave a statement up, because it took too long: a smaller one may do better."""


class OutcomeUnknown(TaskrunnerError):
    """The connection broke while the database was committing: the write is there, or it is not. Never repeated by us."""


class BadTask(TaskrunnerError):
    """The database refused the task at ``index`` of a batch; nothing of the batch was written."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class Conflict(TaskrunnerError):
    """The task's state forbids what was asked."""


class KeyReused(TaskrunnerError):
    """The Idempotency-Key belongs to a request with another body."""


class KeyInFlight(TaskrunnerError):
    """A request with the same Idempotency-Key is not answered yet."""


class Entangled(TaskrunnerError):
    """Something in a batch kept the whole batch from being written; nothing was. Send each part alone."""


class ConfigurationError(TaskrunnerError):
    """A setting, or what it points at, is wrong: the process cannot start."""
