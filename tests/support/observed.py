"""A simulation with its books, of a deployment that no scenario describes."""

from __future__ import annotations

from typing import Any

from simslm.metrics.books import Basis, Books, TableSink
from simslm.metrics.ledger import Priced
from simslm.metrics.programs import ProgramColumns
from simslm.metrics.result import Result, summarize
from simslm.sim.deployment import Deployment
from simslm.sim.rows import Stream
from simslm.sim.world import OnStart, run


def observe(
    requests: Any,
    deployment: Deployment,
    replicas: list[Priced],
    *,
    slo: dict[str, float | None],
    jump: bool = True,
    sink: TableSink | None = None,
    on_start: OnStart | None = None,
) -> Result:
    """Runs a workload and keeps the books, as :func:`simslm.api.simulate` does.

    Args:
        requests: the workload.
        deployment: what serves it.
        replicas: how each replica is priced.
        slo: bounds by metric name.
        jump: False steps through every iteration.
        sink: takes the tables as the run goes on; None keeps them in the result.
        on_start: called with a function that ends the simulation early.
    """
    streamed = isinstance(requests, Stream)
    programs = None if streamed else requests.programs
    basis = Basis(
        name="test",
        replicas=replicas,
        requests=None if streamed else len(requests.prompt_tokens),
        slo=slo,
        programs=ProgramColumns(programs.program_of, programs.stage, programs.parents, programs.parent_ends)
        if programs is not None and programs.described
        else None,
        gateway=deployment.gateway is not None,
        group_routing=deployment.group_router is not None,
        escalates=deployment.group_router is not None and deployment.group_router().escalates,
    )
    books = Books(basis, sink)
    taken = books if sink is not None or streamed else None
    return summarize(books, run(requests, deployment, jump=jump, sink=taken, on_start=on_start))
