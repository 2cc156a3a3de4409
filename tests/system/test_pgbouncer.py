"""Behind a PgBouncer in transaction mode: nobody hears hints, nothing is prepared, no session is anybody's."""

import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
from faults.cluster import free_ports
from faults.database import Server
from faults.processes import Process, end_with_us
from faults.waiting import until
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from system.calls import call

from taskrunner.store import migrate

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
TASKS = 300
SESSION = """
select name, setting from pg_settings
where name in ('statement_timeout', 'lock_timeout', 'synchronous_commit', 'enable_seqscan') order by name"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer")]


@pytest.fixture
async def pooled(plain: Server, tmp_path: Path) -> AsyncIterator[str]:
    """The DSN of a pooler with few sessions for many, in front of a database with our schema."""
    await plain.start()
    await migrate.up(plain.dsn)
    there = conninfo_to_dict(plain.dsn)
    (port,) = free_ports(1)
    (tmp_path / "users").write_text(f'"{there["user"]}" ""\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"""[databases]
* = host={there["host"]} port={there["port"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {tmp_path / "users"}
pool_mode = transaction
default_pool_size = 3
"""
    )
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o755)
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        command = [str(PGBOUNCER), "--user=nobody", str(tmp_path / "pgbouncer.ini")]
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=end_with_us)  # noqa: PLW1509 — one system call
    dsn = make_conninfo(plain.dsn, port=port)

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "pgbouncer.log").read_text()
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    await until(answers, within=10, what="the pooler")
    yield dsn
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def settings(pooled: str) -> dict[str, str]:
    ports = {"HTTP_PORT": "0", "SCHEDULER_PORT": "0", "WORKER_PORT": "0"}
    return {**ports, "DB_DSN": pooled, "TASKRUNNER_PGBOUNCER": "1", "TASKRUNNER_HANDLERS": "worker.wire_tasks"}


async def test_all_works(settings: dict[str, str], plain: Server, launch: Callable[..., Process]) -> None:
    office = launch(TASKRUNNER_ROLES="scheduler,worker", **settings)
    await office.said("ready")
    door = launch(TASKRUNNER_ROLES="api", **settings)
    api = (await door.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    for n in range(20):  # more than it takes to prepare a statement
        assert call("POST", f"{api}/api/tasks", {"task_type": "wire.echo", "payload": n, "unique_key": f"k{n}"})[0] == 201
    many = [{"task_type": "wire.echo", "payload": n} for n in range(TASKS)]
    assert call("POST", f"{api}/api/tasks/batch", many)[0] == 201
    await until(lambda: finished(api) == TASKS + 20, within=20, what="the end of all tasks")
    status, late = call("POST", f"{api}/api/tasks", {"task_type": "wire.echo", "payload": "soon"})
    assert (status, call("GET", f"{api}/api/tasks/{late['id']}?wait=10")[1]["status"]) == (201, "COMPLETED"), "found without a hint"
    untouched = await plain.ask(SESSION)
    with psycopg.connect(settings["DB_DSN"], prepare_threshold=None) as connection:
        for _ in range(10):  # whoever comes next must not find settings of ours
            assert connection.execute(SESSION).fetchall() == untouched
            connection.commit()
        assert connection.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)
    for process in (office, door):
        assert not [line for line in process.events() if line["level"] == "error"], process.log.read_text()
        process.popen.terminate()
        assert process.popen.wait(20) == 0


async def test_what_needs_a_session_is_refused(settings: dict[str, str], plain: Server, launch: Callable[..., Process]) -> None:
    """Migrations, whose lock is a session's, and streams of tasks."""
    api = (await launch(TASKRUNNER_ROLES="api", **settings).said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    stream = urllib.request.Request(f"{api}/api/tasks/batch", data=b'{"task_type": "t"}', headers={"Content-Type": "application/x-ndjson"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(stream, timeout=10)
    with refused.value as answer:
        assert (answer.code, "send arrays" in answer.read().decode()) == (409, True)
    await migrate.down(plain.dsn)
    office = launch(TASKRUNNER_ROLES="scheduler", **settings)
    assert office.popen.wait(20) == 1
    assert "taskrunner migrate up" in office.log.read_text()


def finished(api: str) -> int:
    return int(call("GET", f"{api}/api/stats?window=60")[1]["tasks"]["COMPLETED"])
