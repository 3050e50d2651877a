"""What every adapter has to do, as suites of pytest tests: for ours, and for yours.

Give a class a fixture named ``adapter`` that yields an open adapter, empty or not, and take over
the suites that fit::

    import pytest_asyncio
    from octopus_async.testing.contract import DurableContract

    class TestMine(DurableContract):
        @pytest_asyncio.fixture
        async def adapter(self):
            adapter = MyAdapter(...)
            await adapter.open()
            yield adapter
            await adapter.close()

`DurableContract` is for what keeps records, `CacheContract` for what may forget them. `ScanContract`
is for what can list them as well. `ServerContract` is for what has a server that may be away; its
fixture is ``unreachable``, an adapter whose server does not exist, not yet opened.

A guard is an adapter, and passes them too. Needs pytest and pytest-asyncio.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("cache", "common", "durable", "server", "subject", "units"))
)

from octopus_async.testing.contract.cache import CacheContract  # noqa: E402 - rewritten as it is imported
from octopus_async.testing.contract.common import AdapterContract  # noqa: E402
from octopus_async.testing.contract.durable import DurableContract, ScanContract  # noqa: E402
from octopus_async.testing.contract.server import ServerContract  # noqa: E402
from octopus_async.testing.contract.subject import Subject  # noqa: E402
from octopus_async.testing.contract.units import UnitContract  # noqa: E402

__all__ = [
    "AdapterContract",
    "CacheContract",
    "DurableContract",
    "ScanContract",
    "ServerContract",
    "Subject",
    "UnitContract",
]
