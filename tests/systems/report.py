# ruff: noqa: T201 (a program prints)
"""Puts the claims of published serving systems to the simulator: their ratio, ours, and why they differ.

    PYTHONPATH=tests python -m systems.report -o reports/systems.md

To add a system: write ``scenarios/systems/NAME.yaml`` on the fixed model, device and traffic (copy another's), and
``tests/systems/claims/NAME.yaml`` (its keys: :mod:`systems.claim`). While working on it,

    PYTHONPATH=tests python -m systems.report --only NAME -o /tmp/name.md

runs that claim alone. After the systems, the report has the roofline of the fixed model and device.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from systems.claim import CLAIMS, Claim, Compared, read_claims
from systems.measuring import CONFIDENCE, TOLERANCE, Measured, measured
from systems.roofline import roofline_section

from simslm.metrics.whole import write_whole
from simslm.units import number

FIXED = (
    "One model, device and traffic for the whole table; a system that needs another says so under *set up*. Mistral-7B "
    "(v0.3) in bf16 on one A100 80 GB; costs by **roofline** (0.6 of the arithmetic peak, 0.8 of the bandwidth, host "
    "0.5 ms + 30 µs a sequence): nothing here was measured by us. Chat: Poisson arrivals, prompts and outputs "
    "log-normal with the medians and 90th percentiles of openchat_sharegpt4 in Agrawal et al. (OSDI 2024, Table 2): "
    "1,730 and 5,696 tokens, 415 and 834; none above 7,168 and 1,024. Parameters of a system are those of its paper "
    "or its authors' code where those could be read; a line says which are assumed or *not verified* (FastSwitch's, "
    "XGrammar's, LUT Tensor Core's); none was fitted to its ratio. Ratios were looked up in the abstracts, but for "
    "those of Orca, vLLM and Sarathi-Serve; sections and conditions are cited as known."
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the report")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these claims alone, by the name of their file"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes that simulate")
    options = parser.parse_args()
    claims = read_claims(CLAIMS, options.only)
    print(f"simulating {len(claims)} systems and their baselines", file=sys.stderr)
    text = markdown(claims, measured(claims, options.jobs))
    if not options.only:
        text = f"{text}\n{roofline_section()}"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))
    print(options.output)
    return 0


def markdown(claims: Sequence[Claim], found: Sequence[Sequence[Measured]]) -> str:
    """The report on some claims, each with its figures."""
    pairs = list(zip(claims, found, strict=True))
    parts = [
        "# Published systems, simulated\n",
        "Written by `make systems`. Each line holds a published system against its baseline, as its paper does: the "
        "paper's ratio, and ours.\n",
        f"{FIXED}\n",
        f"Ratios say how many times better the system is (× of more, ÷ of less): geometric mean over seeds, with its "
        f"{100 * CONFIDENCE:.0f} % t interval; both sides serve the same requests. A capacity is the highest load that "
        f"meets the bounds, within {100 * TOLERANCE:.0f} %. Where hardware, model and traffic are not the paper's, "
        "the direction and the order of magnitude are what can be compared.\n",
        f"{sentence([each for figures in found for each in figures])}\n",
        _table(pairs),
    ]
    return "\n".join([*parts, *(_section(claim) for claim in claims)])


def sentence(found: Sequence[Measured]) -> str:
    """How many of the bounds hold, and which do not."""
    judged = [each for each in found if each.holds is not None]
    missed = [each for each in judged if not each.holds]
    words = f"{len(judged) - len(missed)} of {len(judged)} ratios with a bound hold it."
    if not missed:
        return words
    names = (f"{each.compared.name} ({ratio(each)}, asked for {each.compared.at_least:g})" for each in missed)
    return f"{words} Missed: {'; '.join(names)}."


def ratio(each: Measured) -> str:
    """How many times better: ``× 1.85``, or ``÷ 1.43 (−30 %)`` for what is better when it is less."""
    if each.compared.better == "high":
        return f"× {each.ratio:.2f}"
    return f"÷ {each.ratio:.2f} ({100 * (1 / each.ratio - 1):+.0f} %)".replace("-", "−")


def _table(pairs: Sequence[tuple[Claim, Sequence[Measured]]]) -> str:
    head = (
        "#",
        "system",
        "baseline",
        "figure",
        "published",
        "ours",
        "interval",
        "baseline → system",
        "bound",
    )
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for claim, figures in pairs:
        if claim.elsewhere:
            lines.append(f"| {claim.row} | {claim.system} | {claim.elsewhere} |" + " |" * (len(head) - 3))
        lines += [f"| {' | '.join(_cells(claim, each))} |" for each in figures]
    return "\n".join(lines) + "\n"


def _cells(claim: Claim, each: Measured) -> tuple[str, ...]:
    assert claim.baseline is not None
    low, high = each.bounds
    least = each.compared.at_least
    means = (sum(side) / len(side) for side in (each.baseline, each.system))
    bound = "" if least is None else f"≥ {least:g}{'' if each.holds else ' **missed**'}"
    return (
        str(claim.row),
        claim.system,
        claim.baseline.name,
        each.compared.name,
        each.compared.published,
        ratio(each),
        f"{low:.2f} to {high:.2f}",
        " → ".join(number(mean) for mean in means),
        bound,
    )


def _section(claim: Claim) -> str:
    parts = [f"## {claim.row} {claim.system}\n", f"{claim.source}. {claim.mechanism}\n"]
    if claim.elsewhere:
        return "\n".join([*parts, f"Shown in {claim.elsewhere}.\n"])
    assert claim.baseline is not None
    taken: dict[str, list[str]] = {}
    for each in claim.figures:
        taken.setdefault(_where(each), []).append(each.name)
    lines = [
        f"- Theirs: {claim.conditions}",
        f"- Ours: `simslm simulate scenarios/systems/{claim.scenario}`"
        + (f"; set up: {claim.setup}" if claim.setup else "")
        + f". Baseline, {claim.baseline.name}: {_changes(claim.baseline.set)}.",
        *(f"- {'; '.join(names)}: {where}." for where, names in taken.items()),
        f"- Why they differ: {claim.reason}",
    ]
    return "\n".join([*parts, *lines, ""])


def _where(each: Compared) -> str:
    """At which load, and what a capacity is; the name says the rest."""
    words = [_changes(each.set)] if each.set else []
    if each.capacity is not None:
        bounds = " and ".join(f"`{bound}`" for bound in each.within) or "the SLO met"
        words.append(f"highest `{each.capacity}` with {bounds}")
    return ", ".join(words) or "at the load of the scenario"


def _changes(changed: dict[str, Any]) -> str:
    """What is set, as it is typed."""
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in changed.items()}
    words = [shlex.quote(f"{key}={value}") for key, value in values.items()]
    return f"`{' '.join(f'--set {word}' for word in words)}`"


if __name__ == "__main__":
    sys.exit(main())
