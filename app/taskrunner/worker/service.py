"""What the worker's own gRPC server answers, beside health and reflection."""

import os
import signal
from collections.abc import Callable

from grpclib import GRPCError
from grpclib import Status as Code

from taskrunner.wire.pb.taskrunner.v1 import DescribeReply, DescribeRequest, DrainReply, DrainRequest, WorkerBase


class WorkerService(WorkerBase):
    """``tell`` is set once there is something to tell."""

    def __init__(self) -> None:
        self.tell: Callable[[], DescribeReply] | None = None

    async def describe(self, message: DescribeRequest) -> DescribeReply:  # noqa: ARG002 — it has no fields yet
        """What the worker is and holds."""
        if self.tell is None:
            raise GRPCError(Code.UNAVAILABLE, "the worker is starting")
        return self.tell()

    async def drain(self, message: DrainRequest) -> DrainReply:  # noqa: ARG002 — likewise
        """Stop taking, finish what runs, end: as SIGTERM does, so that a process has one way to end."""
        now = await self.describe(DescribeRequest())
        os.kill(os.getpid(), signal.SIGTERM)
        return DrainReply(running=now.running, waiting=now.waiting)
