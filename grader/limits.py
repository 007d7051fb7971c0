"""How long each phase of a run may take, and how much memory all of it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from course.files import UserError

# Seconds, except for memory. `--limit NAME=VALUE` changes one for a run.
LIMITS: Mapping[str, float] = MappingProxyType(
    {
        "import": 120,  # `import solution`, with torch from a cold disk
        "fast_train": 15 * 60,  # the assignment's own number
        "classify": 15 * 60,  # not stated in the assignment: taken to be the same
        # The interpreter's end, after that. The testing system waits longer for a thread that
        # never ends: until its own limit.
        "exit": 120,
        "train": 4 * 3600,  # the full training of --reproduce
        # GiB of memory that the child may allocate. The testing system's limit is not known: 8 is
        # several times what training MobileNetV2 takes, and leaves a 16 GiB laptop alive.
        "memory": 8,
    }
)


def limits_with(changes: Iterable[str]) -> dict[str, float]:
    """LIMITS with changes such as "classify=60"; a UserError for an unknown name or value."""
    limits = dict(LIMITS)
    for change in changes:
        name, _, text = change.partition("=")
        if name not in limits:
            raise UserError(f"no limit {name!r}: --limit knows {', '.join(limits)}")
        try:
            limits[name] = float(text)
        except ValueError:
            limits[name] = 0.0
        if not 0 < limits[name] < float("inf"):
            raise UserError(f"--limit {change}: give a positive number, such as {name}=60")
    return limits
