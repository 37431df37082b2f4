"""Rollouts of classes: what to show of them, and what to change to pause or undo one. Pure."""

from __future__ import annotations

import json
from datetime import datetime

from wasession_api.kube.manifests import Manifest
from wasession_api.names import ANNOTATION_RESUME_ROLLOUT
from wasession_api.v1alpha1 import (
    REVISION_FIELDS,
    ClassStatus,
    Revision,
    RolloutPhase,
    RolloutStatus,
)

from wasession_cli.exits import Failure
from wasession_cli.formatting import since


def rollouts_of(session_class: Manifest) -> list[RolloutStatus]:
    """Return how far the rollouts of a class are, by operator; raise ``Failure`` without any."""
    if (session_class.get("spec") or {}).get("rollout") is None:
        name = session_class["metadata"]["name"]
        raise Failure(
            f"class {name} has no spec.rollout: its sessions are updated one after another",
            "docs/rollouts.md shows how to set one",
        )
    return ClassStatus.model_validate(session_class.get("status") or {}).rollouts


def overview(session_class: Manifest, now: datetime) -> list[tuple[str, str]]:
    """Return a summary of the rollouts of a class as labels and values."""
    name = session_class["metadata"]["name"]
    lines = [("Class", name)]
    for rollout in rollouts_of(session_class):
        previous = rollout.previous.name if rollout.previous is not None else "none"
        lines += [
            ("Operator", rollout.operator),
            ("Phase", f"{rollout.phase}, for {since(rollout.since, now)}"),
            ("Revision", rollout.revision),
            ("Stable", f"{rollout.stable.name}, before it: {previous}"),
            ("Sessions", f"{rollout.updated} of {rollout.total} updated, {rollout.ready} Ready"),
        ]
        if rollout.message:
            lines.append(("Message", rollout.message))
        if rollout.halted is not None:
            lines.append(("Halted by", f"{rollout.halted.session}: {rollout.halted.message}"))
        lines.append(("What to do", _next_step(name, rollout)))
    if len(lines) == 1:
        lines.append(("Rollout", "none yet: no session uses the class"))
    return lines


def _next_step(name: str, rollout: RolloutStatus) -> str:
    match rollout.phase:
        case RolloutPhase.HALTED:
            return (
                f"kubectl wasession rollout undo {name}, or correct the class; "
                f"if it is not the change's fault: kubectl wasession rollout resume {name}"
            )
        case RolloutPhase.PAUSED:
            return f"kubectl wasession rollout resume {name}"
        case _:
            return "nothing"


def resume_patch(session_class: Manifest) -> Manifest:
    """Return a merge patch that lets a paused or halted rollout go on."""
    halts = [rollout.halted for rollout in rollouts_of(session_class) if rollout.halted is not None]
    patch: Manifest = {}
    if session_class["spec"]["rollout"].get("paused"):
        patch["spec"] = {"rollout": {"paused": False}}
    if halts:
        patch["metadata"] = {"annotations": {ANNOTATION_RESUME_ROLLOUT: halts[0].id}}
    if not patch:
        name = session_class["metadata"]["name"]
        raise Failure(f"the rollout of class {name} is neither paused nor halted")
    return patch


def undone(session_class: Manifest) -> tuple[Manifest, str]:
    """Return the class with the fields of its earlier revision, and that one's name."""
    name = session_class["metadata"]["name"]
    rollouts = rollouts_of(session_class)
    earlier = {revision.name: revision for rollout in rollouts if (revision := _earlier(rollout))}
    if not earlier:
        raise Failure(f"no earlier revision of class {name} is known")
    if len(earlier) > 1:
        raise Failure(
            f"the operators of class {name} know different earlier revisions",
            "edit the class instead",
        )
    [revision] = earlier.values()
    try:
        decided = json.loads(revision.template or "")
        spec = {
            field: value for field, value in session_class["spec"].items()
            if field not in REVISION_FIELDS
        }  # fmt: skip
        spec |= {field: decided[field] for field in REVISION_FIELDS & decided.keys()}
    except (ValueError, AttributeError):
        raise Failure(
            f"what the status of class {name} says of {revision.name} is no template"
        ) from None
    return {**session_class, "spec": spec}, revision.name


def _earlier(rollout: RolloutStatus) -> Revision | None:
    if rollout.revision != rollout.stable.name:
        return rollout.stable
    return rollout.previous
