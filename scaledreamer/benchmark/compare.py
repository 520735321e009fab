"""Two reports side by side."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One stage in two reports; None where one of them has not got it."""

    stage: str
    milliseconds: tuple[float | None, float | None]  # old, new
    peak_gib: tuple[float | None, float | None]

    @property
    def faster(self) -> float | None:
        """Old time / new time: above 1 is faster."""
        return _ratio(*self.milliseconds)

    @property
    def smaller(self) -> float | None:
        """Old peak / new peak: above 1 takes less memory."""
        return _ratio(*self.peak_gib)


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Every stage of either report, the step last."""
    stages = [*old["stages"], *(name for name in new["stages"] if name not in old["stages"])]
    stages = [name for name in stages if name != "step"] + ["step"]
    found = []
    for stage in stages:
        a, b = (report["stages"].get(stage, {}) for report in (old, new))
        times, peaks = ((a.get(key), b.get(key)) for key in ("milliseconds", "peak_gib"))
        found.append(Change(stage, milliseconds=times, peak_gib=peaks))
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What else than the code differs, a line each: settings, and overrides that only one of them has."""
    before, after = old["settings"], new["settings"]
    keys = [*before, *(key for key in after if key not in before)]
    lines = [
        f"{key}: {before.get(key, 'unknown')} -> {after.get(key, 'unknown')}"
        for key in keys
        if key != "overrides" and before.get(key, "unknown") != after.get(key, "unknown")
    ]
    given = [list(settings.get("overrides", [])) for settings in (before, after)]
    for name, mine, others in (("old", *given), ("new", *reversed(given))):
        alone = [override for override in mine if override not in others]
        if alone:
            lines.append(f"overrides of the {name} one alone: {' '.join(alone)}")
    if not lines and given[0] != given[1]:
        lines.append(f"order of the overrides: {' '.join(given[0])} -> {' '.join(given[1])}")
    return lines


def _ratio(old: float | None, new: float | None) -> float | None:
    return old / new if old is not None and new else None
