# SPDX-License-Identifier: GPL-2.0
"""Unix sockets in shared directories whose other end is missing, busy, another one by now or gone; daemons, links and mounts that go away."""

import os
import select
import signal
import socket
import time
from errno import EADDRINUSE, EAGAIN, ECONNREFUSED, ECONNRESET, ENOENT, EPIPE, EPROTOTYPE

from qtest import ROOT, case, eq, eventually, files, filesystems, host, lab, on_host, proxy, run, true, within
from qtest.checks import patience
from qtest.detour import Detour
from qtest.sides import CROSS, DATAGRAMS, RECORDS, SIDES, STREAM, Counted, Here, Place, There, ask, begin, dial, echo, listening, receive_all, receive_exactly, refused, sockets_of_relays

NEEDS = "qtfs"


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


def connects(path):
    """Connects, and that is all."""
    dial(path).close()


@on_host
def refused_there(path, kind=STREAM):
    """The errno with which connecting fails on the host."""
    return refused(path, kind)


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


def nobody_comes(path, kind, go):
    """Listens until it may end, and has seen no connection then."""
    with listening(path, kind) as listener:
        eventually(lambda: os.path.exists(go), 60)
        return select.select([listener], [], [], 0)[0]


@case("a socket of another type is refused with EPROTOTYPE, and who listens does not notice", who=[ROOT], needs=NEEDS)
def other_types(t):
    begin()
    kinds = (STREAM, RECORDS, DATAGRAMS)
    for number, (listener, dialer) in enumerate(SIDES):
        for kind in kinds:
            place, go = Place(t, f"s{number}{kind}"), Place(t, f"g{number}{kind}")
            lives = place.start(listener, nobody_comes, kind, go.paths[listener])
            true(eventually(lambda place=place: os.path.exists(place.paths[Here]) and os.stat(place.paths[Here]).st_mode & 0o777 == 0o777, 20), "it is there")
            for other in kinds:
                if other != kind:
                    eq(place.start(dialer, refused, other).result(), EPROTOTYPE, f"{listener} {kind} {dialer} {other}")
            os.mkdir(go.paths[Here])
            eq(lives.result(), [], f"{listener} {kind} {dialer}")


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


class Alarm(Exception):
    """A signal came."""


def connect_until_alarmed(path):
    """Connects until a signal comes, without a handler that has it begin anew."""
    def alarmed(*_):
        raise Alarm
    signal.signal(signal.SIGALRM, alarmed)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        dial(path).close()
    except Alarm:
        return True
    return False


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
        true(place.start(Here, connect_until_alarmed).result(), "a signal ends waiting")
        files.write(f"s{number}.go", b"")
        waits.result()
        files.write(f"s{number}.end", b"")
        serves.result()


def take_late(path, go, backlog, last):
    """Accepts nothing until told to, and then until somebody has written `last`; what others have written."""
    with listening(path, backlog=backlog) as listener:
        true(eventually(lambda: os.path.exists(go), 120), "it is told to")
        got = []
        while last not in got:
            with listener.accept()[0] as sock:
                got.append(receive_all(sock))
        return got


def dial_and_close(path, count):
    """Connects so many times, without a word."""
    for _ in range(count):
        dial(path).close()


def dial_and_write(path, data):
    """Connects, writes, and closes."""
    with dial(path) as sock:
        sock.sendall(data)


@case("of connections that wait behind a full queue those that are closed leave nothing behind but what was written", who=[ROOT], needs=NEEDS, limit=180)
def full_queue_left(t):
    with Counted():
        place, go = Place(t), Place(t, "go")
        serves = place.start(Here, take_late, go.paths[Here], 1, b"last")
        true(eventually(lambda: os.path.exists("s"), 20), "it is bound")
        dial_and_close("s", 2)
        begun = sockets_of_relays()
        place.start(There, dial_and_write, b"early").result()
        place.start(There, dial_and_close, 200).result()

        def at_rest():
            # The channel of the one that has written.
            return all(now <= before + 1 for now, before in zip(sockets_of_relays(), begun))
        eventually(at_rest, 40, lambda: f"descriptors before {begun}, now {sockets_of_relays()}")
        true(serves.alive(), "it has not accepted any")
        place.start(There, dial_and_write, b"last").result()
        files.write("go", b"")
        got = serves.result()
        eq([data for data in got if data], [b"early", b"last"])
        within(len(got), 4, 20, "connections that were taken")


def connect_until_full(path, most):
    """Connects without waiting, until that is EAGAIN for a while; how often."""
    socks, last = [], time.monotonic()
    while len(socks) < most and time.monotonic() - last < patience(3):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(path)
            socks.append(sock)
            last = time.monotonic()
        except BlockingIOError:
            sock.close()
            time.sleep(0.02)
    return len(socks)


@case("HOST's programs wait, or get EAGAIN with O_NONBLOCK, when very many connections wait behind a full queue", who=[ROOT], needs=NEEDS, limit=180)
def very_full_queue(t):
    with Counted():
        most = host.files.read("/proc/sys/net/core/somaxconn")
        host.files.write("/proc/sys/net/core/somaxconn", b"16")
        place, go = Place(t), Place(t, "go")
        try:
            serves = place.start(Here, take_late, go.paths[Here], 1, b"last")
            true(eventually(lambda: refused_there(t.there("s")) == 0, 20), "it listens")
        finally:
            host.files.write("/proc/sys/net/core/somaxconn", most)
        dial_and_close("s", 1)
        # 64 wait on each machine, and 17 in the queue of engine's listener.
        within(place.start(There, connect_until_full, 200).result(), 140, 150, "connections that wait")
        waits = place.start(There, dial_and_write, b"last")
        files.write("go", b"")
        waits.result()
        serves.result()


def close_listener(path):
    """Takes a connection, listens no more, and serves it to its end."""
    with listening(path) as listener:
        sock = listener.accept()[0]
    with sock:
        while data := sock.recv(1000):
            sock.sendall(data)


def outlive_listener(path):
    """Connects; what others get while the connection lasts when there is no listener any more."""
    with dial(path) as sock:
        sock.sendall(b"x")
        eq(sock.recv(1), b"x")
        return eventually(lambda: refused(path) == ECONNREFUSED, 20), sock.send(b"y"), sock.recv(1)


@case("connections outlive their listener, and others are refused", who=[ROOT], needs=NEEDS)
def listener_closed(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place = Place(t, f"s{number}")
            serves = place.start(listener, close_listener)
            eq(place.start(dialer, outlive_listener).result(), (True, 1, b"y"), f"{listener} {dialer}")
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


@case("a connection that was made just before the socket's file is removed is served", who=[ROOT], needs=NEEDS)
def removed_file(t):
    begin()
    place = Place(t)
    serves = place.start(Here, echo)
    true(serves.sleeps(), "it listens")
    with Paused():
        asks = place.start(There, ask, 1, 1000)
        true(asks.sleeps(), "it is connected, and waits")
        os.unlink("s")
    asks.result()
    serves.result()


class Paused:
    """The daemon does nothing during a block."""

    def __enter__(self):
        self.pids = proxy.daemons()
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


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


# --- The end ---

def hold(path):
    """Takes a connection and keeps it."""
    with listening(path) as listener, listener.accept()[0] as sock:
        sock.sendall(b"x")
        time.sleep(600)
        return sock


def end_of(sock):
    """How the end of the other one is seen: the errnos of reading, 0 for EOF, and of writing."""
    errnos = []
    for act in (lambda: eq(sock.recv(1), b""), lambda: sock.sendall(b"more")):
        try:
            act()
            errnos.append(0)
        except OSError as error:
            errnos.append(error.errno)
    return errnos


def outlive(path):
    """Connects; how the end of the other one is seen."""
    with dial(path) as sock:
        eq(sock.recv(1), b"x")
        os.mkdir(path + ".go")
        return end_of(sock)


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
            eq(lives.result(), [0, EPIPE])
            place = Place(t, f"d{number}")
            lives, dies = place.start(listener, wait_for_end), place.start(dialer, call_and_wait)
            true(eventually(lambda number=number: os.path.isdir(f"d{number}.go"), 30), "they are connected")
            dies.kill()
            eq(lives.result(), b"")


def meet(path, listens, kind=STREAM):
    """One end of a connection."""
    if not listens:
        return dial(path, kind)
    with listening(path, kind) as listener:
        return listener.accept()[0]


def fill(sock):
    """Writes until nothing is taken for a while."""
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while poller.poll(1500):
        try:
            sock.send(b"u" * 100_000)
        except BlockingIOError:
            pass
    sock.setblocking(True)


def neglect(path, listens, go):
    """Closes a connection with something unread, once the other end has written what it will."""
    with meet(path, listens) as sock:
        true(eventually(lambda: os.path.exists(go), 60), "it has written")
        eq(sock.recv(1, socket.MSG_PEEK), b"u")


def neglected(path, listens, go, much):
    """Writes to somebody who reads nothing; how the end of that one is seen."""
    with meet(path, listens) as sock:
        if much:
            fill(sock)
        else:
            sock.sendall(b"unread")
        os.mkdir(go)
        return end_of(sock)


@case("who has written what is never read sees a reset if some of it has not left its machine, else EOF", who=[ROOT], needs=NEEDS, limit=200)
def unread(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            for writes in (True, False):
                for much in (False, True):
                    name = f"{number}{writes}{much}"
                    place, go = Place(t, "s" + name), Place(t, "g" + name)
                    writer, other = (listener, dialer) if writes else (dialer, listener)
                    sees = place.start(writer, neglected, writes, go.paths[writer], much)
                    place.start(other, neglect, not writes, go.paths[other]).result()
                    reset = much or listener == dialer
                    eq(sees.result(), [ECONNRESET if reset else 0, EPIPE], f"{listener} {dialer} {writes} {much}")


def write_and_reset(path):
    """Writes records, one of them without bytes, and closes with something unread."""
    with dial(path, RECORDS) as sock:
        eq(sock.recv(10, socket.MSG_PEEK), b"unread")
        for record in RECORDS_BEFORE:
            sock.send(record)


RECORDS_BEFORE = [b"one", b"", b"two", b"three"]


def read_after_reset(path, go):
    """The records that come, which are there when it begins to read."""
    with meet(path, True, RECORDS) as sock:
        sock.send(b"unread")
        true(eventually(lambda: os.path.exists(go), 60), "all is written")
        records = []
        while len(records) < len(RECORDS_BEFORE):
            try:
                records.append(sock.recv(100))
            except ConnectionResetError:
                pass
        eq(sock.recv(100), b"")
        return records


@case("records that were written before a connection was reset are read", who=[ROOT], needs=NEEDS)
def reset_records(t):
    with Counted():
        for number, (listener, dialer) in enumerate(SIDES):
            place, go = Place(t, f"s{number}"), Place(t, f"g{number}")
            reads = place.start(listener, read_after_reset, go.paths[listener])
            place.start(dialer, write_and_reset).result()
            os.mkdir(go.paths[Here])
            eq(reads.result(), RECORDS_BEFORE)


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


@case("who connects while a daemon is started again waits for it: also one that is stopped while it connects", who=[ROOT], needs=NEEDS, limit=120)
def started_again(t):
    begin()
    place = Place(t)
    serves = place.start(There, echo_until_killed)
    place.start(Here, ask_again).result()
    proxy.stop(signal.SIGKILL)
    asks = place.start(Here, refused)
    true(asks.sleeps(), "it waits")
    begin()
    eq(asks.result(), 0, "it is connected")
    # A daemon that does not answer is killed with a connection in its hands.
    (daemon,) = proxy.daemons()
    os.kill(daemon, signal.SIGSTOP)
    asks = place.start(Here, refused)
    true(asks.sleeps(), "it waits")
    proxy.stop(signal.SIGKILL)
    true(asks.alive(), "it waits on")
    begin()
    eq(asks.result(), 0, "it is connected")
    serves.kill()


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
            eq(lives.result(), [0, EPIPE], "the connection has ended")
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


@case("connections of one mount go on while nothing is answered to another one, whose slots are all taken", who=[ROOT], needs=NEEDS)
def stands_still(t):
    begin()
    serves = [Place(t, name).start(There, echo) for name in ("slow", "quick")]
    with Detour(t.host_dir, f"/mnt/detour-{os.getpid()}") as detour:
        with dial(f"{detour.top}/slow") as slow, dial("quick") as quick:
            for sock in (slow, quick):
                sock.settimeout(patience(30))
                sock.sendall(b"x")
                eq(sock.recv(1), b"x")
            detour.stand_still()
            slow.sendall(b"later")
            for _ in range(20):
                quick.sendall(b"now")
                eq(receive_exactly(quick, 3), b"now")
            detour.go_on()
            eq(receive_exactly(slow, 5), b"later")
    for one in serves:
        one.result()


def umount_by_force(detour):
    """What waits fails, whether it is unmounted or still in use."""
    run(["umount", "-f", detour.top], check=False)


def forget_sessions(detour):
    """HOST knows nothing of the mount any more."""
    host.server.stop()
    host.server.start()
    detour.go_on()


@case("a connection whose message waits for a slot ends with the mount's session", who=[ROOT], needs=NEEDS, limit=120, loses=True)
def waits_in_vain(t):
    for number, end in enumerate((umount_by_force, forget_sessions)):
        begin()
        serves = Place(t, f"s{number}").start(There, echo)
        with Detour(t.host_dir, f"/mnt/detour-{os.getpid()}") as detour, dial(f"{detour.top}/s{number}") as sock:
            sock.settimeout(patience(30))
            sock.sendall(b"x")
            eq(sock.recv(1), b"x")
            detour.stand_still()
            sock.sendall(b"lost")
            end(detour)
            true(ended(sock), "the connection ends")
        serves.kill()


def ended(sock):
    """Whether nothing more comes."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


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
