"""The gateway: REST, Socket.IO and a web console in front of WhatsAppSessions."""
