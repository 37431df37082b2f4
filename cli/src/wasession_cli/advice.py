"""What a user should do next, from a session's status: docs/status.md in a sentence each. Pure."""

from __future__ import annotations

from wasession_api.v1alpha1 import BackupReason, BackupStatus, ConditionType, Phase, Reason, Status

BY_REASON: dict[str, str] = {
    Reason.ACCOUNT_BANNED: "WhatsApp has banned the account: contact WhatsApp's support.",
    Reason.ACCOUNT_BLOCKED: "WhatsApp has blocked the account: contact WhatsApp's support.",
    Reason.ACCOUNT_LOCKED: "WhatsApp has locked the account: unlock it on the phone.",
    Reason.ACCOUNT_SHARED: (
        "Another session has a login of the same account. If its volume is a copy, suspend one."
    ),
    Reason.BACKUP_NOT_COMPLETED: (
        "See how far it is: kubectl wasession backups. If it has failed, name another one in "
        "spec.bootstrap: kubectl edit wasession {name}"
    ),
    Reason.BACKUP_NOT_FOUND: (
        "Name one of kubectl wasession backups in spec.bootstrap: kubectl edit wasession {name}"
    ),
    Reason.BACKUP_SOURCE_NOT_FENCED: (
        "Make sure that the session in the message runs nowhere any more, in no cluster; then set "
        "spec.bootstrap.fenced to true: kubectl edit wasession {name}"
    ),
    Reason.BACKUP_SOURCE_RUNNING: (
        "Suspend or delete the session in the message: kubectl wasession suspend SESSION"
    ),
    Reason.BOOTSTRAP_FAILED: (
        "The message says why, and it is tried again. Check the Secret wasession-backup-identity, "
        "and egress to the store: egress of the WhatsAppSessionClass."
    ),
    Reason.BOOTSTRAP_SKIPPED: (
        "The volume was not empty and is unchanged. To restore the backup, use a session without "
        "a volume."
    ),
    Reason.BROWSER_CRASHED: "If this happens often, raise spec.browser.resources.limits.memory.",
    Reason.BROWSER_FAILED: (
        "The message says why Chromium fails: check spec.browser and the pod's security context."
    ),
    Reason.BROWSER_HUNG: "If this happens often, raise CPU or memory: spec.browser.resources.",
    Reason.CA_BUNDLE_CHANGED: "Apply the new CA bundle: kubectl wasession restart {name}",
    Reason.CA_BUNDLE_INVALID: (
        "Correct the ConfigMap of the CA bundle: caBundle of the WhatsAppSessionClass."
    ),
    Reason.CERTIFICATE_UNTRUSTED: (
        "If a company's proxy or firewall intercepts TLS, add its CA to the bundle: "
        "caBundle of the WhatsAppSessionClass."
    ),
    Reason.CLASS_NOT_ALLOWED: (
        "Choose another class with spec.className (kubectl wasession classes), or have the "
        "platform team allow this namespace: allowedNamespaces of the class."
    ),
    Reason.CLASS_NOT_FOUND: (
        "Choose a class that exists with spec.className (kubectl wasession classes), or have the "
        "platform team create it, or annotate a default: wasession.dev/is-default-class=true."
    ),
    Reason.CLIENT_ID_SHARED: (
        "Another session has the same clientId: delete one of them, or change its clientId."
    ),
    Reason.CRASH_LOOP_BACK_OFF: "Read why it exits: kubectl wasession logs {name} --previous",
    Reason.CREATE_CONTAINER_CONFIG_ERROR: (
        "The message names what is missing, such as the Secret in spec.browser.proxySecretRef."
    ),
    Reason.CREATE_CONTAINER_ERROR: "See the pod's Events: kubectl describe pod {pod}",
    Reason.DOCUMENT_INVALID: (
        "The message says what is wrong: correct the ConfigMap, or whatsappDocument of the "
        "WhatsAppSessionClass."
    ),
    Reason.DOCUMENT_OUTDATED: (
        "Pin a newer document, or remove whatsappDocument from the WhatsAppSessionClass."
    ),
    Reason.DEVICE_STILL_LINKED: "Unlink the device on the phone.",
    Reason.IMAGE_PULL_BACK_OFF: (
        "Check image and podTemplate.spec.imagePullSecrets of the WhatsAppSessionClass."
    ),
    Reason.INITIALIZATION_TIMEOUT: (
        "Raise spec.timeouts.initialization, or the CPU in spec.browser.resources."
    ),
    Reason.INVALID_CLASS: (
        "The platform team has to correct the class: kubectl wasession classes -o yaml"
    ),
    Reason.INVALID_SPEC: "Correct the spec: kubectl edit wasession {name}",
    Reason.LIMIT_EXCEEDED: (
        "Stay below the limit of the class that the message names, or have the platform team "
        "raise it."
    ),
    Reason.LOGIN_MISSING: (
        "The volume has lost its login: restore it, or link the phone: kubectl wasession qr {name}"
    ),
    Reason.LOGIN_NOT_WRITTEN: (
        "A restart would lose the login: check the volume's storage, or use another image: "
        "image of the WhatsAppSessionClass."
    ),
    Reason.LOGIN_MOVED: (
        "Use the session in the message, and delete this one. To use the login here again, delete "
        "that session and its volume."
    ),
    Reason.LOGIN_IN_USE_ELSEWHERE: (
        "Another browser has this login: stop it for good, then: kubectl wasession restart {name}"
    ),
    Reason.LOGOUT_FAILED: "The logout failed: unlink the device on the phone.",
    Reason.MEMORY_LOW: "Raise spec.browser.resources.limits.memory.",
    Reason.MESSAGES_NOT_HEARD: (
        "WhatsApp Web has changed incompatibly: use a newer wa-js (waJS of the "
        "WhatsAppSessionClass), or upgrade wasession."
    ),
    Reason.EVENTS_NOT_STORED: "Check the volume; if it is full: spec.storage.size.",
    Reason.NAME_CONFLICT: (
        "Another object has the name of one of the session's objects: rename one of them."
    ),
    Reason.NETWORK_POLICY_FAILED: (
        "The message says why the namespace's NetworkPolicy cannot be applied: no pod starts "
        "without it."
    ),
    Reason.NODE_LOST: (
        "Bring the node back. If it is permanently down, "
        "taint it node.kubernetes.io/out-of-service or delete it."
    ),
    Reason.OOM_KILLED: "Raise spec.browser.resources.limits.memory.",
    Reason.OUTBOX_FULL: "Read events more often: GET /v1/events.",
    Reason.OVERRIDE_NOT_ALLOWED: (
        "Remove the field that the message names (kubectl edit wasession {name}), or have the "
        "platform team add it to the overrides of the class."
    ),
    Reason.PAGE_CRASHED: "If this happens often, raise spec.browser.resources.limits.memory.",
    Reason.PAGE_HUNG: "If this happens often, raise CPU or memory: spec.browser.resources.",
    Reason.PAGE_INCOMPATIBLE: (
        "WhatsApp Web has changed incompatibly: use a newer wa-js (waJS of the "
        "WhatsAppSessionClass), or upgrade wasession."
    ),
    Reason.PAGE_RELOADING: "See the pod's log: kubectl wasession logs {name}; then restart it.",
    Reason.PAIRING_EXPIRED: "Link a phone: kubectl wasession qr {name}",
    Reason.PHONE_OFFLINE: (
        "Connect the phone: WhatsApp logs the session out after 14 days without it."
    ),
    Reason.POD_CREATE_FAILED: (
        "The message says why the API server rejects the pod: quota, admission, or podTemplate of "
        "the WhatsAppSessionClass."
    ),
    Reason.POD_DELETE_FAILED: "The message says why the API server rejects the pod's deletion.",
    Reason.POD_FAILED: (
        "It will be replaced. Read why it failed: kubectl wasession logs {name} --previous"
    ),
    Reason.POD_NOT_READY: "See the pod's Events: kubectl describe pod {pod}",
    Reason.POD_UNREACHABLE: (
        "The operator cannot reach the pod: check the NetworkPolicies for its port 8080."
    ),
    Reason.POD_UPDATE_FAILED: ("The message says why the API server rejects a change of the pod."),
    Reason.PROFILE_DAMAGED: (
        "The last good copy is in use. If that does not help: kubectl wasession qr {name}"
    ),
    Reason.PROXY_BLOCKED: (
        "WhatsApp blocks this network: use another proxy, spec.browser.proxySecretRef."
    ),
    Reason.PROXY_CHANGED: "Apply the proxy's new Secret: kubectl wasession restart {name}",
    Reason.PROXY_INVALID: "Correct the Secret that spec.browser.proxySecretRef names.",
    Reason.PROXY_FAILED: "Check the proxy and its Secret: spec.browser.proxySecretRef.",
    Reason.PVC_CREATE_FAILED: (
        "The message says why the API server rejects the PVC: quota or spec.storage."
    ),
    Reason.PVC_DELETE_FAILED: "The message says why the API server rejects the PVC's deletion.",
    Reason.PVC_EXPAND_FAILED: (
        "Allow the expansion of its StorageClass (allowVolumeExpansion), "
        "or set spec.storage.size back to the volume's capacity."
    ),
    Reason.PVC_UPDATE_FAILED: "The message says why the API server rejects a change of the PVC.",
    Reason.RESTORATION_FAILED: (
        "WhatsApp did not accept the stored login. Link the phone: kubectl wasession qr {name}"
    ),
    Reason.ROLLOUT_HALTED: (
        "Link the phone (kubectl wasession qr {name}), revert the change of the template, "
        "or accept the update with the command in the message."
    ),
    Reason.RUN_CONTAINER_ERROR: "See the pod's Events: kubectl describe pod {pod}",
    Reason.SANDBOX_UNAVAILABLE: (
        "Allow user namespaces on the node and in the seccomp profile, "
        "or set spec.browser.sandbox to Auto."
    ),
    Reason.SECRET_UPDATE_FAILED: (
        "The message says why the API server rejects the session's Secret: quota or admission."
    ),
    Reason.SESSION_UPDATE_FAILED: (
        "The message says why the API server rejects a change of the session's finalizers."
    ),
    Reason.UNSCHEDULABLE: "See why no node fits the pod: kubectl describe pod {pod}",
    Reason.UPDATE_REFUSED: (
        "The message says why the API server rejects the next pod: admission, or podTemplate of "
        "the WhatsAppSessionClass."
    ),
    Reason.VERSION_REFUSED: (
        "WhatsApp requires a newer version of its page. If one is pinned, remove whatsappDocument "
        "from the WhatsAppSessionClass. Then: kubectl wasession restart {name}"
    ),
    Reason.VOLUME_FULL: "Expand the volume: spec.storage.size.",
    Reason.VOLUME_IN_USE: (
        "Another process uses the volume. If this persists, look for another pod that mounts it."
    ),
    Reason.VOLUME_LOST: (
        "Restore the PVC {pvc}, or accept its loss with the command in the message."
    ),
    Reason.VOLUME_LOW: "Expand the volume: spec.storage.size.",
    Reason.VOLUME_MISSING: (
        "Restore the PVC that the message names, "
        "or remove the annotation wasession.dev/expects-login."
    ),
    Reason.VOLUME_OF_ANOTHER_SESSION: (
        "The volume holds another session's login: restore the right one."
    ),
    Reason.VOLUME_PENDING: "See why the volume is not bound: kubectl describe pvc {pvc}",
    Reason.VOLUME_NOT_ACCESSIBLE: (
        "The volume's files belong to another user ID: run the pod as that one, "
        "or set fsGroupChangePolicy to Always."
    ),
    Reason.VOLUME_READ_ONLY: (
        "The volume is not writable: check the storage, often the file system is damaged."
    ),
    Reason.VOLUME_TERMINATING: (
        "The claim is being deleted: copy the volume now, then delete the session."
    ),
    Reason.WHATSAPP_UNREACHABLE: (
        "WhatsApp Web is unreachable: check network, DNS, NetworkPolicies and proxy."
    ),
    Reason.DELIVERY_NOT_ACCEPTED: (
        "The message says why; if the session image knows no webhooks and sinks: image of the "
        "WhatsAppSessionClass."
    ),
    Reason.DELIVERY_FAILING: "See what fails: kubectl wasession deliveries {name}",
    Reason.DELIVERY_GONE: (
        "Change the URL, or: kubectl wasession deliveries {name} WEBHOOK --resume"
    ),
    Reason.WA_JS_INVALID: (
        "The message says what is wrong: correct the ConfigMap, or waJS of the "
        "WhatsAppSessionClass."
    ),
}
BY_PHASE: dict[Phase, str] = {
    Phase.READY: (
        "Nothing, it is ready. Send a message: kubectl wasession send {name} PHONE-NUMBER TEXT"
    ),
    Phase.AUTHENTICATING: "Link a phone: kubectl wasession qr {name}",
    Phase.LOGGED_OUT: "Link a phone again: kubectl wasession qr {name}",
    Phase.PASSKEY_REQUIRED: (
        "Confirm the passkey on the phone; kubectl wasession qr {name} waits for it."
    ),
    Phase.CONFLICT: (
        "Close WhatsApp Web there, or let the session take over: spec.whatsapp.takeover."
    ),
    Phase.SUSPENDED: "Start it again: kubectl wasession resume {name}",
    Phase.HIBERNATED: (
        "Nothing: a request through the gateway wakes it. Or wake it now: "
        "kubectl wasession wake {name}"
    ),
    Phase.TERMINATING: "Nothing, it is being deleted.",
    Phase.FAILED: (
        "Read its log, then restart it: kubectl wasession logs {name}; "
        "kubectl wasession restart {name}"
    ),
}
BY_BACKUP_REASON: dict[str, str] = {
    BackupReason.SESSION_NOT_FOUND: "Create the session, or delete the backup.",
    BackupReason.SESSION_NOT_RUNNING: (
        "See why the session does not run: kubectl wasession status {session}"
    ),
    BackupReason.NO_LOGIN: "See the session's login: kubectl wasession status {session}",
    BackupReason.STORE_NOT_CONFIGURED: (
        "The platform team has to set a store: backups.store in the chart's values."
    ),
    BackupReason.STORE_UNAVAILABLE: (
        "The platform team has to check the store, its credentials and the operator's egress."
    ),
    BackupReason.RECIPIENTS_MISSING: (
        "The platform team has to set recipients: backupPolicy of the WhatsAppSessionClass."
    ),
    BackupReason.IMAGE_TOO_OLD: (
        "The platform team has to upgrade the session image: image of the WhatsAppSessionClass."
    ),
    BackupReason.UPLOAD_FAILED: (
        "Check egress to the store (egress of the WhatsAppSessionClass), then make another backup."
    ),
    BackupReason.DEADLINE_EXCEEDED: (
        "See the session's state (kubectl wasession status {session}), then make another backup."
    ),
    BackupReason.CLASS_NOT_FOUND: "See its class: kubectl wasession status {session}",
    BackupReason.VOLUME_NOT_BOUND: "See the session's volume: kubectl wasession status {session}",
    BackupReason.SNAPSHOTS_NOT_SUPPORTED: (
        "The platform team has to install a CSI driver that takes VolumeSnapshots, or use "
        "--method Archive."
    ),
    BackupReason.SNAPSHOTS_FORBIDDEN: (
        "The platform team has to set backups.snapshots.enabled of the chart; the backup waits."
    ),
    BackupReason.SNAPSHOT_FAILED: "The platform team has to check the CSI driver.",
    BackupReason.SNAPSHOT_MISSING: "Make another backup: kubectl wasession backup {session}",
    BackupReason.ARCHIVE_MISSING: (
        "The archive has to be in the store: check spec.key, or use another backup."
    ),
    BackupReason.ARCHIVE_INVALID: "Use another backup: kubectl wasession backups {session}",
    BackupReason.NOT_EXPORTED: (
        "Somebody who may change backups in that namespace has to run the command in the message."
    ),
    BackupReason.SOURCE_NOT_COMPLETED: "If that backup has failed, import another one.",
    BackupReason.SOURCE_NOT_SERVED: (
        "The platform team has to let the operator serve that namespace (watchNamespaces), or copy "
        "the archive by hand."
    ),
}
UPDATE_PENDING = (
    "Its pod template has changed. To apply it before the next start: "
    "kubectl wasession restart {name}"
)
WAIT = "No action needed."


def next_step(name: str, status: Status) -> str:
    """Return what to do next, in a sentence."""
    degraded = status.condition(ConditionType.DEGRADED)
    progressing = status.condition(ConditionType.PROGRESSING)
    step = BY_PHASE.get(status.phase, WAIT) if status.phase is not None else WAIT
    if status.phase in (Phase.SUSPENDED, Phase.TERMINATING):
        pass  # somebody decided so, and nothing else helps
    elif degraded is not None and degraded.status == "True":
        step = BY_REASON.get(degraded.reason, step)
    elif progressing is not None and progressing.reason == Reason.UPDATE_PENDING:
        step = UPDATE_PENDING
    return step.format(name=name, pod=status.pod_name, pvc=status.pvc_name)


def next_backup_step(session: str, status: BackupStatus) -> str:
    """Return what to do about a backup of a session, in a sentence."""
    step = BY_BACKUP_REASON.get(status.reason, WAIT) if status.reason is not None else WAIT
    return step.format(session=session).rstrip()
