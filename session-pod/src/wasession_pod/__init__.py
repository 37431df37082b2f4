"""One WhatsApp Web login in one Chromium, served over HTTP."""
