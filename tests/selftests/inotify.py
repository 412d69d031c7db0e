# SPDX-License-Identifier: GPL-2.0
"""inotify and fanotify here tell what processes of the host do, and once what is done here."""

import mmap
import os
import signal
import subprocess
import time
from errno import EACCES, ENOENT, ESTALE

from qtest import ROOT, USER, case, counters, eq, eventually, fails, files, filesystems, host, lab, on_host, process, server, skip, spawn, true
from qtest.checks import patience
from qtest.inotify import BITS, Fanotify, Inotify, Told

NEEDS = "qtfs"


@on_host
def steps(top):
    """Something of everything, in a directory of the host."""
    files.write(f"{top}/f", b"data")
    os.chmod(f"{top}/f", 0o600)
    os.rename(f"{top}/f", f"{top}/g")
    os.mkdir(f"{top}/d")
    os.symlink("d", f"{top}/s")
    os.link(f"{top}/g", f"{top}/h")
    os.unlink(f"{top}/h")
    os.rmdir(f"{top}/d")


EXPECTED = [("top", "CREATE", "f"), ("top", "MODIFY", "f"), ("top", "CLOSE_WRITE", "f"), ("top", "ATTRIB", "f"), ("top", "MOVED_FROM", "f"), ("top", "MOVED_TO", "g"),
            ("top", "CREATE ISDIR", "d"), ("top", "CREATE", "s"), ("top", "CREATE", "h"), ("top", "DELETE", "h"), ("top", "DELETE ISDIR", "d")]


@case("what a process of the host does in a directory is told in its order, with names and cookies", who=[ROOT], needs=NEEDS)
def directory(t):
    os.mkdir("top")
    told = Told("top")
    steps(t.there("top"))
    eq(told.until("top", "DELETE ISDIR", "d"), EXPECTED)
    told.inotify.add("top")
    host.os.rename(t.there("top/g"), t.there("top/i"))
    eventually(lambda: len(told.more()) >= 2, 20, "both halves of the move are told")
    cookies = {cookie for _, _, cookie, _ in told.events}
    true(len(cookies) == 1 and cookies != {0}, told.events)
    told.close()


@case("what is done here is told once, whoever did it", who=[ROOT], needs=NEEDS)
def once(t):
    os.mkdir("top")
    told = Told("top")
    files.write("top/here", b"data")
    os.rename("top/here", "top/there")
    os.unlink("top/there")
    host.files.write(t.there("top/end"))
    found = told.until("top", "CLOSE_WRITE", "end")
    eq([event for event in found if event[2] != "end"],
       [("top", "CREATE", "here"), ("top", "MODIFY", "here"), ("top", "CLOSE_WRITE", "here"), ("top", "MOVED_FROM", "here"), ("top", "MOVED_TO", "there"),
        ("top", "DELETE", "there")])
    told.close()


@case("a watched file tells of itself: written, changed, moved, removed, and then nothing more", who=[ROOT], needs=NEEDS)
def file(t):
    files.write("f", b"data")
    told = Told("f")
    host.files.write_at(t.there("f"), 0, b"new")
    found = told.until("f", "CLOSE_WRITE", "")
    eq(found, [("f", "MODIFY", ""), ("f", "CLOSE_WRITE", "")])
    host.os.chmod(t.there("f"), 0o600)
    eq(told.until("f", "ATTRIB", ""), [("f", "ATTRIB", "")])
    host.os.rename(t.there("f"), t.there("g"))
    eq(told.until("f", "MOVE_SELF", ""), [("f", "MOVE_SELF", "")])
    host.os.unlink(t.there("g"))
    found = told.until("f", "IGNORED", "")
    eq(found[-2:], [("f", "DELETE_SELF", ""), ("f", "IGNORED", "")])
    told.close()


@case("directory and file may both be watched: each is told once", who=[ROOT], needs=NEEDS)
def both(t):
    os.mkdir("top")
    files.write("top/f", b"data")
    told = Told("top", "top/f")
    host.files.write_at(t.there("top/f"), 0, b"new")
    host.files.write(t.there("top/end"))
    found = told.until("top", "CLOSE_WRITE", "end")
    eq(sorted(event for event in found if event[2] != "end"),
       [("f", "CLOSE_WRITE", ""), ("f", "MODIFY", ""), ("top", "CLOSE_WRITE", "f"), ("top", "MODIFY", "f")])
    told.close()


@case("a name that comes is there, and one that goes is gone, when it is told", who=[ROOT], needs=NEEDS)
def coherent(t):
    os.mkdir("top")
    true(not os.path.exists("top/f"), "it is not there")
    told = Told("top")
    host.files.write(t.there("top/f"), b"data")
    told.until("top", "CREATE", "f")
    true(os.path.exists("top/f"), "it is there")
    told.until("top", "CLOSE_WRITE", "f")
    eq(files.read("top/f"), b"data")
    host.os.unlink(t.there("top/f"))
    told.until("top", "DELETE", "f")
    true(not os.path.exists("top/f"), "it is not there")
    told.close()


@on_host
def atomic_swap(top, number):
    """As kubelet renews a volume (AtomicWriter): a new directory, and a symlink that is renamed over the old one."""
    os.mkdir(f"{top}/..{number}")
    files.write(f"{top}/..{number}/key", b"%d" % number)
    os.symlink(f"..{number}", f"{top}/..data_tmp")
    os.rename(f"{top}/..data_tmp", f"{top}/..data")


@case("a symlink that is swapped as kubelet does is told, and leads to the new contents", who=[ROOT], needs=NEEDS)
def swap(t):
    os.mkdir("top")
    atomic_swap(t.there("top"), 1)
    os.symlink("..data/key", "top/key")
    eq(files.read("top/key"), b"1")
    told = Told("top")
    for number in range(2, 5):
        atomic_swap(t.there("top"), number)
        told.until("top", "MOVED_TO", "..data")
        eq(files.read("top/key"), b"%d" % number)
    told.close()


@case("reading and opening on the host is told to who asks for that only", who=[ROOT], needs=NEEDS)
def readers(t):
    files.write("f", b"data")
    changes, reads = Told("f"), Told("f", mask=BITS["OPEN"] | BITS["ACCESS"] | BITS["CLOSE_NOWRITE"])
    eq(host.files.read(t.there("f")), b"data")
    found = reads.until("f", "CLOSE_NOWRITE", "")
    eq(found, [("f", "OPEN", ""), ("f", "ACCESS", ""), ("f", "CLOSE_NOWRITE", "")])
    host.os.chmod(t.there("f"), 0o600)
    eq(changes.until("f", "ATTRIB", ""), [("f", "ATTRIB", "")])
    changes.close()
    reads.close()


@case("thousands of changes are told completely, or as an overflow", who=[ROOT], needs=NEEDS, limit=180)
def many(t):
    os.mkdir("top")
    told = Told("top", mask=BITS["CREATE"])
    count = 3000
    host.files.make_many(t.there("top"), count, "n")
    host.files.write(t.there("top/end"))

    def done():
        found = told.more()
        return ("top", "CREATE", "end") in found or any("Q_OVERFLOW" in bits for _, bits, _ in found)

    eventually(done, 120, "the end is told")
    found = told.more()
    if not any("Q_OVERFLOW" in bits for _, bits, _ in found):
        eq(len({name for _, _, name in found}), count + 1)
    told.close()


@case("nothing is sent while nothing happens, and HOST watches no more what has left memory here", who=[ROOT], needs=NEEDS)
def idle(t):
    # What earlier cases watched leaves memory now.
    files.write("/proc/sys/vm/drop_caches", b"2")
    os.makedirs("top/d")
    before = counters.read(t.fs.mnt)
    told = Told("top/d")
    eq((counters.read(t.fs.mnt) - before).count("NOTIFY"), 1, "one request for a watch")
    before = counters.read(t.fs.mnt)
    files.write("top/other", b"data")
    eq(host.files.read(t.there("top/other")), b"data")
    eq((counters.read(t.fs.mnt) - before).count("NOTIFY"), 0, "nobody asks again")
    told.close()

    def left():
        files.write("/proc/sys/vm/drop_caches", b"2")
        return (counters.read(t.fs.mnt) - before).count("NOTIFY") > 0

    eventually(left, 30, "HOST is told")


@case("fanotify reports the host's changes with the directory and the name", who=[ROOT], needs=NEEDS)
def fanotify(t):
    os.mkdir("top")
    watch, seen = Fanotify("top", BITS["CREATE"] | BITS["DELETE"] | BITS["MODIFY"] | BITS["CLOSE_WRITE"]), set()
    host.files.write(t.there("top/f"), b"data")
    host.os.mkdir(t.there("top/d"))
    host.os.unlink(t.there("top/f"))
    expected = {("CREATE", "f"), ("MODIFY", "f"), ("CLOSE_WRITE", "f"), ("CREATE", "d"), ("DELETE", "f")}

    def told():
        # Events of one name are put together while nobody reads them.
        seen.update((bit, name) for bits, name in watch.read() for bit in bits.split() if bit != "ISDIR")
        return seen >= expected

    eventually(told, 20, "all is told")
    eq(seen, expected)
    os.close(watch.fd)


@case("who may not read a directory may not watch it: EACCES, by the host's rules", who=[USER], needs=NEEDS)
def refused(t):
    os.mkdir("top", 0o300)
    inotify = Inotify()
    fails(EACCES, inotify.add, "top")
    os.chmod("top", 0o500)
    inotify.add("top")
    inotify.close()


def refused_often(path):
    """Asks for what it may not have until there is nothing; how often."""
    inotify, count = Inotify(), 0
    while True:
        try:
            inotify.add(path)
        except OSError as e:
            if e.errno in (ENOENT, ESTALE):
                return count
            eq(e.errno, EACCES)
            count += 1


@case("who is refused takes nothing away from who watches at the same time", who=[ROOT], needs=NEEDS, limit=120)
def refused_meanwhile(t):
    for number in range(10):
        top = f"top{number}"
        os.mkdir(top, 0o700)
        before = counters.read(t.fs.mnt)
        others = [spawn(refused_often, t.path(top), who=USER) for _ in range(2)]
        eventually(lambda: (counters.read(t.fs.mnt) - before).count("NOTIFY") > 4, 20, "others ask")  # pylint: disable=cell-var-from-loop
        told = Told(top, mask=BITS["CREATE"])
        asked = counters.read(t.fs.mnt)
        eventually(lambda: (counters.read(t.fs.mnt) - asked).count("NOTIFY") > 4, 20, "others go on")  # pylint: disable=cell-var-from-loop
        host.files.write(t.there(f"{top}/f"))
        told.until(top, "CREATE", "f")
        host.os.unlink(t.there(f"{top}/f"))
        host.os.rmdir(t.there(top))
        true(all(other.result() > 0 for other in others), "they were refused")
        told.close()


def hears(path, bit, shared, number):
    """Watches when it is told to, says so, and waits for one event of that kind."""
    while not shared[0]:
        pass
    told = Told(path, mask=BITS[bit])
    shared[number] = 1
    told.until(os.path.basename(path), bit, "f")


@case("programs that begin to watch at the same moment are each told what they asked for", who=[ROOT], needs=NEEDS, limit=120)
def at_once(t):
    for number in range(12):
        top = f"top{number}"
        os.mkdir(top)
        shared = mmap.mmap(-1, mmap.PAGESIZE)
        children = [spawn(hears, t.path(top), bit, shared, place) for place, bit in enumerate(("CREATE", "CLOSE_WRITE", "ATTRIB", "DELETE"), 1)]
        shared[0] = 1
        eventually(lambda: all(shared[:5]), 20, "all watch")  # pylint: disable=cell-var-from-loop
        host.files.write(t.there(f"{top}/f"))
        host.os.chmod(t.there(f"{top}/f"), 0o600)
        host.os.unlink(t.there(f"{top}/f"))
        for child in children:
            child.result()


@on_host
def keeps_writing(tops, seconds):
    """Changes a file in each of these again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for top in tops:
            files.write(f"{top}/busy", b"data")


@case("who begins to watch while it is noticed that others do so no more misses nothing", who=[ROOT], needs=NEEDS, limit=180)
def renewed_interest(t):
    tops = [f"top{number}" for number in range(24)]
    for top in tops:
        os.mkdir(top)
    # In every second one somebody watches on, who wants less.
    stays = Told(*tops[::2], mask=BITS["DELETE_SELF"])
    leaves = Told(*tops, mask=BITS["MODIFY"])
    leaves.close()
    # The client believes for ten seconds that somebody is about to watch.
    time.sleep(11)
    before = counters.read(t.fs.mnt)
    writer = host.background.start(__file__, "keeps_writing", [t.there(top) for top in tops], 3)
    told = Told(*tops, mask=BITS["CREATE"])
    eventually(lambda: host.background.finished(writer, 0.1), 30, "it has written")
    host.background.finish(writer)
    true((counters.read(t.fs.mnt) - before).count("NOTIFY") > len(tops), "it was noticed")
    for top in tops:
        host.files.write(t.there(f"{top}/end"))
    missing = set(tops)

    def all_told():
        missing.difference_update(top for top, bits, name in told.more() if name == "end" or "Q_OVERFLOW" in bits)
        return not missing

    eventually(all_told, 20, "all is told")
    stays.close()
    told.close()


@case("a cut of the link loses no event", who=[ROOT], needs={NEEDS, "lab"}, limit=120)
def link(t):
    os.mkdir("top")
    told = Told("top", mask=BITS["CREATE"])
    lab.link("down")
    try:
        for number in range(20):
            host.files.write(t.there(f"top/{number}"))
    finally:
        lab.link("up")
    eq([name for _, _, name in told.until("top", "CREATE", "19")], [str(number) for number in range(20)])
    told.close()


@on_host
def changes_mode(path, count):
    """Changes the attributes of a file again and again."""
    for number in range(count):
        os.chmod(path, 0o600 | number % 2)


@case("what is more than HOST keeps while the link is away is told as an overflow, and what comes then as before", who=[ROOT], needs={NEEDS, "lab"}, limit=300, only_full=True)
def overflow(t):
    files.write("f", b"data")
    # Programs are told of the same thing once as long as they do not read it, so the queue of the program does not overflow.
    told = Told("f", mask=BITS["ATTRIB"] | BITS["CLOSE_WRITE"])
    lab.link("down")
    try:
        changes_mode(t.there("f"), 17000)
    finally:
        lab.link("up")
    eventually(lambda: any(watched == "f" and "Q_OVERFLOW" in bits for watched, bits, _ in told.more()), 200, "an overflow is told")
    host.files.write(t.there("f"), b"more")
    told.until("f", "CLOSE_WRITE", "")
    told.close()


@on_host
def engine_restarts():
    """engine is killed and started."""
    server.restart_engine(signal.SIGKILL)


@on_host
def module_restarts():
    """The server forgets everything."""
    server.stop()
    server.start()


@case("watches hold when engine or the server's module is started anew; that something may be missing is told as an overflow", who=[ROOT], needs=NEEDS, limit=120)
def restarts(t):
    os.mkdir("top")
    told = Told("top")
    engine_restarts()
    host.files.write(t.there("top/a"))
    told.until("top", "CLOSE_WRITE", "a")
    module_restarts()
    eventually(lambda: any("Q_OVERFLOW" in bits for _, bits, _ in told.more()), 60, "an overflow is told")
    host.files.write(t.there("top/b"))
    told.until("top", "CLOSE_WRITE", "b")
    told.close()


@on_host
def stands_still(number):
    """engine stops, or goes on."""
    for pid in server.engines():
        os.kill(pid, number)


@case("a host that has forgotten the watches, and does not answer for a while, is asked again", who=[ROOT], needs=NEEDS, limit=120)
def slow_to_renew(t):
    os.mkdir("top")
    told = Told("top")
    lab.link("down")
    try:
        module_restarts()
        stands_still(signal.SIGSTOP)
        before = counters.read(t.fs.mnt)
        lab.link("up")
        eventually(lambda: (counters.read(t.fs.mnt) - before).count("ATTACH") >= 2, 40, "it is asked once more")
    finally:
        lab.link("up")
        stands_still(signal.SIGCONT)
    eventually(lambda: any("Q_OVERFLOW" in bits for _, bits, _ in told.more()), 60, "an overflow is told")
    host.files.write(t.there("top/f"))
    told.until("top", "CLOSE_WRITE", "f")
    told.close()


@case("inotifywait, which most scripts use, sees the host's changes", who=[ROOT], needs=NEEDS)
def tool(t):
    if process.run(["sh", "-c", "command -v inotifywait"], check=False).status:
        skip("there is no inotifywait in the machines")
    os.mkdir("top")
    with subprocess.Popen(["inotifywait", "-e", "create", t.path("top")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waits:
        true(any("established" in line for line in iter(waits.stderr.readline, "")), "it watches")
        host.files.write(t.there("top/f"))
        eq(waits.stdout.read().split()[1:], ["CREATE", "f"])


@case("fsnotify, which Go programs use, sees the host's changes", who=[ROOT], needs=NEEDS, limit=120)
def go(t):
    os.mkdir("top")
    atomic_swap(t.there("top"), 1)
    with subprocess.Popen([filesystems.build_directory() + "/tools/watch", t.path("top"), "end"], stdout=subprocess.PIPE, text=True) as watch:
        eq(watch.stdout.readline(), "watches\n")
        host.files.write(t.there("top/f"), b"data")
        host.os.chmod(t.there("top/f"), 0o600)
        atomic_swap(t.there("top"), 2)
        host.os.rename(t.there("top/f"), t.there("top/g"))
        host.os.unlink(t.there("top/g"))
        host.files.write(t.there("top/end"))
        told = watch.communicate(timeout=patience(60))[0].splitlines()
    told = [line for line in told if line.split()[-1] in ("f", "g", "..data", "end")]
    eq(told, ["CREATE f", "WRITE f", "CHMOD f", "CREATE ..data", "RENAME f", "CREATE g", "REMOVE g", "CREATE end"])
