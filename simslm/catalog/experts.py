"""How many of the experts of a block the tokens of an iteration pass, and so how many weights are read."""

from __future__ import annotations

from math import ceil, log
from typing import Any

MOST_TOKENS = 1 << 20
"""Tokens beyond which no more experts are passed, however many there are."""


class Routing:
    """A router that sends each token to ``num_experts_per_tok`` of ``num_experts``, all equally likely.

    The expected share that ``T`` tokens pass together is ``1 - (1 - k / E)^T`` (MoESD, arXiv:2505.19645, section 3).
    Powers are taken once, into a table, and read by ``+ - *`` only, so that a number and an element of an array come
    out bitwise the same; between whole numbers of tokens the share is linear.

    Args:
        num_experts, num_experts_per_tok: of a block, at least 1 and at most as many.
    """

    def __init__(self, num_experts: int, num_experts_per_tok: int) -> None:
        import numpy as np

        missed = 1.0 - num_experts_per_tok / num_experts
        # Beyond these tokens 1 − share is less than half a unit in the last place: the table ends at exactly 1.
        enough = 1 if missed == 0 else min(ceil(log(2.0**-54) / log(missed)), MOST_TOKENS)
        self._table = 1.0 - missed ** np.arange(enough + 2)
        self._values: list[float] = self._table.tolist()

    def share(self, tokens: Any) -> Any:
        """The share of the experts that some tokens pass, a number of at least 0 or an array of them."""
        if isinstance(tokens, int | float):
            most, values = len(self._values) - 2, self._values
            at = int(tokens) if tokens < most else most
            beyond = tokens - at if tokens < most else 0
        else:
            import numpy as np

            most, values = len(self._table) - 2, self._table
            within = np.minimum(tokens, most)
            at = within.astype(np.int64)
            beyond = within - at
        low = values[at]
        return low + beyond * (values[at + 1] - low)
