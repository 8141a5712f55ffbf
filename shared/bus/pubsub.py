"""Wakes, receipts and results over Google Cloud Pub/Sub.

The generated publisher beneath google-cloud-pubsub's client: that one batches in a thread, loses what is not awaited
and pauses an ordering key after a failure (googleapis/python-pubsub#513, #671); here a call is one publish.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from shared.codec import encode
from shared.domain import Receipt, Result, SessionKey
from shared.errors import BusDown

if TYPE_CHECKING:
    from google.pubsub_v1.services.publisher import PublisherAsyncClient


class PubSubBus:
    """`Bus` that publishes to `projects/{project}/topics/{topic}`, and to two more topics, from one event loop.

    A wake has no data: its attributes are `tenant` and `session`, its ordering key is the session. A receipt or a
    result is the data of its message, in no order: what becomes of it does not depend on one. `emulator` is
    `host:port`; empty, it is the real service with the default credentials. Nothing is opened before the first message.
    """

    limit_seconds = 6.0
    """How long `wake` tries before `BusDown`; the library's own default is 60 s."""

    def __init__(
        self,
        project: str,
        topic: str,
        delivery_topic: str = "deliveries",
        result_topic: str = "results",
        emulator: str = "",
    ) -> None:
        self._topic = f"projects/{project}/topics/{topic}"
        self._delivery_topic = f"projects/{project}/topics/{delivery_topic}"
        self._result_topic = f"projects/{project}/topics/{result_topic}"
        self._emulator = emulator

    async def wake(self, key: SessionKey) -> None:
        from google.pubsub_v1.types import PublishRequest, PubsubMessage

        attributes = {"tenant": key.tenant, "session": key.session}
        message = PubsubMessage(attributes=attributes, ordering_key=key.session)
        await self._call("publish", PublishRequest(topic=self._topic, messages=[message]))

    async def receipt(self, receipt: Receipt) -> None:
        await self._publish(self._delivery_topic, receipt)

    async def result(self, result: Result) -> None:
        await self._publish(self._result_topic, result)

    async def check(self) -> None:
        from google.pubsub_v1.types import GetTopicRequest

        await self._call("get_topic", GetTopicRequest(topic=self._topic))

    async def _publish(self, topic: str, value: Receipt | Result) -> None:
        from google.pubsub_v1.types import PublishRequest, PubsubMessage

        message = PubsubMessage(data=encode(value), attributes={"tenant": value.key.tenant})
        await self._call("publish", PublishRequest(topic=topic, messages=[message]))

    async def _call(self, method: str, request: object) -> None:
        """One call of the publisher. Raises `BusDown` when it was not done within `limit_seconds`."""
        from google.api_core import exceptions
        from google.api_core.retry import AsyncRetry, if_exception_type

        passing = if_exception_type(
            exceptions.Aborted,
            exceptions.Cancelled,
            exceptions.InternalServerError,
            exceptions.ResourceExhausted,
            exceptions.ServiceUnavailable,
        )
        retry = AsyncRetry(passing, initial=0.1, maximum=1.0, multiplier=2.0, timeout=self.limit_seconds)
        try:
            await getattr(self._publisher, method)(request, retry=retry, timeout=self.limit_seconds)
        except exceptions.GoogleAPIError as error:
            cause = error.cause if isinstance(error, exceptions.RetryError) else error
            topic = getattr(request, "topic", self._topic)
            raise BusDown(f"{topic} did not answer {method}: {type(cause).__name__}") from error

    async def aclose(self) -> None:
        """Close the connection if one was opened. A later wake fails."""
        if "_publisher" in self.__dict__:
            await self._publisher.transport.close()  # type: ignore[no-untyped-call]  # the library's

    @cached_property
    def _publisher(self) -> PublisherAsyncClient:
        from google.pubsub_v1.services.publisher import PublisherAsyncClient

        if not self._emulator:
            return PublisherAsyncClient()
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
        from grpc.aio import insecure_channel  # type: ignore[import-untyped]  # grpcio ships no types

        return PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=insecure_channel(self._emulator)))
