# SPDX-License-Identifier: GPL-2.0
"""Mounts that must be refused: in one line that names the thing and the remedy, soon, and with nothing left half done."""

import os
import socket
import struct
from errno import EACCES, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EINVAL, ENOENT, ENOTDIR, EPROTO, EPROTONOSUPPORT, ETIMEDOUT

from qtest import (ROOT, case, eq, eventually, files, filesystems, host, kernellog, lab, process, run, spawn, syscalls, took,
                   true, within)

# The cases mount what they need.
MANUAL = True
TOP = "/mnt/refusals"
EXPORT = "/data/export/refusals"


def set_up(fs):
    """Server and module, but nothing mounted."""
    if fs.name != "qtfs":
        return
    host.server.start(fresh=True)
    filesystems.load_module(fresh=True)
    host.files.fresh_directory(EXPORT)
    host.files.write(f"{EXPORT}/f", b"data")
    os.makedirs(TOP, exist_ok=True)


def mounted(target=TOP):
    """Whether something is mounted there; asks the kernel's table, not the file system."""
    return f" {target} " in files.read("/proc/self/mountinfo").decode()


def refused(source, *options, errors=(), words=(), most=15, target=TOP):
    """Mounting must fail soon, with one line that has these words; returns it."""
    kernellog.begin()
    with took() as time_taken:
        done = filesystems.mount(source, target, *options, check=False, patience=most + 30)
    if done.status == 0:
        filesystems.umount(target)
        raise AssertionError(f"mount {source} {options} succeeded")
    within(time_taken.seconds, 0, most, "seconds until it failed")
    said = [line for line in done.complaint.splitlines() if line.strip() and "dmesg(1) may have more information" not in line]
    logged = [line for line in kernellog.since() if "qtfs" in line and "qtest" not in line]
    text = "\n".join(said + logged)
    for word in words:
        true(word in text, f"{word!r} is said in:\n{text}")
    eq(len(said), 1, f"lines on stderr:\n{done.complaint}")
    eq(mounted(target), False, "mounted after the refusal")
    return text


def errno_of(source, options="", target=TOP):
    """The errno of mount(2)."""
    try:
        syscalls.mount(source, target, "qtfs", 0, options)
    except OSError as error:
        return error.errno
    syscalls.umount(target)
    return 0


@case("a single file or nothing can't be mounted: ENOTDIR, ENOENT", who=[ROOT], needs="qtfs")
def no_directory(t):
    refused(f"{EXPORT}/nothing", words=[f"{EXPORT}/nothing"])
    eq(errno_of(f"{EXPORT}/nothing"), ENOENT)
    refused(f"{EXPORT}/f", words=[f"{EXPORT}/f"])
    eq(errno_of(f"{EXPORT}/f"), ENOTDIR)


@case("a source that is no absolute path is refused with a hint", who=[ROOT], needs="qtfs")
def relative(t):
    refused("relative/path", words=["relative/path", "absolute"])
    eq(errno_of("relative/path"), EINVAL)


@case("a directory that is not exported is refused, and the policy is named", who=[ROOT], needs="qtfs")
def not_exported(t):
    refused("/etc", words=["/etc", "engine.toml"])
    eq(errno_of("/etc"), EACCES)


@case("an unknown option is named", who=[ROOT], needs="qtfs")
def unknown_option(t):
    refused(EXPORT, "nonsense", words=["nonsense"])
    refused(EXPORT, "nonsense=5", words=["nonsense"])
    eq(errno_of(EXPORT, "nonsense"), EINVAL)


@case("wrong values of options are named with what would be right", who=[ROOT], needs="qtfs")
def wrong_values(t):
    for option, words in (("server=nowhere", ["nowhere", "address"]), ("server=10.0.0", ["10.0.0"]), ("server=300.1.1.1", ["300.1.1.1"]),
                          ("server=", ["server"]), ("port=0", ["port=0", "1 to 65535"]), ("port=65536", ["65536", "1 to 65535"]),
                          ("port=-1", ["-1"]), ("port=http", ["http"]), ("nconnect=0", ["nconnect=0", "1 to 16"]), ("nconnect=17", ["17"]),
                          ("timeo=0", ["timeo=0"]), ("timeo=x", ["timeo=x"]), ("soft=1", ["soft", "no value"])):
        refused(EXPORT, option, words=words)
        eq(errno_of(EXPORT, option), EINVAL, option)


@case("a port where nobody listens is refused at once: ECONNREFUSED", who=[ROOT], needs="qtfs")
def port_closed(t):
    refused(EXPORT, "port=9", words=["10.0.0.1:9"])
    eq(errno_of(EXPORT, "port=9"), ECONNREFUSED)


@case("a host that is not there is refused within 15 s, and the mount can be interrupted", who=[ROOT], needs="qtfs", limit=90)
def unreachable(t):
    refused(EXPORT, "server=10.0.0.77", words=["10.0.0.77"], most=15)
    eq(errno_of(EXPORT, "server=10.0.0.77"), EHOSTUNREACH)
    lab.link("down")
    try:
        refused(EXPORT, words=["10.0.0.1"], most=15)
        child = spawn(run, ["mount", "-t", "qtfs", EXPORT, TOP], False)
        true(child.sleeps(5), "mount waits")
        for pid in process.children(child.pid):
            os.kill(pid, 9)
        true(child.finished(20), "killed at once")
    finally:
        lab.link("up")
    filesystems.mount(EXPORT, TOP)
    filesystems.umount(TOP)


@case("a port where something else answers is refused, with the reason", who=[ROOT], needs="qtfs", limit=90)
def other_service(t):
    job = host.background.start(__file__, "answer_nonsense", 4711)
    eventually(lambda: host.call(__file__, "listens", 4711))
    refused(EXPORT, "port=4711", words=["10.0.0.1:4711"], most=20)
    eq(errno_of(EXPORT, "port=4711"), EPROTO)
    host.background.stop(job)
    job = host.background.start(__file__, "answer_nothing", 4712)
    eventually(lambda: host.call(__file__, "listens", 4712))
    refused(EXPORT, "port=4712", words=["10.0.0.1:4712"], most=20)
    eq(errno_of(EXPORT, "port=4712"), ETIMEDOUT)
    host.background.stop(job)


def answer_nonsense(port):
    server = socket.create_server(("10.0.0.1", port))
    while True:
        connection, _ = server.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n" + b"x" * 200)
        connection.close()


def answer_nothing(port):
    server = socket.create_server(("10.0.0.1", port))
    held = []
    while True:
        held.append(server.accept())


def listens(port):
    return f":{port:04X} 00000000:0000 0A" in files.read("/proc/net/tcp").decode()


@case("a server of another version is refused, and both versions are named", who=[ROOT], needs="qtfs", limit=60)
def other_version(t):
    job = host.background.start(__file__, "answer_version", 4713)
    eventually(lambda: host.call(__file__, "listens", 4713))
    refused(EXPORT, "port=4713", words=["10.0.0.1:4713", "version", "77"], most=15)
    eq(errno_of(EXPORT, "port=4713"), EPROTONOSUPPORT)
    host.background.stop(job)


def answer_version(port):
    """Answers HELLO as a server that speaks versions 77 to 78 only."""
    server = socket.create_server(("10.0.0.1", port))
    while True:
        connection, _ = server.accept()
        header = connection.recv(32, socket.MSG_WAITALL)
        if len(header) < 32:
            continue
        length = struct.unpack_from("<I", header)[0]
        connection.recv(length - 32, socket.MSG_WAITALL)
        body = struct.pack("<HHHQIH16sI", 77, 78, 0, 0, 1 << 20, 64, bytes(16), 60000)
        # Length, kind Reply, opcode HELLO, flags, slot, credits, seq, cred, status, data length, ack.
        connection.sendall(struct.pack("<IBBHHHIIIII", 32 + len(body), 2, 1, 0, 0, 64, 0, 0, 0, 0, 0) + body)
        connection.recv(1)


@case("without engine a mount says so, or waits and can be killed", who=[ROOT], needs="qtfs", limit=90)
def no_engine(t):
    host.server.stop_engine()
    try:
        complaint = refused(EXPORT, words=["engine"], most=20)
        t.note(complaint)
        eq(errno_of(EXPORT), EHOSTDOWN)
    finally:
        host.server.start()
    filesystems.mount(EXPORT, TOP)
    filesystems.umount(TOP)
