"""Backups: copies of logins in a store, made on request and by schedule."""
