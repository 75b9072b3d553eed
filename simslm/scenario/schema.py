"""What a user writes: the scenario, as pydantic models with units and limits on every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, model_validator

import simslm.policies  # noqa: F401  (fills the register the policy choices are made of)
from simslm.policies.registry import choices
from simslm.scenario.cost import Cost
from simslm.scenario.workload import Workload

Dtype = Literal["fp32", "bf16", "fp16"]

Batching = choices("batching")
Routing = choices("routing")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Engine(Section):
    """One replica's limits; the options of vLLM keep vLLM's names."""

    batching: Batching = Field(  # type: ignore[valid-type]
        default_factory=lambda: _choice(Batching, "chunked-prefill"),
        description="who runs in the next iteration; `simslm list policies` shows the choice",
    )
    max_num_seqs: int = Field(default=256, ge=1, description="most sequences that run at once")
    max_num_batched_tokens: int = Field(default=2048, ge=1, description="most tokens of one iteration")
    block_size: int = Field(default=16, ge=1, le=4096, description="tokens in one KV block")
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="share of the device's memory, divided by its replicas"
    )
    num_gpu_blocks: int | None = Field(
        default=None,
        ge=1,
        description="KV blocks per replica; null = computed from weights, activations and memory",
    )
    watermark: float = Field(
        default=0.01, ge=0, lt=1, description="share of the KV blocks kept free when admitting (vLLM: 0.01)"
    )
    preemption: Literal["recompute"] = Field(
        default="recompute", description="what becomes of a sequence whose blocks others need"
    )

    @model_validator(mode="after")
    def _budget_holds_batch(self) -> Engine:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}): every running sequence decodes one token an iteration"
            )
        return self


class Deployment(Section):
    """Which replicas serve, and how requests reach them."""

    num_devices: int = Field(default=1, ge=1, description="devices, each with its own replicas")
    replicas_per_device: Literal[1] = Field(default=1, description="replicas on each device")
    sharing: Literal["none"] = Field(default="none", description="how replicas share a device")
    tensor_parallel_size: Literal[1] = Field(default=1, description="devices one replica spans")
    router: Routing = Field(  # type: ignore[valid-type]
        default_factory=lambda: _choice(Routing, "round-robin"),
        description="which replica an arriving request goes to",
    )
    engine: Engine = Field(default_factory=Engine, description="limits of each replica")


class Slo(Section):
    """Bounds a request must meet, each optional; a request with one output token meets ``tpot_s``."""

    ttft_s: float | None = Field(default=None, gt=0, description="longest time to first token, s")
    tpot_s: float | None = Field(default=None, gt=0, description="longest time per output token, s")
    e2e_s: float | None = Field(default=None, gt=0, description="longest time to the last token, s")
    attainment: float = Field(
        default=0.9, gt=0, le=1, description="share of requests that must meet all bounds"
    )

    @model_validator(mode="after")
    def _some_bound(self) -> Slo:
        if self.ttft_s is None and self.tpot_s is None and self.e2e_s is None:
            raise ValueError("an SLO states at least one of ttft_s, tpot_s, e2e_s")
        return self

    def bounds(self) -> dict[str, float | None]:
        """The bound on each metric, None where there is none."""
        return {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}


class Scenario(Section):
    """A whole question: which model, on what, serving which traffic, how."""

    schema_version: Literal[1] = Field(default=1, description="version of this format")
    name: str = Field(
        default="scenario", min_length=1, max_length=200, description="names the run's directory"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="every random stream is derived from it")
    model: str | dict[str, Any] = Field(
        description="catalogue name, path of a Hugging Face config.json, or an inline architecture"
    )
    device: str | dict[str, Any] = Field(description="catalogue name or an inline device")
    dtype: Dtype = Field(default="bf16", description="data type of weights and KV cache")
    max_model_len: int | None = Field(
        default=None, ge=2, description="longest prompt + output; null = the model's own"
    )
    cost: Cost = Field(description="where latencies and energies come from")
    workload: Workload = Field(description="what arrives, and when")
    deployment: Deployment = Field(default_factory=Deployment)
    slo: Slo | None = Field(default=None, description="what a good answer is")
    _base_dir: Path = PrivateAttr(default=Path("."))

    @property
    def base_dir(self) -> Path:
        """Where relative paths in the scenario start: the folder of its file."""
        return self._base_dir

    def based_in(self, directory: Path) -> Scenario:
        """The same scenario with its relative paths starting in ``directory``."""
        copy = self.model_copy()
        copy._base_dir = directory
        return copy


def _choice(kind: Any, name: str) -> Any:
    """The choice of a policy by its name alone."""
    return TypeAdapter(kind).validate_python({"policy": name})
