# SPDX-License-Identifier: GPL-2.0
"""Datagram sockets in shared directories: who sends, what arrives, whom the receiver answers, and what is left behind."""

import ctypes
import os
import socket
import struct
import time
from errno import ECONNREFUSED

from qtest import ROOT, USER, case, eq, eventually, fails, proxy, true
from qtest.checks import patience
from qtest.sides import CROSS, DATAGRAMS, SIDES, Counted, Here, Place, There, begin, dial, listening, sockets_of_relays

NEEDS = "qtfs"


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


def take(path, count):
    """So many datagrams."""
    with listening(path, DATAGRAMS) as sock:
        return [sock.recv(1 << 20) for _ in range(count)]


def give(path, count):
    """Sends datagrams, by a connection and without."""
    with dial(path, DATAGRAMS) as sock:
        for number in range(count - 1):
            sock.send(b"%d" % number * 1000)
    with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
        sock.sendto(b"last", path)


@case("datagrams arrive", who=[ROOT], needs=NEEDS, limit=120)
def arrive(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            takes = place.start(listener, take, 5)
            place.start(dialer, give, 5).result()
            eq(takes.result(), [b"%d" % n * 1000 for n in range(4)] + [b"last"])


def take_sizes(path, sizes):
    """Datagrams of these sizes, each of one letter."""
    with listening(path, DATAGRAMS) as sock:
        return [sock.recv(1 << 20) == bytes([65 + number]) * size for number, size in enumerate(sizes)]


def give_sizes(path, sizes):
    """Sends them."""
    with dial(path, DATAGRAMS) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992)
        for number, size in enumerate(sizes):
            sock.send(bytes([65 + number]) * size)


@case("a datagram has no bytes, or many, and arrives whole", who=[ROOT], needs=NEEDS, limit=120)
def whole(t):
    begin()
    # The longest is more than a socket sends that was not asked to.
    sizes = [0, 1, 60_000, 0, 150_000, 300_000, 3]
    for number, (listener, dialer) in enumerate(CROSS):
        place = Place(t, f"s{number}")
        takes = place.start(listener, take_sizes, sizes)
        place.start(dialer, give_sizes, sizes).result()
        eq(takes.result(), [True] * len(sizes))


# --- Who has sent it ---

def answer(path, count):
    """Sends each datagram back to the name that it came from; the names."""
    names = []
    with listening(path, DATAGRAMS) as sock:
        while len(names) < count:
            data, name = sock.recvfrom(1 << 20)
            names.append(name)
            sock.sendto(data.upper(), name)
    return names


def converse(path, own, data):
    """Sends from a socket that is bound to a name, by a connection and without; what comes back."""
    back = []
    with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
        sock.bind(own)
        sock.settimeout(patience(30))
        dial(path, DATAGRAMS).close()
        sock.sendto(data, path)
        back.append(sock.recv(100))
        sock.sendto(data + data, path)
        back.append(sock.recv(100))
    os.unlink(own)
    return back


def relatively(path, function, *arguments):
    """Calls a function of this file with names that are relative to the directory of `path`."""
    os.chdir(os.path.dirname(path))
    return globals()[function](os.path.basename(path), *arguments)


@case("the receiver sees the name of the sender's socket, and answers it: names in a current directory", who=[ROOT], needs=NEEDS, limit=120)
def answers_relative_names(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        place = Place(t, f"s{number}")
        answers = place.start(listener, relatively, "answer", 2)
        eq(place.start(dialer, relatively, "converse", f"c{number}", b"hello").result(), [b"HELLO", b"HELLOHELLO"])
        eq(answers.result(), [f"c{number}"] * 2)


@case("the receiver sees where the sender's socket is on its own machine, and answers it", who=[ROOT], needs=NEEDS, limit=120)
def answers_absolute_names(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        place, own = Place(t, f"s{number}"), Place(t, f"c{number}")
        answers = place.start(listener, answer, 2)
        eq(place.start(dialer, converse, own.paths[dialer], b"hello").result(), [b"HELLO", b"HELLOHELLO"])
        eq(answers.result(), [own.paths[listener]] * 2)


def name_of(size):
    """A relative name of so many bytes."""
    return "c".ljust(size, "n")


def give_from_long(path, size):
    """Sends a datagram from a socket with such a name, which Python does not take if it is of 108 bytes."""
    os.chdir(os.path.dirname(path))
    libc = ctypes.CDLL(None, use_errno=True)
    name = name_of(size).encode()
    with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
        address = ctypes.create_string_buffer(struct.pack("=H", socket.AF_UNIX) + name, 2 + size)
        eq((libc.bind(sock.fileno(), address, 2 + size), ctypes.get_errno()), (0, 0))
        dial(os.path.basename(path), DATAGRAMS).close()
        sock.sendto(b"x", os.path.basename(path))
    os.unlink(name)


def first_name_of(path):
    """The name that a datagram comes from, and how long its address is. Python does not take 108 bytes of one."""
    libc = ctypes.CDLL(None, use_errno=True)
    with listening(path, DATAGRAMS) as sock:
        address, size, byte = ctypes.create_string_buffer(128), ctypes.c_uint(128), ctypes.create_string_buffer(1)
        eq(libc.recvfrom(sock.fileno(), byte, 1, 0, address, ctypes.byref(size)), 1)
        return address.raw[2:size.value].rstrip(b"\0").decode(), size.value


@case("a sender's name may fill the address to its last byte", who=[ROOT], needs=NEEDS, limit=120)
def longest_names(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        for size in (107, 108):
            place = Place(t, f"s{number}{size}")
            seen = place.start(listener, first_name_of)
            place.start(dialer, give_from_long, size).result()
            # With a NUL that the kernel adds.
            eq(seen.result(), (name_of(size), 2 + size + 1), f"{listener} {dialer}")


@case("a name that is not in a shared directory is what the sender has given it", who=[ROOT], needs=NEEDS, limit=120)
def private_names(t):
    begin()
    for number, (listener, dialer) in enumerate(CROSS):
        place = Place(t, f"s{number}")
        names = place.start(listener, names_of, 3)
        place.start(dialer, give_from, [f"/tmp/deep-{number}/../deep-{number}/socket", None, "\0abstract"]).result()
        eq(names.result(), [f"/tmp/deep-{number}/../deep-{number}/socket", None, None])


def names_of(path, count):
    """The names that so many datagrams come from."""
    with listening(path, DATAGRAMS) as sock:
        return [sock.recvfrom(100)[1] for _ in range(count)]


def give_from(path, names):
    """Sends a datagram from a socket of each name; None for one that is not bound."""
    dial(path, DATAGRAMS).close()
    for name in names:
        with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
            if name and name[0] == "/":
                os.makedirs(os.path.dirname(os.path.normpath(name)), exist_ok=True)
            if name:
                sock.bind(name)
            sock.sendto(b"x", path)
        if name and name[0] == "/":
            os.unlink(name)


@case("one receiver has very many senders, each with a name", who=[ROOT], needs=NEEDS, limit=180)
def many_senders(t):
    with Counted():
        for number, (listener, dialer) in enumerate(CROSS):
            place = Place(t, f"s{number}")
            names = [f"/tmp/c{one}" for one in range(80)]
            seen = place.start(listener, names_of, len(names))
            place.start(dialer, give_from_each, names).result()
            eq(seen.result(), names)


def give_from_each(path, names):
    """The same, from sockets that are all there at once."""
    dial(path, DATAGRAMS).close()
    senders = []
    for name in names:
        sock = socket.socket(socket.AF_UNIX, DATAGRAMS)
        sock.bind(name)
        senders.append(sock)
    for name, sock in zip(names, senders):
        sock.sendto(b"x", path)
        os.unlink(name)


def credentials_of(path, count):
    """Users and groups of who has sent so many datagrams."""
    found = []
    with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
        # Before anybody can send: the kernel notes who sends for those who ask.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        os.umask(0)
        sock.bind(path)
        for _ in range(count):
            _, control, _, _ = sock.recvmsg(100, socket.CMSG_SPACE(12))
            found.append(list(struct.unpack("3i", control[0][2])[1:]))
    return found


@case("each datagram has the user and group of its sender (SO_PASSCRED)", who=[ROOT], needs=NEEDS, limit=120)
def credentials(t):
    begin()
    for number, (listener, dialer) in enumerate(CROSS):
        place = Place(t, f"s{number}")
        found = place.start(listener, credentials_of, 4)
        senders = [ROOT, USER, ROOT, USER]
        for who in senders:
            place.start(dialer, give, 1, who=who).result()
        eq([tuple(pair) for pair in found.result()], [(who.uid, who.gid) for who in senders])


# --- How long ---

@case("a program that sends very often without a connection has one relay", who=[ROOT], needs=NEEDS, limit=180)
def often(t):
    with Counted():
        place = Place(t, "s")
        takes = place.start(There, take, 200)
        begun = sockets_of_relays()
        with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
            dial(place.paths[Here], DATAGRAMS).close()
            most = (0, 0)
            for number in range(200):
                sock.sendto(b"%d" % number, place.paths[Here])
                if number % 20 == 0:
                    most = max(most, sockets_of_relays())
        eq(takes.result(), [b"%d" % number for number in range(200)])
        true(most[0] <= begun[0] + 12 and most[1] <= begun[1] + 12, f"descriptors before {begun}, meanwhile {most}")


@case("a program that is connected sends again after a long time", who=[ROOT], needs=NEEDS, limit=180)
def long_quiet(t):
    begin()
    place = Place(t, "s")
    takes = place.start(There, take, 2)
    with dial(place.paths[Here], DATAGRAMS) as sock:
        sock.send(b"first")
        # Relays that nobody uses go after 10 s.
        end = time.monotonic() + 25
        while time.monotonic() < end:
            true(takes.alive(), "the receiver waits")
            time.sleep(0.2)
        sock.send(b"second")
        eq(takes.result(), [b"first", b"second"])


@case("when the receiver is gone its senders get ECONNREFUSED", who=[ROOT], needs=NEEDS, limit=180)
def receiver_gone(t):
    begin()
    for number, (listener, dialer) in enumerate(CROSS):
        place = Place(t, f"s{number}")
        takes = place.start(listener, take, 1)
        place.start(dialer, until_refused).result()
        eq(takes.result(), [b"x"])


def until_refused(path):
    """Sends until that is refused."""
    def send():
        try:
            sock.send(b"x")
        except ConnectionRefusedError:
            return True
        return False

    with dial(path, DATAGRAMS) as sock:
        eventually(send, 60)
    with socket.socket(socket.AF_UNIX, DATAGRAMS) as sock:
        fails(ECONNREFUSED, sock.sendto, b"x", path)
