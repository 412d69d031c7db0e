# SPDX-License-Identifier: GPL-2.0
"""Unix sockets in shared directories: programs of both machines connect to each other's, as if they were on one."""

import array
import contextlib
import ctypes
import hashlib
import itertools
import os
import random
import select
import selectors
import socket
import struct
import threading
import time
from errno import EACCES

from qtest import ROOT, USER, case, counters, eq, eventually, files, host, process, proxy, true, within
from qtest.checks import patience
from qtest.sides import CROSS, RECORDS, SIDES, STREAM, Counted, Here, Place, There, ask, begin, dial, echo, listening, peer_of, receive_all, refused

NEEDS = "qtfs"


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


# --- Data ---

@case("bytes arrive as they were written, in both directions at once, whoever is where", who=[ROOT], needs=NEEDS, limit=240)
def bytes_arrive(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, echo)
            place.start(dialer, ask, number, 3_000_000).result(120)
            eq(serves.result(), [(0, 0)])


# The longest is more than a socket sends that was not asked to.
SIZES = [1, 1000, 60_000, 150_000, 300_000, 3]


def sends_long(sock):
    """Has a socket send records of these sizes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992)


def records_echo(path):
    """Sends back records; their lengths."""
    lengths = []
    with listening(path, RECORDS) as listener, listener.accept()[0] as sock:
        sends_long(sock)
        while data := sock.recv(1 << 20):
            lengths.append(len(data))
            sock.sendall(data)
    return lengths


def records_ask(path):
    """Sends records of these lengths; those of what comes back, if the contents are right."""
    lengths = []
    with dial(path, RECORDS) as sock:
        sends_long(sock)
        for number, size in enumerate(SIZES):
            data = random.Random(number).randbytes(size)
            sock.sendall(data)
            back = sock.recv(1 << 20)
            eq(back == data, True, f"a record of {size} bytes, {len(back)} came back")
            lengths.append(len(back))
    return lengths


@case("records of SOCK_SEQPACKET stay apart, however long they are", who=[ROOT], needs=NEEDS, limit=120)
def records(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, records_echo)
            eq(place.start(dialer, records_ask).result(), SIZES)
            eq(serves.result(), SIZES)


def answer_at_end(path):
    """Reads to the end, then answers with the digest."""
    with listening(path) as listener, listener.accept()[0] as sock:
        sock.sendall(hashlib.sha256(receive_all(sock)).digest())


def end_then_read(path, size):
    """Writes, shuts down, and reads the answer; whether it is right."""
    data = random.Random(size).randbytes(size)
    with dial(path) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return receive_all(sock) == hashlib.sha256(data).digest()


def refuse_more(path):
    """Reads a little, shuts down reading; what it could still send."""
    with listening(path) as listener, listener.accept()[0] as sock:
        sock.recv(10)
        sock.shutdown(socket.SHUT_RD)
        sock.sendall(b"enough")
        # Until the other end has seen both.
        receive_all(sock)
        time.sleep(0)
        poller = select.poll()
        poller.register(sock, 0)
        return bool(poller.poll(patience(20) * 1000))


def write_until_refused(path):
    """Writes until nobody reads any more; what came."""
    with dial(path) as sock:
        try:
            while True:
                sock.sendall(bytes(10000))
        except BrokenPipeError:
            return sock.recv(100)


@case("one direction can be shut down", who=[ROOT], needs=NEEDS, limit=120)
def half_close(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, answer_at_end)
            eq(place.start(dialer, end_then_read, 700_000).result(), True)
            serves.result()
            place = Place(t, f"r{number}")
            serves = place.start(listener, refuse_more)
            eq(place.start(dialer, write_until_refused).result(), b"enough")
            eq(serves.result(), True)


def read_late(path, signal_path):
    """Reads nothing until told to; how much there was."""
    with listening(path) as listener, listener.accept()[0] as sock:
        deadline = time.monotonic() + patience(60)
        while not os.path.exists(signal_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(receive_all(sock))


LEAST = 200_000


def fill(path, signal_path):
    """Writes without waiting until nothing is taken for a while, then lets the reader begin; how much it was."""
    with dial(path) as sock:
        sock.setblocking(False)
        done, poller = 0, select.poll()
        poller.register(sock, select.POLLOUT)
        # Who stands still has not taken what two sockets have room for.
        while poller.poll(int(patience(30) * 1000) if done < LEAST else 1500):
            try:
                done += sock.send(bytes(100_000))
            except BlockingIOError:
                pass
        os.mkdir(signal_path)
        return done


@case("who writes waits for who reads", who=[ROOT], needs=NEEDS, limit=120)
def back_pressure(t):
    begin()
    for number, (listener, dialer) in enumerate(CROSS):
        place, go = Place(t, f"s{number}"), Place(t, f"go{number}")
        reads = place.start(listener, read_late, go.paths[listener])
        written = place.start(dialer, fill, go.paths[dialer]).result()
        # What two sockets and the window have room for.
        within(written, LEAST, 3_000_000, "bytes without a reader")
        eq(reads.result(), written)


# --- Who ---

def peers(path, count, kind=STREAM):
    """Who connects."""
    with listening(path, kind) as listener:
        found = []
        for _ in range(count):
            with listener.accept()[0] as sock:
                found.append(peer_of(sock))
                sock.sendall(b"x")
        return found


def knock(path, kind=STREAM):
    """Connects; who answers."""
    with dial(path, kind) as sock:
        eq(sock.recv(1), b"x")
        return peer_of(sock)


@case("SO_PEERCRED tells who connected from the other machine", who=[ROOT], needs=NEEDS)
def credentials(t):
    begin()
    os.chmod(".", 0o777)
    for number, (listener, dialer) in enumerate(SIDES):
        place = Place(t, f"s{number}")
        serves = place.start(listener, peers, 2)
        for who in (ROOT, USER):
            place.start(dialer, knock, who=who).result()
        eq(serves.result(), [(ROOT.uid, ROOT.gid), (USER.uid, USER.gid)])


@case("SO_PEERCRED tells who has connected whose the listener on the other machine is, also when another's comes after it", who=[ROOT], needs=NEEDS, limit=120)
def credentials_of_listeners(t):
    begin()
    os.chmod(".", 0o777)
    for number, (listener, dialer) in enumerate(SIDES):
        for kind in (STREAM, RECORDS):
            place = Place(t, f"s{number}{kind}")
            for who in (USER, ROOT, USER):
                serves = place.start(listener, peers, 1, kind, who=who)
                eq(place.start(dialer, knock, kind).result(), (who.uid, who.gid), f"{listener} {dialer} {kind}")
                serves.result()
                os.unlink(place.paths[Here])


def becomes_another(path):
    """Listens as root, serves one, and listens as an ordinary user from then on."""
    with listening(path) as listener:
        with listener.accept()[0] as sock:
            os.setegid(USER.gid)
            os.seteuid(USER.uid)
            listener.listen()
            sock.sendall(b"x")
        with listener.accept()[0] as sock:
            sock.sendall(b"x")


@case("who connects to a program of HOST sees who it was when it began to listen, the last time that it did", who=[ROOT], needs=NEEDS)
def credentials_change(t):
    begin()
    os.chmod(".", 0o777)
    for number, (listener, dialer) in enumerate(SIDES):
        place = Place(t, f"s{number}")
        serves = place.start(listener, becomes_another)
        seen = [place.start(dialer, knock).result() for _ in range(2)]
        # A program of the DPU that HOST's connect to is who has bound the socket.
        last = ROOT if (listener, dialer) == (Here, There) else USER
        eq(seen, [(ROOT.uid, ROOT.gid), (last.uid, last.gid)], f"{listener} {dialer}")
        serves.result()


def senders(sock, data):
    """User and group that come with each message until all of `data` has come."""
    found, got = [], b""
    while got != data:
        piece, control, _, _ = sock.recvmsg(100, socket.CMSG_SPACE(12))
        true(piece, "it does not end")
        got += piece
        found.append(struct.unpack("3i", control[0][2])[1:])
    return found


def say(sock, data):
    """Writes byte by byte."""
    for byte in data:
        sock.send(bytes([byte]))


def asks_who(path, kind):
    """Serves one connection whose messages tell who has sent them; who."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        os.umask(0)
        listener.bind(path)
        listener.listen()
        with listener.accept()[0] as sock:
            found = senders(sock, b"question")
            say(sock, b"answer")
            eq(sock.recv(1), b"")
            return sorted(set(found))


def tells_who(path, kind):
    """The other end of it; who has answered."""
    with dial(path, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        say(sock, b"question")
        return sorted(set(senders(sock, b"answer")))


@case("messages tell who has connected, and who listens (SO_PASSCRED)", who=[ROOT], needs=NEEDS, limit=120)
def credentials_of_messages(t):
    begin()
    os.chmod(".", 0o777)
    for kind in (STREAM, RECORDS):
        for number, (listener, dialer) in enumerate(SIDES):
            for serving, asking in ((USER, ROOT), (ROOT, USER)):
                place = Place(t, f"s{kind}{number}{serving.name}")
                serves = place.start(listener, asks_who, kind, who=serving)
                eq(place.start(dialer, tells_who, kind, who=asking).result(), [(serving.uid, serving.gid)], f"{listener} {dialer}")
                eq(serves.result(), [(asking.uid, asking.gid)], f"{listener} {dialer}")


@case("who may not write to a socket may not connect to it", who=[ROOT], needs=NEEDS)
def permissions(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        place = Place(t, f"s{number}")
        serves = place.start(listener, closed_to_others)
        true(eventually(lambda place=place: os.path.exists(place.paths[Here]) and os.stat(place.paths[Here]).st_mode & 0o777 == 0o600, 20), "it is there")
        eq(place.start(dialer, refused, who=USER).result(), EACCES)
        place.start(dialer, knock).result()
        serves.result()


def closed_to_others(path):
    """Takes one connection of its owner."""
    with listening(path, mode=0o600) as listener, listener.accept()[0] as sock:
        sock.sendall(b"x")


def address(name, size):
    """An address whose name has so many bytes. With 108, which Python does not take, there is no room for a NUL."""
    path = name.encode().ljust(size, b"n")
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_UNIX) + path, 2 + size)


def call_with(name, sock, path, size):
    """bind(2) or connect(2) with such an address, relative to its directory; the errno."""
    os.chdir(os.path.dirname(path))
    call = getattr(ctypes.CDLL(None, use_errno=True), name)
    failed = call(sock.fileno(), address(os.path.basename(path), size), 2 + size)
    return ctypes.get_errno() if failed else 0


def serve_long(path, size):
    """Serves a connection to a socket with a name of so many bytes; what it said."""
    with socket.socket(socket.AF_UNIX) as sock:
        eq(call_with("bind", sock, path, size), 0)
        sock.listen()
        with sock.accept()[0] as one:
            one.sendall(b"answer")
            return receive_all(one)


def ask_long(path, size):
    """Connects to it; the answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        true(eventually(lambda: call_with("connect", sock, path, size) == 0, 20), "somebody listens")
        sock.sendall(b"question")
        return sock.recv(100)


@case("a name may fill the address to its last byte", who=[ROOT], needs=NEEDS)
def longest_names(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        for size in (107, 108):
            place = Place(t, f"s{number}")
            serves = place.start(listener, serve_long, size)
            eq(place.start(dialer, ask_long, size).result(), b"answer", f"{size} {listener} {dialer}")
            eq(serves.result(), b"question")


@case("the file is what bind made: HOST's inode, owner and mode", who=[ROOT], needs=NEEDS)
def the_file(t):
    begin()
    os.chmod(".", 0o777)
    old = os.umask(0o027)
    process.as_user(USER, bind_and_look, t.path("s"))
    os.umask(old)
    here, there = os.stat("s"), host.os.stat(t.there("s"))
    eq((here.st_ino, here.st_mode), (there.st_ino, there.st_mode))
    eq((there.st_uid, there.st_gid), (USER.uid, USER.gid))
    eq(there.st_mode, 0o140750)


def bind_and_look(path):
    """Binds; the name that the socket has."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        eq(sock.getsockname(), path)


# --- Descriptors ---

def send_fds(sock, fds, data=b"x"):
    """Passes descriptors."""
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive_fds(sock):
    """Data and descriptors."""
    data, control, _, _ = sock.recvmsg(100, socket.CMSG_SPACE(4 * 16))
    fds = array.array("i")
    for level, kind, bytes_ in control:
        eq((level, kind), (socket.SOL_SOCKET, socket.SCM_RIGHTS))
        fds.frombytes(bytes_[:len(bytes_) - len(bytes_) % 4])
    return data, list(fds)


def give(path, directory):
    """Passes a file, a directory, both ends of pipes, a socket, and what cannot be passed; uses what it keeps."""
    with dial(path) as sock:
        fd = os.open(directory + "/file", os.O_RDWR)
        os.lseek(fd, 4, os.SEEK_SET)
        send_fds(sock, [fd], b"f")
        eq(sock.recv(1), b".")
        eq(os.pread(fd, 100, 0), b"abcdEFGH")
        top = os.open(directory, os.O_RDONLY)
        send_fds(sock, [top], b"d")
        eq(sock.recv(1), b".")
        reader, writer = os.pipe()
        reader2, writer2 = os.pipe()
        mine, theirs = socket.socketpair()
        send_fds(sock, [reader, writer2, theirs.fileno()], b"p")
        theirs.close()
        os.close(reader)
        os.close(writer2)
        os.write(writer, b"down the pipe")
        os.close(writer)
        eq(os.read(reader2, 100), b"up the pipe")
        eq(os.read(reader2, 100), b"")
        mine.sendall(b"question")
        eq(mine.recv(100), b"answer")
        mine.close()
        eq(sock.recv(1), b".")
        lost = os.memfd_create("secret")
        send_fds(sock, [lost], b"l")
        eq(sock.recv(1), b".")


def take(path):
    """The other side."""
    with listening(path) as listener, listener.accept()[0] as sock:
        data, (fd,) = receive_fds(sock)
        eq(data, b"f")
        eq(os.read(fd, 100), b"efgh")
        os.pwrite(fd, b"EFGH", 4)
        os.close(fd)
        sock.sendall(b".")
        data, (fd,) = receive_fds(sock)
        eq((data, "file" in os.listdir(fd)), (b"d", True))
        os.close(fd)
        sock.sendall(b".")
        data, (reader, writer, other) = receive_fds(sock)
        eq(data, b"p")
        got = b""
        while piece := os.read(reader, 100):
            got += piece
        eq(got, b"down the pipe")
        os.write(writer, b"up the pipe")
        os.close(writer)
        other = socket.socket(fileno=other)
        eq(other.recv(100), b"question")
        other.sendall(b"answer")
        eq(other.recv(100), b"")
        other.close()
        sock.sendall(b".")
        data, fds = receive_fds(sock)
        sock.sendall(b".")
        return data, len(fds)


@case("files, directories, pipes and sockets are passed to the other machine; what cannot be is missed at once",
      who=[ROOT], needs=NEEDS, limit=120)
def rights(t):
    with Counted():
        for number, (listener, dialer) in enumerate(CROSS):
            with open("file", "wb") as file:
                file.write(b"abcdefgh")
            place, top = Place(t, f"s{number}"), Place(t, ".")
            takes = place.start(listener, take)
            gives = place.start(dialer, give, top.paths[dialer])
            eq(takes.result(), (b"l", 0))
            gives.result()


def outlived(path, directory, dials):
    """Passes a file and a pipe, and is passed the same, by a connection whose socket file may be another one by then."""
    with contextlib.ExitStack() as stack:
        sock = dial(path) if dials else stack.enter_context(listening(path)).accept()[0]
        stack.enter_context(sock)
        sock.sendall(b".")
        eq(sock.recv(1), b".")
        eventually(lambda: os.path.exists(path + ".go"), 60, "the file is removed")
        for passes in (dials, not dials):
            if passes:
                eq(sock.recv(1), b"?")
                reader, writer = os.pipe()
                fd = os.open(directory + "/file", os.O_RDONLY)
                send_fds(sock, [fd, reader], b"p")
                os.close(reader)
                os.write(writer, b"down the pipe")
                os.close(writer)
                eq(sock.recv(1), b".")
            else:
                sock.sendall(b"?")
                data, fds = receive_fds(sock)
                eq((data, len(fds)), (b"p", 2))
                fd, reader = fds
                eq((os.read(fd, 100), os.read(reader, 100), os.read(reader, 100)), (b"abcdefgh", b"down the pipe", b""))
                sock.sendall(b".")


@case("descriptors are passed by a connection that outlives the socket's file", who=[ROOT], needs=NEEDS, limit=180)
def rights_of_the_unlinked(t):
    begin()
    with open("file", "wb") as file:
        file.write(b"abcdefgh")
    top = Place(t, ".")
    for number, ((listener, dialer), again) in enumerate(itertools.product(CROSS, (False, True))):
        place = Place(t, f"s{number}")
        ends = [place.start(where, outlived, top.paths[where], where == dialer) for where in (listener, dialer)]
        true(eventually(lambda number=number: os.path.exists(f"s{number}"), 20), "it is bound")
        # Both wait for the file that lets them go on.
        true(all(end.sleeps() for end in ends), "they are connected")
        os.unlink(f"s{number}")
        if again:
            serves = place.start(listener, echo)
            place.start(dialer, ask, 1, 1000).result()
            serves.result()
        with open(f"s{number}.go", "wb"):
            pass
        for end in ends:
            end.result()


# --- Costs ---

@case("a message costs one request; what is idle costs nothing", who=[ROOT], needs=NEEDS)
def costs(t):
    begin()
    serves = There(echo, t.there("s"))
    with dial("s") as sock:
        for _ in range(5):
            sock.sendall(b"x")
            eq(sock.recv(1), b"x")
        before = counters.read(t.fs.mnt)
        for _ in range(20):
            sock.sendall(b"message")
            eq(sock.recv(100), b"message")
        spent = counters.read(t.fs.mnt) - before
        # One SEND there, one RECEIVE back that waits on HOST before the answer is made.
        eq([spent.count(name, "requests") for name in ("SEND", "RECEIVE", "POLL")], [20, 20, 0], spent)
        before = counters.read(t.fs.mnt)
        time.sleep(2)
        eq((counters.read(t.fs.mnt) - before).total("requests"), 0, "requests of an idle connection")
    serves.result()


def echo_messages(path, count):
    """Sends back what comes through so many connections at once, until all have ended."""
    with listening(path) as listener, selectors.DefaultSelector() as ready:
        for _ in range(count):
            ready.register(listener.accept()[0], selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select():
                sock = key.fileobj
                if data := sock.recv(1000):
                    sock.sendall(data)
                else:
                    ready.unregister(sock)
                    sock.close()


def read_a_byte_each(path, count):
    """Reads one byte of a FIFO in each of so many threads."""
    def read():
        fd = os.open(path, os.O_RDWR)
        eq(os.read(fd, 1), b"x")
        os.close(fd)
    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@case("idle connections cost nothing, however many others wait on HOST", who=[ROOT], needs=NEEDS, limit=120)
def costs_beside_waiters(t):
    begin()
    os.mkfifo("p")
    count = 20
    readers = Here(read_a_byte_each, t.path("p"), 70)
    # HOST lets half of the slots wait.
    eventually(lambda: counters.in_flight(t.fs.mnt) >= 64, 20, "they wait")
    serves = There(echo_messages, t.there("s"), count)
    socks = [dial("s") for _ in range(count)]

    def asked():
        for sock in socks:
            sock.sendall(b"message")
            eq(sock.recv(100), b"message")
    for _ in range(3):
        asked()
        eventually(lambda: idle_for(t, 1), 20, "idle connections cost nothing")
        before = counters.read(t.fs.mnt)
        time.sleep(2)
        eq((counters.read(t.fs.mnt) - before).total("requests"), 0, "requests of idle connections")
    files.write("p", b"x" * 70)
    readers.result()
    # There is room again.
    asked()
    for sock in socks:
        sock.close()
    serves.result()


def idle_for(t, seconds):
    """Whether nothing is asked for a while."""
    before = counters.read(t.fs.mnt)
    time.sleep(seconds)
    return (counters.read(t.fs.mnt) - before).total("requests") == 0
