"""An address is read in the forms that people write, and what is none is refused, also in what arrives."""

import msgspec
import pytest

from atoll.errors import UserError
from atoll.swarm.address import Address, HostPorts, is_local, is_loopback


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("203.0.113.5:7700", "203.0.113.5", 7700),
        ("host.example:1", "host.example", 1),
        ("[2001:db8::5]:65535", "2001:db8::5", 65535),
        ("[::]:0", "::", 0),
        (" a_b-c:80 ", "a_b-c", 80),
        ("[2001:DB8:0:0::5]:80", "2001:db8::5", 80),
        ("[::ffff:203.0.113.5]:80", "203.0.113.5", 80),
        # Without a port:
        ("::1", "::1", 7),
        ("[::1]", "::1", 7),
        ("2001:db8::5", "2001:db8::5", 7),
        ("host.example", "host.example", 7),
        # Without a host:
        (":80", "0.0.0.0", 80),
        ("", "0.0.0.0", 7),
    ],
)
def test_what_people_write_is_understood(text, host, port) -> None:
    assert Address.parse(text, default_port=7, default_host="0.0.0.0") == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "host",
        "host:",
        ":80",
        "::1",
        "[::1]",
        "host:65536",
        "host:-1",
        "host:８",
        "host:80x",
        "[::1",
        "[::1]80",
        "[host]:80",
        "1:2:3:80",
        "300.1.1.1:80",
        "10.1:80",
        "http://host:80",
        "a b:80",
        "-a:80",
        "[fe80::1%eth0]:80",
        "h" * 254 + ":80",
    ],
)
def test_what_is_no_address_is_refused_with_examples(text) -> None:
    with pytest.raises(UserError, match=r"HOST:PORT; write it as in .*\[2001:db8::5\]:7700"):
        Address.parse(text)


@pytest.mark.parametrize("host", ["203.0.113.5", "host.example", "2001:db8::5"])
def test_an_address_is_written_as_it_is_read(host) -> None:
    assert Address.parse(str(Address(host, 7700))) == Address(host, 7700)


def test_what_arrives_is_an_address_or_nothing() -> None:
    good = msgspec.msgpack.encode(Address("2001:db8::5", 1))
    assert msgspec.msgpack.decode(good, type=Address) == Address("2001:db8::5", 1)
    for bad in (["h", 65536], ["", 1], ["a b", 1], ["h", -1], ["h"], ["h", 1, 2]):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(bad), type=Address)


def test_the_three_ports_follow_one_another_unless_they_are_given() -> None:
    assert HostPorts.following(Address("h", 7700)) == HostPorts("h", 7700, 7701, 7702)
    assert HostPorts.following(Address("h", 7700), 1, 2) == HostPorts("h", 7700, 1, 2)
    assert HostPorts.following(Address("h", 0)) == HostPorts("h", 0, 0, 0)
    assert HostPorts.following(Address("h", 65535), 1, 2) == HostPorts("h", 65535, 1, 2)


@pytest.mark.parametrize("port", [65534, 65535])
def test_ports_that_do_not_exist_are_refused(port) -> None:
    with pytest.raises(UserError, match="at most 65533"):
        HostPorts.following(Address("h", port))


@pytest.mark.parametrize(
    ("host", "local", "loopback"),
    [
        ("127.0.0.1", True, True),
        ("::1", True, True),
        ("192.168.1.5", True, False),
        ("10.1.2.3", True, False),
        ("100.64.0.1", True, False),
        ("fd00::1", True, False),
        ("fe80::1", True, False),
        ("203.0.113.5", False, False),
        ("2001:db8::5", False, False),
        ("8.8.8.8", False, False),
        ("host.example", False, False),
    ],
)
def test_where_an_address_means_something(host, local, loopback) -> None:
    assert (is_local(host), is_loopback(host)) == (local, loopback)
