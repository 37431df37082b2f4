"""A local stand-in for web.whatsapp.com, its server and the phones. See README.md."""

from support.standin.client import PasskeyRequired, Phone, PhoneError
from support.standin.server import Running, running
from support.standin.world import Media, World

__all__ = ["Media", "PasskeyRequired", "Phone", "PhoneError", "Running", "World", "running"]
