"""The session pod against whatsapp-web.js, with the same Chromium and stand-in, in one run."""
