# SPDX-License-Identifier: GPL-2.0
"""Unix sockets: processes of both machines that bind, connect, send, are killed and lose the link at random."""

import os
import random
import select
import socket
import time
from errno import EADDRINUSE, EAGAIN, ECONNREFUSED, ECONNRESET, ENOENT, ENOTCONN, EPIPE

from qtest import ROOT, case, eq, eventually, host, proxy, true
from qtest.checks import patience
from qtest.sides import CROSS, Place, dial, sockets_of_relays
from qtest.storm import storm

KINDS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
# What may come of it when another binds the name, the other end goes away or the link is cut.
EXPECTED = {EADDRINUSE, EAGAIN, ECONNREFUSED, ECONNRESET, ENOENT, ENOTCONN, EPIPE}


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


def serves(path, kind, choose, end):
    """Binds the name, and echoes for a while what comes through up to four connections at once."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        if choose.random() < 0.7:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        listener.bind(path)
        listener.listen(choose.choice((0, 1, 100)))
        connections = []
        try:
            while time.monotonic() < end:
                for ready in select.select([listener, *connections], [], [], 0.1)[0]:
                    if ready is listener:
                        connections.append(listener.accept()[0])
                        connections[-1].settimeout(1)
                    elif not echoes(ready) or choose.random() < 0.02:
                        connections.remove(ready)
                        ready.close()
                while len(connections) > 4:
                    connections.pop(0).close()
        finally:
            for sock in connections:
                sock.close()


def echoes(sock):
    """Sends back what is there; false when that was the end."""
    try:
        data = sock.recv(1 << 20)
        if data:
            sock.sendall(data)
        return bool(data)
    except OSError as e:
        true(isinstance(e, TimeoutError) or e.errno in EXPECTED, f"echo: {e}")
        return False


def asks(path, kind, choose):
    """Connects, sends, and compares what comes back; how many bytes did."""
    data = choose.randbytes(choose.choice((1, 100, 5000, 60_000)))
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(choose.choice((0.05, 1, 5)))
        sock.connect(path)
        back = 0
        for _ in range(choose.randrange(6)):
            sock.sendall(data)
            got = 0
            while got < len(data):
                piece = sock.recv(len(data) - got)
                if not piece:
                    return back
                true(piece == data[got:got + len(piece)], f"other bytes came back at {got} of {len(data)}")
                got += len(piece)
            back += got
        if choose.random() < 0.5:
            sock.shutdown(choose.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)))
        return back


def plays(top, names, seed, seconds):
    """Serves and asks at random; how often what happened, and how many bytes came back."""
    choose = random.Random(seed)
    found, back = {}, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # Each name has its kind of socket, mostly.
        number = choose.randrange(len(names))
        path, kind = os.path.join(top, names[number]), KINDS[number % 2]
        what = choose.choice(("serve", "ask", "ask", "ask"))
        try:
            if what == "serve":
                serves(path, kind, choose, min(end, time.monotonic() + choose.uniform(0.1, 3)))
            else:
                back += asks(path, kind, choose)
        except TimeoutError:
            what += " timed out"
        except OSError as e:
            true(e.errno in EXPECTED, f"{what}: {e}")
            what = f"{what} {e.strerror}"
        found[what] = found.get(what, 0) + 1
    return found, back


def answers(path):
    """Whether somebody answers at a path, as soon as somebody listens."""
    with dial(path) as sock:
        sock.settimeout(patience(10))
        sock.sendall(b"still there")
        return sock.recv(100) == b"still there"


@case("random binds, connections, kills and cuts of the link leave nothing behind", who=[ROOT], needs="qtfs", limit=300, full=3600)
def random_use(t):
    choose = random.Random(t.seed())
    names = [f"s{number}" for number in range(6)]
    proxy.start()
    daemons, before = proxy.daemons(), sockets_of_relays()
    threads = host.server.engine_threads()
    kills, cuts, here, there = storm(t, plays, __file__, names, choose, t.amount(15, 900), 0.3)
    found, back = {}, 0
    for number, bytes_back in here + there:
        back += bytes_back
        for what, times in number.items():
            found[what] = found.get(what, 0) + times
    t.note(f"{kills} kills, {cuts} cuts; of those who lived: {found}, {back} bytes came back")
    true(back > 0, "bytes came back")
    eq(proxy.daemons(), daemons, "the same daemon runs")
    for name in names:
        if os.path.lexists(name):
            os.unlink(name)
    # Listeners wait for a while for the next program.
    eventually(lambda: all(now <= then for now, then in zip(sockets_of_relays(), before)), 60, f"no socket is left: {before} before")
    eventually(lambda: host.server.engine_threads() <= threads + 2, 120, "no thread of engine is left")
    # Both ways still work.
    for number, (listener, dialer) in enumerate(CROSS):
        place = Place(t, f"last{number}")
        serving = place.start(listener, serves_one)
        true(place.start(dialer, answers).result(), "it answers")
        serving.result()


def serves_one(path):
    """Echoes what comes through one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with listener.accept()[0] as sock:
            echoes(sock)
