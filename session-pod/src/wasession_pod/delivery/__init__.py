"""Webhooks: tell an application over HTTP what is in the outbox, at least once and in order."""
