"""Would Stakater's Reloader restart this workload for a Secret? For those who migrate and have its annotations.

Its order holds: what is excluded, then what is listed, then the workload as a whole. Its annotations on Secrets are not
read: a Secret that is kept fresh counts as one that `search` finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from certrenewal.domain import annotation

AUTO = "reloader.stakater.com/auto"
SECRET_AUTO = "secret.reloader.stakater.com/auto"
SEARCH = "reloader.stakater.com/search"
IGNORE = "reloader.stakater.com/ignore"
NAMED = "secret.reloader.stakater.com/reload"
EXCLUDED = "secrets.exclude.reloader.stakater.com/reload"

_OPTING_IN = (AUTO, SECRET_AUTO, SEARCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloader:
    """What the annotations of one workload tell Reloader of Secrets."""

    objection: str | None  # to any Secret that is not named
    named: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    ignored: bool = False

    def objection_to(self, secret: str) -> str | None:
        """Why the workload is not restarted for this Secret, None where it is."""
        if self.ignored:
            return f"{IGNORE} is true"
        if secret in self.excluded:
            return f"the Secret is in {EXCLUDED}"
        return None if secret in self.named else self.objection


def read_reloader(own: Mapping[str, str], template: Mapping[str, Any]) -> Reloader:
    """Read the annotations of a workload, or those of its pod template where it has none itself, as Reloader does.

    A workload with a word of ours is one that has migrated.
    """
    if annotation.RESTART in own:
        return Reloader(objection=None)
    of_pods = (template.get("metadata") or {}).get("annotations") or {}
    found = own if any(key in own for key in (*_OPTING_IN, NAMED)) else of_pods or own
    return Reloader(
        objection=_objection(found),
        named=_names(found, NAMED),
        excluded=_names(own, EXCLUDED) | _names(found, EXCLUDED),
        ignored=own.get(IGNORE) == "true",
    )


def _objection(found: Mapping[str, str]) -> str | None:
    if any(found.get(key) == "true" for key in _OPTING_IN):
        return None
    if NAMED in found:
        return f"{NAMED} does not name the Secret"
    disabled = next((key for key in _OPTING_IN if key in found), None)
    return f"{disabled} is not true" if disabled else "has no reloader.stakater.com annotation"


def _names(found: Mapping[str, str], key: str) -> frozenset[str]:
    return frozenset(name.strip() for name in found.get(key, "").split(",") if name.strip())
