# SPDX-License-Identifier: GPL-2.0
"""rexec between the machines, in both directions: what takes a real link, control groups, and containerd's shim."""

import os
import signal
import socket
import subprocess
import time

from qtest import ROOT, case, eq, eventually, files, filesystems, host, lab, on_host, process, skip, true
from qtest.filesystems import program

CONFIG = """
connect = "tcp://{peer}:7777"
listen = "tcp://{own}:7777"
link_timeout = 4

[tls]
shared_key = "/etc/qtfs/rexec.key"

[[peer]]
name = "shared-key"
root = true

[[allow]]
program = "/usr/*"
"""
LOG = "/run/rexec_server.log"
GROUPS = "/sys/fs/cgroup"


def rexec(*command, cwd="/", **options):
    """Runs something on the other machine, in a directory that it has too."""
    return process.run([program("rexec"), *command], cwd=cwd, **options)


def begin(*command, **options):
    """Starts something on the other machine; stdout is a pipe."""
    return subprocess.Popen([program("rexec"), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", **options)


def named(name):
    """The ids of the processes that call themselves so."""
    return [pid for pid, called in process.names() if called == name]


# --- A server on each machine; the functions below run on both. ---

def serve(own, peer, key):
    """Starts a server, with the same key for both directions, and waits until it listens."""
    stop()
    os.makedirs("/etc/qtfs", exist_ok=True)
    files.write("/etc/qtfs/rexec.key", key, 0o600)
    files.write("/etc/qtfs/rexec.toml", CONFIG.format(own=own, peer=peer).encode())
    files.write(LOG, b"")
    process.run(f"setsid -f {program('rexec_server')} </dev/null >{LOG} 2>&1")
    eventually(lambda: b"listens at" in files.read(LOG), 20, "the server listens")


def stop(number=signal.SIGTERM):
    """Ends the server; it must leave neither processes nor control groups behind."""
    for pid in named("rexec_server"):
        os.kill(pid, number)
    eventually(lambda: not any(map(named, ("rexec_server", "rexec-nursery", "rexec-keeper"))), 20, "server and keepers are gone")
    eq(groups(), [])


def groups():
    """The control groups of sessions."""
    return [name for name in os.listdir(GROUPS) if name.startswith("rexec-")]


def alive(mark):
    """How many processes have this in their environment."""
    found = 0
    for pid, _ in process.processes():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                found += f"MARK={mark}".encode() in file.read().split(b"\0")
        except OSError:
            continue
    return found


serve_there, stop_there, groups_there, alive_there, named_there = map(on_host, (serve, stop, groups, alive, named))


def set_up(_):
    key = os.urandom(32)
    serve_there("10.0.0.1", "10.0.0.2", key)
    serve("10.0.0.2", "10.0.0.1", key)


def tear_down(_):
    stop()
    stop_there()


# --- Both directions. ---

SCRIPT = "cat; echo $MARK; uname -n; pwd; echo err >&2; exit 41"


@case("a program on the host has stdin, environment, directory and status of its caller here", who=[ROOT], needs={"qtfs", "two"})
def to_host(t):
    found = rexec("sh", "-c", SCRIPT, stdin=b"in\n", cwd="/usr", env={"MARK": "m"}, check=False)
    eq((found.status, found.out, found.err), (41, b"in\nm\nhost\n/usr\n", b"err\n"))


@case("a program on the dpu has those of its caller on the host", who=[ROOT], needs={"qtfs", "two"})
def to_dpu(t):
    found = host.run([program("rexec"), "sh", "-c", SCRIPT], stdin=b"in\n", cwd="/usr", env={"MARK": "m"}, check=False)
    eq((found.status, found.out, found.err), (41, b"in\nm\ndpu\n/usr\n", b"err\n"))


@case("16 MiB pass in both directions and come back the same", who=[ROOT], needs={"qtfs", "two"}, limit=180)
def much(t):
    data = os.urandom(1 << 20) * 16
    true(rexec("cat", stdin=data, patience=150).out == data, "what comes back is what was sent")


@case("a program that is not allowed is refused with the name of the file and of the machine", who=[ROOT], needs={"qtfs", "two"})
def refused(t):
    found = rexec("/etc/passwd", check=False)
    eq(found.status, 126)
    true(b"not allowed by /etc/qtfs/rexec.toml on host" in found.err, found.err)


@case("without the key nobody gets in", who=[ROOT], needs={"qtfs", "two"})
def wrong_key(t):
    files.write("other.key", os.urandom(32), 0o600)
    found = rexec("--shared-key", t.path("other.key"), "true", check=False)
    eq(found.status, 253)
    found = rexec("--insecure", "true", check=False)
    eq(found.status, 249)


# --- Ends. ---

FAMILY = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; echo ready; exec sleep 1000"


def family(mark):
    """A session on the host with descendants of all kinds."""
    running = begin("sh", "-c", FAMILY, env=dict(os.environ, MARK=mark))
    eq(running.stdout.readline(), b"ready\n")
    eventually(lambda: alive_there(mark) == 5, 30, "all of the family is there")
    return running


def nothing_left(mark):
    """No process and no control group of a session is left on the host."""
    eventually(lambda: alive_there(mark) == 0, 30, "the family has ended")
    eventually(lambda: groups_there() == [] and named_there("rexec-keeper") == [], 30, "group and keeper are gone")


@case("each session has a control group, and signals reach the program", who=[ROOT], needs={"qtfs", "two"})
def signals(t):
    running = family("signals")
    eq(len(groups_there()), 1)
    running.send_signal(signal.SIGTERM)
    eq(running.wait(20), -signal.SIGTERM)
    nothing_left("signals")


@case("kill -9 of rexec ends the program and its descendants", who=[ROOT], needs={"qtfs", "two"})
def killed_rexec(t):
    running = family("killed-rexec")
    running.kill()
    running.wait(20)
    nothing_left("killed-rexec")


@case("kill -9 of the keeper ends them, and the group is removed", who=[ROOT], needs={"qtfs", "two"})
def killed_keeper(t):
    running = family("killed-keeper")
    for pid in named_there("rexec-keeper"):
        host.os.kill(pid, 9)
    eq(running.wait(20), -signal.SIGKILL)
    nothing_left("killed-keeper")


@case("kill -9 of the server ends them", who=[ROOT], needs={"qtfs", "two"})
def killed_server(t):
    running = family("killed-server")
    stop_there(signal.SIGKILL)
    eq(running.wait(20), 255)
    nothing_left("killed-server")
    serve_there("10.0.0.1", "10.0.0.2", files.read("/etc/qtfs/rexec.key"))


@case("a link that is cut ends rexec here and the program there", who=[ROOT], needs={"qtfs", "two", "lab"}, limit=120)
def cut_link(t):
    running = family("cut-link")
    lab.link("down")
    try:
        eq(running.wait(60), 255)
        true(b"connection lost" in running.stderr.read(), "it says so")
        nothing_left("cut-link")
    finally:
        lab.link("up")
    eventually(lambda: rexec("true", check=False).status == 0, 60, "the link works again")


@case("a program that waits is not lost by a link that is cut for a moment", who=[ROOT], needs={"qtfs", "two", "lab"}, limit=120)
def short_cut(t):
    for _ in range(10):
        running = begin("sh", "-c", "echo ready; sleep 3; echo after; exit 5")
        eq(running.stdout.readline(), b"ready\n")
        cut = time.monotonic()
        lab.link("down")
        lab.link("up")
        # Of 4 s that it is to bear; it takes longer when this computer has much to do.
        if time.monotonic() - cut < 1.5:
            break
        running.kill()
        running.wait(20)
    else:
        skip("no cut was a short one")
    eq(running.stdout.readline(), b"after\n")
    eq(running.wait(30), 5)


STATUS = "/run/rexec-status"
# In a session of its own, without the streams of who starts it.
CALL = f'exec </dev/null >{STATUS}.out 2>{STATUS}.err; rm -f {STATUS}; "$@"; echo $? >{STATUS}.new; mv {STATUS}.new {STATUS}'


def family_here(mark):
    """A session that the host begins, with its descendants on this machine."""
    host.run(["setsid", "-f", "sh", "-c", CALL, "-", program("rexec"), "sh", "-c", FAMILY], cwd="/", env={"MARK": mark})
    eventually(lambda: alive(mark) == 5, 20, "all of the family is here")


def ends_here(mark, status):
    """rexec on the host has ended like this, and nothing is left on this machine."""
    eventually(lambda: host.files.exists(STATUS), 60, "rexec on the host has ended")
    eq(int(host.files.read(STATUS)), status, mark)
    eventually(lambda: alive(mark) == 0, 30, "the family has ended")
    eventually(lambda: groups() == [] and named("rexec-keeper") == [], 30, "group and keeper are gone")


@case("the other way round too: whoever of rexec, keeper and server is killed, or the link is cut, both sides end", who=[ROOT],
      needs={"qtfs", "two", "lab"}, limit=180)
def from_host(t):
    family_here("rexec")
    for pid in named_there("rexec"):
        host.os.kill(pid, signal.SIGKILL)
    ends_here("rexec", 128 + signal.SIGKILL)
    family_here("keeper")
    for pid in named("rexec-keeper"):
        os.kill(pid, signal.SIGKILL)
    ends_here("keeper", 128 + signal.SIGKILL)
    family_here("server")
    stop(signal.SIGKILL)
    ends_here("server", 255)
    serve("10.0.0.2", "10.0.0.1", files.read("/etc/qtfs/rexec.key"))
    family_here("link")
    lab.link("down")
    try:
        ends_here("link", 255)
    finally:
        lab.link("up")
    eventually(lambda: rexec("true", check=False).status == 0, 60, "the link works again")


# --- What containerd does. ---

OPTIONS = b"\x0a\x1acontainerd.runc.v1.Options\x12\x00"


@case("containerd's shim starts through a wrapper as containerd starts it, lives on, and is deleted", who=[ROOT], needs={"qtfs", "two"}, limit=180)
def shim(t):
    # The bundle has the same name on both machines: HOST's directory, mounted here.
    bundle = t.there("box")
    host.os.makedirs(bundle, exist_ok=True)
    os.makedirs(t.fs.export, exist_ok=True)
    filesystems.mount(t.fs.export, t.fs.export)
    root = t.path("root")
    os.makedirs(root)
    process.run([program("rexec-wrappers"), "--for", "dpu", "--rexec", program("rexec"), root])
    wrapper = os.path.join(root, "usr/bin/containerd-shim-runc-v2")
    try:
        files.write(f"{bundle}/config.json", b'{"ociVersion": "1.0.2", "annotations": {}}')
        os.mkfifo(f"{bundle}/log")
        held = host.background.open_file(f"{bundle}/log", os.O_RDWR)
        arguments = [wrapper, "-namespace", "qtest", "-address", "/run/containerd/containerd.sock", "-publish-binary", "/usr/bin/containerd",
                     "-id", "box"]
        environment = {"TTRPC_ADDRESS": "/run/containerd/containerd.sock.ttrpc", "GRPC_ADDRESS": "/run/containerd/containerd.sock",
                       "NAMESPACE": "qtest", "MAX_SHIM_VERSION": "2", "GOMAXPROCS": "2"}
        found = process.run(arguments + ["start"], stdin=OPTIONS, cwd=bundle, env=environment, patience=90)
        eq(found.err, b"")
        address = found.text.strip()
        true(address.startswith("unix:///run/containerd/s/"), found.out)
        eq(files.read(f"{bundle}/address").decode(), address)
        (pid,) = named_there("containerd-shim")
        eq(environment_there(pid, "TTRPC_ADDRESS"), "/run/containerd/containerd.sock.ttrpc")
        eq(host.os.readlink(f"/proc/{pid}/cwd"), bundle)
        true(answers_there(address.removeprefix("unix://")), "the shim takes connections")
        true("detached" in host.run([program("rexec-ps")]).text, "the session is told as detached")
        # What the shim writes when it makes a container, and reads to delete it.
        files.write(f"{bundle}/runtime", b"/usr/sbin/runc")
        found = process.run(arguments + ["-bundle", bundle, "delete"], cwd=bundle, env=environment, patience=90)
        true(found.out != b"", "delete answers in protobuf")
        process.run([os.path.join(root, "usr/bin/remote_kill"), "-9", str(pid)])
        eventually(lambda: named_there("containerd-shim") == [] and groups_there() == [], 20, "shim and group are gone")
        host.background.close_file(held)
    finally:
        filesystems.umount(t.fs.export)
        end_shims()


@on_host
def environment_there(pid, name):
    with open(f"/proc/{pid}/environ", "rb") as file:
        variables = dict(variable.split(b"=", 1) for variable in file.read().split(b"\0") if variable)
    return variables.get(name.encode(), b"").decode()


@on_host
def answers_there(path):
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


@on_host
def end_shims():
    for pid in named("containerd-shim"):
        os.kill(pid, signal.SIGKILL)


@case("vsock:// leads to a server on this machine", who=[ROOT], needs={"qtfs", "two"})
def vsock(t):
    # The debug kernel has it built in.
    process.run("modprobe vsock_loopback", check=False)
    true(os.path.exists("/dev/vsock"), "the kernel has vsock")
    files.write("vsock.toml", b'insecure = true\n[[allow]]\nprogram = "*"\n')
    with open(LOG, "ab") as log:
        server = subprocess.Popen([program("rexec_server"), "--config", t.path("vsock.toml"), "--listen", "vsock://any:7778",
                                   "--status-socket", "/run/rexec-vsock.sock"], stderr=log)
    try:
        command = ("--config", t.path("vsock.toml"), "--connect", "vsock://local:7778", "sh", "-c", "cat; exit 3")
        eventually(lambda: rexec(*command, stdin=b"in", check=False).status == 3, 30, "the server answers")
        eq(rexec(*command, stdin=b"in" * 500000, check=False).out, b"in" * 500000)
    finally:
        server.terminate()
        server.wait(20)
