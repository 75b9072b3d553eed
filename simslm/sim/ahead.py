"""Which groups serve each request, where that does not depend on what their replicas do."""

from __future__ import annotations

import numpy as np

from simslm.policies.group_routing import GroupAnswer
from simslm.sim.deployment import Deployment
from simslm.sim.group_routing import GroupChoice, GroupView
from simslm.sim.rows import RequestRows, Requests
from simslm.sim.state.sequence import Sequence as InFlight


class _Nothing:
    """A group before anything happens."""

    serving = ()


def served_by(requests: Requests, deployment: Deployment) -> np.ndarray | None:
    """Whether each group serves each request, also before another or after, shape ``(groups, requests)``.

    A request that no group can serve is counted with the first to which requests may go.

    Returns:
        None where a policy looks at what the groups do.
    """
    count = len(requests.prompt_tokens)
    found = np.zeros((len(deployment.groups), count), dtype=bool)
    if deployment.group_router is None:
        found[0] = True
        return found
    policy = deployment.group_router()
    if policy.looks_at_groups:
        return None
    rows = RequestRows(count)
    groups = deployment.groups
    views = [
        GroupView(number, groups[number].name, groups[number].share, _Nothing())
        for number in deployment.open_groups
    ]
    choice = GroupChoice(policy, views, rows)
    masks = np.stack([deployment.servable(requests, number) for number in deployment.open_groups])
    rows.able = choice.sets(masks).tolist()
    able = masks.any(axis=0)
    found[deployment.open_groups[0], ~able] = True
    programs = requests.programs if requests.programs is not None and requests.programs.described else None
    columns = (requests.prompt_tokens, requests.max_tokens, requests.output_tokens)
    prompts, limits, outputs = (column.tolist() for column in columns)
    for row in np.flatnonzero(able).tolist():
        request = InFlight(row, 0.0, prompts[row], limits[row], row)
        if programs is not None:
            request.program = int(programs.program_of[row])
        tried: list[int] = []
        group: int | None = choice.choose(request)
        while group is not None:
            found[group, row] = True
            tried.append(group)
            judged = group in choice.judged
            answer = GroupAnswer(group, outputs[row], 0.0)
            group = choice.escalate(request, answer, tried) if judged else None
    return found
