"""What our connections ask of the kernel: enough of them, and to notice a peer that is gone, or takes nothing more."""

import asyncio
import resource
import socket

import structlog

log = structlog.get_logger()

SILENT = 15  # seconds after which a silent peer is asked whether it is there
AGAIN, ASKED = 5, 3  # seconds between two questions, and how many stay unanswered
STUCK = 30_000  # milliseconds that a peer may leave what was sent unacknowledged, or its window closed


def allow_files(wanted: int) -> None:
    """Let this process open so many files and connections, or as many as the system allows: shells give 1024, whatever is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed < wanted:
        log.warning("this process may open fewer files than its servers may hold connections: raise ulimit -n", wanted=wanted, allowed=hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def watch_peer(transport: asyncio.BaseTransport) -> None:
    """Have the kernel close the connection when the peer is gone, or has not read for half a minute. Only Linux can."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_USER_TIMEOUT") or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, AGAIN)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, ASKED)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK)
