"""Real database servers, each a private process on loopback that can be killed, paused and restarted.

The server's program is found, in this order: among those downloaded before into ``.servers/`` (another
folder: ``OCTOPUS_SERVERS_DIR``); on PATH (not if ``CI=true``); in the packages of Debian or Ubuntu,
downloaded and unpacked without root; in Homebrew. No server runs as root: root's run as ``nobody``.
`open_server` first looks for a URL in the environment, and then starts nothing.

    from octopus_async.testing.servers import MariaDBServer, MemcachedServer

    async with MariaDBServer() as primary, MemcachedServer() as cache:
        async with DaoManager(write=[primary.url, cache.url], journal=folder) as octopus:
            await primary.kill()        # SIGKILL; returns when the process is gone
            await primary.start()       # same port, same data; returns when it answers
            await cache.pause()         # SIGSTOP: connections are taken, nothing is answered
            await cache.resume()
            await asyncio.gather(primary.kill(), cache.kill())
            await asyncio.gather(primary.start(), cache.start())
    # leaving ends both processes, by pid, and removes their folders

A server dies with the thread that started it, where the system can do that (Linux), so start it from
the thread that lives longest, which is nearly always the main one.
"""

from octopus_async.testing.servers.external import ExternalServer, Server, open_server
from octopus_async.testing.servers.find import Installation, ServerKind, find
from octopus_async.testing.servers.mariadb import MARIADB, MariaDBServer
from octopus_async.testing.servers.memcached import MEMCACHED, MemcachedServer
from octopus_async.testing.servers.mongodb import MONGODB, MongoDBServer
from octopus_async.testing.servers.moto import MOTO, MotoServer
from octopus_async.testing.servers.postgres import POSTGRES, PostgresServer
from octopus_async.testing.servers.private import PrivateServer
from octopus_async.testing.servers.redis import REDIS, RedisCluster, RedisServer
from octopus_async.testing.servers.rest import REST, RestServer

__all__ = [
    "MARIADB",
    "MEMCACHED",
    "MONGODB",
    "MOTO",
    "POSTGRES",
    "REDIS",
    "REST",
    "ExternalServer",
    "Installation",
    "MariaDBServer",
    "MemcachedServer",
    "MongoDBServer",
    "MotoServer",
    "PostgresServer",
    "PrivateServer",
    "RedisCluster",
    "RedisServer",
    "RestServer",
    "Server",
    "ServerKind",
    "find",
    "open_server",
]
