"""Chromium over its DevTools protocol, and the bridge into the page of WhatsApp Web."""
