"""Speculative decoding as a user states it, under vLLM's names where it has them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from simslm.policies.registry import choice, chosen
from simslm.scenario.cost import Cost, RooflineOptions

if TYPE_CHECKING:
    Policy = Any
else:
    Policy = chosen("speculation")
Rate = Annotated[float, Field(ge=0, lt=1)]


class Speculative(BaseModel):
    """A draft proposes tokens, and the model verifies all of them in one iteration.

    Iterations with prompts verify nothing. A draft model prefills every prompt too, and takes one decode iteration
    for each token it proposes; while it proposes none it costs nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str | dict[str, Any] | None = Field(
        default=None,
        description="the draft: a model; null = n-grams looked up in the prompt, which take no time",
    )
    cost: Cost = Field(
        default_factory=lambda: Cost(roofline=RooflineOptions()),
        description="what an iteration of the draft model takes",
    )
    num_speculative_tokens: int = Field(ge=1, le=64, description="most tokens proposed for a sequence")
    policy: Policy = Field(
        default_factory=partial(choice, "speculation", "fixed"),
        description="how many are proposed; `simslm list policies` shows the choice",
    )
    acceptance_rate: Rate | dict[str, Rate] = Field(
        description="probability that a proposed token is right if all before it are; by class where there are classes"
    )
