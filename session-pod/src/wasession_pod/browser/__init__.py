"""Chromium, driven by Playwright, and the bridge into the page of WhatsApp Web."""
