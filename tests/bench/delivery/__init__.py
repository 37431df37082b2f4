"""How soon a webhook is told of an event, and how quickly a queue of them drains."""
