"""Green contexts: a part of the multiprocessors for each of several threads of one process, where torch has them.

A green context of torch is split off the whole device, each anew, so several may lie on the same multiprocessors
(``cuDevSmResourceSplitByCount`` knows nothing of earlier splits). Whether they are parts is therefore measured: what
one does must hardly slow down another.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from simslm.errors import DeviceError

_UNIT = 8
"""Multiprocessors that are given together since Hopper; before, two (CUDA driver API, "Green contexts")."""

_KEPT = 0.7
"""Of its rate alone, what a part keeps beside others; on the same multiprocessors two would keep half."""

_SIDE = 4096
_ROUND = 8
_SPAN_S = 0.2
_MARGIN_S = 0.1
_REMEDY = "use sm-partition, which gives parts by MPS"


class Ordered(Protocol):
    """A replica, as far as is needed here."""

    def tell(self, what: Any) -> None: ...
    def answer(self) -> Any: ...


def multiprocessors(device: torch.device, count: int) -> tuple[int, int]:
    """Multiprocessors of each of several equal parts, and of the whole device.

    Raises:
        DeviceError: there are too few.
    """
    whole = int(torch.cuda.get_device_properties(device).multi_processor_count)
    each = whole // count // _UNIT * _UNIT
    if not each:
        raise DeviceError(
            f"{count} parts of {whole} multiprocessors are too small", remedy="use fewer replicas"
        )
    return each, whole


@contextmanager
def green_context(device: torch.device, count: int) -> Iterator[None]:
    """Within it, this thread's kernels run on one of ``count`` parts of the multiprocessors.

    Raises:
        DeviceError: this torch or this driver has no green contexts.
    """
    each, _ = multiprocessors(device, count)
    try:
        module = importlib.import_module("torch.cuda.green_contexts")
        context = module.GreenContext.create(num_sms=each, device_id=device.index or 0)
        enter, leave, stream = context.set_context, context.pop_context, context.Stream()
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:
        said = str(error).strip().splitlines()
        raise DeviceError(
            f"no green contexts here ({said[0] if said else type(error).__name__})", remedy=_REMEDY
        ) from None
    enter()
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        leave()


def check_apart(replicas: Sequence[Ordered]) -> None:
    """Refuses contexts that are no parts: a matrix product must keep its rate while all others compute one too.

    Raises:
        DeviceError: they lie on the same multiprocessors.
    """
    alone = _rates(replicas[:1])[0]
    beside = min(_rates(replicas))
    if beside < _KEPT * alone:
        raise DeviceError(
            f"the green contexts of this torch are no parts of the device: beside each other they keep "
            f"{beside / alone:.0%} of the rate of one alone",
            remedy=_REMEDY,
        )


def _rates(replicas: Sequence[Ordered]) -> list[float]:
    """Products per second of each, all at once."""
    begin = time.perf_counter() + _MARGIN_S
    for replica in replicas:
        replica.tell(partial(_products, begin_s=begin, end_s=begin + _SPAN_S))
    return [replica.answer() for replica in replicas]


def _products(engine: Any, orders: Connection, begin_s: float, end_s: float) -> float:
    del orders
    matrix = torch.randn(_SIDE, _SIDE, dtype=torch.float16, device=engine.device)
    stream, done = torch.cuda.current_stream(engine.device), 0
    torch.mm(matrix, matrix)
    stream.synchronize()
    time.sleep(max(0.0, begin_s - time.perf_counter()))
    start = time.perf_counter()
    while time.perf_counter() < end_s or not done:
        for _ in range(_ROUND):
            torch.mm(matrix, matrix)
        stream.synchronize()
        done += _ROUND
    return done / (time.perf_counter() - start)
