# SPDX-License-Identifier: GPL-2.0
"""Programs and libraries that use unix sockets, one of them on each machine: Go's net, ttrpc, asyncio, socat."""

import asyncio
import os
import shutil
import time

from qtest import ROOT, case, eq, filesystems, proxy, run, true, within
from qtest.checks import patience
from qtest.sides import CROSS, SIDES, Counted, Place, begin, dial

NEEDS = "qtfs"


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


TOOLS = filesystems.build_directory() + "/tools/"


def go(path, *words):
    """Go's net package; what it printed."""
    return run([TOOLS + "unixsocket", words[0], path, *words[1:]], patience=60).out


@case("net.Listen and net.Dial of Go work between the machines", who=[ROOT], needs=NEEDS, limit=120)
def golang(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        # Long names fill the address to its end.
        place = Place(t, f"s{number}" + "n" * (100 - len(t.path(f"s{number}"))))
        serves = place.start(listener, go, "serve", "3")
        place.start(dialer, wait_until_bound).result()
        for _ in range(3):
            eq(place.start(dialer, go, "ask", "200000").result(), b"same\n")
        eq(serves.result(), b"3 connections\n")


def wait_until_bound(path):
    """Waits until a program can connect: until the file is there."""
    deadline = time.monotonic() + patience(20)
    while not os.path.exists(path):
        true(time.monotonic() < deadline, "somebody binds it")
        time.sleep(0.02)


def ttrpc(path, *words):
    """The library that containerd talks to its shims with; what the program printed."""
    return run([TOOLS + "ttrpc", words[0], path, *words[1:]], patience=90).out


@case("calls of ttrpc, several at a time over one connection, are answered", who=[ROOT], needs=NEEDS, limit=200)
def calls(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, ttrpc, "serve")
            place.start(dialer, wait_until_bound).result()
            eq(place.start(dialer, ttrpc, "ask", "100").result(100), b"100 calls\n")
            eq(serves.result(), b"")


# How long socat, which has half a second for it by itself, waits for one direction when the other one has ended.
PATIENCE = str(int(patience(60)))


def socat_echo(path):
    """socat answers what it gets."""
    return run(["socat", "-t", PATIENCE, f"UNIX-LISTEN:{path},unlink-early", "EXEC:cat"], patience=90).status


def socat_ask(path):
    """socat asks; what comes back."""
    wait_until_bound(path)
    return run(["socat", "-t", PATIENCE, "-", f"UNIX-CONNECT:{path},retry=20,interval=0.2"], stdin=b"to and fro\n", patience=90).out


@case("socat works between the machines", who=[ROOT], needs=NEEDS, limit=120)
def socat(t):
    begin()
    true(shutil.which("socat"), "socat is there")
    for number, (listener, dialer) in enumerate(SIDES):
        place = Place(t, f"s{number}")
        serves = place.start(listener, socat_echo)
        eq(place.start(dialer, socat_ask).result(), b"to and fro\n")
        eq(serves.result(), 0)


def echo_many(path, count):
    """Echoes through so many connections at a time; how many there were at most."""
    return asyncio.run(echo_many_async(path, count))


async def echo_many_async(path, count):
    """The same."""
    open_now, most, done = 0, 0, asyncio.Event()

    async def serve(reader, writer):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()
        open_now -= 1
        if most == count and open_now == 0:
            done.set()

    server = await asyncio.start_unix_server(serve, path, backlog=4096)
    os.chmod(path, 0o777)
    async with server:
        await asyncio.wait_for(done.wait(), patience(200))
    return most


def ask_many(path, count):
    """Opens so many connections, then uses each; the threads that the daemon of this machine had meanwhile."""
    return asyncio.run(ask_many_async(path, count))


async def ask_many_async(path, count):
    """The same."""
    dial(path).close()
    pairs = []
    for _ in range(count):
        pairs.append(await asyncio.open_unix_connection(path))

    async def talk(number):
        reader, writer = pairs[number]
        for turn in range(2):
            message = b"%d %d" % (number, turn)
            writer.write(message)
            eq(await reader.readexactly(len(message)), message)

    for begin_at in range(0, count, 50):
        await asyncio.gather(*(talk(number) for number in range(begin_at, min(begin_at + 50, count))))
    threads = max(proxy.descriptors(name)[1] for name in ("udsproxyd", "engine"))
    for _, writer in pairs:
        writer.close()
    return threads


@case("very many connections at once take no thread each", who=[ROOT], needs=NEEDS, limit=240, full=900)
def many(t):
    count = t.amount(int(150 / patience(1)), 1000)
    with Counted():
        for number, (listener, dialer) in enumerate(CROSS):
            place = Place(t, f"s{number}")
            serves = place.start(listener, echo_many, count)
            threads = place.start(dialer, ask_many, count).result(200)
            eq(serves.result(180), count)
            within(threads, 1, 60, "threads")
