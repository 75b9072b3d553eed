"""SmartSpec: the number of proposed tokens that promises the most accepted tokens per second."""

from __future__ import annotations

from pydantic import Field

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.speculation import SpeculationView


def expected_tokens(acceptance: float, drafts: int) -> float:
    """Tokens that one sequence is expected to get from an iteration that verifies ``drafts`` proposed ones.

    ``1 + a + ... + a^k``, each token accepted with probability ``a`` if all before it were (Leviathan et al.,
    arXiv:2211.17192, equation 1; SmartSpec, arXiv:2406.14066, equation 3).

    Args:
        acceptance: ``a``, in [0, 1].
        drafts: ``k``, from 0.
    """
    return sum(acceptance**i for i in range(drafts + 1))


class SmartSpecOptions(PolicyOptions):
    initial_acceptance: float = Field(
        default=0.7, ge=0, lt=1, description="acceptance assumed before anything was verified"
    )
    prior_tokens: float = Field(
        default=20.0, ge=1, description="verified tokens that the assumption counts as much as"
    )
    half_life_tokens: float = Field(
        default=2000.0, ge=1, description="verified tokens after which what was seen counts half"
    )


@policy("speculation", "smartspec", SmartSpecOptions)
class SmartSpec:
    """As many as promise the most accepted tokens per second, none under high load (SmartSpec, arXiv:2406.14066, §4).

    Goodput of ``k`` proposed tokens is :func:`expected_tokens` over the iteration's time; the fewest of equals are
    taken. Acceptance is a moving average over what was verified, drawn towards the assumption while that is little.
    """

    def __init__(self, options: SmartSpecOptions) -> None:
        self._prior, self._weight = options.initial_acceptance, options.prior_tokens
        self._half_life = options.half_life_tokens
        self._accepted = self._verified = 0.0
        self._seen = (0, 0)

    @property
    def acceptance(self) -> float:
        """The estimate, in [0, 1]."""
        return (self._accepted + self._prior * self._weight) / (self._verified + self._weight)

    def tokens(self, view: SpeculationView) -> int:
        self._look(view.accepted, view.rejected)
        acceptance, best, most = self.acceptance, 0, 0.0
        for drafts in range(view.most_drafts + 1):
            goodput = expected_tokens(acceptance, drafts) / view.latency_s(drafts)
            if goodput > most:
                best, most = drafts, goodput
        return best

    def _look(self, accepted: int, rejected: int) -> None:
        """Takes in what was verified since the last call."""
        more = accepted - self._seen[0]
        verified = more + rejected - self._seen[1]
        self._seen = accepted, rejected
        # By tokens, not by calls: an iteration of a large batch tells more than one of a small batch.
        kept = 0.5 ** (verified / self._half_life)
        self._accepted = self._accepted * kept + more
        self._verified = self._verified * kept + verified
