"""Values that a thread makes while the caller is busy with the ones before."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Order = TypeVar("Order", bound=Hashable)
Value = TypeVar("Value")
DEPTH = 8  # values made in advance; pictures of 1024² are 3 MB each


class Ahead(Generic[Order, Value]):
    """Makes what is expected next in one thread; what is asked for unexpectedly is made at once, with the same result.

    Decoding and scaling a picture takes 50 to 200 ms, most of it outside of Python's lock. On two cores, with steps of
    0.2 s that use one of them, a step with its picture took 0.27 s without and 0.19 s with the thread. Reading kept
    latents and drawing noise take about 1 ms and stay where they are.
    """

    def __init__(self, make: Callable[[Order], Value]) -> None:
        self._make = make
        self._expected: dict[Order, None] = {}
        self._begun: dict[Order, Future[Value]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Ahead[Order, Value]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def expect(self, orders: Iterable[Order]) -> None:
        """Say what will be asked for, in order; replaces what was said before. Nothing begins before the next `take`."""
        self._expected = dict.fromkeys(orders)
        for order in [order for order in self._begun if order not in self._expected]:
            self._begun.pop(order).cancel()

    def take(self, order: Order) -> Value:
        """Return the value of an order and have the next ones begun. Raises whatever making it raises."""
        begun = self._begun.pop(order, None)
        self._expected.pop(order, None)
        self._begin()
        return self._make(order) if begun is None else begun.result()

    def _begin(self) -> None:
        for order in self._expected:
            if len(self._begun) >= DEPTH:
                return
            if order not in self._begun:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoding")
                self._begun[order] = self._thread.submit(self._make, order)

    def close(self) -> None:
        """Forget what was expected and end the thread; may be used again afterwards."""
        self.expect(())
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.shutdown(wait=True, cancel_futures=True)
