# SPDX-License-Identifier: GPL-2.0
"""An overlay that the host has mounted on shared directories, as containers do, while the dpu looks at them.

The host comes first: whatever the dpu does, no process there gets an error.
"""

import os
import stat
import time
from errno import ENOENT, ESTALE

from qtest import ROOT, case, eq, eventually, fails, files, host, missing, on_host, run, server, true


@on_host
def mount_overlay(top):
    for name in ("lower", "upper", "work", "merged"):
        os.makedirs(f"{top}/{name}")
    for number in range(10):
        files.write(f"{top}/lower/low{number}", b"lower %d" % number)
    os.makedirs(f"{top}/lower/dir/sub")
    files.write(f"{top}/lower/dir/f", b"in dir")
    run(["mount", "-t", "overlay", "-o", f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work", "overlay", f"{top}/merged"])


@on_host
def umount_overlay(top):
    server.umount(f"{top}/merged")


@on_host
def busy_container(top):
    """What a container does until it is told to stop; every error is told."""
    rounds, errors = 0, []
    while not os.path.exists(f"{top}/stop"):
        files.write(f"{top}/counting", b"%d" % rounds)
        os.rename(f"{top}/counting", f"{top}/round")
        for action in (container_writes, container_renames, container_removes):
            try:
                action(f"{top}/merged", rounds)
            except OSError as error:
                errors.append(f"round {rounds}: {action.__name__}: {error}")
        rounds += 1
    return rounds, errors[:10]


def container_writes(top, number):
    files.write(f"{top}/new{number}", b"new")
    files.append(f"{top}/low{number % 5}", b"+")
    os.chmod(f"{top}/low{number % 5}", 0o640)
    os.setxattr(f"{top}/new{number}", "user.x", b"y")


def container_renames(top, number):
    os.makedirs(f"{top}/made{number}/deep")
    os.rename(f"{top}/new{number}", f"{top}/made{number}/moved")
    os.rename(f"{top}/made{number}", f"{top}/kept")


def container_removes(top, number):
    os.unlink(f"{top}/kept/moved")
    os.rmdir(f"{top}/kept/deep")
    os.rmdir(f"{top}/kept")
    fd = os.open(f"{top}/low9", os.O_WRONLY | os.O_NONBLOCK)
    os.close(fd)


@case("the upper directory shows what the overlay does: copies, whiteouts, opaque directories", who=[ROOT], needs="two")
def upper(t):
    mount_overlay(t.host_dir)
    try:
        eq(os.listdir("upper"), [])
        host.files.append(t.there("merged/low1"), b" changed")
        eq(files.read("upper/low1"), b"lower 1 changed")
        host.os.unlink(t.there("merged/low2"))
        status = os.lstat("upper/low2")
        eq((stat.S_ISCHR(status.st_mode), status.st_rdev), (True, 0))
        host.run(["rm", "-r", t.there("merged/dir")])
        host.os.mkdir(t.there("merged/dir"))
        eq(os.getxattr("upper/dir", "trusted.overlay.opaque"), b"y")
        eq(os.listdir("upper/dir"), [])
        true("trusted.overlay.origin" in os.listxattr("upper/low1"), "origin is listed")
    finally:
        umount_overlay(t.host_dir)


@case("the merged directory is another file system, and works from here", who=[ROOT], needs="two")
def merged(t):
    mount_overlay(t.host_dir)
    try:
        true(os.stat("merged").st_dev != os.stat("upper").st_dev, "a device number of its own")
        eq(files.read("merged/low3"), b"lower 3")
        files.append("merged/low3", b" from dpu")
        eq(files.read("merged/low3"), b"lower 3 from dpu")
        eq(host.files.read(t.there("merged/low3")), b"lower 3 from dpu")
        eq(files.read("upper/low3"), b"lower 3 from dpu")
        eq(files.read("lower/low3"), b"lower 3")
        os.unlink("merged/low4")
        missing("merged/low4")
        eq(os.lstat("upper/low4").st_rdev, 0)
        os.makedirs("merged/new/deep")
        os.rename("merged/low5", "merged/new/deep/moved")
        eq(host.files.read(t.there("merged/new/deep/moved")), b"lower 5")
        eq(files.names("merged"), sorted(host.os.listdir(t.there("merged"))))
        fd = os.open("merged/low6", os.O_RDONLY)
        host.files.append(t.there("merged/low6"), b" copied up")
        eq(files.read("merged/low6"), b"lower 6 copied up")
        os.close(fd)
    finally:
        umount_overlay(t.host_dir)


@case("a container goes on without any error while the dpu lists, reads, maps and stats its layers", who=[ROOT],
      needs="two", limit=120)
def host_first(t):
    mount_overlay(t.host_dir)
    try:
        job = host.background.start(__file__, "busy_container", t.host_dir)
        eventually(lambda: files.exists("round"), 20, "the container works")
        looks = overlapping = 0
        held = []
        deadline = time.monotonic() + 80
        while (looks < 3 or overlapping < 6) and time.monotonic() < deadline:
            for layer in ("upper", "merged", "lower"):
                before = files.read("round")
                for path, _, names in os.walk(layer):
                    for name in names:
                        try:
                            full = os.path.join(path, name)
                            os.lstat(full)
                            os.listxattr(full, follow_symlinks=False)
                            if os.path.isfile(full):
                                files.read(full)
                                if len(held) < 200:
                                    held.append(os.open(full, os.O_RDONLY))
                        except FileNotFoundError:
                            pass
                overlapping += files.read("round") != before
            looks += 1
        files.write("stop")
        rounds, errors = host.background.finish(job, 60)
        eq(errors, [], "errors on the host")
        t.note(f"{rounds} rounds on the host, {looks} looks at three layers, a round ended during {overlapping}")
        true(looks >= 3 and overlapping >= 6, f"both sides worked at the same time ({rounds} rounds, {looks} looks, {overlapping} overlaps)")
        for fd in held:
            os.close(fd)
    finally:
        umount_overlay(t.host_dir)


@case("mount and umount of the overlay are seen at once, and what the dpu has closed keeps it busy for a moment at most", who=[ROOT], needs="two")
def come_and_go(t):
    mount_overlay(t.host_dir)
    for _ in range(3):
        eq(files.read("merged/low0"), b"lower 0")
        fd = os.open("merged", os.O_RDONLY)
        os.listdir("merged")
        os.close(fd)
        umount_overlay(t.host_dir)
        eq(os.listdir("merged"), [])
        fails(ENOENT, os.stat, "merged/low0")
        host.run(["mount", "-t", "overlay", "-o",
                  f"lowerdir={t.there('lower')},upperdir={t.there('upper')},workdir={t.there('work')}", "overlay", t.there("merged")])
    umount_overlay(t.host_dir)


@case("the host can unmount while the dpu's working directory is in there", who=[ROOT], needs="qtfs")
def umount_with_cwd(t):
    mount_overlay(t.host_dir)
    os.chdir("merged/dir")
    eq(files.read("f"), b"in dir")
    umount_overlay(t.host_dir)
    fails((ENOENT, ESTALE), os.stat, "f")
    os.chdir(t.dir)
    eq(os.listdir("merged"), [])
