"""The gateway measured beside plain aiohttp and bare python-socketio."""
