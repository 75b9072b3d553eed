"""vLLM as a campaign measures it: the step loop of its V1 engine, offline, in this process, with dummy weights.

Written against its documented interface (``vllm.LLM``, ``llm_engine.add_request``, ``step``, ``abort_request``) and
tried on a stand-in of it only: not on hardware. A shape is forced from outside, by requests:

* prompts that were served once are in its prefix cache, so that the same ones come to decode in a single step;
* one step later, all of them decode, over as many cached tokens as the prompts have;
* prompts that are added then join the same step (chunked prefill). What they have cached is whole blocks, so the
  contexts before a chunk are multiples of the block size.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import torch

from profiler.engine.engine import open_device, torch_dtype
from profiler.engines.subject import KERNELS_NOTE, WallTiming
from profiler.grid import Shape
from simslm.catalog.architecture import Architecture
from simslm.catalog.configuration import to_config
from simslm.errors import DeviceError, InfeasibleError, UsageError

BLOCK = 16
"""Tokens per KV block, its default."""

_SPARE_POSITIONS = 2
"""A sequence as long as the model goes is ended by vLLM, so its configuration allows more than is ever computed."""
_NEVER_DONE = 4


def loaded() -> ModuleType:
    """The package, set up to run in this process and to fetch nothing from a hub.

    Raises:
        DeviceError: it is not installed.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{error.name} is not installed", remedy="measuring vLLM needs it: pip install vllm"
        ) from None


class VllmEngine:
    """See :class:`profiler.engines.subject.Subject`.

    Args:
        architecture: of a family whose ``config.json`` can be written.
        dtype, device: as the own engine's; of several GPUs, vLLM takes the first one visible.
        blocks: that the KV cache has to have.
        rows: most new tokens of an iteration.
        seqs: most sequences of an iteration.
        seed: of the dummy weights.
    """

    block_size: ClassVar[int] = BLOCK
    memory_share: ClassVar[float] = 0.5
    loads_twice: ClassVar[bool] = False

    def __init__(
        self,
        architecture: Architecture,
        *,
        dtype: str,
        device: str,
        blocks: int,
        rows: int,
        seqs: int,
        seed: int,
    ) -> None:
        if device not in ("cpu", "cuda", "cuda:0"):
            raise UsageError(
                f"vLLM takes the first visible GPU, not {device}",
                remedy=f"use --device cuda:0 with CUDA_VISIBLE_DEVICES={device.partition(':')[2]}",
            )
        self.architecture, self.dtype, self.device = architecture, dtype, open_device(device)
        self._package, self._numbers = loaded(), count()
        longest = architecture.max_position_embeddings + _SPARE_POSITIONS
        try:
            with tempfile.TemporaryDirectory() as folder:
                config = to_config(architecture) | {"max_position_embeddings": longest}
                (Path(folder) / "config.json").write_text(json.dumps(config))
                model = self._package.LLM(
                    model=folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    dtype=str(torch_dtype(dtype)).removeprefix("torch."),
                    seed=seed,
                    max_model_len=longest,
                    max_num_seqs=seqs,
                    max_num_batched_tokens=max(rows, BLOCK * seqs),
                    block_size=BLOCK,
                    enable_prefix_caching=True,
                    async_scheduling=False,
                )
        except (RuntimeError, TypeError, ValueError) as error:
            raise DeviceError(f"{self.label()} did not start ({error})") from error
        self.engine = model.llm_engine
        self._blocks = self.engine.vllm_config.cache_config.num_gpu_blocks
        if self._blocks < blocks:
            raise InfeasibleError(
                f"vLLM has room for {self._blocks} KV blocks, {blocks} are needed",
                where=f"device {device}",
                remedy="say `--reach` to measure shorter contexts or smaller batches",
            )

    @classmethod
    def label(cls) -> str:
        return f"vllm {loaded().__version__}"

    @classmethod
    def possible(cls, shape: Shape) -> Shape:
        return shape._replace(prefill_ctx=shape.prefill_ctx // BLOCK * BLOCK)

    @classmethod
    def open(
        cls, architecture: Architecture, *, dtype: str, device: str, shapes: Sequence[Shape], seed: int
    ) -> Self:
        columns = [shape.columns() for shape in shapes]
        return cls(
            architecture,
            dtype=dtype,
            device=device,
            blocks=max(shape.blocks(BLOCK, architecture.max_position_embeddings) for shape in shapes),
            rows=max(each["decode_seqs"] + each["prefill_tokens"] for each in columns),
            seqs=max(each["decode_seqs"] + each["prefill_seqs"] for each in columns),
            seed=seed,
        )

    def stage(self, shape: Shape, rng: np.random.Generator) -> VllmStage:
        return VllmStage(self, shape, rng)

    def facts(self) -> dict[str, Any]:
        return {
            "engine": self.label(),
            "attention": "vLLM's choice",
            "block_size": BLOCK,
            "num_gpu_blocks": self._blocks,
            "host_time": "unknown: vLLM does not say it, and it counts as device time",
            "engine_settings": {"async_scheduling": False, "prefix_caching": True, "load_format": "dummy"},
            "kernels_note": KERNELS_NOTE,
        }

    def add(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[str]:
        """Adds requests for greedy tokens that end by their number only; returns their names."""
        params = self._package.SamplingParams(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False
        )
        names = [str(next(self._numbers)) for _ in prompts]
        for name, prompt in zip(names, prompts, strict=True):
            self.engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
        return names


class VllmStage:
    """Prompts whose contexts are in the prefix cache, from which any number of iterations of a shape are made.

    Args:
        engine: that runs nothing else.
        shape: of each iteration, one that is possible.
        rng: of the tokens.
    """

    def __init__(self, engine: VllmEngine, shape: Shape, rng: np.random.Generator) -> None:
        self._engine, self._shape, self._rng = engine, shape, rng
        longest = engine.architecture.max_position_embeddings
        self._contexts = [self._tokens(cached) for cached in shape.contexts(longest)]
        self._prefixes = [self._tokens(shape.prefill_ctx) for _ in range(shape.prefill_seqs)]
        engine.add(self._contexts + [prefix for prefix in self._prefixes if prefix], 1)
        while engine.engine.has_unfinished_requests():
            engine.engine.step()

    def time(self) -> WallTiming:
        """Brings the sequences to where the next iteration has the shape, and times that one.

        Raises:
            DeviceError: vLLM ran something else.
        """
        vllm = self._engine.engine
        decoding = self._engine.add(self._contexts, _NEVER_DONE)
        if decoding:
            self._check(vllm.step(), decoding)
        prompts = [prefix + self._tokens(self._shape.prefill_new) for prefix in self._prefixes]
        added = self._engine.add(prompts, _NEVER_DONE)
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize(self._engine.device)
        start = time.perf_counter()
        outputs = vllm.step()
        latency_s = time.perf_counter() - start
        self._check(outputs, decoding + added)
        cached = {output.num_cached_tokens or 0 for output in outputs if output.request_id in added}
        if cached - {self._shape.prefill_ctx}:
            raise DeviceError(
                f"vLLM had {sorted(cached)} tokens cached of the prompts in {self._shape.label()}",
                remedy="say `--reach` to measure shorter contexts or smaller batches: its cache may be too small",
            )
        vllm.abort_request(decoding + added)
        return WallTiming(latency_s)

    def _tokens(self, number: int) -> list[int]:
        return self._rng.integers(0, self._engine.architecture.vocab_size, number).tolist()

    def _check(self, outputs: Sequence[Any], expected: Sequence[str]) -> None:
        """Every sequence that was to run, and no other, has one token more."""
        found = sorted(output.request_id for output in outputs)
        if found != sorted(expected):
            raise DeviceError(
                f"vLLM served {len(found)} sequences instead of {len(expected)} for {self._shape.label()}",
                remedy="this version schedules otherwise than the one this was written for",
            )
