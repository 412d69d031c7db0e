# SPDX-License-Identifier: GPL-2.0
"""The policy file: what is exported, and that nothing else can be reached, whatever the path or the trick."""

import functools
import os
import signal
import time
from errno import EACCES, ENOENT, EPERM, EROFS, ESTALE, EXDEV

from qtest import ROOT, USER, as_user, case, eq, fails, files, filesystems, host, missing, run, server, syscalls, true
from qtest.inotify import Told

# The cases mount what they need.
MANUAL = True
TOP = "/mnt/policy"
EXPORT = "/data/export/policy"


def set_up(fs):
    """Server and module, but nothing mounted."""
    if fs.name != "qtfs":
        return
    host.server.start(fresh=True)
    filesystems.load_module(fresh=True)
    host.files.fresh_directory(EXPORT)
    host.files.fresh_directory("/data/secret")
    host.files.write("/data/secret/f", b"secret")
    host.files.fresh_directory("/data/readonly")
    host.files.write("/data/readonly/f", b"data")
    os.makedirs(TOP, exist_ok=True)


class mounted:
    """Mounts a directory of the host for a block."""

    def __init__(self, source, *options):
        self.source = source
        self.options = options

    def __enter__(self):
        filesystems.mount(self.source, TOP, *self.options)
        os.chdir(TOP)
        return TOP

    def __exit__(self, error, *_):
        os.chdir("/")
        filesystems.umount(TOP, *(["-l"] if error else []))


def refused(source, *words):
    """Mounting must fail, in one line that has these words."""
    done = filesystems.mount(source, TOP, check=False)
    if done.status == 0:
        filesystems.umount(TOP)
    true(done.status != 0, f"mounting {source} fails")
    for word in words:
        true(word in done.complaint, f"{word!r} is in: {done.complaint}")
    return done.complaint


@case("an exported directory and those below it can be mounted, others can't", who=[ROOT], needs="qtfs")
def exported(t):
    host.os.makedirs(f"{EXPORT}/deep/er", exist_ok=True)
    for source in (EXPORT, f"{EXPORT}/deep", f"{EXPORT}/deep/er", EXPORT + "/"):
        with mounted(source):
            os.listdir(".")
    for source in ("/data/secret", "/", "/data", "/etc", "/data/exportx", f"{EXPORT}/../../secret"):
        refused(source, "policy" if ".." not in source else "")


@case("an exported parent does not export what has the same beginning", who=[ROOT], needs="qtfs")
def same_beginning(t):
    host.files.fresh_directory("/data/export2")
    complaint = refused("/data/export2")
    true("/data/export2" in complaint, complaint)
    host.os.rmdir("/data/export2")


@case("a read-only export refuses every change with EROFS, also for root", who=[ROOT], needs="qtfs")
def read_only(t):
    with mounted("/data/readonly"):
        eq(files.read("f"), b"data")
        for call, args in ((files.write, ("new",)), (os.mkdir, ("d",)), (os.unlink, ("f",)), (os.rename, ("f", "g")), (os.link, ("f", "g")),
                           (os.symlink, ("x", "l")), (os.chmod, ("f", 0o600)), (os.chown, ("f", 1, 1)), (os.truncate, ("f", 0)),
                           (os.utime, ("f",)), (os.setxattr, ("f", "user.x", b"1")), (os.removexattr, ("f", "user.x")), (os.mkfifo, ("p",)),
                           (files.append, ("f", b"x")), (os.open, ("f", os.O_RDWR)), (os.open, (".", os.O_TMPFILE | os.O_RDWR))):
            fails(EROFS, call, *args)
        eq(os.access("f", os.W_OK), False)
        eq(host.os.listdir("/data/readonly"), ["f"])
        eq(host.files.read("/data/readonly/f"), b"data")


@case("the longest prefix wins: a writable directory in a read-only one, and the other way round", who=[ROOT], needs="qtfs")
def nested(t):
    host.os.makedirs("/data/more/ro/rw", exist_ok=True)
    host.os.makedirs("/data/more/own", exist_ok=True)
    host.server.start((("/data/export", "rw"), ("/data/more", "rw"), ("/data/more/ro", "ro"), ("/data/more/ro/rw", "rw"), ("/data/more/own", "rw")))
    try:
        with mounted("/data/more"):
            files.write("f")
            fails(EROFS, files.write, "ro/f")
            files.write("ro/rw/f")
            fails((EROFS, EXDEV), os.rename, "f", "ro/f")
            fails((EROFS, EXDEV), os.link, "f", "ro/f")
            os.mkdir("d")
            # What has a rule of its own is not replaced, exchanged or moved away.
            fails(EROFS, os.rename, "d", "ro")
            fails(EACCES, os.rename, "d", "own")
            fails(EACCES, os.rename, "own", "elsewhere")
            fails(EACCES, syscalls.rename2, "d", "own", 2)
            true({"d", "own", "ro"} <= set(os.listdir(".")), "all are where they were")
            os.rename("d", "own/d")
            os.rmdir("own/d")
            # Nor is its name, when nothing is there, made to lead elsewhere.
            os.rmdir("own")
            fails(EACCES, os.symlink, "/etc", "own")
            os.symlink("/etc", "l")
            fails(EACCES, functools.partial(os.link, follow_symlinks=False), "l", "own")
            fails(EACCES, os.rename, "l", "own")
            os.mkdir("own")
            os.unlink("ro/rw/f")
            host.os.rmdir("/data/more/ro/rw")
            host.os.rmdir("/data/more/ro")
            fails(EROFS, os.mkdir, "ro")
            fails(EROFS, os.mkfifo, "ro")
            fails(EROFS, os.open, "ro", os.O_CREAT | os.O_WRONLY)
            host.os.makedirs("/data/more/ro/rw")
            os.unlink("l")
            os.unlink("f")
    finally:
        host.server.start()
        host.files.remove_tree("/data/more")
        host.os.mkdir("/data/more")


@case("what the host mounts when it is used is mounted when it is used from here", who=[ROOT], needs="qtfs")
def automount(t):
    tracing = "/sys/kernel/debug/tracing"
    host.run(["umount", tracing], check=False)
    host.server.start((("/data/export", "rw"), ("/sys/kernel/debug", "ro")))
    try:
        with mounted("/sys/kernel/debug"):
            os.stat("tracing")
            eq(tracing in host.files.read("/proc/self/mounts").decode(), False, "stat mounts nothing")
            true("trace" in os.listdir("tracing"), "listing mounts")
            host.server.umount(tracing)
            eq(files.read("tracing/current_tracer"), b"nop\n", "going through mounts")
            host.server.umount(tracing)
            os.chdir("tracing")
            true("trace" in os.listdir("."), "going there mounts")
            os.chdir("..")
    finally:
        host.server.start()
        host.run(["umount", tracing], check=False)


@case("symlinks of the host that lead out of the export lead to this machine's files", who=[ROOT], needs="qtfs")
def symlinks(t):
    host.os.symlink("/data/secret", f"{EXPORT}/absolute")
    host.os.symlink("../../secret", f"{EXPORT}/relative")
    host.os.symlink("/data/secret/f", f"{EXPORT}/file")
    with mounted(EXPORT):
        for name in ("absolute/f", "relative/f", "file"):
            fails(ENOENT, files.read, name)
        eq(os.readlink("absolute"), "/data/secret")
        fails(ENOENT, files.write, "file", b"overwritten")
    refused(f"{EXPORT}/absolute")
    refused(f"{EXPORT}/relative/f")
    eq(host.files.read("/data/secret/f"), b"secret")


@case("symlinks of the host are followed on the way to what is mounted, also outside of the export", who=[ROOT], needs="qtfs")
def symlinks_to_export(t):
    host.os.makedirs(f"{EXPORT}/a/b", exist_ok=True)
    host.files.write(f"{EXPORT}/a/b/f", b"data")
    host.files.fresh_directory("/run/qtest-links")
    for text, name in ((EXPORT, "/run/qtest-links/export"), ("export/a", "/run/qtest-links/twice"), ("../../run//./qtest-links/twice/", "/run/qtest-links/round"),
                       ("a/b", f"{EXPORT}/inside"), ("loop", "/run/qtest-links/loop"), ("/proc/self/root", "/run/qtest-links/magic")):
        host.os.symlink(text, name)
    try:
        for source in ("/run/qtest-links/export/a/b", "/run/qtest-links/twice/b", "/run/qtest-links/round/b", f"{EXPORT}/inside",
                       "/run/qtest-links/export/inside"):
            with mounted(source):
                eq(files.read("f"), b"data", source)
        for source in ("loop", "magic", f"magic{EXPORT}", "nowhere", "."):
            refused(f"/run/qtest-links/{source}")
    finally:
        host.files.remove_tree("/run/qtest-links")


@case("naming what is not exported makes the host mount nothing", who=[ROOT], needs="qtfs")
def named_only(t):
    tracing = "/sys/kernel/debug/tracing"
    host.run(["umount", tracing], check=False)
    host.files.fresh_directory("/run/qtest-links")
    host.os.symlink(f"{tracing}/events", "/run/qtest-links/outside")
    host.os.symlink(f"{tracing}/events", f"{EXPORT}/outside")
    try:
        for source in (tracing, f"{tracing}/events", "/run/qtest-links/outside", f"{EXPORT}/outside"):
            refused(source)
        eq(tracing in host.files.read("/proc/self/mounts").decode(), False, "nothing was mounted")
    finally:
        host.files.remove_tree("/run/qtest-links")


@case(".. at the top of a mount stays in this machine", who=[ROOT], needs="qtfs")
def dotdot(t):
    host.os.makedirs(f"{EXPORT}/a/b", exist_ok=True)
    with mounted(f"{EXPORT}/a"):
        eq(os.stat("..").st_ino, os.stat("/mnt").st_ino)
        eq(sorted(os.listdir("b/../..")), sorted(os.listdir("/mnt")))
        fails(ENOENT, os.stat, "b/../../secret")


@case("a directory that the host moves out of the export is out of reach, also for who is in it or has it open",
      who=[ROOT], needs="qtfs")
def moved_out(t):
    host.os.makedirs(f"{EXPORT}/d/sub", exist_ok=True)
    host.files.write(f"{EXPORT}/d/f", b"data")
    with mounted(EXPORT):
        fd = os.open("d", os.O_RDONLY)
        os.chdir("d")
        eq(files.read("f"), b"data")
        host.os.rename(f"{EXPORT}/d", "/data/secret/d")
        outside = (ENOENT, ESTALE, EACCES)
        fails(outside, files.read, "f")
        fails(outside, files.write, "new")
        fails(outside, os.mkdir, "sub/new")
        fails(outside, os.stat, "sub")
        fails(outside, os.open, "f", os.O_RDONLY, dir_fd=fd)
        os.chdir(TOP)
        missing("d")
        os.close(fd)
    eq(sorted(host.os.listdir("/data/secret/d")), ["f", "sub"])
    host.files.remove_tree("/data/secret/d")


@case("a watched directory tells of nothing while the host has moved it out of the export, or does not export it", who=[ROOT], needs="qtfs", limit=90)
def watched(t):
    host.os.makedirs(f"{EXPORT}/d/sub")
    try:
        with mounted(EXPORT):
            told = Told("d", "d/sub")
            host.files.write(f"{EXPORT}/d/sub/one")
            told.until("sub", "CLOSE_WRITE", "one")
            # Within the export it may be anywhere.
            host.os.rename(f"{EXPORT}/d", f"{EXPORT}/e")
            host.files.write(f"{EXPORT}/e/sub/two")
            told.until("sub", "CLOSE_WRITE", "two")
            host.os.rename(f"{EXPORT}/e", "/data/secret/e")
            for name in ("secret", "sub/secret"):
                host.files.write(f"/data/secret/e/{name}")
                host.os.unlink(f"/data/secret/e/{name}")
            host.os.rename("/data/secret/e", f"{EXPORT}/d")
            host.files.write(f"{EXPORT}/d/sub/three")
            found = told.until("sub", "CLOSE_WRITE", "three")
            host.call(__file__, "reload_with", (("/data/more", "rw"),))
            host.files.write(f"{EXPORT}/d/secret")
            host.call(__file__, "reload_with", (("/data/export", "rw"),))
            host.files.write(f"{EXPORT}/d/four")
            found += told.until("d", "CLOSE_WRITE", "four")
            eq([event for event in found if event[2] == "secret"], [])
            told.close()
    finally:
        host.server.write_policy()
        host.server.stop_engine()
        host.server.start()


@case("an open file that the host moves out of the export may be used, its new place may not", who=[ROOT], needs="qtfs")
def file_moved_out(t):
    host.files.write(f"{EXPORT}/moving", b"data")
    with mounted(EXPORT):
        fd = os.open("moving", os.O_RDONLY)
        host.os.rename(f"{EXPORT}/moving", "/data/secret/moved")
        missing("moving")
        eq(os.pread(fd, 4, 0), b"data")
        os.close(fd)
    host.os.unlink("/data/secret/moved")


@case("a directory that the host has mounted at two places stays at both", who=[ROOT], needs="qtfs")
def two_places(t):
    for name in ("a/d", "b"):
        host.os.makedirs(f"{EXPORT}/two/{name}")
    host.files.write(f"{EXPORT}/two/a/d/f", b"data")
    host.run(["mount", "--bind", f"{EXPORT}/two/a", f"{EXPORT}/two/b"])
    try:
        with mounted(EXPORT):
            here = os.getcwd()
            os.chdir("two/a/d")
            for _ in range(3):
                for name in ("a", "b"):
                    eq(files.read(f"{here}/two/{name}/d/f"), b"data")
                    eq(os.listdir(f"{here}/two/{name}/d"), ["f"])
                eq(os.getcwd(), f"{here}/two/a/d")
                eq(sorted(os.listdir("../..")), ["a", "b"])
            os.chdir(here)
    finally:
        host.server.umount(f"{EXPORT}/two/b")
        host.files.remove_tree(f"{EXPORT}/two")


@case("a host's mount point in the export shows what is mounted there, and nothing behind it", who=[ROOT], needs="qtfs")
def bind(t):
    host.os.makedirs(f"{EXPORT}/m", exist_ok=True)
    host.run(["mount", "--bind", "/data/secret", f"{EXPORT}/m"])
    try:
        with mounted(EXPORT):
            eq(files.read("m/f"), b"secret", "what the host binds into an export belongs to it")
            fails(ENOENT, os.stat, "m/../../secret/f")
    finally:
        host.server.umount(f"{EXPORT}/m")


@case("rename and link can't carry anything over the border of an export", who=[ROOT], needs="qtfs")
def carry(t):
    host.os.makedirs("/data/more/x", exist_ok=True)
    os.makedirs("/mnt/policy2", exist_ok=True)
    with mounted(EXPORT):
        filesystems.mount("/data/more", "/mnt/policy2")
        try:
            files.write("f", b"data")
            fails(EXDEV, os.rename, "f", "/mnt/policy2/f")
            fails(EXDEV, os.link, "f", "/mnt/policy2/f")
            fails(EXDEV, syscalls.rename2, "f", "/mnt/policy2/x", 2)
        finally:
            filesystems.umount("/mnt/policy2")


@case("an ordinary user does not mount: EPERM", who=[ROOT], needs="qtfs")
def mount_as_user(t):
    done = filesystems.mount(EXPORT, TOP, check=False, who=USER)
    true(done.status != 0, "mount fails")
    fails(EPERM, as_user, USER, syscalls.mount, EXPORT, TOP, "qtfs")
    eq(os.path.ismount(TOP), False)


@case("SIGHUP reads the policy again: a removed export is out of reach, an added one in", who=[ROOT], needs="qtfs", limit=90)
def reload(t):
    host.files.fresh_directory("/data/later")
    host.files.write("/data/later/f", b"later")
    refused("/data/later")
    try:
        host.call(__file__, "reload_with", (("/data/export", "rw"), ("/data/later", "ro")))
        with mounted("/data/later"):
            eq(files.read("f"), b"later")
            host.call(__file__, "reload_with", (("/data/export", "rw"),))
            fails((EACCES, ESTALE), files.read, "f")
            host.call(__file__, "reload_with", (("/data/export", "rw"), ("/data/later", "ro")))
            eq(files.read("f"), b"later")
    finally:
        host.server.write_policy()
        host.server.stop_engine()
        host.server.start()


def reload_with(exports):
    server.write_policy(exports)
    seen = server.engine_log().count("read again")
    os.kill(server.engines()[0], signal.SIGHUP)
    deadline = time.monotonic() + 10
    while server.engine_log().count("read again") == seen:
        if time.monotonic() > deadline:
            raise RuntimeError("engine does not say that it read the policy again: " + server.engine_log()[-500:])
        time.sleep(0.02)


# --- What engine says about wrong policies. ---

def engine(text, *arguments):
    """Runs engine with a policy to its end."""
    files.write("/run/qtest-policy.toml", text.encode())
    return run([server.build_directory() + "/bin/engine", "--config", "/run/qtest-policy.toml", *arguments], check=False, patience=60)


@case("without a policy file engine refuses, and says how to write one", who=[ROOT], needs="qtfs")
def no_policy(t):
    done = host.run([server.build_directory() + "/bin/engine", "--config", "/nowhere/engine.toml"], check=False)
    eq(done.status, 3)
    for word in ("/nowhere/engine.toml", "[[export]]", "path = ", "mode = "):
        true(word in done.complaint, f"{word!r} is in: {done.complaint}")


@case("a typo in the policy: one line with file, place, thing and remedy", who=[ROOT], needs="qtfs")
def typos(t):
    for text, words in (
            ('[[export]]\npath = "/data"\nmoed = "rw"\n', (":3:", "moed", '"mode"')),
            ('[[export]]\npath = "/data"\nmode = "rx"\n', (":3:", "rx", '"ro" or "rw"')),
            ('[[exports]]\npath = "/data"\n', (":1:", "exports", '"export"')),
            ('[[export]]\nmode = "rw"\n', ("path",)),
            ('[[export]]\npath = "data"\n', (":2:", "absolute")),
            ('[[export]]\npath = "/does/not/exist"\n', (":2:", "/does/not/exist", "create it")),
            ('[[export]]\npath = "/etc/hostname"\n', (":2:", "not a directory")),
            ('[[export]\npath = "/data"\n', (":1:",)),
            ('[[export]]\npath = "/data"\n[[export]]\npath = "/data"\n', (":4:", "twice"))):
        done = host.call(__file__, "engine", text, "--check")
        eq(done.status, 4, text)
        eq(len(done.complaint.splitlines()), 1, done.complaint)
        for word in ("/run/qtest-policy.toml", *words):
            true(word in done.complaint, f"{word!r} is in: {done.complaint}")


@case("a second engine is refused, and the first goes on", who=[ROOT], needs="qtfs")
def second_engine(t):
    done = host.run([server.build_directory() + "/bin/engine"], check=False, patience=60)
    eq(done.status, 7, done.complaint)
    eq(len(done.complaint.splitlines()), 1)
    with mounted(EXPORT):
        os.listdir(".")


@case("the command lines of the first qtfs are accepted, with a hint", who=[ROOT], needs="qtfs")
def old_command_lines(t):
    for arguments in (("4096", "16"), ("16", "1", "10.0.0.1", "12121", "10.0.0.2", "12121")):
        host.server.stop_engine()
        host.server.start_engine(*arguments)
        with mounted(EXPORT):
            os.listdir(".")
        true("old command line" in host.server.engine_log(), "the hint")
    host.server.stop_engine()
    host.server.start()
