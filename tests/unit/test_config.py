"""Settings and adapters: what is understood, and what each mistake is told."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.config import Routing, Settings, adapter_for, settings_from_toml
from octopus_async.errors import ConfigurationError
from octopus_async.guard import GuardPolicy
from octopus_async.strategies.plan import Acknowledge, Order
from octopus_async.strategies.read import Cascade, Hedge, Race

SECRET = "hunter2"  # noqa: S105 - the secret that is looked for


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Settings]:
    """Reads settings from a file of this text."""

    def read(text: str) -> Settings:
        path = tmp_path / "octopus.toml"
        path.write_text(dedent(text), encoding="utf-8")
        return settings_from_toml(path)

    return read


Toml = Callable[[str], Settings]
ONE = 'write = ["memory://"]\n'


# -- a file --------------------------------------------------------------------------------------


def test_a_file_says_everything_that_arguments_do(toml: Toml) -> None:
    found = toml("""
        write = ["sqlite:///shop.db", "memory://"]
        backends = ["memory://?ttl=9"]
        journal = "journal/"
        order = "primary_first"
        acknowledge = "all"
        timeout = 2
        close_timeout = 1.5
        retention = 3600
        adopt_every = 0.5
        create_tables = true
        strict = true

        [read]
        strategy = "hedge"
        backends = ["memory", "sqlite"]
        delay = 0.2

        [models.Book]
        write = ["sqlite"]
        order = "concurrent"
        acknowledge = "primary"
        read = { backends = ["sqlite"] }
    """)
    assert found.write == ("sqlite:///shop.db", "memory://")
    assert found.backends == ("memory://?ttl=9",)
    assert (found.journal, found.order, found.acknowledge) == (
        "journal/",
        Order.PRIMARY_FIRST,
        Acknowledge.ALL,
    )
    assert (found.timeout, found.close_timeout, found.retention, found.adopt_every) == (2, 1.5, 3600, 0.5)
    assert (found.create_tables, found.strict) == (True, True)
    assert isinstance(found.read, Hedge)
    assert (found.read.names, found.read.delay) == (("memory", "sqlite"), 0.2)
    book = found.routings["Book"]
    assert (book.write, book.order, book.acknowledge) == (
        ("sqlite",),
        Order.CONCURRENT,
        Acknowledge.PRIMARY,
    )
    assert isinstance(book.read, Cascade)


def test_what_a_file_does_not_say_is_as_without_a_file(toml: Toml) -> None:
    found, plain = toml('write = ["memory://"]'), Settings(write=("memory://",))
    assert found == plain
    assert toml('write = ["memory://"]\n[models.Book]').routings == {"Book": Routing()}


@pytest.mark.parametrize(
    ("text", "kind"),
    [("cascade", Cascade), ("race", Race), ("hedge", Hedge)],
    ids=["cascade", "race", "hedge"],
)
def test_each_strategy_of_reading_has_a_name(toml: Toml, text: str, kind: type) -> None:
    read = toml(f'write = ["memory://"]\nread = {{ strategy = "{text}", backends = ["a", "b"] }}').read
    assert type(read) is kind
    assert getattr(read, "names", None) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("backends = []", "a manager needs at least one backend to write to: "),
        ('write = "memory://"', "{}write has the wrong type: str"),
        ("write = [5]", "{}write is a list of texts"),
        (ONE + "journal = 5", "{}journal has the wrong type: int"),
        (ONE + "strict = 1", "{}strict has the wrong type: int"),
        (ONE + 'strict = "yes"', "{}strict has the wrong type: str"),
        (ONE + "timeout = true", "{}timeout has the wrong type: bool"),
        (ONE + "timeout = " + "9" * 400, "{}timeout is past any number of seconds"),
        (ONE + 'timeout = "5"', "{}timeout has the wrong type: str"),
        (ONE + "timeout = 0", "timeout is a number of seconds above 0, not 0.0"),
        (ONE + "timeout = nan", "timeout is a number of seconds above 0, not nan"),
        (ONE + "retention = -1", "retention is a number of seconds above 0, not -1.0"),
        (
            ONE + 'order = "fast"',
            "{}order is one of auto, concurrent, primary first, not 'fast'",
        ),
        (
            ONE + 'acknowledge = "none"',
            "{}acknowledge is one of primary, all, not 'none'",
        ),
        (ONE + 'ordre = "auto"', "{}'ordre' is not a setting"),
        (ONE + 'read = "race"', "{}read has the wrong type: str"),
        (
            ONE + 'read = { strategy = "fast" }',
            "{}read: strategy is cascade, race or hedge, and delay is for hedge",
        ),
        (
            ONE + 'read = { strategy = "race", delay = 1 }',
            "{}read: strategy is cascade, race or hedge, and delay is for hedge",
        ),
        (ONE + 'read = { names = ["a"] }', "{}read: 'names' is not a setting"),
        (ONE + 'read = { backends = ["a", "a"] }', "Cascade names a backend twice: a, a"),
        (
            ONE + 'read = { strategy = "hedge", delay = 0 }',
            "Hedge needs a delay above 0 seconds, not 0.0",
        ),
        (ONE + 'models = ["Book"]', "{}models has the wrong type: list"),
        (ONE + 'models.Book = "memory"', "{}models.Book is a table"),
        (
            ONE + 'models.Book.write = "x"',
            "{}models.Book: write has the wrong type: str",
        ),
        (
            ONE + "models.Book.strict = true",
            "{}models.Book: 'strict' is not a setting",
        ),
        ("write = [", "{}cannot be read as TOML: "),
    ],
    ids=lambda it: it.removeprefix(ONE + ""),
)
def test_each_mistake_in_a_file_is_told_where_it_is(toml: Toml, tmp_path: Path, text: str, why: str) -> None:
    assert refusal(lambda: toml(text)).startswith(why.format(f"{tmp_path / 'octopus.toml'}: "))


@pytest.mark.parametrize(
    "content",
    [b'write = ["\xff"]', b"\xff\xfe", b"\0", b"a=" + b"[" * 100_000, b"\x80" * 10],
    ids=lambda it: repr(it[:12]),
)
def test_a_hostile_file_is_refused_as_any_other(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "octopus.toml"
    path.write_bytes(content)
    assert refusal(lambda: settings_from_toml(path)).startswith(f"{path}: ")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert refusal(lambda: settings_from_toml(str(missing))).startswith(
        f"{missing}: cannot be read as TOML: "
    )
    assert refusal(lambda: settings_from_toml(tmp_path)).startswith(f"{tmp_path}: cannot be read as TOML: ")


# -- the environment -----------------------------------------------------------------------------


def test_texts_are_filled_in_from_the_environment(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "p%40ss")
    monkeypatch.setenv("SHOP_CACHE", "${SHOP_PASSWORD}")
    found = toml("""
        write = ["mysql://app:${SHOP_PASSWORD}@db/shop", "memory://?name=${SHOP_CACHE}"]
        [models.Book.read]
        backends = ["x${SHOP_PASSWORD}y", "$SHOP_PASSWORD", "${}", "$${SHOP_PASSWORD}"]
    """)
    assert found.write == ("mysql://app:p%40ss@db/shop", "memory://?name=${SHOP_PASSWORD}")
    read = found.routings["Book"].read
    assert read is not None
    assert read.names == ("xp%40ssy", "$SHOP_PASSWORD", "${}", "$p%40ss")


def test_a_variable_that_is_not_set_is_named(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    message = refusal(lambda: toml('write = ["mysql://app:${SHOP_PASSWORD}@db/shop"]'))
    assert message.endswith("octopus.toml: the environment variable SHOP_PASSWORD is not set")


def test_a_secret_of_the_environment_is_in_no_message(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", SECRET)
    url = "mysql://app:${SHOP_PASSWORD}@db:x/shop"
    found = toml(f'write = ["{url}"]')
    assert SECRET not in refusal(lambda: adapter_for(found.write[0]))
    assert SECRET not in refusal(lambda: toml(f'write = ["{url}"]\nstrict = "{url}"'))
    assert SECRET not in repr(found)


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"write": []}, "a manager needs at least one backend to write to"),
        ({"write": "memory://"}, "write and backends are lists of URLs or adapters"),
        (
            {"write": ["memory://"], "backends": "memory://"},
            "write and backends are lists of URLs or adapters",
        ),
        ({"write": ["memory://"], "timeout": -1}, "timeout is a number of seconds above 0, not -1"),
        ({"write": ["memory://"], "timeout": "5"}, "timeout is a number of seconds above 0, not '5'"),
        (
            {"write": ["memory://"], "adopt_every": None},
            "adopt_every is a number of seconds above 0",
        ),
        ({"write": [b"mysql://app:hunter2@db"]}, "a backend is a URL or an adapter, not a bytes"),
        ({"write": [7]}, "a backend is a URL or an adapter, not a int"),
        (
            {"write": ["memory://"], "backends": [Path("x")]},
            "a backend is a URL or an adapter, not a PosixPath",
        ),
    ],
    ids=repr,
)
def test_each_mistake_in_an_argument_is_told(options: dict[str, Any], why: str) -> None:
    assert refusal(lambda: Settings(**options)).startswith(why)


# -- adapters ------------------------------------------------------------------------------------


def test_a_url_says_which_adapter_it_is() -> None:
    assert isinstance(adapter_for("memory://"), MemoryAdapter)
    assert isinstance(adapter_for("MEMORY://?ttl=5"), MemoryAdapter)


def test_an_adapter_is_itself() -> None:
    adapter = adapter_for("memory://")
    assert adapter_for(adapter) is adapter


@pytest.mark.parametrize("url", ["nosql://app:hunter2@db/0", "x://", "file:///etc/passwd", "sqlite3:///x.db"])
def test_an_unknown_scheme_is_told_those_that_are_known(url: str) -> None:
    scheme = url.partition(":")[0]
    before, _, after = refusal(lambda: adapter_for(url)).partition(". ")
    start = f"no backend has the scheme {scheme}://; known are "
    assert before.startswith(start)
    known = before.removeprefix(start).split(", ")
    assert known == sorted(known)
    assert {"memory", "memcache [memcached]", "mariadb [mysql]", "postgres [postgres]", "sqlite"} <= {*known}
    assert after.startswith("What stands in brackets is installed with it: pip install 'octopus-async[...]'")


@given(st.text())
@settings(max_examples=100, deadline=None, database=None)
def test_what_is_no_url_is_no_adapter(text: str) -> None:
    with pytest.raises(ConfigurationError):
        adapter_for(text.replace("://", ""))


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {drivers!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from octopus_async.config import adapter_for
from octopus_async.errors import ConfigurationError
try:
    adapter_for({url!r})
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("url", "drivers", "package", "extra"),
    [
        ("memcache://app:hunter2@cache", ("aiomcache",), "aiomcache", "memcached"),
        ("memcached://cache", ("aiomcache",), "aiomcache", "memcached"),
        ("mysql://app:hunter2@db/shop", ("aiomysql", "pymysql"), "(aiomysql|pymysql)", "mysql"),
        ("mariadb://db/shop", ("aiomysql",), "aiomysql", "mysql"),
        ("mysql+asyncmy://db/shop", ("asyncmy",), "asyncmy", "asyncmy"),
    ],
    ids=str,
)
def test_a_missing_driver_names_the_extra_to_install(
    url: str, drivers: tuple[str, ...], package: str, extra: str
) -> None:
    program = WITHOUT.format(url=url, drivers=drivers)
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    scheme = url.partition(":")[0]
    advice = re.escape(f"which is not installed: pip install 'octopus-async[{extra}]'")
    assert re.fullmatch(rf"{re.escape(scheme)}:// needs the package {package}, {advice}", run.stdout.strip())
    assert run.stderr == ""


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["memory://", "sqlite:///shop.db", "memcache://cache", "mysql://app@db/shop"])
def test_a_backend_is_called_by_its_kind_or_as_its_url_says(url: str) -> None:
    assert adapter_for(url).name == url.partition(":")[0]
    assert adapter_for(f"{url}?name=second-one.2").name == "second-one.2"


def test_a_name_goes_with_other_options() -> None:
    assert adapter_for("memory://?ttl=5&name=hot").name == "hot"
    assert "unknown option 'tll'" in refusal(lambda: adapter_for("memory://?tll=5&name=hot"))


@pytest.mark.parametrize("name", ["", "a b", "a]", 'a"', "ä", "x" * 65, "a\n"], ids=ascii)
def test_a_name_is_made_of_letters_digits_and_three_signs(name: str) -> None:
    message = refusal(lambda: adapter_for(f"memory://?name={quote(name)}"))
    rule = "has 1 to 64 letters, digits, dots, dashes or underscores"
    assert message == f"memory://: option 'name' {rule}, not {name[:40]!r}"


def test_a_cache_is_given_up_sooner_than_a_database_unless_told_otherwise() -> None:
    database, cache = MemoryAdapter(durable=True, name="database"), MemoryAdapter(name="cache")
    default = Settings([database, cache])
    assert default.guard_of(cache).timeout < default.guard_of(database).timeout
    chosen, single = GuardPolicy(timeout=3), GuardPolicy(timeout=4)
    told = Settings([database, cache], guard=chosen, guards={"cache": single})
    assert (told.guard_of(database), told.guard_of(cache)) == (chosen, single)
