# SPDX-License-Identifier: GPL-2.0
"""Unix sockets in shared directories: programs of both machines connect to each other's, as if they were on one."""

import array
import hashlib
import os
import random
import select
import signal
import socket
import struct
import threading
import time
from errno import EACCES, EADDRINUSE, EAGAIN, ECONNREFUSED, ECONNRESET, ENOENT, EPIPE, EPROTOTYPE

from qtest import ROOT, USER, case, counters, eq, eventually, fails, files, filesystems, host, lab, on_host, process, proxy, run, true, within
from qtest.checks import patience
from qtest.sides import CROSS, RECORDS, SIDES, STREAM, Counted, Here, Place, There, begin, dial, listening, receive_all, receive_exactly

NEEDS = "qtfs"


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


def connects(path):
    """Connects, and that is all."""
    dial(path).close()


def refused(path, kind=STREAM):
    """The errno with which connecting fails; 0 if it does not."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        try:
            sock.connect(path)
        except OSError as error:
            return error.errno
    return 0


@on_host
def refused_there(path, kind=STREAM):
    """The same on the host."""
    return refused(path, kind)


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


# --- Data ---

@case("bytes arrive as they were written, in both directions at once, whoever is where", who=[ROOT], needs=NEEDS, limit=240)
def bytes_arrive(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, echo)
            place.start(dialer, ask, number, 3_000_000).result(120)
            eq(serves.result(), [(0, 0)])


def records_echo(path):
    """Sends back records; their lengths."""
    lengths = []
    with listening(path, RECORDS) as listener, listener.accept()[0] as sock:
        while True:
            data, control, flags, _ = sock.recvmsg(1 << 20)
            if not data and not flags & socket.MSG_EOR and len(lengths) >= 5:
                return lengths
            lengths.append(len(data))
            sock.sendall(data)


def records_ask(path):
    """Sends records of these lengths; those of what comes back, if the contents are right."""
    lengths = []
    with dial(path, RECORDS) as sock:
        for number, size in enumerate((1, 1000, 60_000, 150_000, 3)):
            data = random.Random(number).randbytes(size)
            sock.sendall(data)
            back = sock.recv(1 << 20)
            eq(back == data, True, f"a record of {size} bytes, {len(back)} came back")
            lengths.append(len(back))
    return lengths


@case("records of SOCK_SEQPACKET stay apart", who=[ROOT], needs=NEEDS, limit=120)
def records(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, records_echo)
            eq(place.start(dialer, records_ask).result(), [1, 1000, 60_000, 150_000, 3])
            eq(serves.result(), [1, 1000, 60_000, 150_000, 3])


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

def peers(path, count):
    """Who connects."""
    with listening(path) as listener:
        found = []
        for _ in range(count):
            with listener.accept()[0] as sock:
                found.append(peer_of(sock))
                sock.sendall(b"x")
        return found


def knock(path):
    """Connects; who answers."""
    with dial(path) as sock:
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


# --- Nobody ---

def listen_for(path, seconds):
    """Listens for a while."""
    with listening(path):
        time.sleep(seconds)


@case("connecting fails with ECONNREFUSED when nobody listens, at once", who=[ROOT], needs=NEEDS)
def refusals(t):
    begin()
    for number, (listener, dialer) in enumerate(SIDES):
        place = Place(t, f"s{number}")
        lives = place.start(listener, listen_for, 60)
        place.start(dialer, connects).result()
        eq(place.start(dialer, refused, RECORDS).result(), EPROTOTYPE, f"another type, {listener} {dialer}")
        lives.kill()
        # HOST learns by a message that a socket of the DPU is closed.
        true(eventually(lambda: place.start(dialer, refused).result() == ECONNREFUSED, 20), f"{listener} {dialer}")
        begun = time.monotonic()
        eq(place.start(dialer, refused).result(), ECONNREFUSED)
        within(time.monotonic() - begun, 0, patience(15), "seconds")
    os.mknod("plain", 0o140777)
    eq(refused("plain"), ECONNREFUSED)
    eq(refused("missing"), ENOENT)


def slow_to_accept(path):
    """Has room for two connections, and takes them when it is told to."""
    with listening(path, backlog=1) as listener:
        listener.settimeout(0.05)
        while not os.path.exists(path + ".end"):
            if os.path.exists(path + ".go"):
                try:
                    listener.accept()[0].close()
                except TimeoutError:
                    pass
            else:
                time.sleep(0.05)


def connect_many(path):
    """Connects without waiting, until that fails: what failed, and how many there were before."""
    socks = []
    while len(socks) < 100:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError as error:
            return error.errno, len(socks)
        socks.append(sock)
    return 0, len(socks)


@case("with a full queue connecting waits, or is EAGAIN with O_NONBLOCK", who=[ROOT], needs=NEEDS)
def full_queue(t):
    begin()
    for number, listener in enumerate((Here, There)):
        place = Place(t, f"s{number}")
        serves = place.start(listener, slow_to_accept)
        found = []

        def listens(place=place, found=found):
            found[:] = place.start(Here, connect_many).result()
            return found[0] not in (ENOENT, ECONNREFUSED)
        true(eventually(listens, 20), "it listens")
        eq(found, [EAGAIN, 2])
        waits = place.start(Here, connects)
        true(waits.sleeps() and waits.alive(), "who may wait does")
        files.write(f"s{number}.go", b"")
        waits.result()
        files.write(f"s{number}.end", b"")
        serves.result()


@case("a socket can be unlinked and bound again, by either machine", who=[ROOT], needs=NEEDS, limit=120)
def bind_again(t):
    begin()
    place = Place(t)
    order = (Here, There, Here, Here, There, There)
    for number, listener in enumerate(order):
        eq(place.start(listener, refused_to_bind).result(), EADDRINUSE if number else 0, "binding over it")
        if os.path.exists("s"):
            (os.unlink if number % 2 else host.os.unlink)("s" if number % 2 else t.there("s"))
        serves = place.start(listener, echo, 2)
        for seed, dialer in enumerate((Here, There)):
            place.start(dialer, ask, seed, 1000).result()
        serves.result()


def refused_to_bind(path):
    """The errno of binding."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.bind(path)
        except OSError as error:
            return error.errno
    os.unlink(path)
    return 0


@case("a listener may come after the file was looked up", who=[ROOT], needs=NEEDS)
def late_listener(t):
    begin()
    place = Place(t)
    os.mknod("s", 0o140777)
    os.stat("s")
    eq((refused("s"), refused_there(t.there("s"))), (ECONNREFUSED, ECONNREFUSED))
    for listener, dialer in CROSS:
        os.stat("s")
        os.unlink("s")
        serves = place.start(listener, echo)
        place.start(dialer, ask, 1, 1000).result()
        serves.result()


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


# --- The end ---

def hold(path):
    """Takes a connection and keeps it."""
    with listening(path) as listener, listener.accept()[0] as sock:
        sock.sendall(b"x")
        time.sleep(600)
        return sock


def outlive(path):
    """Connects; how the end of the other one is seen."""
    with dial(path) as sock:
        eq(sock.recv(1), b"x")
        os.mkdir(path + ".go")
        try:
            got = sock.recv(1)
        except ConnectionResetError:
            got = b""
        eq(got, b"")
        for _ in range(1000):
            try:
                sock.sendall(b"more")
            except (BrokenPipeError, ConnectionResetError) as error:
                return error.errno
            time.sleep(0.01)
    return 0


def call_and_wait(path):
    """Connects and keeps the connection."""
    with dial(path) as sock:
        eq(sock.recv(1), b"x")
        os.mkdir(path + ".go")
        time.sleep(600)


def wait_for_end(path):
    """Takes a connection; what comes of its end."""
    with listening(path) as listener, listener.accept()[0] as sock:
        sock.sendall(b"x")
        return receive_all(sock)


@case("the death of one end is the end for the other", who=[ROOT], needs=NEEDS, limit=120)
def death(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            dies, lives = place.start(listener, hold), place.start(dialer, outlive)
            true(eventually(lambda number=number: os.path.isdir(f"s{number}.go"), 30), "they are connected")
            dies.kill()
            true(lives.result() in (EPIPE, ECONNRESET), "writing fails")
            place = Place(t, f"d{number}")
            lives, dies = place.start(listener, wait_for_end), place.start(dialer, call_and_wait)
            true(eventually(lambda number=number: os.path.isdir(f"d{number}.go"), 30), "they are connected")
            dies.kill()
            eq(lives.result(), b"")


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


# --- Many ---

# --- Trouble ---

@case("without the daemon connecting is refused, and the log says what to start", who=[ROOT], needs=NEEDS, loses=True)
def no_daemon(t):
    proxy.stop()
    place = Place(t)
    lives = place.start(There, listen_for, 60)
    true(eventually(lambda: refused_there(t.there("s")) == 0, 20), "it listens")
    eq(refused("s"), ECONNREFUSED)
    text = run(["dmesg"]).out.decode(errors="replace")
    true("start it with: udsproxyd" in text, "the log says it")
    # What is bound now is found once the daemon runs.
    serves = Place(t, "h").start(Here, echo)
    true(eventually(lambda: os.path.exists("h"), 20), "it is bound")
    eq(refused_there(t.there("h")), ECONNREFUSED)
    begin()
    Place(t, "h").start(There, ask, 1, 1000).result()
    serves.result()
    dial("s").close()
    lives.kill()


@case("when a daemon ends its connections end; the next one goes on", who=[ROOT], needs=NEEDS, limit=200)
def restarts(t):
    begin()
    os.umask(0)
    for name, stop in (("d", lambda: proxy.stop(signal.SIGKILL)), ("e", lambda: host.server.restart_engine(signal.SIGKILL))):
        for number, (listener, dialer) in enumerate(CROSS):
            place = Place(t, f"{name}{number}")
            serves = place.start(listener, echo_until_killed)
            lives = place.start(dialer, outlive)
            true(eventually(lambda name=name, number=number: os.path.isdir(f"{name}{number}.go"), 30), "they are connected")
            stop()
            begin()
            true(lives.result() in (EPIPE, ECONNRESET), "the connection has ended")
            # The listener lives, and is found again.
            place.start(dialer, ask_again).result()
            serves.kill()


def echo_until_killed(path):
    """Serves connections one after another; each begins with a byte of ours."""
    with listening(path) as listener:
        while True:
            with listener.accept()[0] as sock:
                try:
                    sock.sendall(b"x")
                    while data := sock.recv(1000):
                        sock.sendall(data)
                except OSError:
                    pass


def ask_again(path):
    """A question that the listener answers, soon."""
    deadline = time.monotonic() + patience(40)
    while True:
        try:
            with dial(path, seconds=40) as sock:
                sock.sendall(b"again")
                eq(receive_exactly(sock, 6), b"xagain")
                return
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@case("the link may be gone for a while: what was written arrives", who=[ROOT], needs=NEEDS, limit=200)
def link_cut(t):
    begin()
    for number, (listener, dialer) in enumerate(CROSS):
        place = Place(t, f"s{number}")
        serves = place.start(listener, echo)
        asks = place.start(dialer, ask, number, 6_000_000)
        true(eventually(lambda number=number: host.os.path.exists(t.there(f"s{number}")), 20), "it is bound")
        time.sleep(0.2)
        lab.link("down")
        time.sleep(3)
        lab.link("up")
        asks.result(120)
        serves.result()


@case("what nobody uses any more does not keep a mount from being unmounted", who=[ROOT], needs=NEEDS)
def unmounting(t):
    begin()
    top = f"/mnt/sockets-{os.getpid()}"
    os.makedirs(top)
    filesystems.mount(t.host_dir, top)
    serves = There(echo, t.there("s"))
    ask(f"{top}/s", 1, 1000)
    serves.result()
    run(["umount", top])
    # A connection that a program still has ends with the mount.
    filesystems.mount(t.host_dir, top)
    os.unlink(f"{top}/s")
    serves = There(echo, t.there("s"))
    with dial(f"{top}/s") as sock:
        sock.sendall(b"x")
        eq(sock.recv(1), b"x")
        run(["umount", top])
        eq(sock.recv(1), b"")
    serves.result()
    # A socket that is bound there keeps it, as on any file system.
    filesystems.mount(t.host_dir, top)
    with listening(f"{top}/b"):
        eq(run(["umount", top], check=False).status != 0, True, "umount fails")
    true(eventually(lambda: run(["umount", top], check=False).status == 0, 10), "it can be unmounted")
    os.rmdir(top)


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
