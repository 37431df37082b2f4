"""The Secret with the token of the session's pod: applied, but never read."""

from __future__ import annotations

from datetime import timedelta

from wasession_api import names
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import RequestStatus

from wasession_operator.objects import Restore
from wasession_operator.plan.actions import RefreshToken
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import annotations_of, since
from wasession_operator.plan.results import BootstrapResult, Step, TokenResult, attempt

REAPPLY_AFTER = timedelta(minutes=1)  # by then kubelet has updated the mounted Secret


def plan_token(session: Session, facts: Facts, bootstrap: BootstrapResult) -> TokenResult:
    """Raise the epoch once for each requested rotation.

    The status is written before the Secret is applied: another replica neither forgets the request
    nor fulfils it twice. It is done when the pod's annotation has the new token's ID.
    """
    epoch, rotation = session.status.token_epoch, session.status.token_rotation
    request = session.annotations.get(names.ANNOTATION_ROTATE_TOKEN)
    if request is not None and (rotation is None or rotation.request != request):
        epoch += 1
        rotation = RequestStatus(request=request, at=facts.now.replace(microsecond=0))
    token_id = facts.token_ids[epoch - session.status.token_epoch]
    if rotation is not None and not rotation.done and _token_of(facts.pod) == token_id:
        rotation = rotation.model_copy(update={"done": True})
    archive = bootstrap.restore.key if isinstance(bootstrap.restore, Restore) else None
    return TokenResult(epoch, token_id, rotation, archive)


def create_with_secret(create: Step, facts: Facts, token: TokenResult) -> Step:
    """Apply the Secret before the pod is created, and not without creating one."""
    if not create.actions:
        return create
    secret = attempt(token.apply, facts)
    return secret + (create if secret.actions else Step(problems=create.problems))


def refresh_secret(facts: Facts, pod: Manifest, token: TokenResult, *, starting: bool) -> Step:
    """Apply the Secret again for a pod that may not have its present content.

    That is a pod with an earlier token, one that does not accept the session's token, or one that
    does not start, perhaps because the Secret was deleted. All others cost no request.
    """
    applied = facts.secret_applied
    if _token_of(pod) != token.id:
        refresh = attempt(RefreshToken(token.id), facts)
        if applied is not None and applied.token_id == token.id:
            return refresh
        apply = attempt(token.apply, facts)
        return apply + refresh if apply.actions else apply
    if not facts.unauthorized and not starting:
        return Step()
    wait = timedelta(0)
    if applied is not None:
        # Until a node has the pod, nothing mounts the Secret.
        mounting = applied.at if facts.unauthorized else max(applied.at, since(pod, "PodScheduled"))
        wait = mounting + REAPPLY_AFTER - facts.now
    if wait > timedelta(0):
        return Step(requeue_after=wait)
    return attempt(token.apply, facts) + Step(requeue_after=REAPPLY_AFTER)


def _token_of(pod: Manifest | None) -> str | None:
    return annotations_of(pod).get(names.ANNOTATION_TOKEN_ID) if pod is not None else None
