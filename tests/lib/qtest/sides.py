# SPDX-License-Identifier: GPL-2.0
"""Programs that talk to each other, each on either machine, and what those with unix sockets share."""

import hashlib
import os
import random
import socket
import struct
import sys
import threading
import time
from errno import ECONNREFUSED, ENOENT

from . import agent, proxy
from .checks import eq, patience, true
from .process import ROOT, USER, spawn
from .remote import host

STREAM, RECORDS, DATAGRAMS = socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM


class Here:
    """A function in a process of this machine."""

    def __init__(self, function, *arguments, who=None):
        self.child = spawn(function, *arguments, who=who)

    def sleeps(self):
        """Waits until it sleeps."""
        return self.child.sleeps(20)

    def alive(self):
        """Whether it runs."""
        return self.child.alive()

    def result(self, seconds=60):
        """Waits for its end."""
        return self.child.result(seconds)

    def kill(self):
        """Ends it."""
        self.child.kill()
        true(self.child.finished(20), "it can be killed")


class There:
    """The same on the host."""

    def __init__(self, function, *arguments, who=None):
        # A test file is known by its path.
        module = sys.modules[function.__module__]
        where = module.__name__ if module.__package__ else module.__file__
        self.job = host.background.start("qtest.sides", "as_who", where, function.__name__, who and who.name, *arguments)

    def sleeps(self):
        """Waits until it sleeps."""
        return host.background.sleeps(self.job, 20)

    def alive(self):
        """Whether it runs."""
        return host.background.alive(self.job)

    def result(self, seconds=60):
        """Waits for its end."""
        deadline = time.monotonic() + patience(seconds)
        while not host.background.finished(self.job, 0.05) and time.monotonic() < deadline:
            pass
        return host.background.finish(self.job, 1)

    def kill(self):
        """Ends it."""
        host.background.stop(self.job)


def as_who(where, name, who, *arguments):
    """Calls a function of a test file or module as somebody."""
    for one in (ROOT, USER):
        if one.name == who:
            one.become()
    return agent.find(where, name)(*arguments)


# Who listens, and who connects.
SIDES = ((Here, Here), (Here, There), (There, Here), (There, There))
CROSS = ((Here, There), (There, Here))


class Place:
    """A socket's path, as both machines know it."""

    def __init__(self, t, name="s"):
        self.paths = {Here: t.path(name), There: t.there(name)}

    def start(self, where, function, *arguments, who=None):
        """Starts a function on it."""
        return where(function, self.paths[where], *arguments, who=who)


def begin():
    """What every case needs: the daemon."""
    proxy.start()


def listening(path, kind=STREAM, backlog=128, mode=0o777):
    """A socket that listens."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    os.chmod(path, mode)
    if kind != DATAGRAMS:
        sock.listen(backlog)
    return sock


def dial(path, kind=STREAM, seconds=30):
    """Connects, as soon as somebody listens."""
    deadline = time.monotonic() + patience(seconds)
    while True:
        sock = socket.socket(socket.AF_UNIX, kind)
        try:
            sock.connect(path)
            return sock
        except OSError as error:
            sock.close()
            if error.errno not in (ENOENT, ECONNREFUSED) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def receive_exactly(sock, size):
    """So many bytes, or what comes until the end."""
    pieces = []
    while size:
        piece = sock.recv(min(size, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def receive_all(sock):
    """All until the end."""
    return receive_exactly(sock, 1 << 40)


def refused(path, kind=STREAM):
    """The errno with which connecting fails; 0 if it does not."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        try:
            sock.connect(path)
        except OSError as error:
            return error.errno
    return 0


def peer_of(sock):
    """User and group of whoever is at the other end."""
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, gid


def echo(path, count=1, kind=STREAM):
    """Sends back what comes through so many connections, each to its end; who connected."""
    peers = []
    with listening(path, kind) as listener:
        for _ in range(count):
            with listener.accept()[0] as sock:
                peers.append(peer_of(sock))
                while data := sock.recv(1 << 20):
                    sock.sendall(data)
    return peers


def ask(path, seed, size, kind=STREAM):
    """Sends random bytes, and compares what comes back. Who answered."""
    data = random.Random(seed).randbytes(size)
    with dial(path, kind) as sock:
        peer = peer_of(sock)
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        got = receive_all(sock)
        sender.join()
    eq(hashlib.sha256(got).hexdigest(), hashlib.sha256(data).hexdigest(), f"{len(got)} of {size} bytes")
    return peer


def sockets_of_relays():
    """How many sockets and other descriptors the daemons of both machines have."""
    return proxy.descriptors("udsproxyd")[0], host.proxy.descriptors("engine")[0]


class Counted:
    """Nothing is left behind by what is done meanwhile, but for listeners that wait for a while for the next program."""

    def __enter__(self):
        begin()
        self.before = sockets_of_relays()
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            deadline = time.monotonic() + patience(50)
            while True:
                now = sockets_of_relays()
                if now[0] <= self.before[0] and now[1] <= self.before[1]:
                    break
                true(time.monotonic() < deadline, f"descriptors before {self.before}, now {now}")
                time.sleep(0.2)
