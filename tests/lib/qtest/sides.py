# SPDX-License-Identifier: GPL-2.0
"""Programs that talk to each other, each on either machine, and what those with unix sockets share."""

import os
import socket
import sys
import time
from errno import ECONNREFUSED, ENOENT

from . import agent, proxy
from .checks import patience, true
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
        file = sys.modules[function.__module__].__file__
        self.job = host.background.start("qtest.sides", "as_who", file, function.__name__, who and who.name, *arguments)

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


def as_who(file, name, who, *arguments):
    """Calls a function of a test file as somebody."""
    for one in (ROOT, USER):
        if one.name == who:
            one.become()
    return getattr(agent.load(file), name)(*arguments)


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
