# SPDX-License-Identifier: GPL-2.0
"""Peers that do not keep the rules: the server ends their session with a line in the log, and serves the others.

The peer is qtfs-probe, which can say anything. Client and server modules stay
loaded and mounted meanwhile, and go on working.
"""

import functools
import os
from errno import ENFILE

from qtest import ROOT, case, checks, eq, eventually, files, filesystems, host, run, spawn, true


def probe(*words, check=True, patience=50, stdin=""):
    """Runs qtfs-probe against the server."""
    return run([filesystems.build_directory() + "/bin/qtfs-probe", "--connect", "10.0.0.1:12345", "-q", *words],
               check=check, patience=patience, stdin=stdin)


def survives(t, *words, patience=50):
    """Lets the probe do something; the mount must work before, meanwhile and after."""
    files.write("f", b"data")
    child = spawn(work, 30)
    probe(*words, patience=patience)
    child.result(60)
    eq(files.read("f"), b"data")
    probe("alive")


def work(times):
    for number in range(times):
        files.write(f"w{number}", b"x" * number)
        eq(len(files.read(f"w{number}")), number)
        os.unlink(f"w{number}")


@case("random bytes before, after and behind good messages", who=[ROOT], needs="qtfs", full=1200)
def garbage(t):
    survives(t, "garbage", "--seed", str(t.seed()), "--count", str(t.amount(20, 600)), patience=t.amount(50, 1000))


@case("messages that are cut short", who=[ROOT], needs="qtfs", limit=90, full=1800)
def truncated(t):
    survives(t, "truncated", "--step", str(t.amount(23, 1)), patience=t.amount(80, 1700))


@case("headers whose lengths are wrong", who=[ROOT], needs="qtfs")
def oversized(t):
    survives(t, "oversized")


@case("good messages with bits changed, every message in turn", who=[ROOT], needs="qtfs", full=3600)
def mutated(t):
    os.mkdir("victim")
    survives(t, "mutated", "--seed", str(t.seed()), "--count", str(t.amount(60, 3000)), t.there("victim"), patience=t.amount(50, 3500))


@case("numbers of the past, of the future, and requests that come again after a reconnect", who=[ROOT], needs="qtfs")
def replay(t):
    os.mkdir("target")
    survives(t, "replay", t.there("target"))


@case("a client that sends byte by byte, and many that send nothing", who=[ROOT], needs="qtfs")
def slow(t):
    survives(t, "slow", "--pause", "2")
    survives(t, "hold", "--count", "200", "--seconds", "1")


@case("all slots of several sessions at once", who=[ROOT], needs="qtfs", limit=90)
def flood(t):
    survives(t, "flood", "--sessions", "3", "--count", "200", patience=80)


@case("versions that the server does not speak are refused, and its own are told", who=[ROOT], needs="qtfs")
def version(t):
    said = []

    def both_are_told():
        # After a flood of bad messages the log says nothing for a while.
        host.kernellog.begin()
        probe("hello", "version_min=77", "version_max=78", check=False)
        said[:] = host.kernellog.since()
        return any("77 to 78" in line and "1 to 1" in line for line in said)

    eventually(both_are_told, 15)
    probe("alive")


@case("a node is forgotten by what the reply said that named it first; requests for what was forgotten or closed are ESTALE or EBADF", who=[ROOT], needs="qtfs")
def forgotten(t):
    script = [f"attach path={t.host_dir} -> root=attr.node", "open target=$root/f flags=READ|WRITE|CREATE mode=0o600 -> f=file node=attr.node stamp=attr.stamp",
              "write file=$f offset=0 data=text", "read file=$f offset=0 len=10", "getattr target=$node file=$f", "getattr target=$node",
              "setattr target=$node valid=MODE mode=0o644", "setattr target=$node file=$f valid=SIZE size=2", "fallocate file=$f mode=0 offset=0 len=10",
              "release files=$f", "getattr target=$node", "release nodes=$node:$stamp", "expect ESTALE getattr target=$node",
              "expect EBADF read file=$f offset=0 len=10"]
    probe("run", stdin="\n".join(script))


@case("what is not exported can't be reached by any message: names with / or .., paths with .., other nodes", who=[ROOT], needs="qtfs")
def escape(t):
    host.files.write("/data/secret-of-hostile", b"secret")
    os.mkdir("d")
    os.symlink("/data", "l")
    attach = f"attach path={t.host_dir} -> root=attr.node"
    script = [attach]
    for line, errno in (("lookup dir=12345 name=x", "ESTALE"), ("walk root=$root path=../../secret-of-hostile", "EINVAL"),
                        ("walk root=$root path=d/../../secret-of-hostile", "EINVAL"), ("walk root=$root path=/etc/passwd", "ENOENT"),
                        ("walk root=$root path=l/secret-of-hostile", "ENOTDIR"), ("attach path=/data/export/../secret-of-hostile", "EINVAL"),
                        ("attach path=/", "EACCES"), ("attach path=/etc", "EACCES"), ("attach path=/data", "EACCES"),
                        ("attach path=/nowhere", "EACCES"), ("attach path=/etc/passwd/x", "EACCES"), (f"attach path={t.host_dir}/l", "EACCES"),
                        (f"attach path={t.host_dir}/l/nowhere", "EACCES"), (f"attach path={t.host_dir}/nowhere", "ENOENT"), ("attach path=relative", "EINVAL")):
        script.append(f"expect {errno} {line}")
    # As bytes, since the probe knows what a name is as well as the server. That a good name is
    # answered shows that it is the name which ends the connection otherwise.
    for op, fields in (("lookup", "u32:0"), ("mkdir", "u32:493,u32:18"), ("symlink", "str:text"), ("unlink", "u32:0")):
        for name in ("str:good", "str:..", "str:.", "str:../..", "str:/etc", "str:../secret-of-hostile", "str:d/../../evil", "u32:0",
                     "u32:4,hex:64002f2e"):
            outcome = "ok" if name == "str:good" else "closed"
            script += ["hello", attach, f"raw op={op} slot=1 seq=1 body=u64:$root,{name},{fields}", f"expect {outcome} receive"]
    probe("run", stdin="\n".join(script))
    eq(host.files.read("/data/secret-of-hostile"), b"secret")
    eq(sorted(host.os.listdir(t.host_dir)), ["d", "good", "l"])
    host.os.unlink("/data/secret-of-hostile")
    probe("alive")


@case("who may only execute a program can neither write nor empty it by asking to execute it: EINVAL", who=[ROOT], needs="qtfs")
def execute(t):
    host.files.write(t.there("program"), b"text")
    host.os.chmod(t.there("program"), 0o711)
    script = [f"attach path={t.host_dir} -> root=attr.node", "credential index=7 uid=4321 gid=4321", "open target=$root/program flags=READ|EXEC @cred=7 -> f=file",
              "expect EACCES open target=$root/program flags=READ @cred=7", "expect EBADF|EINVAL write file=$f offset=0 data=gone @cred=7"]
    script += [f"expect EINVAL open target=$root/program flags={flags}|EXEC @cred=7"
               for flags in ("WRITE", "READ|WRITE", "READ|TRUNC", "READ|APPEND", "READ|CREATE", "READ|TMPFILE")]
    probe("run", stdin="\n".join(script))
    eq(host.files.read(t.there("program")), b"text")


@case("one address has a quarter of all sessions at most, and others are served meanwhile", who=[ROOT], needs="qtfs", limit=180)
def sessions(t):
    child = spawn(functools.partial(probe, "hold", "--hello", "--count", "300", "--seconds", "10", check=False, patience=90))
    command = [filesystems.build_directory() + "/bin/qtfs-probe", "--connect", "10.0.0.1:12345", "-q", "alive"]
    rounds = 0
    while child.alive():
        host.run(command)
        work(2)
        rounds += 1
    told = child.result(60).text
    true(rounds > 2, rounds)
    held, refused = (int(told.split()[at]) for at in (1, 3))
    # This machine has mounts too, each with a session.
    true(240 < held < 256 and held + refused == 300, told)
    eventually(lambda: probe("alive", check=False).status == 0, 20, "their place is free again")


def available():
    """MiB that the host has to spare."""
    found = [line.split()[1] for line in host.files.read("/proc/meminfo").decode().splitlines() if line.startswith("MemAvailable:")]
    return int(found[0]) >> 10


@case("a client that asks for much and reads no answer gets no further, and others are served meanwhile", who=[ROOT], needs="qtfs", limit=150)
def unread(t):
    lanes, slots, times = 16, 256, 4
    host.files.write(t.there("large"), b"x" * (1 << 20))
    script = [f"hello slots={slots}", f"attach path={t.host_dir} -> root=attr.node", "open target=$root/large flags=READ -> f=file"]
    script += [f"join {lane}" for lane in range(1, lanes)]
    # Slot 0 has been used. Each time answers of 255 MiB.
    for number in range(1, times + 1):
        script += [f"read file=$f offset=0 len=1048576 flags=DIRECT @nowait @lane={slot % lanes} @slot={slot} @seq={number}" for slot in range(1, slots)]
        # A slot is not to be used again before HOST has read the file.
        script.append(f"sleep {int(checks.patience(3000))}")
    before = available()
    child = spawn(functools.partial(probe, "run", patience=100, stdin="\n".join(script + ["sleep 3000"])))
    least, rounds = before, 0
    while child.alive():
        work(5)
        least = min(least, available())
        rounds += 1
    child.result(60)
    true(rounds > 5, rounds)
    # What the answers take until they are sent, and what the connections keep.
    true(before - least < 256, f"{before} MiB were there, later {least}")
    eventually(lambda: before - available() < 64, 20, "all is given back")
    probe("alive")


@case("what one client makes the host keep is limited, and given back when it is gone", who=[ROOT], needs="qtfs", limit=120)
def budget(t):
    parameter = "/sys/module/qtfs_server/parameters/qtfs_client_memory"
    os.chdir("/")
    filesystems.umount(t.fs.mnt)
    host.files.write(parameter, b"1")
    try:
        filesystems.mount(t.fs.export, t.fs.mnt)
        os.chdir(t.dir)
        files.write("f", b"data")
        # Each group of an identity counts as 12 bytes, which leaves little for a file or a watch, with 2 KiB, and a lock with 256 bytes.
        groups = ",".join(["1"] * 16300)
        begin = "".join(f"credential index={index} uid=1 gid=1 groups={groups}\n" for index in range(1, 6)) + f"attach path={t.host_dir} -> root=attr.node\n"
        for script, errno in (("open target=$root/f flags=READ\n" * 60, "ENFILE"),
                              ("".join(f"notify node=$root watch={number} mask=CREATE\n" for number in range(1, 60)), "ENFILE"),
                              ("open target=$root/f flags=READ|WRITE -> f=file\n" +
                               "".join(f"lock file=$f owner=1 kind=write start={2 * number} end={2 * number}\n" for number in range(400)), "ENOLCK")):
            found = probe("run", stdin=begin + script, check=False)
            told = found.text + found.complaint
            true(errno in told, told[-500:])
            true(errno != "ENFILE" or "all that it may: see qtfs_client_memory=" in told, told[-500:])
        # This machine is the same client, and all that the other session had is free again.
        def again():
            try:
                return [os.open("f", os.O_RDONLY)]
            except OSError as error:
                true(error.errno == ENFILE, error)
                return None
        held = eventually(again, 20, "the other session has ended")
        held += [os.open("f", os.O_RDONLY) for _ in range(99)]
        eq(files.read("f"), b"data")
        for fd in held:
            os.close(fd)
    finally:
        os.chdir("/")
        host.files.write(parameter, b"0")
        filesystems.umount(t.fs.mnt)
        filesystems.mount(t.fs.export, t.fs.mnt)
        os.chdir(t.dir)
