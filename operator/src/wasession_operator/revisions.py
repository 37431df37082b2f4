"""The revisions of classes: what they decide of session pods, together with the operator."""

from __future__ import annotations

from pydantic import ValidationError
from wasession_api.v1alpha1 import Revision

from wasession_operator import objects
from wasession_operator.effective_spec import make_effective, revision_template
from wasession_operator.plan.session_class import SessionClass
from wasession_operator.settings import Settings


class Revisions:
    """Makes the revision of each class once, as long as it does not change."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, tuple[str, int, Revision]] = {}  # by class, with UID and generation

    def of(self, session_class: SessionClass) -> Revision:
        """Return what a class says now."""
        made = self._made.get(session_class.name)
        if made is None or made[:2] != (session_class.uid, session_class.generation):
            revision = make_revision(session_class, self._settings)
            made = session_class.uid, session_class.generation, revision
            self._made[session_class.name] = made
        return made[2]


def make_revision(session_class: SessionClass, settings: Settings) -> Revision:
    """Return the revision of a class: its name is the hash of a pod that its session would have.

    So it is another one whatever of the pod changes: a field of the class, a setting or a version
    of the operator. What does not concern pods changes no revision.
    """
    template = revision_template(session_class.stored, settings.session_image)
    try:
        spec = make_effective({}, session_class.name, session_class.stored)
    except ValidationError:  # its own parts do not fit each other: no session of it can start
        return Revision(name=objects.digest(template), template=template)
    name = objects.desired_hash("", "", "", spec, settings)
    return Revision(name=name, template=template)
