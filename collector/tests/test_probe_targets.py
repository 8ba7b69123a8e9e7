"""TARGET arguments: what is asked, and what is refused with which words."""

from __future__ import annotations

import socket

import pytest

from power_collector.probe import Target, TargetError, parse


def test_a_host_gets_the_usual_ports():
    assert parse(["192.168.1.100"]) == [Target("192.168.1.100", (502, 1025))]


def test_a_port_of_its_own_and_the_ports_for_all_others():
    assert parse(["10.0.0.2:5020", "10.0.0.1"], "1502, 502") == [
        Target("10.0.0.1", (1502, 502)),
        Target("10.0.0.2", (5020,)),
    ]


def test_a_range_is_its_hosts_in_order():
    found = parse(["192.168.1.0/24"])
    assert [one.host for one in found] == [f"192.168.1.{n}" for n in range(1, 255)]
    assert parse(["192.168.1.77/24"]) == found
    assert len(parse(["10.0.0.0/22"])) == 1022
    assert [one.host for one in parse(["10.0.0.7/32"])] == ["10.0.0.7"]


def test_each_host_is_asked_once():
    found = parse(["192.168.1.0/30", "192.168.1.2:7", "192.168.1.1"])
    assert found == [Target("192.168.1.1", (502, 1025)), Target("192.168.1.2", (502, 1025, 7))]


def test_a_name_is_looked_up(monkeypatch):
    def look_up(name, *_rest):
        if name != "mate3s.lan":
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.168.1.100", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert parse(["mate3s.lan:1025"]) == [Target("192.168.1.100", (1025,))]
    with pytest.raises(TargetError, match="neither an IPv4 address nor a name that is known here"):
        parse(["gone.lan"])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("10.0.0.0/21", "2,048 addresses: ask at most a /22 at once"),
        ("0.0.0.0/0", "ask at most a /22 at once"),
        ("10.0.0.0/33", "no range of IPv4 addresses"),
        ("fe80::/64", "no range of IPv4 addresses"),
        ("192.168.1.300", "neither an IPv4 address nor a name"),
        ("1.2.3", "neither an IPv4 address nor a name"),
        ("", "neither an IPv4 address nor a name"),
        ("::1", "neither an IPv4 address nor a name"),
        ("192.168.1.1:", "'' is no port"),
        ("192.168.1.1:0", "'0' is no port"),
        ("192.168.1.1:65536", "'65536' is no port"),
        ("192.168.1.1:http", "'http' is no port"),
    ],
)
def test_what_is_refused(target, words):
    with pytest.raises(TargetError, match=words):
        parse([target])


@pytest.mark.parametrize(
    ("ports", "words"), [("", "is no port"), ("1,2,3,4,5,6", "name 5 at most"), ("x", "'x'")]
)
def test_ports_that_are_refused(ports, words):
    with pytest.raises(TargetError, match=words):
        parse(["10.0.0.1"], ports)
