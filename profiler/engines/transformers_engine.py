"""The continuous batching of Hugging Face ``transformers`` as a campaign measures it.

One iteration is one turn of its generation loop (``transformers.generation.continuous_batching``): its scheduler,
its paged cache and layout, forward pass and sampler, and its books, on this thread instead of its own. Requests are
put into its scheduler in the middle of their lives, so that nothing has to be prefilled to decode at a long context;
the cache holds random values. Weights are those of the project's own engine for the same seed.

The loop's own parts are called one by one, which no stable interface of the package offers: :func:`loaded` refuses a
version that lacks one of them.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import torch

from profiler.engine.engine import open_device, torch_dtype
from profiler.engine.weights import random_weights
from profiler.engines.checkpoint import checkpoint
from profiler.engines.subject import KERNELS_NOTE
from profiler.grid import Shape
from profiler.measure.timing import Timing
from simslm.catalog.architecture import Architecture
from simslm.catalog.configuration import to_config
from simslm.errors import DeviceError, InfeasibleError

PAGE = 256
"""Tokens per page of its cache: its default."""

_INSTALL = "pip install 'simslm[transformers]'"
_PARTS = {
    "transformers": ("AutoConfig", "AutoModelForCausalLM", "ContinuousBatchingConfig", "GenerationConfig"),
    "transformers.generation.continuous_batching.requests": ("RequestState", "RequestStatus"),
    "transformers.generation.continuous_batching.utils": ("WorkloadHints",),
}
_CACHE_STD = 0.5


def loaded() -> tuple[ModuleType, ...]:
    """The package's modules that are used here, in the order of ``_PARTS``; nothing is fetched from a hub.

    Raises:
        DeviceError: it is not installed, or has no continuous batching as it is here.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        importlib.import_module("psutil")
        modules = tuple(importlib.import_module(name) for name in _PARTS)
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{error.name} is not installed, or too old",
            remedy=f"measuring transformers needs it: {_INSTALL}",
        ) from None
    lacks = [part for module, parts in zip(modules, _PARTS.values(), strict=True) for part in parts
             if not hasattr(module, part)]  # fmt: skip
    if lacks:
        version = modules[0].__version__
        raise DeviceError(
            f"transformers {version} has no {', '.join(lacks)}", remedy=f"{_INSTALL} brings one that has"
        )
    return modules


class TransformersEngine:
    """See :class:`profiler.engines.subject.Subject`.

    Args:
        architecture: of a family whose ``config.json`` can be written.
        weights: by the own engine's names.
        dtype, device: as the own engine's.
        pages: of the cache.
        rows: most new tokens of an iteration.
        seqs: most sequences of an iteration.
    """

    block_size: ClassVar[int] = PAGE
    memory_share: ClassVar[float] = 0.5
    loads_twice: ClassVar[bool] = True

    def __init__(
        self,
        architecture: Architecture,
        weights: dict[str, torch.Tensor],
        *,
        dtype: str,
        device: str,
        pages: int,
        rows: int,
        seqs: int,
    ) -> None:
        self.architecture, self.dtype, self.device = architecture, dtype, open_device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        package, _, utils = loaded()
        hints = utils.WorkloadHints(architecture.max_position_embeddings, 1, seqs)
        try:
            attention = _attention(package, architecture, self.device)
            self.model = model_of(package, architecture, weights, torch_dtype(dtype), self.device, attention)
            self.processor = _processor(package, self.model, hints, pages, rows, seqs)
        except (AttributeError, TypeError) as error:
            raise DeviceError(
                f"transformers {package.__version__} is not as the one this was written for ({error})",
                remedy=f"{_INSTALL} brings one that is",
            ) from error
        except (MemoryError, ValueError, torch.OutOfMemoryError) as error:
            raise InfeasibleError(
                f"the cache of transformers does not fit ({error})",
                where=f"device {device}",
                remedy="say `--reach` to measure shorter contexts or smaller batches",
            ) from None

    @classmethod
    def label(cls) -> str:
        return f"transformers {loaded()[0].__version__} continuous batching"

    @classmethod
    def possible(cls, shape: Shape) -> Shape:
        return shape

    @classmethod
    def open(
        cls, architecture: Architecture, *, dtype: str, device: str, shapes: Sequence[Shape], seed: int
    ) -> Self:
        columns = [shape.columns() for shape in shapes]
        return cls(
            architecture,
            random_weights(architecture, torch_dtype(dtype), open_device(device), seed),
            dtype=dtype,
            device=device,
            pages=max(shape.blocks(PAGE, architecture.max_position_embeddings) for shape in shapes)
            + _rounding(architecture),
            rows=max(each["decode_seqs"] + each["prefill_tokens"] for each in columns),
            seqs=max(each["decode_seqs"] + each["prefill_seqs"] for each in columns),
        )

    def stage(self, shape: Shape, rng: np.random.Generator) -> TransformersStage:
        return TransformersStage(self, shape, rng)

    def facts(self) -> dict[str, Any]:
        settings = self.processor.cb_config
        return {
            "engine": self.label(),
            "attention": self.model.config._attn_implementation,
            "block_size": PAGE,
            "num_gpu_blocks": self.processor.cache.num_blocks,
            "host_time": "scheduling, layout, reading the tokens and books of a turn of its loop: wall time less that "
            "of forward pass and sampler, which on CUDA is taken between device events",
            "engine_settings": {
                "cuda_graphs": list(settings.cuda_graph_booleans),
                "async_batching": settings.use_async_batching,
                "prefix_sharing": settings.allow_block_sharing,
                "max_batch_tokens": self.processor.max_batch_tokens,
            },
            "kernels_note": KERNELS_NOTE,
        }

    @torch.inference_mode()
    def step(self) -> Timing:
        """One turn of the generation loop, timed.

        Raises:
            DeviceError: nothing was there to run.
        """
        processor, ios, runner = (
            self.processor,
            self.processor.inputs_and_outputs,
            self.processor.model_runner,
        )
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        if not processor.prepare_next_batch():
            raise DeviceError("the scheduler of transformers had nothing to run")
        inputs = ios.get_model_kwargs(use_padding=runner.pad_inputs)
        clock = _DeviceClock(self.device, ios.compute_stream)
        runner.compute_batch(self.model, inputs)
        clock.stop()
        ios.retrieve_device_outputs()
        processor.update_batch()
        latency_s = time.perf_counter() - start
        return Timing(latency_s, max(0.0, latency_s - clock.seconds()))


class TransformersStage:
    """Requests in the scheduler such that the next turn of the loop has a shape.

    Args:
        engine: its requests so far are dropped.
        shape: of each iteration.
        rng: of the tokens.
    """

    def __init__(self, engine: TransformersEngine, shape: Shape, rng: np.random.Generator) -> None:
        self._engine, self._shape = engine, shape
        self._processor, self._status = engine.processor, loaded()[1].RequestStatus
        self._processor.reset()
        vocabulary = engine.architecture.vocab_size

        def request(name: str, new: int, cached: int) -> Any:
            tokens = rng.integers(0, vocabulary, new).tolist()
            state = loaded()[1].RequestState(name, tokens, max_new_tokens=None)
            state.position_offset = cached
            if cached and not self._processor.cache.can_store_request_tokens(state, new):
                raise DeviceError(f"the cache of transformers has no room for {shape.label()}")
            return state

        self._contexts = shape.contexts(engine.architecture.max_position_embeddings)
        self._decoders = [request(f"decode-{i}", 1, cached) for i, cached in enumerate(self._contexts)]
        self._prompts = [
            request(f"prompt-{i}", shape.prefill_new, shape.prefill_ctx) for i in range(shape.prefill_seqs)
        ]
        self._put_back()

    def time(self) -> Timing:
        """Runs the iteration and times it.

        Raises:
            DeviceError: the scheduler chose something else than the shape.
        """
        timing = self._engine.step()
        ios, shape = self._processor.inputs_and_outputs, self._shape
        ran = (ios.num_request_in_batch, ios.total_seqlen_q)
        columns = shape.columns()
        asked = (
            shape.decode_seqs + shape.prefill_seqs,
            columns["decode_seqs"] + columns["prefill_tokens"],
        )
        if ran != asked:
            raise DeviceError(
                f"transformers ran {ran[0]} sequences and {ran[1]} tokens for {shape.label()}",
                remedy="this version schedules otherwise than the one this was written for",
            )
        self._put_back()
        return timing

    def _put_back(self) -> None:
        scheduler, shape = self._processor.scheduler, self._shape
        for state, cached in zip(self._decoders, self._contexts, strict=True):
            self._rewind(state, self._status.DECODING, cached)
            state.tokens_to_process = state.generated_tokens = list(state.initial_tokens)
            state.remaining_prefill_tokens = []
            scheduler.active_requests[state.request_id] = state
        for state in self._prompts:
            if shape.prefill_ctx:
                self._rewind(state, self._status.PREFILLING, shape.prefill_ctx)
                scheduler.active_requests[state.request_id] = state
            else:
                scheduler.finish_request(state.request_id)
                self._rewind(state, self._status.PENDING, 0)
                scheduler.add_waiting_request(state)

    def _rewind(self, state: Any, status: Any, cached: int) -> None:
        """The request as it was before its tokens were processed; its property would also stamp a time."""
        state._status, state.position_offset = status, cached
        state.tokens_to_process, state.generated_tokens = [], []
        state.remaining_prefill_tokens = list(state.initial_tokens)


class _DeviceClock:
    """Time from its construction to :meth:`stop`: of the device's stream, or of a processor."""

    def __init__(self, device: torch.device, stream: Any) -> None:
        self._stream = stream
        self._events = (
            [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        )
        self._times = [self._mark(0)]

    def stop(self) -> None:
        self._times.append(self._mark(1))

    def seconds(self) -> float:
        """Once the device has got there."""
        if self._events:
            return self._events[0].elapsed_time(self._events[1]) / 1e3
        return self._times[1] - self._times[0]

    def _mark(self, number: int) -> float:
        if self._events:
            self._events[number].record(self._stream)
        return time.perf_counter()


def model_of(
    package: ModuleType,
    architecture: Architecture,
    weights: dict[str, torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
) -> Any:
    """The package's model of an architecture, with these very weights and an attention by the package's name.

    Raises:
        DeviceError: it has weights of other names.
    """
    config = package.AutoConfig.for_model(**to_config(architecture))
    with device:
        model = package.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    given = checkpoint(architecture, weights)
    missing, unexpected = model.load_state_dict(given, strict=False, assign=True)
    model.tie_weights()
    tied = {"lm_head.weight"} if architecture.tied_embeddings else set()
    if wrong := [*(set(missing) - tied), *unexpected]:
        raise DeviceError(
            f"transformers {package.__version__} names weights of {architecture.family} otherwise: "
            f"{', '.join(sorted(wrong)[:3])}, …"
        )
    return model.eval()


def _processor(package: ModuleType, model: Any, hints: Any, pages: int, rows: int, seqs: int) -> Any:
    """What turns its generation loop, with room for so many pages, new tokens and sequences, nothing running."""
    config = package.ContinuousBatchingConfig(
        num_blocks=pages + 1,
        page_size=PAGE,
        max_batch_tokens=rows,
        max_requests_per_batch=seqs,
        allow_block_sharing=False,
        use_async_batching=False,
        auto_switch_to_flash=False,
        safety_margin=0.0,
    )
    greedy = package.GenerationConfig(do_sample=False, eos_token_id=-1)
    processor = model.init_continuous_batching(greedy, config, hints)._create_batch_processor()
    cache = processor.cache
    cache.cache_tensor.view(model.dtype).normal_(0.0, _CACHE_STD)  # zeros would be read with less power
    if not hasattr(
        cache, "get_seq_length"
    ):  # OPT's forward pass asks, and then uses the positions it was given
        cache.get_seq_length = lambda *_: 0
    return processor


def _rounding(architecture: Architecture) -> int:
    """Pages beyond those of the shapes where two kinds of layers share the cache.

    Each kind takes whole sectors, which hold the least common multiple of both numbers of layers
    (``cache_allocators/cache_allocator.py`` of its continuous batching).
    """
    windowed = architecture.sliding_window_layers if architecture.sliding_window else 0
    sector = math.lcm(windowed, architecture.num_layers - windowed)
    return -(-2 * sector // architecture.num_layers)


def _attention(package: ModuleType, architecture: Architecture, device: torch.device) -> str:
    """What it attends with: flash attention where that is installed, as it would choose itself, else fused.

    Raises:
        DeviceError: the model's class needs flash attention, which is not there. Its continuous batching caps no scores
            otherwise: ``sdpa_attention.py`` refuses them, ``eager_paged.py`` leaves the cap away.
    """
    available = package.utils.import_utils
    if device.type == "cuda" and available.is_flash_attn_3_available():
        return "flash_attention_3"
    if device.type == "cuda" and available.is_flash_attn_2_available():
        return "flash_attention_2"
    if architecture.attention_softcap:
        raise DeviceError(
            "the continuous batching of transformers caps the scores of Gemma 2 with flash attention only, which is "
            "not there",
            remedy="install flash-attn for a CUDA device, or say --engine simslm",
        )
    return "sdpa"
