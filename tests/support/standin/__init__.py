"""A local stand-in for web.whatsapp.com, its server and the phones. See README.md."""

from support.standin.client import PasskeyRequired, Phone, PhoneError
from support.standin.server import Running, running
from support.standin.world import Card, Location, Media, Poll, World

__all__ = [
    "Card", "Location", "Media", "PasskeyRequired", "Phone", "PhoneError", "Poll", "Running",
    "World", "running",
]  # fmt: skip
