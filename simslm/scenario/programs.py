"""What a user writes under ``workload.programs``: how the requests of one user, agent or workflow follow each other.

An arrival then is that of a program, and ``num_requests`` and rates count programs.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from simslm.scenario.arrivals import LONGEST_S
from simslm.scenario.lengths import MOST_TOKENS, Lengths, WorkloadPart

MOST_IN_A_PROGRAM = 100_000
"""No program has more requests."""

Seconds = Annotated[float, Field(ge=0, le=LONGEST_S)]


def _fixed(value: Any) -> Any:
    """A bare number stands for the distribution that always gives it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"dist": "fixed", "value": value} if number else value


class FixedTime(WorkloadPart):
    """Always the same."""

    dist: Literal["fixed"]
    value: Seconds = Field(description="seconds")


class UniformTime(WorkloadPart):
    """Between ``low`` and ``high``."""

    dist: Literal["uniform"]
    low: Seconds = Field(description="shortest, seconds")
    high: Seconds = Field(description="longest, seconds")

    @model_validator(mode="after")
    def _bounds_ordered(self) -> UniformTime:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g})")
        return self


class ExponentialTime(WorkloadPart):
    """Exponentially distributed."""

    dist: Literal["exponential"]
    mean: float = Field(gt=0, le=LONGEST_S, description="mean, seconds")


class LognormalTime(WorkloadPart):
    """``median * exp(sigma * z)`` of a standard normal ``z``: heavy-tailed where ``sigma`` is above 1."""

    dist: Literal["lognormal"]
    median: float = Field(gt=0, le=LONGEST_S, description="half are shorter, seconds")
    sigma: float = Field(ge=0, le=5, description="standard deviation of the logarithm")
    max: float | None = Field(
        default=None, gt=0, le=LONGEST_S, description="longer ones are that long, seconds"
    )


class RecordedTime(WorkloadPart):
    """As a trace has it that says how long its answers took: from the end of an answer to the next request of its
    session, 0 where that came earlier."""

    dist: Literal["recorded"]


_Time = Annotated[FixedTime | UniformTime | ExponentialTime | LognormalTime, Field(discriminator="dist")]
Times = Annotated[_Time, BeforeValidator(_fixed, json_schema_input_type=_Time | Seconds)]
_Pause = Annotated[
    FixedTime | UniformTime | ExponentialTime | LognormalTime | RecordedTime, Field(discriminator="dist")
]
Pauses = Annotated[_Pause, BeforeValidator(_fixed, json_schema_input_type=_Pause | Seconds)]
Count = Annotated[
    Lengths,
    BeforeValidator(_fixed, json_schema_input_type=Lengths | Annotated[int, Field(ge=1, le=MOST_TOKENS)]),
]
LENGTHS = get_args(get_args(Lengths)[0])


class ProgramPart(WorkloadPart):
    """What programs of every kind may state.

    Class attributes:
        stated: the lengths that the workload has to state for them.
    """

    stated: ClassVar[tuple[str, ...]] = ("prompt_tokens", "output_tokens")

    system_prompt_tokens: int = Field(
        default=0,
        ge=0,
        le=MOST_TOKENS,
        description="text in front of every program's first prompt, the same in all",
    )
    reasoning_tokens: Count | None = Field(
        default=None,
        description="generated before each output and left out of the prompts that follow; max_tokens counts it",
    )

    @property
    def lengths(self) -> tuple[Any, ...]:
        """Every distribution of whole numbers it states."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in values if isinstance(value, LENGTHS))


class Conversation(ProgramPart):
    """Turns of a user with a model: each prompt is all that was said before, and ``prompt_tokens`` more."""

    kind: Literal["conversation"]
    turns: Count = Field(description="requests of a conversation: a number or a distribution")
    think_time_s: Times = Field(
        description="from an answer to the user's next turn: seconds or a distribution"
    )


class Agent(ProgramPart):
    """A model that calls tools: each prompt is all there was before, and what a tool returned.

    The first prompt is the task, of ``prompt_tokens``.
    """

    kind: Literal["agent"]
    calls: Count = Field(
        description="requests of an agent, one more than its tool calls: a number or a distribution"
    )
    tool_time_s: Times = Field(description="how long a tool takes: seconds or a distribution")
    tool_tokens: Count = Field(description="tokens that a tool returns: a number or a distribution")


class MapReduce(ProgramPart):
    """Requests at once, each with ``prompt_tokens`` of its own, and one that reads all their outputs."""

    kind: Literal["map-reduce"]
    width: Count = Field(description="requests at once: a number or a distribution")
    reduce_prompt_tokens: int = Field(
        default=0,
        ge=0,
        le=MOST_TOKENS,
        description="instruction in front of the outputs, the same in all programs",
    )
    reduce_output_tokens: Count | None = Field(
        default=None,
        description="output of the last request: a number or a distribution; null = output_tokens",
    )


class BestOf(ProgramPart):
    """Several answers to one prompt at once, and perhaps a judge that reads them."""

    kind: Literal["best-of"]
    n: Count = Field(description="answers to each prompt: a number or a distribution")
    judge_output_tokens: Count | None = Field(
        default=None,
        description="output of a request that reads the prompt and all answers: a number or a distribution; "
        "null = there is none",
    )


class Tree(ProgramPart):
    """A tree of thoughts: every output is gone on from by ``branching`` requests, ``depth`` times.

    Those that go on from the same output have the same prompt, of ``prompt_tokens`` more.
    """

    kind: Literal["tree"]
    depth: int = Field(ge=1, le=64, description="requests from the root to a leaf, the root not counted")
    branching: int = Field(ge=1, le=MOST_IN_A_PROGRAM, description="requests that go on from each output")

    @model_validator(mode="after")
    def _bounded(self) -> Tree:
        if (count := sum(self.branching**level for level in range(self.depth + 1))) > MOST_IN_A_PROGRAM:
            raise ValueError(
                f"such a tree has {count:.3g} requests; a program has at most {MOST_IN_A_PROGRAM:,}"
            )
        return self


class Graphs(WorkloadPart):
    """Programs from a file, which says what each request reads and waits for; again from the first when they run out.

    Class attributes:
        stated: the lengths that the workload has to state for them.
    """

    stated: ClassVar[tuple[str, ...]] = ()

    kind: Literal["graphs"]
    file: str = Field(
        min_length=1,
        description="path of a .jsonl, .json or .yaml file of programs, relative to the scenario",
    )


class Sessions(WorkloadPart):
    """The sessions of a replayed trace, whose next request is sent when the last one is answered and thought about."""

    kind: Literal["sessions"]
    think_time_s: Pauses = Field(
        description="from an answer to the session's next request: seconds or a distribution, or as recorded, "
        "where the trace says how long answers took"
    )
    history: bool = Field(
        default=False,
        description="take each prompt that is long enough to begin with its session's last prompt and answer; a trace "
        "does not say whether it does",
    )


ProgramSpec = Annotated[
    Conversation | Agent | MapReduce | BestOf | Tree | Graphs | Sessions, Field(discriminator="kind")
]


class GraphRequest(WorkloadPart):
    """A request of a program in a file."""

    id: str = Field(min_length=1, description="names it within its program")
    prompt_tokens: int = Field(
        ge=0, le=MOST_TOKENS, description="tokens of its own, behind all else in its prompt"
    )
    output_tokens: int = Field(ge=1, le=MOST_TOKENS, description="tokens it generates, reasoning not counted")
    reasoning_tokens: int = Field(
        default=0,
        ge=0,
        le=MOST_TOKENS,
        description="tokens it generates first, which no later prompt contains",
    )
    text: str | None = Field(default=None, description="one of the program's texts, in front of its prompt")
    extends: str | None = Field(
        default=None, description="request whose prompt and output its own prompt begins with"
    )
    reads: tuple[str, ...] = Field(
        default=(), description="requests whose outputs stand in its prompt, in this order"
    )
    after: tuple[str, ...] = Field(
        default=(), description="requests that have to finish before it, besides those"
    )
    delay_s: Seconds = Field(
        default=0.0, description="pause after the last of them, or after the program's start"
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> GraphRequest:
        if self.text is not None and self.extends is not None:
            raise ValueError("a prompt begins either with a text or with what extends names, not with both")
        return self


class Graph(WorkloadPart):
    """A program in a file.

    Attributes:
        texts: tokens of each text that prompts may begin with; programs that name the same text share it.
        requests: in any order.
    """

    texts: dict[str, Annotated[int, Field(ge=1, le=MOST_TOKENS)]] = Field(
        default_factory=dict, description="tokens of texts that prompts begin with, by name"
    )
    requests: tuple[GraphRequest, ...] = Field(min_length=1, max_length=MOST_IN_A_PROGRAM)
