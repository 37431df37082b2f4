"""The WhatsAppSession API: custom resource and session pod report."""
