"""What pages offer to phones: QRs, pairing codes, and links that wait for a passkey."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from support.standin.world import Behaviour

# Crockford's base 32 without 0, as in WhatsApp's pairing codes.
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"
QR_PARTS = (
    4,
    5,
)  # ref, noise key, identity key, secret; whatsapp-web.js adds the device's platform
GRACE = (
    1.0  # seconds that an offer outlives its time on the page, for the phone's way to the server
)

PageT = TypeVar("PageT")
KeyT = TypeVar("KeyT")


class Refused(Exception):
    """The phone can't do that; ``status`` is an HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Offer(Generic[PageT]):
    """A page that can be linked, with the noise key that it will log in with."""

    page: PageT
    noise: str
    expires: float = field(compare=False)


class Offers(Generic[PageT]):
    """All offers. Times are those of ``clock``, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refs: dict[str, Offer[PageT]] = {}
        self._codes: dict[tuple[str, str], Offer[PageT]] = {}
        self._passkeys: dict[str, Offer[PageT]] = {}

    def new_refs(self, page: PageT, noise: str, behaviour: Behaviour) -> list[str]:
        """Return new refs for a page, which shows one after the other.

        Each expires when the page has gone on to the next.
        """
        self._refs = _without(page, self._refs)
        expires, refs = self._clock() + GRACE + behaviour.first_ref_ms / 1000, []
        for _ in range(behaviour.refs):
            ref = "2@" + base64.b64encode(secrets.token_bytes(48)).decode()
            self._refs[ref] = Offer(page, noise, expires)
            refs.append(ref)
            expires += behaviour.next_ref_ms / 1000
        return refs

    def new_code(self, page: PageT, noise: str, phone: str, behaviour: Behaviour) -> str:
        """A pairing code for one phone; a page's earlier code no longer works."""
        self._codes = _without(page, self._codes)
        code = "".join(secrets.choice(ALPHABET) for _ in range(8))
        self._codes[phone, code] = Offer(
            page, noise, self._clock() + GRACE + behaviour.code_seconds
        )
        return code

    def by_qr(self, text: str) -> Offer[PageT]:
        """The page that shows this QR; raises ``Refused``."""
        ref, *rest = text.split(",")
        if len(rest) + 1 not in QR_PARTS:
            raise Refused(400, f"a QR has 4 or 5 parts, not {len(rest) + 1}")
        offer = self._refs.get(ref)
        if offer is None or offer.expires < self._clock():
            raise Refused(410, "the QR has expired")
        if offer.noise != rest[0]:
            raise Refused(409, "the QR is not of the page that shows it")
        return offer

    def by_code(self, phone: str, code: str) -> Offer[PageT]:
        """The page that shows this code for this phone; a code works once. Raises ``Refused``."""
        offer = self._codes.pop((phone, code.replace("-", "").upper()), None)
        if offer is None:
            raise Refused(403, "no page shows this code for this phone")
        if offer.expires < self._clock():
            raise Refused(410, "the pairing code has expired")
        return offer

    def await_passkey(self, phone: str, offer: Offer[PageT]) -> None:
        self._passkeys[phone] = offer

    def by_passkey(self, phone: str) -> Offer[PageT]:
        """The page whose linking waits for this account's passkey; raises ``Refused``."""
        offer = self._passkeys.pop(phone, None)
        if offer is None:
            raise Refused(409, "nothing waits for this account's passkey")
        return offer

    def passkey_phone(self, page: PageT) -> str | None:
        """The account whose passkey a page waits for."""
        return next((phone for phone, offer in self._passkeys.items() if offer.page is page), None)

    def forget(self, page: PageT) -> None:
        """The page is gone, and with it everything that it offered."""
        self._refs = _without(page, self._refs)
        self._codes = _without(page, self._codes)
        self._passkeys = _without(page, self._passkeys)


def _without(page: PageT, offers: dict[KeyT, Offer[PageT]]) -> dict[KeyT, Offer[PageT]]:
    return {key: offer for key, offer in offers.items() if offer.page is not page}
