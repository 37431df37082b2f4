"""The session pod measured against whatsapp-web.js, with the same Chromium, on the same stand-in, in one run."""
