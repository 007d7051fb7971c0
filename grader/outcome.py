"""What is known of one run of a submission; plain values, without judgement of the accuracy."""

import re
from dataclasses import dataclass, field

from grader.rules import LIBRARY_INTERNAL

CHECK = "check"  # the phase after the run, in which the answer is compared with the truth
# Functions of libraries that fetch pretrained weights: torch.hub's, and of the hub that timm uses.
_FETCHING = re.compile(r"load_state_dict_from_url|download_url_to_file|huggingface_hub|_hub\.")


@dataclass
class Phase:
    """Cost of one phase: seconds of wall clock and CPU, peak memory so far in bytes."""

    name: str
    limit: float
    wall: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    verdict: str = "running"


@dataclass(frozen=True)
class Refusal:
    """A call that the rules forbid, and who made it (grader/rules.py)."""

    phase: str
    rule: str
    call: str
    kind: str
    where: str = ""
    through: tuple[str, ...] = ()
    breach: bool = False  # makes the run a runtime error even if the submission goes on

    @property
    def wants_weights(self) -> bool:
        """Whether the call was on its way to pretrained weights."""
        return any(map(_FETCHING.search, self.through))

    def __str__(self) -> str:
        """Return one line: the phase, the rule, the call, and the submission's own line."""
        what = f"broke the rule '{self.rule}': {self.call}"
        if self.wants_weights:
            what = f"pretrained weights are missing and cannot be downloaded: refused {self.call}"
        return f"{self.phase}: {what}" + (f" ({self.where})" if self.where else "")


@dataclass(frozen=True)
class Failure:
    """Why a test failed, other than for a broken rule: one line for people, and the details."""

    phase: str
    message: str
    where: str = ""
    refusal: Refusal | None = None  # that it comes from

    def __str__(self) -> str:
        """Return one line: the phase, what happened, and the submission's own line."""
        return f"{self.phase}: {self.message}" + (f" ({self.where})" if self.where else "")


Problem = Failure | Refusal


@dataclass
class Outcome:
    """All that is known of one run of a submission."""

    layers: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    failure: Failure | None = None
    refusals: list[Refusal] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)  # what the testing system does not have
    made: list[str] = field(default_factory=list)  # by libraries, in scratch
    modules: list[str] = field(default_factory=list)  # imported from the submission's folder
    imported: list[str] = field(default_factory=list)  # packages that the submission imports
    log: str = ""  # the end of what it printed, without the traceback
    traceback: str = ""  # of a failure

    @property
    def problem(self) -> Problem | None:
        """Why the test failed; a broken rule comes before what followed from it."""
        breach = next((refusal for refusal in self.refusals if refusal.breach), None)
        return breach or (self.failure and self.failure.refusal) or self.failure

    @property
    def swallowed_refusals(self) -> list[Refusal]:
        """Refusals that the submission continued after, without those internal to libraries."""
        others = [r for r in self.refusals if r.kind != LIBRARY_INTERNAL]
        problem = self.problem
        if not isinstance(problem, Refusal):
            return others
        same = (problem.phase, problem.rule, problem.where)
        return [r for r in others if (r.phase, r.rule, r.where) != same]

    @property
    def seconds(self) -> float:
        """Wall time of the phases that the testing system goes through."""
        return sum(phase.wall for phase in self.phases)
