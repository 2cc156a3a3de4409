"""kit.batch: batches form by themselves."""

import asyncio

import pytest

from taskrunner.kit.batch import Batcher, Closed


class Line:
    """A flush that the test lets through one batch at a time."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Semaphore(0)
        self.let_through = asyncio.Semaphore(0)
        self.in_flight = 0
        self.most_in_flight = 0

    async def flush(self, items: list[int]) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.batches.append(items)
        self.begun.release()
        try:
            await self.let_through.acquire()
        finally:
            self.in_flight -= 1


async def test_a_lone_item_leaves_at_once() -> None:
    line = Line()
    batcher = Batcher(line.flush, most=10, room=100)
    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.run())
        batcher.put(1)
        await line.begun.acquire()
        assert line.batches == [[1]]
        line.let_through.release()
        batcher.close()


async def test_the_next_batch_fills_while_one_is_in_flight_and_is_never_larger_than_most() -> None:
    line = Line()
    batcher = Batcher(line.flush, most=3, room=100)
    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.run())
        batcher.put(0)
        await line.begun.acquire()
        for item in range(1, 6):
            batcher.put(item)
        for _ in range(2):
            line.let_through.release()
            await line.begun.acquire()
        assert line.batches == [[0], [1, 2, 3], [4, 5]]
        line.let_through.release()
        batcher.close()
    assert line.most_in_flight == 1


async def test_room_is_bounded_and_comes_back() -> None:
    line = Line()
    batcher = Batcher(line.flush, most=2, room=2)
    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.run())
        batcher.put(0)
        await line.begun.acquire()
        full = []
        for item in (1, 2):
            batcher.put(item)
            full.append(batcher.full)
        assert full == [False, True]
        with pytest.raises(asyncio.QueueFull):
            batcher.put(3)
        line.let_through.release()
        await line.begun.acquire()
        assert not batcher.full
        line.let_through.release()
        batcher.close()
    assert line.batches == [[0], [1, 2]]


async def test_close_drains_and_then_refuses() -> None:
    line = Line()
    batcher = Batcher(line.flush, most=2, room=10)
    for item in range(5):
        batcher.put(item)
    batcher.close()
    batcher.close()
    with pytest.raises(Closed):
        batcher.put(9)
    for _ in range(3):
        line.let_through.release()
    await batcher.run()
    assert line.batches == [[0, 1], [2, 3], [4]]
    assert batcher.rest == []


async def test_close_wakes_an_idle_batcher() -> None:
    batcher = Batcher(Line().flush, most=2, room=10)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        await asyncio.sleep(0)
        assert not running.done()
        batcher.close()


async def test_a_caller_that_is_cancelled_loses_the_answer_and_not_the_item() -> None:
    answered: list[int] = []
    gate = asyncio.Event()

    async def flush(items: list[tuple[int, asyncio.Future[int]]]) -> None:
        await gate.wait()
        for item, answer in items:
            answered.append(item)
            if not answer.done():
                answer.set_result(item * 10)

    batcher = Batcher(flush, most=10, room=10)

    async def ask(item: int) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        batcher.put((item, answer))
        return await answer

    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.run())
        impatient, patient = group.create_task(ask(1)), group.create_task(ask(2))
        await asyncio.sleep(0)
        impatient.cancel()
        gate.set()
        assert await patient == 20
        batcher.close()
    assert impatient.cancelled()
    assert answered == [1, 2]


async def test_an_error_of_flush_ends_run_and_closes_the_door() -> None:
    async def flush(items: list[int]) -> None:
        raise OSError(f"no room for {items}")

    batcher = Batcher(flush, most=1, room=10)
    batcher.put(1)
    batcher.put(2)
    with pytest.raises(OSError, match=r"no room for \[1\]"):
        await batcher.run()
    assert batcher.rest == [2]
    with pytest.raises(Closed):
        batcher.put(3)


async def test_cancelled_in_mid_flush_it_closes_and_keeps_the_rest() -> None:
    line = Line()
    batcher = Batcher(line.flush, most=1, room=10)
    running = asyncio.ensure_future(batcher.run())
    batcher.put(1)
    batcher.put(2)
    await line.begun.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert line.in_flight == 0
    assert line.batches == [[1]]
    assert batcher.rest == [2]
    with pytest.raises(Closed):
        batcher.put(3)
