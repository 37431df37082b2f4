"""``kubectl wasession``: WhatsAppSessions from a terminal, with the rights of the user's own kubeconfig."""
