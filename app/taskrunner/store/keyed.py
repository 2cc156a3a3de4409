"""Creates that must not happen twice: with a unique key, or with the Idempotency-Key of their request.

One transaction a batch, and what it may have to wait for is taken in order: idempotency keys, unique keys, then waiting tasks by their id;
each by a statement of its own, so that it decides by what is there after the wait. See the schema's essay on locks.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import orjson
from psycopg import errors

from taskrunner.domain.errors import Conflict, KeyInFlight, KeyReused, Unavailable
from taskrunner.domain.task import Answer, Created, IdempotencyKey, NewTask
from taskrunner.store.creating import BAD_DATA, columns_of, culprit
from taskrunner.store.pool import Connection
from taskrunner.store.queries import sql

HELD_UP = (errors.LockNotAvailable, errors.DeadlockDetected)
PATIENCE = "set local lock_timeout = '4s'; set local statement_timeout = '8s'"
ROUNDS = 20  # a holder may be gone when we look for it, and another one there when we try again

Made: TypeAlias = Created | Conflict


class Request(NamedTuple):
    """One task as one request sent it."""

    task: NewTask
    key: IdempotencyKey | None


async def create_each(connection: Connection, requests: Sequence[Request], *, patient: bool) -> list[Answer | Conflict | KeyReused]:
    """What becomes of each request: they share a transaction and nothing else. Of two with the same Idempotency-Key the first counts.

    A ``patient`` one waits four seconds for others with its keys. Raises KeyInFlight when that was not enough, psycopg's LockNotAvailable,
    DeadlockDetected or data errors for the whole batch.
    """
    first: dict[str, int] = {}
    for n, request in enumerate(requests):
        if request.key is not None:
            first.setdefault(request.key.key, n)
    answers: list[Answer | Conflict | KeyReused] = []
    async with connection.transaction():
        if patient:
            await connection.execute(PATIENCE, prepare=False)
        known = await _take(connection, [key for n in first.values() if (key := requests[n].key) is not None])
        ours = [n for n, (_, key) in enumerate(requests) if key is None or (key.key not in known and first[key.key] == n)]
        made = dict(zip(ours, await _make(connection, [requests[n].task for n in ours]), strict=True))
        for n, (_, key) in enumerate(requests):
            if key is None or n in made:
                answers.append(_answer(made[n]))
            elif key.key in known:
                answers.append(_again(key, *known[key.key]))
            else:
                answers.append(_twin(key, requests[first[key.key]].key, answers[first[key.key]]))
        await _note(connection, ((requests[n].key, made[n]) for n in ours))
    return answers


async def create_together(connection: Connection, tasks: Sequence[NewTask], key: IdempotencyKey | None) -> Answer:
    """All of ``tasks`` or none of them. Raises BadTask or Conflict for the first one that cannot be, KeyReused, KeyInFlight."""
    try:
        async with connection.transaction():
            await connection.execute(PATIENCE, prepare=False)
            if key is not None and (known := await _take(connection, [key])):
                return _again_or_raise(key, *known[key.key])
            made = await _make(connection, tasks)
            created = [one for one in made if isinstance(one, Created)]
            if len(created) < len(made):
                index = next(n for n, one in enumerate(made) if isinstance(one, Conflict))
                raise Conflict(f"/{index}: {_inside(tasks, made, index) or made[index]}")
            if key is not None:
                await connection.execute(sql("answer_keys"), {"keys": [key.key], "answers": [_dump(created)]})
            return Answer(created)
    except BAD_DATA as error:
        raise await culprit(connection, tasks, error, "create_unique") from error


def _inside(tasks: Sequence[NewTask], made: Sequence[Made], index: int) -> str | None:
    """Why this task cannot be, where it meets one of its own batch: that one will not be either, so its id would say nothing."""
    for n, one in enumerate(made):
        if isinstance(one, Created) and not one.deduplicated and tasks[n].unique_key == tasks[index].unique_key:
            return f"the task at /{n} has this unique_key"
    return None


async def _take(connection: Connection, keys: Sequence[IdempotencyKey]) -> dict[str, tuple[bytes, list[Created]]]:
    """Make these keys ours; those that are not new, with the fingerprint and the answer that they have."""
    if not keys:
        return {}
    parameters = {"keys": [key.key for key in keys], "fingerprints": [key.fingerprint for key in keys]}
    try:
        new = {row[0] for row in await _fetch(connection, "take_keys", parameters)}
    except errors.LockNotAvailable:
        raise KeyInFlight("a request with this Idempotency-Key is still being answered: ask again later") from None
    old = [key.key for key in keys if key.key not in new]
    known = {row[0]: (row[1], _load(row[2])) for row in await _fetch(connection, "known_keys", {"keys": old})} if old else {}
    if len(known) < len(old):
        raise Unavailable("an Idempotency-Key was forgotten, being a day old, while its request came again: ask again")
    return known


async def _note(connection: Connection, made: Iterable[tuple[IdempotencyKey | None, Made]]) -> None:
    """Write the answers down; a key whose request was refused is free again."""
    answers: dict[str, str] = {}
    refused: list[str] = []
    for key, one in made:
        if key is not None and isinstance(one, Created):
            answers[key.key] = _dump([one])
        elif key is not None:
            refused.append(key.key)
    if answers:
        await connection.execute(sql("answer_keys"), {"keys": [*answers], "answers": [*answers.values()]})
    if refused:
        await connection.execute(sql("drop_keys"), {"keys": refused})


def _answer(made: Made) -> Answer | Conflict:
    return Answer([made]) if isinstance(made, Created) else made


def _again(key: IdempotencyKey, fingerprint: bytes, created: list[Created]) -> Answer | KeyReused:
    """What a request is told that was answered before."""
    if fingerprint != key.fingerprint:
        return KeyReused("this Idempotency-Key came with another body before: take a new key for a new request")
    return Answer(created, replayed=True)


def _again_or_raise(key: IdempotencyKey, fingerprint: bytes, created: list[Created]) -> Answer:
    answer = _again(key, fingerprint, created)
    if isinstance(answer, KeyReused):
        raise answer
    return answer


def _twin(key: IdempotencyKey, other: IdempotencyKey | None, answer: Answer | Conflict | KeyReused) -> Answer | Conflict | KeyReused:
    """What a request is told whose key another one of the same batch has."""
    if isinstance(answer, Answer) and other is not None:
        return _again(key, other.fingerprint, answer.created)
    return answer


async def _make(connection: Connection, tasks: Sequence[NewTask]) -> list[Made]:
    """New tasks, or what their unique keys lead to."""
    made: list[Made | None] = [None] * len(tasks)
    lost = await _insert(connection, tasks, made, range(len(tasks)))
    rounds = 0
    while lost:
        before = len(lost)
        lost = await _settle(connection, tasks, made, lost)
        rounds += len(lost) == before
        if rounds > ROUNDS:
            raise Unavailable("tasks with this unique_key come and go too quickly: ask again later")
    return [one for one in made if one is not None]


async def _insert(connection: Connection, tasks: Sequence[NewTask], made: list[Made | None], numbers: Sequence[int]) -> list[int]:
    """Insert the tasks of these numbers; the numbers of those whose unique key is taken."""
    if not numbers:
        return []
    plain = all(tasks[n].unique_key is None for n in numbers)
    rows = await _fetch(connection, "create_tasks" if plain else "create_unique", columns_of([tasks[n] for n in numbers]))
    for n, row in zip(numbers, rows, strict=True):
        if plain or row[3]:
            made[n] = Created(*row[:3])
    return [n for n in numbers if made[n] is None]


async def _settle(connection: Connection, tasks: Sequence[NewTask], made: list[Made | None], lost: list[int]) -> list[int]:
    """One round of conflicts. Tasks that change the same holder take turns; where there is no holder any more, the task is inserted."""
    turns: dict[str | None, int] = {}
    for n in lost:
        if tasks[n].on_conflict in ("replace", "postpone"):
            turns.setdefault(tasks[n].unique_key, n)
    changed: dict[str, Any] = {}
    for how in ("replace", "postpone"):
        chosen = [tasks[n] for n in turns.values() if tasks[n].on_conflict == how]
        if chosen:
            changed |= {row[0]: row for row in await _fetch(connection, f"{how}_tasks", columns_of(chosen))}
    keys = sorted({key for n in lost if (key := tasks[n].unique_key) is not None})
    holders = {row[0]: row for row in await _fetch(connection, "unique_holders", {"unique_keys": keys})}
    again, later = [], []
    for n in lost:
        key, how = tasks[n].unique_key or "", tasks[n].on_conflict
        holder = changed.get(key) if turns.get(key) == n else None
        if how in ("replace", "postpone") and turns[key] != n:
            later.append(n)
        elif holder is None and (holder := holders.get(key)) is None:
            again.append(n)
        else:
            made[n] = _met(how, holder, changed=turns.get(key) == n and key in changed)
    return sorted(later + await _insert(connection, tasks, made, again))


def _met(how: str, holder: Any, *, changed: bool) -> Made:
    _, id_, run_at, created_at, status, *expires = holder  # of one that was changed nobody asks whether it expires
    if how == "return" or changed:
        return Created(id_, run_at, created_at, deduplicated=True)
    if how == "reject":
        return Conflict(f"the live task {id_} has this unique_key")
    if how == "postpone" and status == "PENDING" and any(expires):
        return Conflict(f"the task {id_} has this unique_key and expires before it would run: it could never start")
    return Conflict(f"the task {id_} has this unique_key and is {status} already: only a PENDING one can be changed")


async def _fetch(connection: Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    """Planned each time: a plan that was made while the table was small would read all of it when it has grown."""
    return await (await connection.execute(sql(name), parameters, prepare=False, binary=True)).fetchall()


def _dump(created: Sequence[Created]) -> str:
    return orjson.dumps([[*one] for one in created]).decode()


def _load(answer: str) -> list[Created]:
    rows = orjson.loads(answer)
    return [Created(UUID(id_), datetime.fromisoformat(run_at), datetime.fromisoformat(at), same) for id_, run_at, at, same in rows]
