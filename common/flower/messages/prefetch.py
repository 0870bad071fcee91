"""A few objects on their way at a time, so that none waits for the one before to arrive.

Memory is bounded by how many: beside the ones on their way, one is with whoever asked.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 2  # an object is up to 5 MB: the second covers the time that a line takes to answer

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def several(
    ask: Callable[[_Item], _Result], items: Iterable[_Item], at_once: int = AT_ONCE
) -> Generator[_Result, None, None]:
    """Yield what is returned for each item, in the items' order.

    Args:
        ask: Is called by several threads.
        at_once: How many calls may be under way while the result before them is used.
    """
    with ThreadPoolExecutor(at_once, "object") as pool:
        ahead = deque[Future[_Result]]()
        try:
            for item in items:
                ahead.append(pool.submit(ask, item))
                if len(ahead) > at_once:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for call in ahead:
                call.cancel()
