"""Regular expressions of names and hosts that several fields share."""

from __future__ import annotations

from wasession_api.base import Pattern

DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HOST_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?"
HOST = rf"{_HOST_LABEL}(\.{_HOST_LABEL})*"
PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
LABEL_NAME = Pattern(
    rf"^{DNS_LABEL}$",
    "must be a name of lower-case letters, digits and -, with a letter or digit at both ends",
)
