"""The operator that keeps one pod and one volume per WhatsAppSession."""
