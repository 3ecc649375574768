"""Requests that come at once share a call of the model; one that comes alone does not wait."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desmatch.ensemble.predictions import Predictions

Pairs = list[tuple[str, str]]


class BusyError(Exception):
    """So many pairs wait that a new one had better come back later."""


class Waiting(NamedTuple):
    """A request that waits: its pairs, and where the answer goes."""

    pairs: Pairs
    answer: asyncio.Future[Predictions]


class Batcher:
    """Calls a model from one thread, with all that has come while it was busy.

    Args:
        score: (B,) first texts and (B,) second texts to what the model says.
        most_pairs: Of one call; a single request may hold more.
        most_waiting: Pairs that may wait.
        on_batch: Told the pairs of every call.
    """

    def __init__(
        self,
        score: Callable[[Sequence[str], Sequence[str]], Predictions],
        *,
        most_pairs: int,
        most_waiting: int,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.call, self.most_pairs, self.most_waiting = score, most_pairs, most_waiting
        self.on_batch = on_batch
        self.waiting: deque[Waiting] = deque()
        self.num_waiting = 0
        self.worker: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def score(self, pairs: Pairs) -> Predictions:
        """Return what the model says of pairs, in their order.

        Raises:
            BusyError: Too many wait already.
        """
        if self.num_waiting + len(pairs) > self.most_waiting and self.waiting:
            raise BusyError
        answer: asyncio.Future[Predictions] = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(pairs, answer))
        self.num_waiting += len(pairs)
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        """Answer until nobody waits."""
        while self.waiting:
            await asyncio.sleep(0)  # requests that are here already join in
            batch = self._take()
            try:
                said = await self._say([pair for each in batch for pair in each.pairs])
            except Exception as error:
                for each in batch:
                    if not each.answer.done():
                        each.answer.set_exception(error)
                continue
            start = 0
            for each in batch:
                end = start + len(each.pairs)
                if not each.answer.done():  # the client may have gone
                    each.answer.set_result(type(said)(*(column[start:end] for column in said)))
                start = end

    def _take(self) -> list[Waiting]:
        batch = [self.waiting.popleft()]
        size = len(batch[0].pairs)
        while self.waiting and size + len(self.waiting[0].pairs) <= self.most_pairs:
            batch.append(self.waiting.popleft())
            size += len(batch[-1].pairs)
        self.num_waiting -= size
        return batch

    async def _say(self, pairs: Pairs) -> Predictions:
        self.on_batch(len(pairs))
        a, b = [a for a, _ in pairs], [b for _, b in pairs]
        if len(pairs) == 1:  # a thread would cost it more than it frees
            return self.call(a, b)
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.call, a, b)

    async def close(self) -> None:
        """Answer those who wait, then stop."""
        if self.worker is not None:
            await self.worker
        self.thread.shutdown()
