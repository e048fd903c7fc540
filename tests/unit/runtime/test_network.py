"""A process that may not reach the network cannot, and one that does not want to is not disturbed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Each line is tried in a process of its own kind: the hook stays for its life.
_SCRIPT = """
import json, os, socket, sys, tempfile
from trimtab.runtime.network import block_network

server = socket.create_server(("127.0.0.1", 0))
before = socket.create_connection(server.getsockname())
accepted = server.accept()[0]
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
address, target = server.getsockname(), receiver.getsockname()
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connected.connect(target)
block_network()
block_network()

def by_file():
    path = tempfile.mktemp()
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    local.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    os.unlink(path)
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.bind(path)
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", path)
    assert peer.recv(1) == b"x"
    os.unlink(path)

def as_before():
    before.sendall(b"abc")
    assert accepted.recv(3) == b"abc"
    before.sendmsg([b"d"])
    assert accepted.recv(1) == b"d"
    connected.send(b"x")
    assert receiver.recv(1) == b"x"

def a_pair():
    one, other = socket.socketpair()
    one.sendall(b"x")
    assert other.recv(1) == b"x"

def asyncio_runs():
    import asyncio
    asyncio.run(asyncio.sleep(0))

def urllib_opens():
    import urllib.request
    urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/", timeout=1)

tries = {
    "tcp": lambda: socket.create_connection(address),
    "tcp without a lookup": lambda: socket.socket().connect(address),
    "tcp by code": lambda: socket.socket().connect_ex(address),
    "tcp over IPv6": lambda: socket.socket(socket.AF_INET6).connect(("::1", 9)),
    "udp": lambda: datagrams.sendto(b"x", target),
    "udp with flags": lambda: datagrams.sendto(b"x", 0, target),
    "udp by message": lambda: datagrams.sendmsg([b"x"], [], 0, target),
    "udp connected": lambda: datagrams.connect(target),
    "getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
    "gethostbyname": lambda: socket.gethostbyname("localhost"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("localhost"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("127.0.0.1"),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
    "urllib": urllib_opens,
    "unix sockets": by_file,
    "connected before": as_before,
    "a pair": a_pair,
    "asyncio": asyncio_runs,
}
told = {}
for name, attempt in tries.items():
    try:
        attempt()
        told[name] = "done"
    except OSError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
ALLOWED = ("unix sockets", "connected before", "a pair", "asyncio")


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_connections_datagrams_and_lookups_are_refused_and_the_way_to_allow_them_is_told(told: dict[str, str]) -> None:
    refused = {name: said for name, said in told.items() if name not in ALLOWED}
    assert len(refused) == 14
    for name, said in refused.items():
        assert "keeps the network closed" in said, f"{name}: {said}"
        assert "--allow-network" in said


@pytest.mark.parametrize("name", ALLOWED)
def test_what_stays_on_the_machine_by_file_and_what_was_connected_goes_on(told: dict[str, str], name: str) -> None:
    assert told[name] == "done"
