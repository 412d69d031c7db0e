# SPDX-License-Identifier: GPL-2.0
"""How many round trips somebody waits for, counted by the file system's own counters.

Each measured piece of work begins in a directory that is known: its path has
been walked, and nothing else happens on the mount meanwhile.
"""

import fcntl
import hashlib
import os

from qtest import ROOT, case, counters, eq, eventually, files, host, lab, run, spawn, true, within

MIB = 1 << 20


class Cost:
    """Counts what a block costs:  with Cost(t) as cost: ...; cost.waits"""

    def __init__(self, t):
        self.mnt = t.fs.mnt

    def __enter__(self):
        self.before = counters.read(self.mnt)
        return self

    def __exit__(self, *_):
        self.spent = counters.read(self.mnt) - self.before
        self.waits = self.spent.waits


def costs(t, most, action, *args, what=""):
    """The action may make somebody wait for so many round trips at most."""
    with Cost(t) as cost:
        result = action(*args)
    t.note(f"{what or getattr(action, '__name__', 'it')}: {cost.waits} of {most}: {cost.spent}")
    true(cost.waits <= most, f"{what}: {cost.waits} round trips, at most {most} are allowed: {cost.spent}")
    return result


def open_read_close(name, count=4096):
    fd = os.open(name, os.O_RDONLY)
    data = os.read(fd, count)
    os.close(fd)
    return data


def create_write_close(name, data):
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, data)
    os.close(fd)


@case("the counters count: something that must go to the host is seen in them", who=[ROOT], needs="qtfs")
def counters_count(t):
    with Cost(t) as cost:
        os.mkdir("d")
    eq(cost.spent.count("MKDIR", "waits"), 1)
    true(cost.spent.count("MKDIR", "bytes_sent") > 32 and cost.spent.count("MKDIR", "bytes_received") > 32, "bytes are counted")
    within(cost.spent.count("MKDIR", "total_us"), 1, 10_000_000)
    with Cost(t) as cost:
        try:
            os.mkdir("d")
        except FileExistsError:
            pass
    true(cost.waits >= 1, "also what fails, unless the name is known")


@case("stat of a name: 1", needs="qtfs")
def stat(t):
    host.files.make_many(t.host_dir, 10)
    os.listdir(".")
    for number in range(10):
        costs(t, 1, os.stat, f"f{number}")
    for number in range(10):
        costs(t, 1, os.stat, f"f{number}", what="again")


@case("stat of a path of six components: 1, once the directories are known", needs="qtfs")
def stat_deep(t):
    os.makedirs("a/b/c/d/e")
    host.files.write(t.there("a/b/c/d/e/f"), b"x")
    host.files.write(t.there("a/b/c/d/e/g"), b"x")
    os.stat("a/b/c/d/e/f")
    costs(t, 1, os.stat, "a/b/c/d/e/f")
    costs(t, 1, os.stat, t.path("a/b/c/d/e/g"))


@case("stat of a name that does not exist: 1", needs="qtfs")
def stat_missing(t):
    os.stat(".")
    for _ in range(3):
        costs(t, 1, os.path.exists, "nothing")


@case("open + read 4 KiB + close: 2 at most", needs="qtfs")
def read_small(t):
    for number in range(5):
        host.files.write(t.there(f"f{number}"), files.pattern(4096, number))
    os.stat("f4")
    for number in range(5):
        data = costs(t, 2, open_read_close, f"f{number}", what="known" if number == 4 else "not known")
        eq(data, files.pattern(4096, number))


@case("create + write 4 KiB + close: 2", needs="qtfs")
def create_small(t):
    os.stat(".")
    for number in range(5):
        costs(t, 2, create_write_close, f"f{number}", b"x" * 4096)
    for number in range(5):
        eq(host.os.stat(t.there(f"f{number}")).st_size, 4096)


@case("mkdir, symlink: 1 beyond the lookup of the new name", needs="qtfs")
def make(t):
    os.stat(".")
    for number in range(3):
        costs(t, 2, os.mkdir, f"d{number}", what="mkdir")
        costs(t, 2, os.symlink, "text", f"l{number}", what="symlink")
        costs(t, 2, os.mkfifo, f"p{number}", what="mkfifo")


@case("unlink, rmdir, chmod: 1, of a name that is known", needs="qtfs")
def change_known(t):
    for name in ("a", "b"):
        files.write(name)
        os.stat(name)
    os.mkdir("d")
    costs(t, 1, os.chmod, "a", 0o600, what="chmod")
    costs(t, 1, os.utime, "a", (1, 1), what="utime")
    costs(t, 1, os.unlink, "a", what="unlink")
    costs(t, 1, os.rmdir, "d", what="rmdir")
    costs(t, 1, os.truncate, "b", 100, what="truncate")


@case("chown of a file, a symlink, a FIFO: 1 each, by a path and by an open file", who=[ROOT], needs="qtfs")
def change_owner(t):
    files.write("f")
    os.symlink("f", "l")
    os.mkfifo("p")
    os.stat("f")
    for number, name in enumerate(("f", "l", "p"), 1001):
        costs(t, 1, os.lchown, name, number, number, what=f"lchown of {name}")
        eq(host.os.lstat(t.there(name)).st_uid, number)
    fd = os.open("f", os.O_RDONLY)
    costs(t, 1, os.fchown, fd, 1005, 1005, what="fchown")
    os.close(fd)
    eq(host.os.stat(t.there("f")).st_gid, 1005)


@case("opening a known directory: 1, with O_DIRECTORY and without", needs="qtfs")
def open_directory(t):
    os.makedirs("a/d")
    os.stat("a/d")
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK):
        fd = costs(t, 1, os.open, "a/d", flags, what=f"open with {flags:#x}")
        os.close(fd)


@case("chdir and chroot to a known directory: 1", needs="qtfs", who=[ROOT])
def change_directory(t):
    os.makedirs("a/d")
    os.stat("a/d")
    costs(t, 1, os.chdir, "a/d", what="chdir")
    costs(t, 1, os.chdir, "..", what="chdir to ..")
    outside = os.open("/", os.O_RDONLY)
    costs(t, 1, change_root_and_back, "d", outside, what="chroot")
    os.close(outside)


def change_root_and_back(name, outside):
    os.chroot(name)
    os.fchdir(outside)
    os.chroot(".")


@case("unlink, chmod: 2, of a name that is not known yet", needs="qtfs")
def change_unknown(t):
    for name in ("a", "b"):
        host.files.write(t.there(name), b"x")
        host.os.chown(t.there(name), t.who.uid, t.who.gid)
    os.stat(".")
    costs(t, 2, os.unlink, "a", what="unlink")
    costs(t, 2, os.chmod, "b", 0o600, what="chmod")


@case("rename, link: 1 beyond the lookups of names not known", needs="qtfs")
def rename(t):
    files.write("a")
    os.stat("a")
    costs(t, 2, os.rename, "a", "b", what="rename")
    costs(t, 2, os.link, "b", "c", what="link")
    files.write("d")
    costs(t, 1, os.rename, "d", "b", what="rename over a known name")


@case("readlink: 1", needs="qtfs")
def readlink(t):
    os.symlink("text", "l")
    costs(t, 1, os.readlink, "l")
    host.os.symlink("other", t.there("m"))
    costs(t, 2, os.readlink, "m", what="of a name not known")


@case("ls -l of 1000 entries: 3 in all", who=[ROOT], needs="qtfs")
def list_long(t):
    host.os.mkdir(t.there("d"))
    host.call(__file__, "make_different", t.there("d"), 1000)
    os.stat("d")
    found = costs(t, 3, run, ["ls", "-ln", "d"], what="ls -ln")
    eq(len(found.text.splitlines()), 1001)


def make_different(path, count):
    for number in range(count):
        files.write(f"{path}/entry-{number:04}", b"x" * (number % 10))


@case("an empty and a small directory are listed in 1 round trip, by opendir(3) and as Go's os.ReadDir does", needs="qtfs")
def list_small(t):
    for number, listed in enumerate((os.listdir, list_opened)):
        name = f"d{number}"
        os.mkdir(name)
        os.stat(name)
        listed("/")
        eq(costs(t, 1, listed, name, what="empty"), [])
        host.files.make_many(t.there(name), 20)
        eq(len(costs(t, 1, listed, name, what="20 entries")), 20)
    host.os.makedirs(t.there("e/f"))
    eq(costs(t, 1, list_opened, "e", what="not known"), ["f"])


def list_opened(name):
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    names = os.listdir(fd)
    os.close(fd)
    return names


@case("fstat right after opening a directory: 0", needs="qtfs")
def stat_opened(t):
    os.mkdir("d")
    inode = os.stat("d").st_ino
    for flags in (0, os.O_DIRECTORY):
        fd = os.open("d", os.O_RDONLY | flags)
        eq(costs(t, 0, os.fstat, fd).st_ino, inode)
        os.close(fd)


@case("who opens a directory again and again without listing it gets no listing after the first time", who=[ROOT], needs="qtfs")
def open_without_listing(t):
    os.mkdir("d")
    host.files.make_many(t.there("d"), 100)
    received = []
    for _ in range(3):
        with Cost(t) as cost:
            os.close(os.open("d", os.O_RDONLY | os.O_DIRECTORY))
        received.append(cost.spent.count("OPEN", "bytes_received"))
    t.note(f"bytes received: {received}")
    true(received[0] > 5000 and max(received[1:]) < 1000, f"bytes received: {received}")
    list_opened("d")
    with Cost(t) as cost:
        eq(len(list_opened("d")), 100)
    eq(cost.waits, 1, f"once it was listed ({cost.spent})")


@case("closing what was only read, and forgetting, never wait", who=[ROOT], needs="qtfs")
def close(t):
    host.files.make_many(t.host_dir, 50)
    held = [os.open(f"f{number}", os.O_RDONLY) for number in range(50)]
    with Cost(t) as cost:
        for fd in held:
            os.close(fd)
    eq(cost.waits, 0, f"round trips for 50 times close ({cost.spent})")
    with Cost(t) as cost:
        files.write("/proc/sys/vm/drop_caches", b"2")
    eq(cost.waits, 0, f"round trips for dropping what was known ({cost.spent})")
    before = counters.read(t.fs.mnt)
    os.close(os.open("f1", os.O_RDONLY))
    requests = before.count("RELEASE", "requests")
    eventually(lambda: counters.read(t.fs.mnt).count("RELEASE", "requests") > requests, 10, "files are released on the host")
    eq(counters.read(t.fs.mnt).count("RELEASE", "waits"), before.count("RELEASE", "waits"))


@case("closing what was written waits for the data and the closing at once", who=[ROOT], needs="qtfs")
def close_written(t):
    fd = os.open("f", os.O_WRONLY | os.O_CREAT)
    for size in (10, 100_000):
        os.write(fd, b"x" * size)
    costs(t, 1, os.close, fd)
    fd = os.open("f", os.O_RDWR)
    costs(t, 1, os.close, fd, what="nothing was written")


@case("sequential write of 64 MiB: 80, several at a time", who=[ROOT], needs="qtfs", limit=180)
def write_sequential(t):
    block = files.pattern(MIB)
    with Cost(t) as cost:
        fd = os.open("f", os.O_CREAT | os.O_WRONLY)
        for _ in range(64):
            os.write(fd, block)
        os.fsync(fd)
        os.close(fd)
    t.note(f"{cost.waits} waited: {cost.spent}")
    within(cost.spent.total("requests"), 64, 80, f"requests ({cost.spent})")
    within(cost.waits, 1, 80, f"round trips ({cost.spent})")
    eq(host.os.stat(t.there("f")).st_size, 64 * MIB)
    eq(host.files.digest(t.there("f")), host.call(__file__, "digest_of_blocks", 64))


def digest_of_blocks(count):
    block = files.pattern(MIB)
    found = hashlib.sha256()
    for _ in range(count):
        found.update(block)
    return found.hexdigest()


def most_in_flight(t, function, *arguments):
    """The most requests that are on their way at once while a child does something over a slow link."""
    lab.link("delay", 20)
    try:
        child = spawn(function, *arguments)
        most = 0
        while child.alive():
            most = max(most, counters.in_flight(t.fs.mnt))
        child.result(60)
    finally:
        lab.link("reset")
    return most


def write_blocks(path, count):
    block = files.pattern(MIB)
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for _ in range(count):
        os.write(fd, block)
    os.fsync(fd)
    os.close(fd)


def read_blocks(path):
    fd = os.open(path, os.O_RDONLY)
    while os.read(fd, MIB):
        pass
    os.close(fd)


@case("sequential reads and writes have several requests on their way at once", who=[ROOT], needs="qtfs", limit=180)
def several_at_once(t):
    writing = most_in_flight(t, write_blocks, t.path("f"), 24)
    host.call(__file__, "make_large", t.there("g"), 24)
    reading = most_in_flight(t, read_blocks, t.path("g"))
    t.note(f"at once: {writing} when writing, {reading} when reading")
    true(writing >= 3 and reading >= 2, f"several at once: {writing} writes, {reading} reads")


@case("sequential read of 64 MiB: 80, several at a time", who=[ROOT], needs="qtfs", limit=180)
def read_sequential(t):
    host.call(__file__, "make_large", t.there("f"), 64)
    with Cost(t) as cost:
        fd = os.open("f", os.O_RDONLY)
        count = 0
        while data := os.read(fd, MIB):
            count += len(data)
        os.close(fd)
    eq(count, 64 * MIB)
    t.note(f"{cost.waits} waited: {cost.spent}")
    within(cost.spent.total("requests"), 1, 80, f"requests ({cost.spent})")
    within(cost.waits, 1, 80, f"round trips ({cost.spent})")


def make_large(path, count):
    block = files.pattern(MIB)
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for _ in range(count):
        os.write(fd, block)
    os.close(fd)


@case("reading what is in the page cache costs one look at the host, not the data again", who=[ROOT], needs="qtfs")
def read_again(t):
    host.call(__file__, "make_large", t.there("f"), 4)
    eq(len(files.read("f")), 4 * MIB)
    with Cost(t) as cost:
        eq(len(files.read("f")), 4 * MIB)
    received = cost.spent.total("bytes_received")
    true(received < MIB, f"{received} bytes were received for 4 MiB that are cached ({cost.spent})")
    t.note(f"{cost.waits} waited: {cost.spent}")


@case("appending a line to a file that is open: 1", who=[ROOT], needs="qtfs")
def append(t):
    files.write("log")
    fd = os.open("log", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"first\n")
    for _ in range(3):
        costs(t, 1, os.write, fd, b"line\n")
    os.close(fd)


@case("lock and unlock: 1 each", who=[ROOT], needs="qtfs")
def locks(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    costs(t, 1, fcntl.lockf, fd, fcntl.LOCK_EX, what="lock")
    costs(t, 1, fcntl.lockf, fd, fcntl.LOCK_UN, what="unlock")
    costs(t, 1, fcntl.flock, fd, fcntl.LOCK_EX, what="flock")
    costs(t, 1, fcntl.flock, fd, fcntl.LOCK_UN, what="flock")
    os.close(fd)
