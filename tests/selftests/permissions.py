# SPDX-License-Identifier: GPL-2.0
"""Who may do what: mode bits, groups, and root's capabilities. The host decides."""

import os
import stat
from errno import EACCES, EPERM

from qtest import OTHER, ROOT, USER, Who, as_user, case, eq, fails, files, host, run, spawn, syscalls, true

MEMBER = Who("member", 1003, 1003, [1001])


def may(who, path):
    """What a user may do with a file, as three letters."""
    def tried():
        found = ""
        for letter, flags in (("r", os.O_RDONLY), ("w", os.O_WRONLY)):
            try:
                os.close(os.open(path, flags))
                found += letter
            except PermissionError:
                found += "-"
        try:
            os.posix_spawn(path, [path], {})
            os.wait()
            found += "x"
        except PermissionError:
            found += "-"
        return found
    return as_user(who, tried)


@case("owner, group and others each have their own three bits", who=[ROOT])
def classes(t):
    files.write("f", b"#!/bin/true\n")
    os.chown("f", 1001, 1001)
    for mode, owner, group, others in ((0o700, "rwx", "---", "---"), (0o070, "---", "rwx", "---"), (0o007, "---", "---", "rwx"),
                                       (0o444, "r--", "r--", "r--"), (0o755, "rwx", "r-x", "r-x"), (0o640, "rw-", "r--", "---")):
        os.chmod("f", mode)
        eq((may(USER, t.path("f")), may(MEMBER, t.path("f")), may(OTHER, t.path("f"))), (owner, group, others), oct(mode))


@case("in a shared sticky directory O_CREAT does not open others' files as fs.protected_regular of the host says: EACCES", who=[ROOT], needs="qtfs")
def protected_regular(t):
    setting = "/proc/sys/fs/protected_regular"
    before = (files.read(setting), host.files.read(setting))
    os.mkdir("d")

    def opens(name, flags):
        os.close(os.open(t.path(name), os.O_RDWR | flags))
    try:
        # For a name that it knows this machine's kernel answers.
        files.write(setting, b"0")
        for number, (level, mode, group, refused) in enumerate(((b"0", 0o1777, 0, False), (b"1", 0o1777, 0, True), (b"1", 0o1775, USER.gid, False),
                                                                (b"2", 0o1775, USER.gid, True), (b"2", 0o0777, 0, False))):
            host.files.write(setting, level)
            os.chown("d", 0, group)
            os.chmod("d", mode)
            for who in (USER, OTHER):
                for flags in (os.O_CREAT, os.O_CREAT | os.O_TRUNC):
                    name = f"d/{number}-{who.name}-{flags}"
                    host.files.write(t.there(name), b"data")
                    host.os.chown(t.there(name), OTHER.uid, OTHER.gid)
                    host.os.chmod(t.there(name), 0o666)
                    if refused and who is USER:
                        fails(EACCES, as_user, who, opens, name, flags)
                        eq(host.files.read(t.there(name)), b"data")
                        as_user(who, opens, name, 0)
                    else:
                        as_user(who, opens, name, flags)
    finally:
        files.write(setting, before[0])
        host.files.write(setting, before[1])


@case("supplementary groups count, also the last of many", who=[ROOT])
def groups(t):
    files.write("f", b"data")
    os.chown("f", 0, 2002)
    os.chmod("f", 0o060)
    as_user(USER, files.append, t.path("f"), b"-more")
    many = Who("many", 1004, 1004, list(range(3000, 3500)) + [2002])
    eq(as_user(many, files.read, t.path("f")), b"data-more")
    fails(EACCES, as_user, OTHER, files.read, t.path("f"))


@case("a change of groups or ids of a process counts at once", who=[ROOT])
def change_identity(t):
    files.write("f", b"data")
    os.chown("f", 1001, 2001)
    os.chmod("f", 0o040)

    def walk_through():
        os.setgroups([2001])
        os.seteuid(1002)
        eq(files.read(t.path("f")), b"data")
        os.seteuid(0)
        os.setgroups([])
        os.seteuid(1002)
        fails(EACCES, files.read, t.path("f"))
        os.seteuid(0)
        os.setegid(2001)
        os.seteuid(1002)
        eq(files.read(t.path("f")), b"data")

    spawn(walk_through).result()


@case("setfsuid alone decides about files", who=[ROOT])
def fsuid(t):
    files.write("f", b"data", 0o600)

    def other():
        syscalls.libc.setfsuid(1002)
        fails(EACCES, files.read, t.path("f"))
        syscalls.libc.setfsuid(0)
        eq(files.read(t.path("f")), b"data")

    spawn(other).result()


@case("what a process may not do it can't do through cached names of another", who=[ROOT])
def cached_names(t):
    os.makedirs("closed/inner")
    files.write("closed/inner/f", b"data")
    os.chmod("closed", 0o700)
    eq(files.read("closed/inner/f"), b"data")
    os.stat("closed/inner/f")
    fails(EACCES, as_user, USER, os.stat, t.path("closed/inner/f"))
    fails(EACCES, as_user, USER, files.read, t.path("closed/inner/f"))
    fails(EACCES, as_user, USER, os.listdir, t.path("closed"))
    os.chmod("closed", 0o711)
    eq(as_user(USER, files.read, t.path("closed/inner/f")), b"data")
    fails(EACCES, as_user, USER, os.listdir, t.path("closed"))


@case("search needs x on every directory above, listing needs r", who=[USER])
def directories(t):
    os.makedirs("d/e")
    files.write("d/e/f", b"data")
    os.chmod("d", 0o600)
    fails(EACCES, os.stat, "d/e")
    fails(EACCES, files.read, "d/e/f")
    eq(os.listdir("d"), ["e"])
    os.chmod("d", 0o100)
    eq(files.read("d/e/f"), b"data")
    fails(EACCES, os.listdir, "d")
    os.chmod("d", 0o000)
    fails(EACCES, os.listdir, "d")
    fails(EACCES, os.chdir, "d")
    os.chmod("d", 0o700)


@case("access(2) tells what would be permitted", who=[USER])
def access(t):
    files.write("f", b"")
    for mode in (0o000, 0o400, 0o200, 0o100, 0o700):
        os.chmod("f", mode)
        for bit in (os.R_OK, os.W_OK, os.X_OK):
            eq(os.access("f", bit, effective_ids=True), bool(mode & bit << 6), f"{oct(mode)} {bit}")
    eq(os.access("n", os.F_OK), False)


@case("root reads and writes everything, and executes what anyone may", who=[ROOT])
def root(t):
    files.write("f", b"#!/bin/true\n")
    os.chown("f", 1001, 1001)
    os.chmod("f", 0o000)
    eq(may(ROOT, t.path("f")), "rw-")
    os.chmod("f", 0o001)
    eq(may(ROOT, t.path("f")), "rwx")
    os.mkdir("d")
    os.chown("d", 1001, 1001)
    os.chmod("d", 0o000)
    files.write("d/g", b"data")
    eq(os.listdir("d"), ["g"])


@case("root without CAP_DAC_OVERRIDE is held by the bits", who=[ROOT])
def without_override(t):
    files.write("f", b"data")
    os.chown("f", 1001, 1001)
    os.chmod("f", 0o600)
    run(["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps=-all", "true"])
    denied = run(["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "cat", t.path("f")], check=False)
    true(denied.status != 0 and "Permission denied" in denied.complaint, "cat without CAP_DAC_OVERRIDE fails")
    os.chmod("f", 0o604)
    eq(run(["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "cat", t.path("f")]).out, b"data")


@case("an ordinary user with CAP_DAC_READ_SEARCH reads, but does not write", who=[ROOT])
def with_capability(t):
    files.write("f", b"data", 0o600)
    command = ["setpriv", "--reuid", "1002", "--regid", "1002", "--clear-groups",
               "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    eq(run([*command, "cat", t.path("f")]).out, b"data")
    denied = run([*command, "sh", "-c", f"echo x >>{t.path('f')}"], check=False)
    true(denied.status != 0, "writing fails")


@case("chmod is for the owner and root only: EPERM")
def chmod(t):
    files.write("f")
    os.chmod("f", 0o4711)
    eq(oct(stat.S_IMODE(os.stat("f").st_mode)), oct(0o4711))
    fails(EPERM, as_user, OTHER, os.chmod, t.path("f"), 0o777)
    fd = os.open("f", os.O_RDONLY)
    os.fchmod(fd, 0o640)
    os.close(fd)
    eq(oct(host.os.stat(t.there("f")).st_mode), oct(stat.S_IFREG | 0o640))


@case("what was opened while it was permitted stays usable after chmod", who=[USER])
def open_before(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDWR)
    os.chmod("f", 0o000)
    eq(os.pread(fd, 4, 0), b"data")
    os.pwrite(fd, b"more", 4)
    os.fsync(fd)
    os.close(fd)
    os.chmod("f", 0o600)
    eq(files.read("f"), b"datamore")


@case("a permission that the host takes away holds for the next call here", who=[USER], needs="posix")
def taken_away(t):
    files.write("f", b"data")
    eq(files.read("f"), b"data")
    host.os.chmod(t.there("f"), 0o000)
    fails(EACCES, os.open, "f", os.O_RDONLY)
    eq(os.access("f", os.R_OK, effective_ids=True), False)
    host.os.chmod(t.there("f"), 0o600)
    eq(files.read("f"), b"data")


@case("what a user makes belongs to him on the host", who=[USER])
def ownership(t):
    files.write("f")
    os.mkdir("d")
    os.symlink("x", "l")
    os.mkfifo("p")
    for name in ("f", "d", "l", "p"):
        status = host.os.lstat(t.there(name))
        eq((status.st_uid, status.st_gid), (USER.uid, USER.gid), name)


@case("EACCES of one user does not hide a file from another", who=[ROOT])
def refusal_is_not_kept(t):
    os.mkdir("d")
    files.write("d/f", b"data")
    os.chown("d", 1001, 1001)
    os.chmod("d", 0o700)
    for _ in range(3):
        fails(EACCES, as_user, OTHER, os.stat, t.path("d/f"))
        eq(as_user(USER, lambda: os.stat(t.path("d/f")).st_size), 4)


@case("capabilities in a user namespace that a program made itself are none on the host", who=[ROOT])
def user_namespace(t):
    files.write("secret", b"secret")
    os.chmod("secret", 0o600)
    files.write("own", b"own")
    os.chown("own", 1001, 1001)
    os.chmod(".", 0o755)
    for command in ("cat secret", "sh -c 'echo x >secret'", "chown 0:0 secret", "sh -c 'echo x >made'"):
        done = run(f"cd {t.dir} && unshare -Ur {command}", who=USER, check=False)
        true(done.status != 0, f"{command}: {done}")
    eq(host.files.read(t.there("secret")), b"secret")
    eq(run(f"cd {t.dir} && unshare -Ur cat own", who=USER).text, "own")
    eq((os.stat("own").st_uid, sorted(host.os.listdir(t.host_dir))), (1001, ["own", "secret"]))
