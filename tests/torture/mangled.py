# SPDX-License-Identifier: GPL-2.0
"""A relay changes what the two modules say to each other, message by message: they end connections, and go on."""

import fcntl
import mmap
import os
import random
import select
import signal
import socket
import subprocess
import termios
import time
from collections import Counter

from qtest import ROOT, case, eq, eventually, files, filesystems, host, process, proxy, run, server, spawn, syscalls, true
from qtest.checks import patience
from qtest.inotify import Inotify

# The cases mount what they need.
MANUAL = True
EXPORT = "/data/export/mangled"
TOP = "/mnt/mangled"
PROC = "/mnt/mangled-proc"
RELAY = "/tmp/mangled.log"
EXPORTS = (*server.EXPORTS, ("/proc", "rw"))
PORT = 12300


def set_up(fs):
    """Server and module, and a directory with nothing worth keeping."""
    if fs.name != "qtfs":
        return
    host.server.start(EXPORTS, fresh=True)
    filesystems.load_module(fresh=True)
    for path in (TOP, PROC):
        os.makedirs(path, exist_ok=True)
    proxy.start()


def tear_down(_):
    """Others find no daemon."""
    proxy.stop()


def program():
    """qtfs-probe."""
    return filesystems.build_directory() + "/bin/qtfs-probe"


class Relay:
    """A relay for a block."""

    def __init__(self, side, every, seed, *more):
        self.command = [program(), "--connect", "10.0.0.1:12345", "mangle", "--listen", f"127.0.0.1:{PORT}", "--side", side,
                        "--every", str(every), "--seed", str(seed), *more]

    def __enter__(self):
        with open(RELAY, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log)  # pylint: disable=consider-using-with
        eventually(lambda: b"listens" in files.read(RELAY), 10, "the relay listens")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def changed(self):
        """What it has changed so far, counted by message and side. The last line may be half written."""
        words = (line.split(" ") for line in files.read(RELAY).decode().split("\n")[:-1])
        return Counter((word[1], word[0]) for word in words if word[0] in ("Server", "Client"))


# --- Work that uses every message, whatever comes of it. ---

def one_file(top, choose):
    """Everything that can be done with a file."""
    name = f"{top}/f{choose(8)}"
    fd = os.open(name, os.O_CREAT | os.O_RDWR | choose.flag(os.O_APPEND) | choose.flag(os.O_TRUNC) | choose.flag(os.O_DIRECT), 0o640)
    actions = [
        lambda: os.write(fd, b"x" * choose(20000)),
        lambda: os.pread(fd, 1 + choose(100000), choose(5000)),
        lambda: os.fsync(fd),
        lambda: os.fstat(fd),
        lambda: os.ftruncate(fd, choose(30000)),
        lambda: os.posix_fallocate(fd, 0, 1 + choose(40000)),
        lambda: os.lseek(fd, 0, os.SEEK_HOLE),
        lambda: os.setxattr(fd, "user.a", b"v" * choose(100)),
        lambda: (os.getxattr(fd, "user.a"), os.listxattr(fd), os.removexattr(fd, "user.a")),
        lambda: fcntl.flock(fd, fcntl.LOCK_EX | choose.flag(fcntl.LOCK_NB)),
        lambda: syscalls.test_lock(fd, fcntl.F_WRLCK),
        lambda: os.copy_file_range(fd, fd, 100, 0, 5000),
        lambda: syscalls.syncfs(fd),
        lambda: os.fchmod(fd, 0o600 + choose(64)),
        lambda: syscalls.set_inode_flags(name, syscalls.inode_flags(name)),
        lambda: mapped(fd, choose),
    ]
    try:
        for _ in range(4):
            quietly(actions[choose(len(actions))])
    finally:
        os.close(fd)


def mapped(fd, choose):
    """Reads and writes by a mapping."""
    if os.fstat(fd).st_size >= 4096:
        with mmap.mmap(fd, 4096) as memory:
            memory[choose(4096)] = memory[choose(4096)]


def names(top, choose):
    """Everything that can be done with names."""
    first, second = f"{top}/n{choose(6)}", f"{top}/n{choose(6)}"
    actions = [
        lambda: os.mkdir(first), lambda: os.rmdir(first), lambda: os.symlink(second, first), lambda: os.readlink(first),
        lambda: os.link(first, second), lambda: os.unlink(first), lambda: os.rename(first, second), lambda: os.mknod(first),
        lambda: os.listdir(top), lambda: [entry.stat() for entry in os.scandir(top)], lambda: os.statvfs(top),
        lambda: os.access(top, os.W_OK), lambda: os.stat(first), lambda: os.chown(first, 1, 1), lambda: os.utime(first),
        lambda: os.close(os.open(top, os.O_TMPFILE | os.O_RDWR)), lambda: process.as_user(process.USER, os.access, top, os.W_OK),
    ]
    for _ in range(4):
        quietly(actions[choose(len(actions))])


def processes(_top, choose):
    """What is done with the host's /proc."""
    name = ("1/stat", "self/stat", "loadavg", "1/mounts", "sys/kernel/hostname", "1/exe")[choose(6)]
    quietly(lambda: files.read(f"{PROC}/{name}"))
    quietly(lambda: os.readlink(f"{PROC}/{name}"))
    with open(f"{PROC}/1/mounts", "rb") as file, select.epoll() as epoll:
        epoll.register(file, select.EPOLLPRI)
        epoll.poll(0)


def fifos(top, choose):
    """What is done with FIFOs, by one who may wait for ever."""
    name = f"{top}/p{choose(3)}"
    quietly(lambda: os.mkfifo(name))
    fd = os.open(name, os.O_RDWR if choose(2) else (os.O_RDONLY, os.O_WRONLY)[choose(2)] | os.O_NONBLOCK)
    try:
        os.set_blocking(fd, choose(8) == 0)
        for _ in range(3):
            quietly(lambda: os.write(fd, b"x" * choose(80000)))
            quietly(lambda: os.read(fd, 1 + choose(80000)))
            quietly(lambda: fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
            quietly(lambda: select.select([fd], [fd], [], 0))
    finally:
        os.close(fd)


def sockets(top, choose):
    """Connects to a program of the host, or lets the host connect."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        if choose(2):
            name = f"{top}/s{choose(2)}"
            quietly(lambda: os.unlink(name))
            sock.bind(name)
            sock.listen()
        else:
            sock.connect(f"{top}/{ECHO}")
            for _ in range(3):
                sock.sendall(b"x" * (1 + choose(3000)))
                sock.recv(3000)


def watches(top, choose):
    """Watches the directory, where the host changes something all the time, and a file."""
    told = Inotify()
    try:
        quietly(lambda: told.add(f"{top}/f{choose(8)}"))
        told.add(top)
        select.select([told.fd], [], [], 0.5)
        told.read()
    finally:
        told.close()


ECHO = "echo"


def stirs(path):
    """On the host: an echo at a socket, and changes that watches are told of, until it is killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{path}/{ECHO}")
        listener.listen(100)
        while True:
            files.write(f"{path}/stirred", b"x")
            os.unlink(f"{path}/stirred")
            if select.select([listener], [], [], 0.1)[0]:
                with listener.accept()[0] as sock:
                    sock.settimeout(0.5)
                    quietly(lambda: echoes(sock))  # pylint: disable=cell-var-from-loop


def echoes(sock):
    """Sends back what comes."""
    while data := sock.recv(3000):
        sock.sendall(data)


def quietly(action):
    """Does something that may fail in any way but hang for ever."""
    try:
        action()
    except (OSError, ValueError, process.ChildFailed):
        pass


WORK = (one_file, names, processes, fifos, sockets, watches)
# What of it the wire must have seen in the full form, beside the rest.
RARE = {"CHANNEL", "SEND", "RECEIVE", "NOTIFY", "LOCK", "POLL"}


class Choose:
    """Random choices that can be repeated."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def __call__(self, end):
        return self.random.randrange(end)

    def flag(self, value):
        """A flag in one of four cases."""
        return value if self.random.randrange(4) == 0 else 0


def worker(seed):
    """Works until it is killed."""
    # A mapping whose page cannot be had.
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    choose = Choose(seed)
    while True:
        what = WORK[choose(len(WORK))]
        quietly(lambda: what(TOP, choose))  # pylint: disable=cell-var-from-loop


def gone(target):
    """Unmounts, also when nobody answers."""
    if filesystems.is_mounted(target):
        syscalls.umount(target, syscalls.MNT_FORCE | syscalls.MNT_DETACH)
    eq(filesystems.is_mounted(target), False, f"{target} is still mounted")


def mounts(source, target, options):
    """Whether it comes to a mount."""
    try:
        return filesystems.mount(source, target, *options, check=False, patience=30).status == 0
    except subprocess.TimeoutExpired:
        return filesystems.is_mounted(target)


# Frames that a round changes at least, if it comes to a mount.
ENOUGH = 12


def one_round(seed, relay):
    """Mounts by the relay and works for a while, until enough has been changed. Whether that came to a mount."""
    options = ("server=127.0.0.1", f"port={PORT}")
    mounted = [mounts(source, target, options) for source, target in ((EXPORT, TOP), ("/proc", PROC))]
    workers = [spawn(worker, seed * 10 + number) for number in range(3)]
    begin = time.monotonic()

    def goes_on():
        spent = time.monotonic() - begin
        return any([child.alive() for child in workers]) and \
            (spent < 4 or all(mounted) and spent < patience(60) and relay.changed().total() < ENOUGH)
    try:
        while goes_on():
            workers[0].finished(0.2)
    finally:
        for child in workers:
            child.kill()
        for child in workers:
            true(child.finished(30), "a worker can be killed")
        gone(TOP)
        gone(PROC)
    return all(mounted)


def works():
    """Without the relay all is well."""
    eq(run([program(), "--connect", "10.0.0.1:12345", "-q", "alive"]).status, 0)
    filesystems.mount(EXPORT, TOP)
    files.write(f"{TOP}/good", b"data")
    eq(host.files.read(f"{EXPORT}/good"), b"data")
    filesystems.umount(TOP)


def torture(t, side, rounds, *more, every=15):
    """Rounds of work with changed messages; returns what was changed."""
    changed, mounts = Counter(), 0
    for number in range(rounds):
        seed = t.first_seed + number
        host.files.fresh_directory(EXPORT)
        stirring = host.background.start(__file__, "stirs", EXPORT)
        with Relay(side, every, seed, *more) as relay:
            mounts += one_round(seed, relay)
        host.background.stop(stirring)
        changed.update(relay.changed())
        works()
    t.note(f"{changed.total()} frames changed in {rounds} rounds, {mounts} of them mounted; by message: "
           + ", ".join(f"{name} {count}" for (name, _), count in sorted(changed.items())))
    true(mounts > 0 and changed.total() > 10 * rounds, f"there was work: {changed}")
    return {name for name, _ in changed}


@case("what the server says is changed: the client ends connections, and nothing else", who=[ROOT], needs="qtfs", limit=300, full=14400,
      loses=True)
def by_server(t):
    t.seed()
    # The greeting and the answer to ATTACH stay whole, else there is nothing to mount most of the time.
    names = torture(t, "server", t.amount(2, 300), "--skip", "2")
    eq(t.amount(set(), RARE | {"WAKE", "NOTIFIED"}) - names, set(), "never changed")


@case("what the client says is changed: the server ends connections, and nothing else", who=[ROOT], needs="qtfs", limit=300, full=14400,
      loses=True)
def by_client(t):
    t.seed()
    names = torture(t, "client", t.amount(1, 300), "--skip", "2")
    eq(t.amount(set(), RARE) - names, set(), "never changed")


@case("greetings are changed, by both sides", who=[ROOT], needs="qtfs", limit=300, full=7200, loses=True)
def greetings(t):
    t.seed()
    changed = Counter()
    for number in range(t.amount(10, 500)):
        with Relay("both", 2, t.first_seed + number, "--op", "hello") as relay:
            done = filesystems.mount(EXPORT, TOP, "server=127.0.0.1", f"port={PORT}", "soft", "timeo=20", check=False, patience=60)
            if done.status == 0:
                quietly(lambda: os.listdir(TOP))
                gone(TOP)
        changed.update(relay.changed())
    t.note(f"changed: {dict(changed)}")
    true(changed["HELLO", "Server"] and changed["HELLO", "Client"], changed)
    works()
