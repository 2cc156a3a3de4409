"""Keeps one embedded PostgreSQL alive while anybody uses it, and stops it when the last user is gone.

A process of its own, started by ``embedded.py`` as a script: it loads the standard library only, so that it is up in 20 ms and stays
small. Every user holds a shared lock on ``users.lock``. The kernel grants the exclusive one that we wait for only once they are all gone,
by whatever signal: no list of process ids that could go stale, no ``atexit`` that a kill -9 skips.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO

Account = tuple[int, int]


def spawn(
    command: Sequence[str], pgdata: str, account: Account | None, output: int | IO[bytes], preexec: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` (``postgres`` or ``initdb``) with ``-D`` for ``pgdata``, as ``account`` (uid, gid) or, when None, as ourselves.

    PostgreSQL refuses to be root, and the account that it gets instead may not be allowed to walk through the parents of ``pgdata``, such
    as a 0700 home. It inherits the open directory and names it by descriptor: no parent has to be opened up for it.
    """
    handle = os.open(pgdata, os.O_RDONLY | os.O_DIRECTORY)
    try:
        uid, gid = account or (None, None)
        return subprocess.Popen(  # noqa: S603 - the command is ours
            [command[0], "-D", f"/proc/self/fd/{handle}" if account and sys.platform == "linux" else pgdata, *command[1:]],
            pass_fds=[handle],
            cwd="/",
            user=uid,
            group=gid,
            extra_groups=[] if account else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=preexec,  # noqa: PLW1509 - only the watcher gives one, before it has a second thread
        )
    finally:
        os.close(handle)


def _end_with_watcher() -> None:
    """Ask the kernel to stop the server when the watcher dies, or nobody would ever stop it. Linux only (``PR_SET_PDEATHSIG`` is 1)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)


def _stop_when_unused(users: str, server: subprocess.Popen[bytes]) -> None:
    fcntl.flock(os.open(users, os.O_RDWR), fcntl.LOCK_EX)  # kept until we end, and the next user waits for that
    server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown


def main(users: str, pgdata: str, uid: str, gid: str, *command: str) -> int:
    """Run ``command`` until nobody holds ``users`` any more, or until it ends by itself."""
    os.setsid()  # Ctrl-C in the terminal of a user is not for us
    account = (int(uid), int(gid)) if os.geteuid() == 0 else None
    server = spawn(command, pgdata, account, sys.stdout.buffer, _end_with_watcher)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # only the lock says when to stop: users may still need the server to finish
    threading.Thread(target=_stop_when_unused, args=(users, server), daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
