"""The pull door from outside: the scenario of every door."""

from doors.town import Town, one_of_two_is_killed, python
from faults.processes import MAIN


async def test_one_of_two_pulling_workers_is_killed(town: Town) -> None:
    await one_of_two_is_killed(town, lambda: town.hire(python("pull_worker.py", town.url, str(town.journal))))


async def test_one_of_two_python_workers_is_killed(town: Town) -> None:
    settings = {"TASKRUNNER_ROLES": "worker", "TASKRUNNER_HANDLERS": "doors.journal_tasks", "TASKRUNNER_SLOTS": "5", "WORKER_PORT": "0"}
    await one_of_two_is_killed(town, lambda: town.hire(MAIN, **settings))
