"""The spec that counts: what the session sets, on top of what its class decides."""

from __future__ import annotations

from wasession_api.v1alpha1 import ClassOnly, Spec


class EffectiveSpec(Spec, ClassOnly):
    """A session's spec together with its class's values. Never written back."""
