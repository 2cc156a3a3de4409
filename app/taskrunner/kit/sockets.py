"""What every connection of ours asks of the kernel: to notice a peer that is gone, or takes nothing more."""

import asyncio
import socket

SILENT = 15  # seconds after which a silent peer is asked whether it is there
AGAIN, ASKED = 5, 3  # seconds between two questions, and how many stay unanswered
STUCK = 30_000  # milliseconds that a peer may leave what was sent unacknowledged, or its window closed


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
