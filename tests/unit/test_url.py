"""A backend's URL is taken apart exactly, or refused; its password is shown by nothing."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus_async.config import adapter_for
from octopus_async.errors import ConfigurationError
from octopus_async.url import BackendURL

SECRET = "hunter2"  # noqa: S105 - the secret that is looked for
parse = BackendURL.parse


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


# -- the parts -----------------------------------------------------------------------------------


def test_a_url_has_a_scheme_a_login_hosts_a_path_and_options() -> None:
    url = parse("MySQL://app:hunter2@db1:3306,db2/shop?pool=8&ssl=on")
    assert (url.scheme, url.user, url.password, url.path) == ("mysql", "app", SECRET, "shop")
    assert url.hosts == (("db1", 3306), ("db2", None))
    assert url.options == {"pool": "8", "ssl": "on"}


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("memcache://a", (("a", None),)),
        ("memcache://a:1,b:65535", (("a", 1), ("b", 65535))),
        ("memcache://[::1]:11211", (("::1", 11211),)),
        ("memcache://[fe80::1],[::ffff:127.0.0.1]:1", (("fe80::1", None), ("::ffff:127.0.0.1", 1))),
        ("memory://", ()),
        ("memory:///", ()),
    ],
    ids=str,
)
def test_each_host_has_its_own_port(text: str, hosts: tuple[tuple[str, int | None], ...]) -> None:
    assert parse(text).hosts == hosts


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///shop.db", "shop.db"),
        ("sqlite:////var/lib/shop.db", "/var/lib/shop.db"),
        ("sqlite:///a%20b%3F.db", "a b?.db"),
        ("sqlite:///home/me@home/shop.db", "home/me@home/shop.db"),
        ("sqlite:///%C3%A4.db", "ä.db"),
        ("memory://", ""),
    ],
    ids=str,
)
def test_a_path_is_decoded(text: str, path: str) -> None:
    assert parse(text).path == path


def test_a_login_is_decoded() -> None:
    url = parse(f"mysql://{quote('a:p@p/', safe='')}:{quote('p:@/?#%&é', safe='')}@db/shop")
    assert (url.user, url.password) == ("a:p@p/", "p:@/?#%&é")
    assert (url.hosts, url.path) == ((("db", None),), "shop")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None, database=None)
def test_any_login_survives_percent_encoding(user: str, password: str) -> None:
    url = parse(f"mysql://{quote(user, safe='')}:{quote(password, safe='')}@db/shop")
    assert (url.user, url.password, url.path) == (user, password, "shop")


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "shop.db", "sqlite:shop.db", "://x", "1x://y", "a b://c", "/x://y"])
def test_what_is_no_url_is_told_its_form(text: str) -> None:
    assert refusal(lambda: parse(text)) == (
        "a backend's URL has the form scheme://..., for instance sqlite:///shop.db"
    )


@pytest.mark.parametrize(
    "hosts",
    ["a:", "a:0", "a:65536", "a:x", "a:123456", "::1", "[::1", "::1]", "[x]", "a,,b", ",", "a b", "a:1:2"],
)
def test_a_host_that_is_none_is_refused(hosts: str) -> None:
    assert refusal(lambda: parse(f"mysql://u:{SECRET}@{hosts}/shop")) == (
        "mysql://: a host has the form name, name:port, [v6] or [v6]:port"
    )


def test_an_option_is_given_once() -> None:
    assert refusal(lambda: parse("memory://?a=1&a=2")) == "memory://: an option is given twice"


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u:12/hunter2@db/shop",
        "mysql://u:12?hunter2@db/shop",
        "mysql://u:12/3?hunter2@db/shop",
        "mysql://u:1@2/hunter2@db/shop",
        "mysql://u:1@2?hunter2@db/shop",
    ],
)
def test_a_password_that_is_not_encoded_is_no_part_of_the_path(text: str) -> None:
    message = refusal(lambda: parse(text))
    assert message == (
        "mysql://: write @ / ? # and % percent-encoded in a user, password or option: @ is %40"
    )
    assert SECRET not in message


# -- no secret anywhere --------------------------------------------------------------------------


def shown(text: str) -> str:
    """All that a URL, or its refusal, can show."""
    try:
        url = parse(text)
    except ConfigurationError as error:
        return f"{error} {error!r} {error.__cause__!r}"
    messages = [str(url), repr(url), f"{url}", f"{[url]}"]
    for ask in (
        lambda: url.check_options("known"),
        lambda: url.integer("n", 1),
        lambda: url.number("n", 1.0),
        lambda: url.size("n", 1),
        lambda: url.flag("n", default=True),
        lambda: url.choice("n", "x", "y"),
        lambda: adapter_for(text.replace("mysql", "unknown", 1)),
    ):
        try:
            ask()
        except ConfigurationError as error:
            messages.append(f"{error} {error!r}")
    return " ".join(messages)


@pytest.mark.parametrize(
    "text",
    [
        "mysql://app:hunter2@db/shop",
        "mysql://app:hunter2@db/shop?n=x",
        "mysql://:hunter2@db",
        "mysql://app:hunter2@",
        "mysql://app:hunter2@db:x/shop",
        "mysql://app:hunter2@[::1/shop",
        "mysql://app:a@hunter2@db/shop",
        "mysql://app:12/hunter2@db/shop",
        "mysql://app:12?hunter2@db/shop",
        "mysql://app:12?hunter2=1@db/shop",
        "mysql//app:hunter2@db/shop",
        "mysql:/app:hunter2@db/shop",
        "my sql://app:hunter2@db/shop",
        "mysql://app:hunter2@db/shop?n=1&n=2",
        "mysql://app:hunter2@db,/shop",
        "mysql://app:hunter2\n@db/shop",
    ],
)
def test_a_password_is_in_no_text_and_no_message(text: str) -> None:
    assert SECRET not in shown(text)


@given(
    st.text("ab:@/?#%&=,[]. \n\\1é\0", max_size=8),
    st.text("ab:@/?#%&=,[]. \n\\1é\0", max_size=8),
    st.sampled_from(["db", "db:3306", "[::1]:1", "", "a,b"]),
    st.sampled_from(["", "/shop", "/shop?n=1", "?n=x"]),
)
@settings(max_examples=150, deadline=None, database=None)
def test_a_password_is_not_shown_wherever_it_would_have_had_to_be_encoded(
    before: str, after: str, hosts: str, rest: str
) -> None:
    assert SECRET not in shown(f"mysql://app:{before}{SECRET}{after}@{hosts}{rest}")


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("mysql://app:hunter2@db:3306,db2/shop?pool=8", "mysql://app:***@db:3306,db2/shop"),
        ("mysql://app@db/shop", "mysql://app@db/shop"),
        ("memcache://[::1]:11211,[fe80::1],a", "memcache://[::1]:11211,[fe80::1],a"),
        ("memory://?name=hot", "memory://"),
        ("sqlite:///shop.db", "sqlite:///shop.db"),
        ("sqlite:////var/shop.db", "sqlite:////var/shop.db"),
    ],
)
def test_what_is_shown_of_a_url_can_be_read_as_one(text: str, public: str) -> None:
    assert str(parse(text)) == public
    again = parse(str(parse(text)))
    assert (again.scheme, again.hosts, again.path) == (
        parse(text).scheme,
        parse(text).hosts,
        parse(text).path,
    )


# -- options -------------------------------------------------------------------------------------


def option(value: str) -> BackendURL:
    return parse(f"mysql://app:hunter2@db?n={quote(value)}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqlite:///a%3Fb%23c%25d%40e.db", "sqlite:///a%3Fb%23c%25d%40e.db"),
        ("sqlite:///two%0Alines%7F.db", "sqlite:///two%0Alines%7F.db"),
        ("sqlite:///Ünser Buch.db", "sqlite:///Ünser Buch.db"),
        ("mysql://a%2Fb%3Ac%40d:pw@db/shop", "mysql://a%2Fb%3Ac%40d:***@db/shop"),
        ("mysql://a%0D%0Ab@db", "mysql://a%0D%0Ab@db"),
    ],
)
def test_what_has_a_meaning_in_a_url_is_shown_percent_encoded(text: str, shown: str) -> None:
    assert str(BackendURL.parse(text)) == shown
    assert str(BackendURL.parse(shown)) == shown


def test_a_url_has_an_end() -> None:
    with pytest.raises(ConfigurationError, match="over the limit of 16384"):
        BackendURL.parse("memcache://" + "h," * 10_000 + "h")


def test_a_host_is_of_printable_characters() -> None:
    with pytest.raises(ConfigurationError, match="a host has the form"):
        BackendURL.parse("mysql://d\x7fb/shop")


def test_an_option_that_is_not_given_has_its_default() -> None:
    url = parse("memory://")
    assert url.text("n", "x") == "x"
    assert url.integer("n", 5) == 5
    assert url.number("n", 0.5) == 0.5
    assert url.size("n", 64) == 64
    assert url.flag("n", default=True) is True
    assert url.choice("n", "B", "a", "B") == "B"
    url.check_options()


def test_an_unknown_option_is_named_beside_those_that_are_known() -> None:
    assert refusal(lambda: option("1").check_options("pool", "name")) == (
        "mysql://app:***@db: unknown option 'n'; known are name, pool"
    )


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("007", 7), ("999999999999999", 999999999999999)])
def test_an_integer_is_a_whole_number(text: str, value: int) -> None:
    assert option(text).integer("n", 5) == value
    assert option("0").integer("n", 5, least=0) == 0


@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1.0", "x", "1_0", " 1", "²", "٣", "1" * 16])
def test_an_integer_that_is_none_is_refused(text: str) -> None:
    assert refusal(lambda: option(text).integer("n", 5)) == (
        f"mysql://app:***@db: option 'n' is a whole number from 1, not {text!r}"
    )


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("0.5", 0.5), ("30.25", 30.25)])
def test_a_number_is_positive_and_finite(text: str, value: float) -> None:
    assert option(text).number("n", 5) == value


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "1e9", "nan", "inf", ".5", "1.", "x", "٣", "1" * 10])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    assert refusal(lambda: option(text).number("n", 5)) == (
        f"mysql://app:***@db: option 'n' is a positive number, not {text!r}"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("65536", 65536), ("1b", 1), ("64KB", 65536), ("64k", 65536), ("64 mb", 64 << 20), ("2GB", 2 << 30)],
)
def test_a_size_has_a_unit_of_1024s(text: str, value: int) -> None:
    assert option(text).size("n", 5) == value


@pytest.mark.parametrize("text", ["", "0", "0MB", "-1", "1.5MB", "1TB", "MB", "x", "1MBs", "٣MB", "1\n"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    assert refusal(lambda: option(text).size("n", 5)) == (
        f"mysql://app:***@db: option 'n' is a size such as 64MB, not {text!r}"
    )


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_a_flag_is_on(text: str) -> None:
    assert option(text).flag("n", default=False) is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "Off"])
def test_a_flag_is_off(text: str) -> None:
    assert option(text).flag("n", default=True) is False


@pytest.mark.parametrize("text", ["", "2", "maybe", "truee"])
def test_a_flag_that_is_none_is_refused(text: str) -> None:
    assert refusal(lambda: option(text).flag("n", default=True)) == (
        f"mysql://app:***@db: option 'n' is true or false, not {text!r}"
    )


def test_a_choice_is_taken_in_any_case() -> None:
    assert option("full").choice("n", "NORMAL", "FULL", "NORMAL") == "FULL"
    assert refusal(lambda: option("x").choice("n", "NORMAL", "FULL", "NORMAL")) == (
        "mysql://app:***@db: option 'n' is one of FULL, NORMAL, not 'x'"
    )


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal(lambda: option("x" * 10_000).flag("n", default=True))) < 120


# -- hostile texts -------------------------------------------------------------------------------

WORDS = (
    "mysql sqlite memory memcache x :// : / // @ ? & = , [ ] ::1 % %41 %zz %00 name= a=1 65536 -1 é # .. db"
)
PIECES = st.sampled_from([*WORDS.split(), "\ud800", "\0", "\n", " "])


@given(st.lists(PIECES, max_size=14).map("".join) | st.text())
@settings(max_examples=150, deadline=None, database=None)
def test_nothing_but_our_own_error_comes_out_of_a_hostile_url(text: str) -> None:
    try:
        url = parse(text)
    except ConfigurationError:
        return
    assert url.scheme.islower()
    assert str(url).startswith(f"{url.scheme}://")


@given(st.sampled_from(["memory", "sqlite", "memcache", "mysql"]), st.lists(PIECES, max_size=10).map("".join))
@settings(max_examples=150, deadline=None, database=None)
def test_nothing_but_our_own_error_comes_out_of_an_adapter_of_a_hostile_url(scheme: str, rest: str) -> None:
    try:
        adapter = adapter_for(f"{scheme}://{rest}")
    except ConfigurationError:
        return
    assert adapter.name
