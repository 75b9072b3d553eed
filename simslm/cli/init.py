"""``simslm init``: a first scenario, asked for or made of flags."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.draft import Draft
from simslm.cli.failure import InterruptError
from simslm.cli.list import CHECKOUT
from simslm.cli.simulate import directory_name
from simslm.errors import InfeasibleError, SimslmError, UsageError

T = TypeVar("T")

TRACES = Path("traces")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line states; None = ask, or take what is usual."""

    model: str | None
    device: str | None
    dtype: str | None
    arrivals: str | None
    prompt_tokens: str | None
    output_tokens: str | None
    ttft_s: float | None
    tpot_s: float | None
    attainment: float | None
    name: str | None


def init(path: Path, wishes: Wishes, force: bool, as_json: bool) -> None:
    """Asks for what is missing where stdin is a terminal, writes the scenario, and says what to do next.

    Raises:
        UsageError: the file is there already, or a wish makes no sense.
        InfeasibleError: the model does not fit on the device.
        ScenarioError: not one request of that traffic can be served.
    """
    if path.exists() and not force:
        raise UsageError("is there already", where=str(path), remedy="choose another name, or say `--force`")
    free_place(path.resolve().parent)
    draft = _draft(path, wishes, ask=not as_json and sys.stdin.isatty() and sys.stderr.isatty())
    text = draft.text()
    _write(path, text)
    if as_json:
        screen.show_json({"scenario": str(path), "text": text})
        return
    costs = draft.source or "computed on the roofline, not measured"
    print(f"{path}: {draft.model} on {draft.device}, costs {costs}")
    print()
    commands = (
        (f"simslm check {path}", "memory, KV blocks, expected load, before running"),
        (f"simslm simulate {path}", "one run: latencies, SLO, why"),
        (
            f"simslm search {path} -o runs/{directory_name(draft.name)}-search",
            "which replicas and batch limit",
        ),
    )
    screen.show_defined(("next", ""), [(line, "") for line, _ in commands], [said for _, said in commands])


def _write(path: Path, text: str) -> None:
    """The scenario, when it is one that can be run."""
    from simslm.api import load_scenario, prepare
    from simslm.cli.expectation import expectations
    from simslm.metrics.whole import write_whole

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        if not expectations(prepare(load_scenario(temporary))):
            raise InfeasibleError(
                "not one request of that traffic can be served",
                remedy="shorten the requests, or choose a model or device with more room",
            )

    write_whole(path, write)


def _draft(path: Path, wishes: Wishes, ask: bool) -> Draft:
    from simslm.catalog.devices import device_file, device_names, load_device
    from simslm.catalog.models import load_model, model_names

    asked = _Questions(ask)
    model = asked.for_("model", wishes.model, "opt-125m", _known(load_model), model_names())
    device = asked.for_("device", wishes.device, "cpu", _known(load_device), device_names())
    named = load_device(device).name
    trace, origin = _trace(path, model, named, wishes.dtype)
    dtype = wishes.dtype or origin.get("dtype") or ("fp32" if device == "cpu" else "bf16")
    slow = device == "cpu"
    arrivals = asked.for_("arrivals", wishes.arrivals, "poisson:1" if slow else "poisson:8", _arrivals)
    prompt = asked.for_("prompt tokens, MEAN or MEAN:P95", wishes.prompt_tokens, "256:768", _tokens)
    output = asked.for_("output tokens, MEAN or MEAN:P95", wishes.output_tokens, "128:350", _tokens)
    ttft = asked.for_("SLO: TTFT within, seconds", wishes.ttft_s, 1.0 if slow else 0.5, _positive)
    tpot = asked.for_("SLO: TPOT within, seconds", wishes.tpot_s, 0.1 if slow else 0.05, _positive)
    share = asked.for_("SLO: share of requests that must meet both", wishes.attainment, 0.9, _share)
    return Draft(
        file=str(path),
        name=wishes.name or f"{_plain(model)}-{named}",
        model=_from(path, model),
        device=device if device_file(device) is None else _relative(path, Path(device)),
        dtype=dtype,
        trace=trace,
        source=f"{origin['source']} on {origin['engine']}" if trace else "",
        arrivals=arrivals,
        prompt=prompt,
        output=output,
        longest=load_model(model).max_position_embeddings,
        slo={"ttft_s": ttft, "tpot_s": tpot, "attainment": share},
        replicas=(1, 2) if slow else (1, 2, 4),
        max_num_seqs=(8, 32, 64) if slow else (64, 128, 256),
        max_num_batched_tokens=512 if slow else 2048,
        sharing="time-slice" if slow else "mps",
        energy=trace is None or not origin.get("power_note"),
    )


def _trace(path: Path, model: str, device: str, dtype: str | None) -> tuple[str | None, dict[str, Any]]:
    """A trace of the model on the device, relative to the scenario's file, and where it comes from."""
    from simslm.traces.files import list_traces

    for root in (TRACES, CHECKOUT / TRACES):
        for found in list_traces(root) if root.is_dir() else ():
            origin = dict(found.provenance)
            fits = (origin.get("model"), origin.get("device")) == (model, device)
            if fits and not found.problem and dtype in (None, origin.get("dtype")):
                return _relative(path, found.path), origin
    return None, {}


def _from(path: Path, model: str) -> str:
    """A model as the scenario's file has to call it: a path starts in the file's folder."""
    from simslm.catalog.models import model_file

    return model if model_file(model) is None else _relative(path, Path(model))


def _relative(path: Path, file: Path) -> str:
    return Path(os.path.relpath(file, path.resolve().parent)).as_posix()


class _Questions:
    """Asks on stderr for what the command line does not state; takes the default where stdin is no terminal."""

    def __init__(self, ask: bool) -> None:
        self._ask = ask

    def for_(
        self,
        what: str,
        wish: Any,
        default: Any,
        read: Callable[[Any], T],
        known: tuple[str, ...] | list[str] = (),
    ) -> T:
        """The answer, asked again until it makes sense."""
        import typer

        if wish is not None or not self._ask:
            return read(default if wish is None else wish)
        if known:
            screen.note(f"  {', '.join(known)}")
        while True:
            try:
                answer = typer.prompt(what, default=default, err=True)
            except typer.Abort:
                raise InterruptError("interrupted; nothing is written") from None
            try:
                return read(answer)
            except SimslmError as error:
                screen.note(f"  {error}")


def _known(load: Callable[[str], Any]) -> Callable[[str], str]:
    """Reads a name that can be loaded."""

    def read(name: str) -> str:
        load(name)
        return name

    return read


def _plain(model: str) -> str:
    """A model's name without its path."""
    return Path(model).parent.name if model.endswith(".json") else Path(model).name


def _arrivals(text: str) -> dict[str, Any]:
    from simslm.runs.replay import arrivals
    from simslm.runs.table import ARRIVALS, ARRIVALS_FORM

    if not ARRIVALS_FORM.fullmatch(text):
        raise UsageError(f"arrivals {text!r}: expected {ARRIVALS}")
    return arrivals(text)


def _tokens(text: str) -> tuple[float, float | None]:
    try:
        figures = [float(part) for part in str(text).split(":")]
    except ValueError:
        figures = []
    if not 1 <= len(figures) <= 2 or not all(1 <= figure < 1e9 for figure in figures):
        raise UsageError(f"tokens {text!r}: expected MEAN or MEAN:P95, such as 256 or 256:768")
    return figures[0], figures[1] if len(figures) == 2 else None


def _positive(value: Any) -> float:
    number = _number(value)
    if not 0 < number < 1e9:
        raise UsageError(f"{value!r}: expected seconds above 0")
    return number


def _share(value: Any) -> float:
    number = _number(value)
    if not 0 < number <= 1:
        raise UsageError(f"{value!r}: expected a share above 0 and at most 1")
    return number


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        return -1.0
