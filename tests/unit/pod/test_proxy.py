"""The proxy from the files of its Secret."""

from __future__ import annotations

import pytest
from wasession_pod.browser.proxy import InvalidKey, Proxy, parse_proxy


@pytest.mark.parametrize(
    ("secret", "address", "credentials"),
    [
        ({"server": "proxy:3128"}, "proxy:3128", None),
        ({"server": "HTTP://Proxy.example:3128/"}, "http://Proxy.example:3128", None),
        ({"server": "http://[::1]:3128"}, "http://[::1]:3128", None),
        (
            {"server": "http://proxy:3128", "username": "u", "password": "p"},
            "http://proxy:3128",
            ("u", "p"),
        ),
        ({"server": "http://proxy:3128", "username": "u"}, "http://proxy:3128", ("u", "")),
        ({"server": "http://u:p%40ss@proxy:3128"}, "http://proxy:3128", ("u", "p@ss")),
        ({"server": "u:p:q@proxy:3128"}, "proxy:3128", ("u", "p:q")),
        ({"server": "socks5://proxy:1080"}, "socks5://proxy:1080", None),
        (
            {"server": "proxy:3128\r\n", "username": "us er\n", "password": " pass\n"},
            "proxy:3128",
            ("us er", "pass"),
        ),
    ],
)
def test_a_proxys_credentials_are_not_part_of_its_address(
    secret: dict[str, str], address: str, credentials: tuple[str, str] | None
) -> None:
    proxy = parse_proxy({key: value.encode() for key, value in secret.items()})
    assert (proxy.address, proxy.credentials) == (address, credentials)


@pytest.mark.parametrize(
    ("secret", "key", "problem"),
    [
        ({}, "server", "is missing"),
        ({"username": b"u", "password": b"p"}, "server", "is missing"),
        ({"server": b" \n"}, "server", "is empty"),
        ({"server": b"\xff"}, "server", "is not valid UTF-8"),
        ({"server": b"proxy:3128", "password": b"\xff"}, "password", "is not valid UTF-8"),
        ({"server": b"proxy:3128", "password": b"p"}, "username", "is missing, although"),
        ({"server": b"socks5://u:p@proxy:1080"}, "server", "must be an HTTP proxy"),
        ({"server": b"socks5://proxy", "username": b"u"}, "server", "must be an HTTP proxy"),
        *(
            ({"server": server.encode()}, "server", "is not an address such as")
            for server in (
                "direct://",
                "http://proxy:3128,direct://",
                "https=proxy:3128;http=proxy:3128",
                "http://proxy:0",
                "http://proxy:65536",
                "http://proxy:port",
                "http://proxy/path",
                "http://pro xy",
                "ftp://proxy:21",
                "http://",
                "-proxy",
            )
        ),
    ],
)
def test_an_invalid_key_is_named_without_its_value(
    secret: dict[str, bytes], key: str, problem: str
) -> None:
    with pytest.raises(InvalidKey) as error:
        parse_proxy(secret)
    assert error.value.key == key
    assert str(error.value).startswith(problem)


def test_a_proxys_representation_shows_nothing() -> None:
    proxy = Proxy("http://proxy.example:3128", None)
    assert "proxy.example" not in repr(proxy)
