"""The roofline operator by operator: what each does, what bounds it, how long it takes (LLM-Viewer, arXiv:2402.16363).

An operator's arithmetic intensity is its operations over the bytes it moves; it reaches ``min(peak, intensity ·
bandwidth)``, and is bound by memory left of the ridge ``peak / bandwidth`` and by compute right of it (section 2.2).
Operations and bytes are counted as its authors' code does: a matrix product of ``T`` tokens does ``2 in out T``
operations, reads its weights and its input and writes its output; keys and values are written once and read by
attention.

Two accounts of attention: ``eager`` writes the scores of all pairs of tokens to memory and reads them again, as the
paper's table has it; ``flash`` visits the pairs below the diagonal and keeps scores on the chip, as the cost models of
this package have it. Beside the latter, operators also count what enters and leaves them, which the cost models leave
out (it mostly stays in caches), and element-wise operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from simslm.catalog.architecture import Architecture, element_bytes
from simslm.catalog.devices import Device
from simslm.catalog.experts import Routing
from simslm.catalog.work import IterationShape, Work, equal_prompts
from simslm.scenario.cost import Efficiency
from simslm.transforms.registry import Served, ShapeTransform, Transform, WorkTransform

NORM_OPS, SOFTMAX_OPS, ADD_OPS, ACTIVATION_OPS = 7, 5, 1, 2
"""Operations for one element, as LLM-Viewer counts them."""

Attention = Literal["flash", "eager"]

_NO_WORK = Work(*(0.0 for _ in Work._fields))


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of an iteration; figures are of one call.

    Attributes:
        name: as LLM-Viewer has it.
        calls: in one iteration; mostly one for each layer.
        flops: operations.
        weight_bytes, activation_bytes, kv_bytes: traffic.
        seconds: that a call takes.
        bound: the resource that is longest at work.
    """

    name: str
    calls: int
    flops: float
    weight_bytes: float
    activation_bytes: float
    kv_bytes: float
    seconds: float
    bound: Literal["memory", "compute"]

    @property
    def bytes(self) -> float:
        """All traffic."""
        return self.weight_bytes + self.activation_bytes + self.kv_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes

    @property
    def flops_per_s(self) -> float:
        """What it reaches."""
        return self.flops / self.seconds

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "calls": self.calls,
            "flops": self.flops,
            "bytes": self.bytes,
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
            "kv_bytes": self.kv_bytes,
            "intensity": self.intensity,
            "flops_per_s": self.flops_per_s,
            "bound": self.bound,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Counted:
    """What all calls of an operator do and move, before any transform.

    ``part`` is the component of :class:`~simslm.catalog.work.Work` that a transform changes it by; empty for none.
    """

    name: str
    calls: int
    flops: float
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0
    kv_bytes: float = 0.0
    part: str = ""


class OperatorTable:
    """The operators of a model on a device.

    Args:
        architecture, device, dtype: what is served on what.
        efficiency: which fraction of the peaks is reached; all of it by default.
        transforms: those of shape and work change operators as they change the roofline.
        attention: its account, see above.

    Attributes:
        flops_per_s, bytes_per_s: what the device reaches.

    Raises:
        UsageError: the device has no peak for the data type.
    """

    def __init__(
        self,
        architecture: Architecture,
        device: Device,
        dtype: str,
        efficiency: Efficiency | None = None,
        transforms: Sequence[Transform] = (),
        attention: Attention = "flash",
    ) -> None:
        reached = efficiency or Efficiency(compute=1, bandwidth=1)
        self.flops_per_s = device.flops_per_s(dtype) * reached.compute
        self.bytes_per_s = device.memory_bandwidth_bytes_per_s * reached.bandwidth
        self._architecture = architecture
        self._element = element_bytes(dtype)
        self._served = Served.on(architecture, dtype, device)
        self._shapes = [each for each in transforms if isinstance(each, ShapeTransform)]
        self._works = [each for each in transforms if isinstance(each, WorkTransform)]
        self._attention = attention
        self._routing = Routing(architecture.num_experts, architecture.num_experts_per_tok)

    @property
    def ridge(self) -> float:
        """The intensity from which arithmetic bounds, in operations per byte."""
        return self.flops_per_s / self.bytes_per_s

    def decode(self, seqs: int, context: float) -> list[Operator]:
        """An iteration of ``seqs`` sequences that decode, each with ``context`` tokens in its cache."""
        return self.of(IterationShape(seqs, seqs * context))

    def prefill(self, prompts: int, tokens: float, pairs: float | None = None) -> list[Operator]:
        """An iteration of whole prompts of so many tokens, each of so many (query, key) pairs, by default all."""
        shape = equal_prompts(0, 0, prompts, prompts * tokens, 0)
        return self.of(shape if pairs is None else shape._replace(prefill_pairs=prompts * pairs))

    def of(self, shape: IterationShape) -> list[Operator]:
        """The operators of an iteration that only decodes or only prefills, in the order they run."""
        for each in self._shapes:
            shape = each.shape(shape)
        return [
            self._priced(each, shape) for each in self._counted(shape) if each.flops or each.activation_bytes
        ]

    def _priced(self, each: Counted, shape: IterationShape) -> Operator:
        flops, weights, kv = each.flops, each.weight_bytes, each.kv_bytes
        if each.part:
            cache = "prefill_bytes" if shape.prefill_tokens else "decode_bytes"
            own = {f"{each.part}_bytes": weights, cache: kv, f"{each.part}_flops": flops}
            work = _NO_WORK._replace(**own)
            for change in self._works:
                work = change.work(shape, work, self._served)
            flops, kv = getattr(work, f"{each.part}_flops"), getattr(work, cache)
            weights = getattr(work, f"{each.part}_bytes") if weights else 0.0
        compute = flops / self.flops_per_s
        memory = (weights + each.activation_bytes + kv) / self.bytes_per_s
        calls = each.calls
        return Operator(
            each.name,
            calls,
            flops / calls,
            weights / calls,
            each.activation_bytes / calls,
            kv / calls,
            max(compute, memory) / calls,
            "compute" if compute > memory else "memory",
        )

    def _counted(self, shape: IterationShape) -> Iterator[Counted]:
        model, tokens = self._architecture, shape.new_tokens
        hidden, layers = model.hidden_size, model.num_layers
        norms = 1 if model.parallel_block else 4 if model.post_norms else 2
        yield self._elementwise("embedding", 1, tokens * model.embedding_size, 0)
        narrow = model.embedding_size != hidden
        if narrow:
            yield self._matrix("project_in", model.embedding_size, hidden, tokens, calls=1)
        yield self._elementwise("norm", layers * norms + model.final_norm, tokens * hidden, NORM_OPS)
        yield self._matrix("q_proj", hidden, model.query_size, tokens)
        for name in ("k_proj", "v_proj"):
            yield self._matrix(name, hidden, model.kv_size, tokens, cached=True)
        yield from self._attend(shape)
        yield self._matrix("o_proj", model.query_size, hidden, tokens)
        yield from self._mlp(tokens)
        yield self._elementwise("add", 2 * layers, tokens * hidden, ADD_OPS)
        rows = shape.decode_seqs + shape.prefill_seqs
        if narrow:
            yield self._matrix("project_out", hidden, model.embedding_size, rows, calls=1, part="head")
        yield self._matrix("lm_head", model.embedding_size, model.vocab_size, rows, calls=1, part="head")

    def _mlp(self, tokens: Any) -> Iterator[Counted]:
        """The MLP, or the router and the experts that some token chose; each token passes its own only."""
        model = self._architecture
        hidden, inner, layers = model.hidden_size, model.intermediate_size, model.num_layers
        passed = tokens * model.num_experts_per_tok
        read = 1.0
        if model.num_experts > 1:
            yield self._matrix("router", hidden, model.num_experts, tokens)
            read = float(self._routing.share(tokens)) * model.num_experts
        for name in ("gate_proj", "up_proj") if model.gated_mlp else ("up_proj",):
            yield self._matrix(name, hidden, inner, passed, copies=read)
        yield self._elementwise(
            "mlp_act", layers, passed * inner, ACTIVATION_OPS, operands=1 + model.gated_mlp
        )
        yield self._matrix("down_proj", inner, hidden, passed, copies=read)

    def _attend(self, shape: IterationShape) -> Iterator[Counted]:
        """Attention of decoding sequences, or of prompts, in one operator or in three."""
        window = self._architecture.sliding_window
        windowed = self._architecture.sliding_window_layers if window else 0
        yield from self._attend_in(self._architecture.num_layers - windowed, shape)
        if window and windowed:
            yield from self._attend_in(windowed, _within(shape, window), "window_")

    def _attend_in(self, layers: int, shape: IterationShape, prefix: str = "") -> Iterator[Counted]:
        """The same in some of the layers; of windowed ones the shape is what their windows leave."""
        if not layers:
            return
        model = self._architecture
        new = shape.decode_seqs + shape.prefill_tokens
        decodes = shape.prefill_tokens == 0
        keys = shape.decode_ctx_tokens + shape.decode_seqs if decodes else shape.prefill_ctx_tokens + new
        queries = self._element * layers * new * model.query_size
        cached = self._element * layers * keys * model.kv_size
        part = "decode" if decodes else "prefill"
        if self._attention == "flash":
            pairs = keys if decodes else shape.prefill_pairs
            flops = 4.0 * layers * pairs * model.query_size
            yield Counted(f"{prefix}attention", layers, flops, 0.0, 2 * queries, 2 * cached, part)
            return
        pairs = keys if decodes else new * keys / shape.prefill_seqs
        scores = self._element * layers * pairs * model.num_heads
        product = 2.0 * layers * pairs * model.query_size
        yield Counted(f"{prefix}qk_matmul", layers, product, 0.0, queries + scores, cached, part)
        yield Counted(f"{prefix}softmax", layers, SOFTMAX_OPS * scores / self._element, 0.0, 2 * scores)
        yield Counted(f"{prefix}sv_matmul", layers, product, 0.0, scores + queries, cached, part)

    def _matrix(
        self,
        name: str,
        width: int,
        height: int,
        tokens: Any,
        *,
        cached: bool = False,
        copies: float = 1.0,
        calls: int = 0,
        part: str = "linear",
    ) -> Counted:
        """``tokens`` rows times a matrix, of which ``copies`` are read; its output may go to the KV cache."""
        calls, element = calls or self._architecture.num_layers, self._element
        out = element * calls * tokens * height
        moved = element * calls * tokens * width + (0.0 if cached else out)
        weights = element * calls * width * height * copies
        flops = 2.0 * calls * tokens * width * height
        return Counted(name, calls, flops, weights, moved, out if cached else 0.0, part)

    def _elementwise(self, name: str, calls: int, elements: Any, ops: int, operands: int = 1) -> Counted:
        moved = self._element * calls * elements * (operands + 1)
        return Counted(name, calls, float(ops * calls * elements), 0.0, moved)


def _within(shape: IterationShape, window: int) -> IterationShape:
    """What a windowed layer sees of a shape, as :class:`~simslm.catalog.work.WorkModel` counts it."""
    seqs = shape.decode_seqs
    return shape._replace(
        decode_ctx_tokens=min(shape.decode_ctx_tokens + seqs, seqs * window) - seqs,
        prefill_ctx_tokens=min(shape.prefill_ctx_tokens, shape.prefill_seqs * window),
        prefill_pairs=min(shape.prefill_pairs, shape.prefill_tokens * window),
    )
