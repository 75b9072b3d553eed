"""A cache of responses, found by the whole prompt."""

from __future__ import annotations

from pydantic import Field

from simslm.policies.gateway import Answer
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import RoutedRequest


class ResponseCacheOptions(PolicyOptions):
    max_entries: int = Field(default=1000, ge=1, description="responses that are kept (GPTCache: 1000)")
    ttl_s: float | None = Field(
        default=None, gt=0, description="time for which a response is used, s; null = for ever"
    )
    latency_s: float = Field(
        default=0.01, ge=0, le=60, description="from arrival to the first token of a response found, s"
    )
    tokens_per_s: float | None = Field(
        default=None, ge=1, le=1e6, description="pace at which it goes out; null = all at once"
    )


@policy("gateway", "response-cache", ResponseCacheOptions)
class ResponseCache:
    """The response of an earlier request with the same prompt, least recently used out (GPTCache, NLP-OSS 2023).

    The exact match of GPTCache (Bang, 2023): the same prompt, token by token, as the workload's prefix hashes tell. A
    prompt that the hashes do not cover to its end is never found. A response is kept from its last token on, so
    equal requests under way at the same time are all served.
    """

    needs_units = True

    def __init__(self, options: ResponseCacheOptions) -> None:
        self._most = options.max_entries
        self._ttl_s = float("inf") if options.ttl_s is None else options.ttl_s
        self._answer = Answer(options.latency_s, options.tokens_per_s)
        self._since_s: dict[tuple[int, int], float] = {}

    def answer(self, request: RoutedRequest) -> Answer | None:
        key = _key(request)
        since_s = None if key is None else self._since_s.pop(key, None)
        if key is None or since_s is None or request.arrival_s - since_s > self._ttl_s:
            return None
        self._since_s[key] = since_s
        return self._answer

    def finished(self, request: RoutedRequest, at_s: float) -> None:
        key = _key(request)
        if key is None:
            return
        self._since_s.pop(key, None)
        self._since_s[key] = at_s
        if len(self._since_s) > self._most:
            del self._since_s[next(iter(self._since_s))]


def _key(request: RoutedRequest) -> tuple[int, int] | None:
    """What tells a prompt from all others, its last hash for those before it; None where they do not cover it."""
    if not request.units or len(request.units) * request.unit_tokens < request.prompt_tokens:
        return None
    return request.units[-1], request.prompt_tokens
