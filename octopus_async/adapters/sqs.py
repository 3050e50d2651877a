"""An SQS FIFO queue that carries journalled operations beside the journal, through aiobotocore.

It can only be written to, and emptied by `octopus replay --from`: order is kept by message group, which is
the key, and what is sent twice within five minutes is one message, by its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self

from octopus_async.adapters import _sqs_message as message
from octopus_async.adapters._sqs_client import LONGEST_POLL, QueueAddress, close, connect, translate
from octopus_async.backend import Capabilities
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    ConfigurationError,
    ConstraintViolated,
    OperationNotSupported,
    Unavailable,
)
from octopus_async.record import APPLIED, NOT_TAKEN, Key, Kind, Mode, Operation, Outcome, failed, rejected
from octopus_async.schema import Schema
from octopus_async.sink import Delivery
from octopus_async.url import BackendURL

_IN_BATCH = 10
_LANES = 4
_AT_FAULT = {"InvalidMessageContents", "MessageTooLong"}
"""Codes of an entry in a batch that say that the message itself is at fault."""


class SqsAdapter:
    """A sink for journalled operations.

    Parameters:
        address: where the queue is.
        visibility: seconds for which a message that was handed out stays hidden from other consumers.
        timeout: seconds that connecting may take.
        name: the name by which messages call it.
    """

    def __init__(
        self, address: QueueAddress, *, visibility: int = 60, timeout: float = 2.0, name: str = "sqs"
    ) -> None:
        if not address.queue.endswith(".fifo"):
            raise ConfigurationError(
                f"{name}: the queue {address.queue!r} is no FIFO queue: order would be lost"
            )
        self._name = name
        self._address = address
        self._visibility = visibility
        self._timeout = timeout
        self._client: Any = None  # aiobotocore makes its classes when it runs
        self._queue_url = ""
        self._capabilities = Capabilities(
            durable=True,
            readable=False,
            write_batch=_IN_BATCH * _LANES,
            batch_bytes=message.MOST_BYTES * _LANES,
        )

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "sqs") -> Self:
        """Make one of ``sqs://eu-central-1/account/queue.fifo``; the account may be left out.

        ``sqs://KEY:SECRET@...`` gives credentials. Options: ``visibility``, ``timeout``, ``endpoint``.
        Raises `ConfigurationError`.
        """
        url.check_options("visibility", "timeout", "endpoint")
        *account, queue = url.path.split("/")
        if len(url.hosts) != 1 or url.hosts[0][1] is not None or not queue or len(account) > 1:
            raise ConfigurationError(
                f"{url}: a queue is sqs://region/queue.fifo or sqs://region/account/queue.fifo"
            )
        address = QueueAddress(
            region=url.hosts[0][0],
            queue=queue,
            account=account[0] if account else "",
            endpoint=url.options.get("endpoint"),
            access_key=url.user,
            secret=url.password,
        )
        return cls(
            address, visibility=url.integer("visibility", 60), timeout=url.number("timeout", 2.0), name=name
        )

    @property
    def name(self) -> str:
        """The name by which messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    async def open(self) -> None:
        """Look the queue up. Raises `Unavailable`."""
        async with self._translated():
            client = await connect(self._address, timeout=self._timeout, connections=2 * _LANES)
        try:
            async with self._translated():
                owner = {"QueueOwnerAWSAccountId": self._address.account} if self._address.account else {}
                found = await client.get_queue_url(QueueName=self._address.queue, **owner)
        except BaseException:
            await close(client)
            raise
        await self.close()
        self._client, self._queue_url = client, str(found["QueueUrl"])

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await close(client)

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Nothing is needed for a model."""

    async def ping(self) -> None:
        """Ask for the queue's attributes. Raises `Unavailable`."""
        await self._call("get_queue_attributes", AttributeNames=["QueueArn"])

    async def probe(self) -> None:
        """As `ping`: a message sent for a trial would have to be taken out by somebody."""
        await self.ping()

    async def read(self, keys: Sequence[Key]) -> NoReturn:  # noqa: ARG002 - whatever they are
        """Raises `OperationNotSupported`."""
        raise OperationNotSupported(f"{self._name} is a queue: nothing can be looked up in it")

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:  # noqa: ARG002 - whoever takes it out judges it
        """Put operations into the queue, those of one key in their order. Raises `Unavailable`."""
        self._check_open()
        lanes: list[list[int]] = [[] for _ in range(_LANES)]
        for place, operation in enumerate(operations):
            lanes[hash(operation.key) % _LANES].append(place)
        outcomes: dict[int, Outcome] = {}

        async def send(lane: Sequence[int]) -> None:
            outcomes.update(zip(lane, await self._send([operations[it] for it in lane]), strict=True))

        async with asyncio.TaskGroup() as group:
            for lane in filter(None, lanes):
                group.create_task(send(lane))
        return self._judged([outcomes[place] for place in range(len(operations))])

    def _judged(self, outcomes: list[Outcome]) -> list[Outcome]:
        errors = [outcome.error for outcome in outcomes if outcome.status in NOT_TAKEN]
        if (
            errors
            and len({outcome.status for outcome in outcomes}) == 1
            and isinstance(errors[0], Unavailable)
        ):
            raise errors[0]
        return outcomes

    async def _send(self, operations: Sequence[Operation]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        bodies: dict[int, str] = {}
        for place, operation in enumerate(operations):
            if operation.kind in (Kind.INVALIDATE, Kind.RETRACT):
                outcomes[place] = rejected(OperationNotSupported(f"{self._name} carries no news for caches"))
                continue
            bodies[place] = body = message.encode(operation)
            if len(body.encode()) > message.MOST_BYTES:
                outcomes[place] = rejected(self._too_large(operation))
                del bodies[place]
        places = list(bodies)
        sizes = [len(bodies[place].encode()) for place in places]
        for part in message.parts(sizes, count=_IN_BATCH, most=message.MOST_BYTES):
            batch = {places[index]: operations[places[index]] for index in part}
            outcomes |= await self._send_batch(batch, bodies)
        return [outcomes[place] for place in range(len(operations))]

    async def _send_batch(
        self, batch: Mapping[int, Operation], bodies: Mapping[int, str]
    ) -> dict[int, Outcome]:
        entries = [
            {
                "Id": str(place),
                "MessageBody": bodies[place],
                "MessageGroupId": message.group_of(operation.key),
                "MessageDeduplicationId": operation.version,
            }
            for place, operation in batch.items()
        ]
        try:
            answer = await self._call("send_message_batch", Entries=entries)
        except Unavailable as error:
            return dict.fromkeys(batch, failed(error))
        sent = {str(entry["Id"]) for entry in answer.get("Successful", ())}
        faults = {str(entry["Id"]): entry for entry in answer.get("Failed", ())}
        return {
            place: APPLIED if str(place) in sent else self._fault(faults.get(str(place), {}))
            for place in batch
        }

    def _fault(self, entry: Mapping[str, Any]) -> Outcome:
        code = str(entry.get("Code", "nothing"))[:80]
        if entry.get("SenderFault") and code in _AT_FAULT:
            return rejected(ConstraintViolated(f"{self._name} refused the message: {code}"))
        return failed(BackendFailed(f"{self._name}: SQS answered {code}", backend=self._name))

    def _too_large(self, operation: Operation) -> ConstraintViolated:
        return ConstraintViolated(
            f"{operation.key} is over the {message.MOST_BYTES // 1024} KiB of a message: it can't be carried"
        )

    async def receive(self, *, wait: float) -> list[Delivery]:
        """See `SinkAdapter.receive`."""
        answer = await self._call(
            "receive_message",
            MaxNumberOfMessages=_IN_BATCH,
            WaitTimeSeconds=min(LONGEST_POLL, int(wait)),
            VisibilityTimeout=self._visibility,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [_delivery(found) for found in answer.get("Messages", ())]

    async def delete(self, deliveries: Sequence[Delivery]) -> None:
        """See `SinkAdapter.delete`."""
        await self._each("delete_message_batch", deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `SinkAdapter.release`."""
        await self._each("change_message_visibility_batch", deliveries, VisibilityTimeout=0)

    async def _each(self, call: str, deliveries: Sequence[Delivery], **more: object) -> None:
        for start in range(0, len(deliveries), _IN_BATCH):
            part = deliveries[start : start + _IN_BATCH]
            entries = [
                {"Id": str(place), "ReceiptHandle": delivery.handle, **more}
                for place, delivery in enumerate(part)
            ]
            answer = await self._call(call, Entries=entries)
            if answer.get("Failed"):
                problem = f"{len(answer['Failed'])} of {len(part)} messages were not found any more"
                raise BackendFailed(f"{self._name}: {problem}; they may come again", backend=self._name)

    async def _call(self, name: str, **arguments: object) -> Mapping[str, Any]:
        client = self._check_open()
        async with self._translated():
            answer: Mapping[str, Any] = await getattr(client, name)(QueueUrl=self._queue_url, **arguments)
            return answer

    def _check_open(self) -> Any:  # noqa: ANN401 - see `_client`
        if self._client is None:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)
        return self._client

    @asynccontextmanager
    async def _translated(self) -> AsyncGenerator[None]:
        try:
            yield
        except Exception as error:
            raise translate(error, self._name) from error


def _delivery(found: Mapping[str, Any]) -> Delivery:
    handle, attributes = found["ReceiptHandle"], found.get("Attributes", {})
    received = int(attributes.get("ApproximateReceiveCount", 1))
    try:
        operation = message.decode(found["Body"])
    except ValueError as error:
        return Delivery(None, f"message {found.get('MessageId', '')}: {error}", handle, received)
    return Delivery(operation, "", handle, received)
