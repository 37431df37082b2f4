"""REST and Socket.IO in front of WhatsAppSessions."""
