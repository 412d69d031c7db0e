# SPDX-License-Identifier: GPL-2.0
"""engine, the server's module or the whole host go away and come back: nothing that was acknowledged is lost."""

import fcntl
import os
import signal
from errno import EIO, ENOENT, ESTALE

from qtest import (ROOT, case, counters, eq, eventually, fails, files, filesystems, host, lab, on_host, same_bytes, server, spawn, took, true,
                   within)


@on_host
def reload_server():
    """The server's module anew, with engine."""
    server.stop_engine()
    server.unload()
    server.start()


def storm(who, count):
    """Work whose every step is checked; returns how many steps were acknowledged."""
    fd = os.open(f"{who}-log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in range(count):
        os.mkdir(f"{who}-d{number}")
        name = f"{who}-f{number}"
        inner = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.write(inner, b"%d" % number * 100)
        os.fsync(inner)
        os.rename(name, name + "-renamed")
        eq(os.pread(inner, 10, 0), (b"%d" % number * 100)[:10])
        os.close(inner)
        os.write(fd, b"%d\n" % number)
        os.rmdir(f"{who}-d{number}")
    os.fsync(fd)
    os.close(fd)
    return count


def check_storm(t, who, count):
    """What must be on the host afterwards."""
    names = [name for name in host.os.listdir(t.host_dir) if name.startswith(who)]
    eq(sorted(names), sorted([f"{who}-log"] + [f"{who}-f{number}-renamed" for number in range(count)]))
    eq(host.files.read(t.there(f"{who}-log")), b"".join(b"%d\n" % number for number in range(count)))
    for number in (0, count // 2, count - 1):
        eq(host.files.read(t.there(f"{who}-f{number}-renamed")), b"%d" % number * 100)


# --- engine ---

@case("engine is killed by SIGKILL again and again under load: nothing is lost, nothing done twice", who=[ROOT],
      needs="qtfs", limit=240)
def engine_killed(t):
    children = {who: spawn(storm, who, 60) for who in ("a", "b", "c")}
    restarts = 0
    while any(child.alive() for child in children.values()) and restarts < 12:
        host.server.restart_engine(signal.SIGKILL)
        restarts += 1
        before = counters.read(t.fs.mnt)
        eventually(lambda: counters.went_on(t.fs.mnt, before) or not any(child.alive() for child in children.values()), 30,
                   "work goes on after a restart")
    for child in children.values():
        child.result(150)
    t.note(f"{restarts} restarts")
    true(restarts >= 3, "engine was restarted in the middle")
    for who in children:
        check_storm(t, who, 60)


@case("engine is ended by SIGTERM under load: it stops soon, and requests wait for the next one", who=[ROOT], needs="qtfs", limit=120)
def engine_ended(t):
    files.write("f", b"data")
    # The storm may wait inside of a rename and keep its directory locked, in which no signal reaches a second writer.
    os.mkdir("elsewhere")
    fd = os.open("f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    child = spawn(storm, "a", 40)
    with took() as time_taken:
        host.server.stop_engine(signal.SIGTERM)
    within(time_taken.seconds, 0, 30, "seconds until engine ended")
    eventually(lambda: child.state() in "SD", 10, "the storm waits")
    eq(child.alive(), True)
    waiting = spawn(os.stat, "f")
    true(waiting.sleeps(5), "a stat waits")
    killed = spawn(os.mkdir, "elsewhere/never")
    true(killed.sleeps(5), "a mkdir waits")
    killed.kill()
    true(killed.finished(10), "and can be killed")
    host.server.start_engine()
    waiting.result(20)
    child.result(60)
    check_storm(t, "a", 40)
    eq(host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), False, "the lock could be taken by another")
    os.write(fd, b"more")
    os.close(fd)


@case("engine dies while somebody waits for a lock: the wait goes on and ends when the lock is free", who=[ROOT], needs="qtfs", limit=120)
def engine_dies_with_lock(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    there = host.background.open_file(t.there("f"))
    host.fcntl.flock(there, fcntl.LOCK_EX)
    waiter = spawn(fcntl.flock, fd, fcntl.LOCK_EX)
    true(waiter.sleeps(5), "the child waits")
    host.server.restart_engine(signal.SIGKILL)
    os.stat("f")
    eq(waiter.alive(), True)
    host.background.close_file(there)
    waiter.result(30)
    os.close(fd)


@case("more waiting requests than threads: others are served meanwhile", who=[ROOT], needs="qtfs", limit=120)
def threads_grow(t):
    host.server.restart_engine(signal.SIGTERM, "--threads", "2")
    try:
        fd = os.open("f", os.O_CREAT | os.O_RDWR)
        there = host.background.open_file(t.there("f"))
        host.fcntl.flock(there, fcntl.LOCK_EX)
        waiters = [spawn(lock_own, "f") for _ in range(12)]
        for waiter in waiters:
            true(waiter.sleeps(10), "a child waits for the lock")
        with took() as time_taken:
            for number in range(10):
                files.write(f"g{number}", b"x")
        within(time_taken.seconds, 0, 15, "seconds for work that waits for nobody")
        threads = host.call(__file__, "engine_threads")
        true(threads >= 14, f"{threads} threads while 12 requests wait")
        host.background.close_file(there)
        for waiter in waiters:
            waiter.result(40)
        os.close(fd)
        eventually(lambda: host.call(__file__, "engine_threads") < threads, 60, "idle threads end")
    finally:
        host.server.restart_engine(signal.SIGTERM)


def lock_own(name):
    fd = os.open(name, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)


def engine_threads():
    return len(os.listdir(f"/proc/{server.engines()[0]}/task"))


# --- The server's module. ---

@case("qtfs_server.ko is loaded anew: paths work again, open files of living objects too, those of vanished ones are ESTALE",
      who=[ROOT], needs="qtfs", limit=180)
def module_reloaded(t):
    os.makedirs("a/b")
    files.write("a/b/f", b"data")
    files.write("vanishes", b"vanishing")
    lives = os.open("a/b/f", os.O_RDWR)
    dies = os.open("vanishes", os.O_RDONLY)
    unlinked = os.open("unlinked", os.O_CREAT | os.O_RDWR)
    os.unlink("unlinked")
    os.chdir("a/b")
    eq(os.pread(dies, 20, 0), b"vanishing")
    host.call(__file__, "reload_and_change", t.host_dir)
    eq(files.read("f"), b"data", "in the working directory")
    eq(os.listdir(t.path("a")), ["b"])
    eq(os.pread(lives, 10, 0), b"data")
    os.pwrite(lives, b"DATA", 0)
    os.fsync(lives)
    eq(host.files.read(t.there("a/b/f")), b"DATA")
    fails(ENOENT, os.stat, t.path("vanishes"))
    fails(ESTALE, os.fstat, dies)
    fails(ESTALE, os.pread, dies, 20, 0)
    fails(ESTALE, os.fstat, unlinked)
    for fd in (lives, dies, unlinked):
        try:
            os.close(fd)
        except OSError:
            pass
    files.write("new", b"new")
    eq(host.files.read(t.there("a/b/new")), b"new")


def reload_and_change(top):
    server.stop_engine()
    server.unload()
    os.unlink(f"{top}/vanishes")
    files.write(f"{top}/other", b"another file, perhaps with the inode number of the first")
    server.start()


@case("qtfs_server.ko is loaded anew in the middle of work: no data is lost, and what can't be known is an error, never a lie",
      who=[ROOT], needs="qtfs", limit=180)
def module_reloaded_under_load(t):
    for number in range(3):
        os.mkdir(f"w{number}")
    children = [spawn(acknowledged, f"w{number}", 80) for number in range(3)]
    for _ in range(3):
        before = made(t)
        eventually(lambda: made(t) >= before + 10 or not any(child.alive() for child in children), 30, "files are made")
        reload_server()
    for number, child in enumerate(children):
        done, doubtful = child.result(120)
        there = set(host.os.listdir(t.there(f"w{number}")))
        missing = set(done) - there
        eq(missing, set(), "acknowledged, but not there")
        eq(there - set(done) - set(doubtful), set(), "there, but nobody made it")
        t.note(f"writer {number}: {len(done)} acknowledged, {len(doubtful)} doubtful")
        for name in done:
            eq(host.files.read(t.there(f"w{number}", name)), name.encode() * 50)


def made(t):
    """How many files there are on the host."""
    return len(host.run(["find", t.host_dir, "-type", "f"]).text.splitlines())


def acknowledged(directory, count):
    """Makes files; returns those that were acknowledged, and those that ended in an error."""
    done, doubtful = [], []
    for number in range(count):
        name = f"f{number}"
        try:
            fd = os.open(f"{directory}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            try:
                os.write(fd, name.encode() * 50)
                os.fsync(fd)
            finally:
                os.close(fd)
            done.append(name)
        except OSError as error:
            doubtful.append(name)
            # What cannot be known is EIO, see Documentation/failures.md.
            if error.errno != EIO:
                raise
    return done, doubtful


@case("dirty pages are written after the server's module came back", who=[ROOT], needs="qtfs", limit=120)
def dirty_pages(t):
    data = files.pattern(3 << 20, 4)
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.fsync(fd)
    host.server.stop_engine()
    child = spawn(lambda: files.write_all(fd, data) or os.fsync(fd))
    true(child.sleeps(20), "the writer waits")
    reload_server()
    child.result(60)
    os.close(fd)
    same_bytes(host.files.read(t.there("f")), data)


# --- The host. ---

@case("the host loses power and boots: paths work again, what was synced is there, open files of living objects go on",
      who=[ROOT], needs="qtfs", limit=240)
def host_crashes(t):
    os.makedirs("a/b")
    files.write("a/b/f", b"synced")
    fd = os.open("a/b/f", os.O_RDWR)
    os.fsync(fd)
    top = os.open("a/b", os.O_RDONLY)
    os.fsync(top)
    host.run("sync")
    os.chdir("a/b")
    lab.crash("host")
    waiting = spawn(files.read, "f")
    killed = spawn(os.stat, t.path("a"))
    true(waiting.sleeps(10), "a read waits")
    killed.kill()
    true(killed.finished(10), "another can be killed")
    lab.boot("host")
    host.server.start()
    eq(waiting.result(60), b"synced")
    eq(os.listdir(t.path("a")), ["b"])
    eq(os.pread(fd, 10, 0), b"synced")
    os.pwrite(fd, b"after", 6)
    os.fsync(fd)
    eq(host.files.read(t.there("a/b/f")), b"syncedafter")
    os.close(fd)
    os.close(top)
    files.write("new", b"new")
    eq(host.files.read(t.there("a/b/new")), b"new")


@case("a mount made before the crash can be unmounted after it, and mounted again", who=[ROOT], needs="qtfs", limit=120)
def umount_after_crash(t):
    os.chdir("/")
    filesystems.umount(t.fs.mnt)
    filesystems.mount(t.fs.export, t.fs.mnt)
    os.listdir(t.fs.mnt)
