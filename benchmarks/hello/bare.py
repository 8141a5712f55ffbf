"""What Google's own clients cost: one write to Firestore and one message to Pub/Sub, then an answer."""

from __future__ import annotations

import os

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response


@functions_framework.aio.http
async def bare(request: Request) -> Response:
    """Write, publish, answer."""
    from google.cloud.firestore import AsyncClient
    from google.pubsub_v1.services.publisher import PublisherAsyncClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
    from google.pubsub_v1.types import PublishRequest, PubsubMessage
    from grpc.aio import insecure_channel  # type: ignore[import-untyped]  # grpcio ships no types

    project = os.environ["GOOGLE_CLOUD_PROJECT"]
    await AsyncClient(project=project).document("bench/one").set({"body": b"x"})
    transport = PublisherGrpcAsyncIOTransport(channel=insecure_channel(os.environ["PUBSUB_EMULATOR_HOST"]))
    message = PublishRequest(topic=f"projects/{project}/topics/wakes", messages=[PubsubMessage(data=b"x")])
    await PublisherAsyncClient(transport=transport).publish(message)
    return PlainTextResponse("done")
