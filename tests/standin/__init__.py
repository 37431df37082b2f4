"""A local stand-in for web.whatsapp.com, its server and the phones. See README.md."""

from standin.client import Phone
from standin.server import running

__all__ = ["Phone", "running"]
