"""``kubectl wasession``: WhatsAppSessions from a terminal, with the user's kubeconfig."""
