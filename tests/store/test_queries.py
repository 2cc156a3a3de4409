"""The statements as text: what holds for all of them."""

import re
from importlib.resources import files

import pytest
from store.desk import Desk

from taskrunner.store.queries import Query, queries, sql

TEXTS = {file.name: file.read_text() for file in files("taskrunner.store").joinpath("sql").iterdir() if file.name.endswith(".sql")}
HELD = {"QUEUED", "RUNNING"}
EXITS = {  # every statement by which a task leaves a worker
    "complete_tasks": {"gone"},
    "cancel_tasks": {"gone"},
    "fail_tasks": {"back", "gone"},
    "give_back_tasks": {"back", "gone"},
    "take_back_tasks": {"back", "gone"},
    "release_claims": {"back"},
    "release_unheard": {"back"},
    "force_cancels": {"gone"},
}
ENDINGS = {name for name, ctes in EXITS.items() if "gone" in ctes} | {"bulk_cancel", "cancel_pending", "expire_tasks"}
DUE = "t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes = 0"
SUSPECT = "t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes > 0"


def words(text: str) -> str:
    return " ".join(text.split())


def cte(query: str, name: str) -> str:
    """The body of a CTE: what stands between its brackets."""
    text = sql(query)
    begin = re.search(rf"\b{name} as (?:materialized )?\(", text)
    assert begin, f"{query} has no {name}"
    depth, at = 1, begin.end()
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return words(text[begin.end() : at - 1])


def inserted(text: str, table: str) -> tuple[list[str], list[str]]:
    """The columns that an INSERT … SELECT writes, and the expressions that it writes into them."""
    found = re.search(rf"insert into {table} \((.*?)\)\s*select (.*?)\s+from gone", text, re.DOTALL)
    assert found
    columns, values = ([part.strip() for part in group.split(",")] for group in (found[1], re.sub(r"\(\)", "", found[2])))
    return columns, values


def test_every_name_stands_once_and_every_statement_has_its_moves_and_fragments() -> None:
    names = re.findall(r"^-- name: (\w+)$", "\n".join(TEXTS.values()), re.MULTILINE)
    assert sorted(queries()) == sorted(names)
    assert queries()["start_tasks"] == Query("start_tasks", (("QUEUED", "RUNNING"),), sql("start_tasks"))
    assert not [name for name, query in queries().items() if re.search(r"--|\{\w+\}", query.text)]


def test_a_statement_that_moves_a_task_says_so() -> None:
    moving = re.compile(r"(insert into|delete from|copy) tasks_(live|finished)|update tasks_live t?\s*set (status|run_at) ")
    assert {name for name, query in queries().items() if moving.search(query.text)} == {
        name for name, query in queries().items() if query.moves
    }


def test_only_the_ending_fragment_writes_into_tasks_finished() -> None:
    assert sum(text.count("insert into tasks_finished") for text in TEXTS.values()) == 1
    assert {name for name, query in queries().items() if "insert into tasks_finished" in query.text} == ENDINGS
    assert not [name for name, query in queries().items() if re.search(r"(update|insert into) tasks\b", query.text)]


def test_the_exits_are_these_and_no_others() -> None:
    leaving = {name for name, query in queries().items() if any(a in HELD and b not in HELD for a, b in query.moves)}
    assert leaving == set(EXITS)


@pytest.mark.parametrize(("query", "name"), [(query, name) for query, names in EXITS.items() for name in sorted(names)])
def test_every_exit_tells_what_left_in_one_place(query: str, name: str) -> None:
    told = cte(query, name).rsplit("returning ", 1)[1]
    assert told.startswith("t.*," if name == "gone" else "t.id, t.epoch, t.queue, t.task_type, t.priority, t.run_at, t.key")


@pytest.mark.parametrize("query", sorted(EXITS))
def test_every_exit_names_the_epoch(query: str) -> None:
    assert all(re.search(r"t\.epoch = \w\.epoch", cte(query, name)) for name in EXITS[query])


@pytest.mark.parametrize(("query", "table"), [("complete_tasks", "tasks_finished"), ("retry_task", "tasks_live")])
async def test_a_copy_of_a_row_carries_every_column(desk: Desk, query: str, table: str) -> None:
    rows = await desk.rows(
        "select column_name::text as name from information_schema.columns where table_name = 'tasks' order by ordinal_position"
    )
    catalogue = [row["name"] for row in rows]
    columns, values = inserted(sql(query), table)
    assert columns == catalogue
    assert len(values) == len(columns)
    ours = {
        "status",
        "run_at",
        "attempt",
        "crashes",
        "blocked",
        "expires_at",
        "progress",
        "progress_message",
        "session",
        "stream",
        "cancel_requested_at",
        "updated_at",
        "finished_at",
        "result",
        "error",
    }
    assert {name: value for name, value in zip(columns, values, strict=True) if name not in ours and value != name} == {}


@pytest.mark.parametrize("query", ["claim_tasks", "peek_lanes", "sweep_lanes", "find_lanes"])
def test_what_looks_for_due_tasks_repeats_the_predicate_of_their_index(query: str) -> None:
    text = words(sql(query))
    assert text.count("from tasks_live") == len(re.findall(re.escape(DUE) + "|" + re.escape(DUE.replace("t.", "")), text))


@pytest.mark.parametrize("query", ["claim_suspects", "find_suspects"])
def test_what_looks_for_suspects_repeats_the_predicate_of_their_index(query: str) -> None:
    text = words(sql(query))
    assert SUSPECT in text or SUSPECT.replace("t.", "") in text


async def test_the_predicates_are_those_of_the_indexes(desk: Desk) -> None:
    rows = await desk.rows(
        "select indexrelid::regclass::text as name, pg_get_expr(indpred, indrelid) as predicate"
        " from pg_index where indrelid = 'tasks_live'::regclass"
    )
    plain = {row["name"]: re.sub(r"[()]|::text", "", row["predicate"] or "").lower() for row in rows}
    assert plain["tasks_live_due"] == DUE.replace("t.", "").lower()
    assert plain["tasks_live_suspect"] == SUSPECT.replace("t.", "").lower()
