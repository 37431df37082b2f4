"""Which events of a session go to which of its clients: pure.

A session pod numbers its events and keeps them. The gateway reads them once for all clients, as a
stream. A client that names the last event it has seen first gets from pages what followed; what the
stream has in the meantime does not go to it, as its pages will have the same. It joins the stream
where its pages have reached what the stream has passed, so that nothing is missing in between; what
they have beyond that, it does not get from the stream again.
"""

from __future__ import annotations

from wasession_api.session_pod.events import EventId


class Cursors:
    """How far the stream of one session is, and the clients that are at another place.

    All others get what the stream has.
    """

    def __init__(self) -> None:
        self.position: EventId | None = None  # of the stream; None before it has begun
        self._behind: set[str] = set()  # clients that read pages
        self._ahead: dict[str, EventId] = {}  # what clients have from pages, beyond the stream

    def hold(self, client: str) -> None:
        """Leave the client out of the stream until it joins: it is about to read pages."""
        self._ahead.pop(client, None)
        self._behind.add(client)

    def is_held(self, client: str) -> bool:
        return client in self._behind

    def join(self, client: str, last: EventId) -> bool:
        """Join a client that has everything up to ``last``, and return whether it could.

        It cannot while the stream is further, or in another outbox: more pages have the rest.
        """
        if self.position is None or not last.reaches(self.position):
            return False
        self._behind.discard(client)
        self._ahead[client] = last
        return True

    def release(self, client: str) -> None:
        """Have the client get what the stream has from here on, or forget one that has left."""
        self._behind.discard(client)
        self._ahead.pop(client, None)

    def advance(self, event_id: EventId | None, clients: set[str]) -> set[str]:
        """Return those of the clients to which an event of the stream goes.

        An event without an ID goes to all that are not held.
        """
        receivers = clients - self._behind
        if event_id is None:
            return receivers
        if self.position is not None and not event_id.reaches(self.position):
            self._ahead.clear()  # the outbox was replaced, perhaps by an older state of itself
        self.position = event_id
        for client, last in list(self._ahead.items()):
            if last.reaches(event_id):
                receivers.discard(client)
            else:  # the stream has passed what the client has from pages
                del self._ahead[client]
        return receivers
