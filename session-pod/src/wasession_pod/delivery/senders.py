"""Opens the senders of a session's webhooks and sinks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping

from wasession_api.v1alpha1.delivery import DeliveryPolicy, Destination, Sink, Webhook

from wasession_pod.delivery import webhook
from wasession_pod.delivery.cloud_events import parse_keys
from wasession_pod.delivery.guard import Guard
from wasession_pod.delivery.sender import Secret, Sender, tls
from wasession_pod.settings import Settings


@contextlib.asynccontextmanager
async def opened(
    destinations: Iterable[Destination], policy: DeliveryPolicy, settings: Settings
) -> AsyncIterator[Mapping[str, Sender]]:
    """Yield the senders by name."""
    guard, authorities = Guard.of(policy), await asyncio.to_thread(tls, settings.ca_bundle)
    keys = Secret(settings.delivery_secret, parse_keys)
    found = dict[str, Sender]()
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(webhook.client(guard, authorities))
        for one in destinations:
            match one:
                case Webhook():
                    found[one.name] = webhook.WebhookSender(one, http, guard, keys)
                case Sink():
                    from wasession_pod.delivery import nats_sink  # here, as most have none

                    logins = Secret(settings.delivery_secret, nats_sink.parse_login)
                    session = {
                        "namespace": settings.namespace or "default",
                        "session": settings.session or settings.client_id,
                    }
                    sender = nats_sink.NatsSender(one, guard, logins, authorities, session)
                    stack.push_async_callback(sender.close)
                    found[one.name] = sender
        yield found
