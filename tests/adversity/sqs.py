"""Helpers of the tests of the SQS sink."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from aiobotocore.session import get_session

from octopus_async.adapters.sqs import SqsAdapter
from octopus_async.testing.servers import MotoServer
from octopus_async.url import BackendURL


class Queue:
    """A FIFO queue with one for its dead letters, seen by hand."""

    def __init__(self, client: Any, server: MotoServer) -> None:  # noqa: ANN401 - its class is made when it runs
        self._client = client
        self._urls: dict[str, str] = {}
        self.name = f"q{uuid4().hex}.fifo"
        self.url = server.sink(self.name)

    async def create(self, *, tries: int = 3) -> None:
        """Create both; a message handed out so often goes to the dead letters at the next time."""
        made = await self._client.create_queue(
            QueueName=f"dead-{self.name}", Attributes={"FifoQueue": "true"}
        )
        self._urls["dead"] = made["QueueUrl"]
        asked = await self._client.get_queue_attributes(
            QueueUrl=made["QueueUrl"], AttributeNames=["QueueArn"]
        )
        policy = {"deadLetterTargetArn": asked["Attributes"]["QueueArn"], "maxReceiveCount": tries}
        attributes = {"FifoQueue": "true", "RedrivePolicy": json.dumps(policy)}
        made = await self._client.create_queue(QueueName=self.name, Attributes=attributes)
        self._urls["live"] = made["QueueUrl"]

    async def count(self, which: str = "live") -> int:
        """How many messages it holds, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        asked = await self._client.get_queue_attributes(QueueUrl=self._urls[which], AttributeNames=names)
        return sum(int(asked["Attributes"][name]) for name in names)

    async def put(self, body: str, group: str = "g") -> None:
        """Put something into it that is not of the library."""
        await self._client.send_message(
            QueueUrl=self._urls["live"],
            MessageBody=body,
            MessageGroupId=group,
            MessageDeduplicationId=uuid4().hex,
        )

    async def bodies(self) -> list[dict[str, Any]]:
        """What it hands out, as long as it does."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self._client.receive_message(
                QueueUrl=self._urls["live"], MaxNumberOfMessages=10, VisibilityTimeout=0 if found else 30
            )
            if not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                found.append(json.loads(message["Body"]))
                handle = message["ReceiptHandle"]
                await self._client.delete_message(QueueUrl=self._urls["live"], ReceiptHandle=handle)


@asynccontextmanager
async def queue_at(server: MotoServer) -> AsyncGenerator[Queue]:
    async with get_session().create_client(
        "sqs",
        region_name="eu-central-1",
        endpoint_url=server.url,
        aws_access_key_id="access",
        aws_secret_access_key="secret",  # noqa: S106 - moto asks for none
    ) as client:
        queue = Queue(client, server)
        await queue.create()
        yield queue


@asynccontextmanager
async def opened(url: str, **options: str) -> AsyncGenerator[SqsAdapter]:
    parsed = BackendURL.parse(url)
    adapter = SqsAdapter.from_url(
        BackendURL(
            parsed.scheme,
            parsed.hosts,
            parsed.path,
            parsed.user,
            parsed.password,
            {**parsed.options, **options},
        )
    )
    await adapter.open()
    try:
        yield adapter
    finally:
        await adapter.close()
