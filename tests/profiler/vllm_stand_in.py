"""A stand-in of the ``vllm`` package: the part of its interface that is used, with the scheduling of its V1 engine.

It takes the arguments that the original documents and no others, schedules running sequences before waiting ones
within a token budget, finds whole blocks of prompts that were computed before, and ends a sequence that is as long as
the model goes. Tokens are made up.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

__version__ = "0.0.stand-in"

ROOM = {"num_gpu_blocks": 10_000}
BUILT = []


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    ignore_eos: bool = False
    detokenize: bool = True


@dataclass
class Request:
    request_id: str
    prompt: list
    params: SamplingParams
    computed: int | None = None
    num_cached_tokens: int | None = None
    output: list = field(default_factory=list)
    fresh: bool = False


class LLM:
    def __init__(
        self,
        model,
        *,
        skip_tokenizer_init=False,
        load_format="auto",
        dtype="auto",
        seed=None,
        max_model_len=None,
        max_num_seqs=128,
        max_num_batched_tokens=2048,
        block_size=16,
        enable_prefix_caching=True,
        async_scheduling=True,
    ):
        config = json.loads((Path(model) / "config.json").read_text())
        if max_model_len > config["max_position_embeddings"]:
            raise ValueError("max_model_len is longer than the model")
        if not (skip_tokenizer_init and load_format == "dummy"):
            raise ValueError("nothing to load from")
        if async_scheduling:
            raise RuntimeError("steps would overlap")
        self.config, self.dtype = config, dtype
        self.llm_engine = LLMEngine(
            max_model_len, max_num_seqs, max_num_batched_tokens, block_size, enable_prefix_caching
        )
        BUILT.append(self)


class LLMEngine:
    def __init__(self, longest, seqs, budget, block, prefix_caching):
        self.longest, self.seqs, self.budget, self.block = longest, seqs, budget, block
        self.prefix_caching = prefix_caching
        self.waiting, self.running, self.known = [], [], set()
        self.steps, self.ended = [], []
        self.vllm_config = SimpleNamespace(cache_config=SimpleNamespace(block_size=block, **ROOM))

    def add_request(self, request_id, prompt, params):
        tokens = prompt["prompt_token_ids"]
        if len(tokens) >= self.longest:
            raise ValueError("the prompt is too long")
        self.waiting.append(Request(request_id, tokens, params))

    def has_unfinished_requests(self):
        return bool(self.waiting or self.running)

    def abort_request(self, request_ids):
        for queue in (self.waiting, self.running):
            queue[:] = [request for request in queue if request.request_id not in request_ids]

    def step(self):
        budget, ran = self.budget, []
        while self.waiting and len(self.running) < self.seqs:
            self.running.append(self.waiting.pop(0))
        for request in self.running:
            if request.computed is None:
                request.computed = request.num_cached_tokens = self._hit(request.prompt)
            length = len(request.prompt) + len(request.output)
            new = min(length - request.computed, budget)
            if new:
                ran.append((request.computed, new))
                budget -= new
                request.computed += new
                if request.computed == length:
                    request.output.append(length % 7)
                    request.fresh = True
        self.steps.append(ran)
        outputs = []
        for request in list(self.running):
            self._remember(request)
            if request.fresh:
                request.fresh = False
                outputs.append(SimpleNamespace(
                    request_id=request.request_id,
                    num_cached_tokens=request.num_cached_tokens,
                    outputs=[SimpleNamespace(token_ids=list(request.output))],
                ))  # fmt: skip
                whole = len(request.prompt) + len(request.output) >= self.longest
                if whole or len(request.output) >= request.params.max_tokens:
                    self.running.remove(request)
                    self.ended.append(request.request_id)
        return outputs

    def _hit(self, prompt):
        blocks = (len(prompt) - 1) // self.block if self.prefix_caching else 0
        hit = 0
        while hit < blocks and tuple(prompt[: (hit + 1) * self.block]) in self.known:
            hit += 1
        return hit * self.block

    def _remember(self, request):
        for end in range(self.block, min(request.computed, len(request.prompt)) + 1, self.block):
            self.known.add(tuple(request.prompt[:end]))
