# SPDX-License-Identifier: GPL-2.0
"""Stock containerd and dockerd on the dpu, their containers on the host, as `qtfs-offload up` makes it."""

import ast
import contextlib
import functools
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time
from errno import EACCES, ENOENT, ENOSYS, EPERM, EROFS, EXDEV

from qtest import ROOT, case, cri, eq, eventually, files, host, lab, offload, process, server, syscalls, true
from qtest.offload import BUNDLES, IMAGE, as_before, kill_there, left_there, nothing_left, state

MANUAL = True
KEEPS_MOUNTS = True
# An emulated machine takes seconds for what a real one does in one.
PATIENT = 150
# What daemons look for before they ask for AppArmor profiles; Debian installs it beside docker.io.
PARSER = "/usr/sbin/apparmor_parser"


def set_up(_):
    files.write(PARSER, b"#!/bin/sh\n", 0o755)
    offload.set_up()
    ctr("images", "import", offload.ARCHIVE)
    docker("load", "-i", offload.ARCHIVE)


def tear_down(_):
    os.unlink(PARSER)
    offload.tear_down()


def ctr(*arguments, check=True, stdin=b""):
    """ctr ARGUMENTS; what it prints."""
    return process.run(["ctr", *arguments], check=check, patience=PATIENT, stdin=stdin)


def docker(*arguments, check=True, stdin=b""):
    """docker ARGUMENTS; what it prints."""
    return process.run(["docker", *arguments], check=check, patience=PATIENT, stdin=stdin)


def running(name):
    """Whether a container of dockerd runs."""
    return docker("inspect", "-f", "{{.State.Running}}", name, check=False).text == "true"


def pid_of(name):
    """The process of a container of dockerd, on the host."""
    return int(docker("inspect", "-f", "{{.State.Pid}}", name).text)


def command_there(pid):
    """What a process of the host is."""
    return host.process.run(["cat", f"/proc/{pid}/cmdline"], check=False).out.split(b"\0")[0]


def daemon(name):
    """The process of a daemon here."""
    return int(process.run(["pgrep", "-x", name]).text)


def kill_here(name):
    """Kills it; its keeper starts it again."""
    os.kill(daemon(name), signal.SIGKILL)


def restarted(name, number):
    """Has a daemon killed, and waits until its keeper has brought it back."""
    old = daemon(name)
    os.kill(old, number)
    ready = {"containerd": ["ctr", "version"], "dockerd": ["docker", "version"]}[name]

    def back():
        new = process.run(["pgrep", "-x", name], check=False).text
        return new not in ("", str(old)) and process.run(ready, check=False).status == 0
    eventually(back, PATIENT, f"{name} is back")


def clear():
    """Takes away what a case that failed has left."""
    left = docker("ps", "-aq", check=False).text.split()
    if left:
        docker("rm", "-f", *left, check=False)
    for name in ctr("container", "ls", "-q", check=False).text.split():
        ctr("task", "kill", "-s", "KILL", name, check=False)
        ctr("task", "rm", "-f", name, check=False)
        ctr("container", "rm", name, check=False)


def offloaded(what, reboots=False, **more):
    """Registers a case that needs both machines as they are set up here, and leaves both as they were."""
    def register(function):
        @functools.wraps(function)
        def body(t):
            before = state()
            try:
                function(t)
                nothing_left()
                as_before(before, rebooted=reboots)
            except BaseException:
                clear()
                raise
        return case(what, who=[ROOT], needs={"qtfs", "two", *more.pop("needs", ())}, limit=more.pop("limit", 300), **more)(body)
    return register


# --- What is where. ---

@offloaded("qtfs-offload status and check find nothing wrong on either machine; status fails, and says so, when something does not run")
def fine(t):
    # What an NTP client would see to.
    begun = 0
    while not begun or time.time() - begun >= 1:
        begun = time.time()
        host.process.run(["date", "-s", f"@{begun}"])
    for command in ("status", "check"):
        found = offload.offload(command)
        true("WRONG" not in found.text and "DOWN" not in found.text, found.text)
        found = host.process.run([offload.program("qtfs-offload"), command], patience=100)
        true("WRONG" not in found.text and "DOWN" not in found.text, found.text)
    files.write("/srv/more.toml", files.read(f"{offload.DIRECTORY}/offload.toml") + b"[kubelet]\n")
    offload.does_not_run("kubelet", "--config", "/srv/more.toml")


@offloaded("the daemons keep no mount of what they have unpacked")
def temporary(t):
    top = "/var/lib/containerd/tmpmounts"
    mounts = files.read(f"/proc/{daemon('containerd')}/mountinfo").decode()
    eq([line for line in mounts.splitlines() if top in line], [])
    eq(os.listdir(top), [])


@offloaded("dockerd has overlay2, cgroupfs and live-restore without being told so")
def settings(t):
    eq(docker("info", "--format", "{{.Driver}} {{.CgroupDriver}} {{.LiveRestoreEnabled}}").text, "overlay2 cgroupfs true")


@offloaded("the daemons run here and not on the host, a container runs there and not here, with no AppArmor profile of this machine")
def placement(t):
    docker("run", "-d", "--name", "where", "--network", "none", IMAGE, "sleep", "1234")
    pid = pid_of("where")
    eq(command_there(pid), b"sleep")
    true("1234" not in process.run(["ps", "-eo", "args"]).text, "the process is not here")
    for name in ("containerd", "dockerd"):
        true(name in offload.commands(), f"{name} is here")
        true(name not in host.call("qtest.offload", "commands"), f"{name} is not on the host")
    left = left_there()
    eq([group.split("/")[0] for group in left["groups"]], ["docker"])
    eq(offload.containers(), [])
    spec = json.loads(host.files.read(f"{BUNDLES}/{left['bundles'][0]}/config.json"))
    eq(spec["process"].get("apparmorProfile"), None)
    docker("rm", "-f", "where")


# --- containerd. ---

LOOK = "cat /etc/hello; ls /old /opaque; stat -c '%a %F %t:%T' /special/zero /special/fifo; stat -c %h /bin/hard; stat -c %u /old/stays"


@offloaded("an image has its whiteouts, opaque directories, devices, hard links, owners and capabilities on the host")
def layers(t):
    found = ctr("run", "--rm", IMAGE, "look", "/bin/sh", "-c", LOOK)
    eq(found.text.split(), "hello from the upper layer /old: stays /opaque: above 666 character special file 1:5 600 fifo 0:0 2 1000".split())
    snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
    capable = host.process.run(f"getcap {snapshots}/*/fs/bin/capable").text
    true("cap_net_raw" in capable, capable)


@offloaded("ctr run -d, exec, exec with stdin, metrics, pause, resume, kill and rm")
def ctr_life(t):
    ctr("run", "-d", IMAGE, "life", "/bin/sleep", "1000")
    true("sleep 1000" in ctr("task", "exec", "--exec-id", "e1", "life", "/bin/ps").text, "exec sees the process")
    eq(ctr("task", "exec", "--exec-id", "e2", "life", "/bin/cat", stdin=b"in\n").text, "in")
    true("pids.current" in ctr("task", "metrics", "life").text, "metrics of the host's control group")
    ctr("task", "pause", "life")
    true("PAUSED" in ctr("task", "ls").text, "paused")
    ctr("task", "resume", "life")
    true("RUNNING" in ctr("task", "ls").text, "resumed")
    eq(ctr("task", "exec", "--exec-id", "e3", "life", "/bin/sh", "-c", "exit 41", check=False).status, 41)
    ctr("task", "kill", "-s", "KILL", "life")
    eventually(lambda: "STOPPED" in ctr("task", "ls").text, 60, "the exit event of the shim")
    ctr("task", "rm", "life", check=False)
    ctr("container", "rm", "life")


@offloaded("containerd killed with -9, or restarted, finds its live task again, and events of the shim arrive", only_full=True)
def containerd_dies(t):
    ctr("run", "-d", IMAGE, "lives", "/bin/sleep", "1000")
    for number in (signal.SIGTERM, signal.SIGKILL):
        restarted("containerd", number)
        eventually(lambda: "RUNNING" in ctr("task", "ls").text, 60, "the task lives")
        eq(ctr("task", "exec", "--exec-id", number.name, "lives", "/bin/echo", "again").text, "again")
    ctr("task", "kill", "-s", "KILL", "lives")
    eventually(lambda: "STOPPED" in ctr("task", "ls").text, 60, "the event arrives")
    ctr("task", "rm", "lives", check=False)
    ctr("container", "rm", "lives")


@offloaded("a pod on the host's network by the container runtime interface: create, exec, log, stats, stop, remove")
def pod(t):
    ctr("-n", "k8s.io", "images", "import", offload.ARCHIVE)
    runtime = cri.Runtime()
    sandbox = runtime.run_pod("pod")
    container = runtime.create(sandbox, "pod", IMAGE, ["/bin/sh", "-c", "echo logged; exec sleep 1000"])
    runtime.call("StartContainer", (1, container))
    eq(runtime.exec(container, "/bin/sh", "-c", "echo out; mount | grep -c ' /dev/shm '; exit 3"), ("out\n1\n", 3))
    eventually(lambda: b"stdout F logged" in files.read("/var/log/pods/pod/pod.log"), 60, "the log is here")
    true(runtime.call("ContainerStats", (1, container))[1][0], "stats")
    true("/run/containerd/io.containerd.grpc.v1.cri/sandboxes" in host.process.run(["cat", "/proc/mounts"]).text, "the shm of the pod is on the host")
    runtime.call("StopContainer", (1, container), (2, 0))
    runtime.call("RemoveContainer", (1, container))
    runtime.call("StopPodSandbox", (1, sandbox))
    runtime.call("RemovePodSandbox", (1, sandbox))
    true("/shm " not in host.process.run(["grep", "-v", "/dev/shm", "/proc/mounts"]).text, "and gone")
    ctr("-n", "k8s.io", "images", "rm", IMAGE)


# --- dockerd. ---

BOUND = "/srv/bound"


@offloaded("docker run with --network none and host, -i, -t, --init, limits, a directory of the host and a root that are read-only, a user, an exit status")
def docker_run(t):
    eq(docker("run", "--rm", "-i", "--network", "none", IMAGE, "cat", stdin=b"stdin\n").text, "stdin")
    typed = ["script", "-qec", f"docker run --rm -t --init --network host {IMAGE} sh -c 'ps; ip addr'", "/dev/null"]
    seen = process.run(typed, patience=PATIENT).text
    true("docker-init" in seen, "tini is process 1 on the terminal")
    true("inet 10.0.0.1/" in seen and "inet 10.0.0.2/" not in seen, f"the network is the host's: {seen}")
    host.files.fresh_directory(BOUND, mode=0o777)
    host.files.write(f"{BOUND}/file", b"of the host\n")
    options = ("--memory", "64m", "--cpus", "0.5", "--read-only", "--user", "1000", "-v", f"{BOUND}:/bound:ro")
    script = "id -u; for file in /tmp/x /bound/x; do touch $file || echo read-only; done; cat /bound/file; " \
             "ls /sys/class/net; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; exit 41"
    found = docker("run", "--rm", "--network", "none", *options, IMAGE, "sh", "-c", script, check=False)
    eq((found.status, found.text), (41, "1000\nread-only\nread-only\nof the host\nlo\n67108864\n50000 100000"))


@offloaded("docker run -d with a volume and limits, exec, cp both ways, diff, top, pause, kill, logs, commit")
def docker_day(t):
    docker("run", "-d", "--name", "day", "--network", "none", "-v", "day:/data", "--memory", "64m", "--cpus", "0.9", "--init", IMAGE,
           "sh", "-c", "echo kept >/data/file; echo begun; sleep 1000")
    eventually(lambda: docker("logs", "day").text == "begun", 60)
    group = f"/sys/fs/cgroup/{left_there()['groups'][0]}"
    eq([host.files.read(f"{group}/{name}") for name in ("memory.max", "cpu.max")], [b"67108864\n", b"90000 100000\n"])
    eq(host.files.read("/var/lib/docker/volumes/day/_data/file"), b"kept\n")
    eq(docker("exec", "-i", "day", "cat", stdin=b"in\n").text, "in")
    files.write("/srv/in", b"copied\n")
    docker("cp", "/srv/in", "day:/root/in")
    docker("cp", "day:/root/in", "/srv/out")
    eq(files.read("/srv/out"), b"copied\n")
    true("A /root/in" in docker("diff", "day").text, "diff")
    true("sleep 1000" in docker("top", "day").text, "top shows the host's processes")
    docker("pause", "day")
    true(b"frozen 1\n" in host.files.read(f"{group}/cgroup.events"), "it stands still")
    docker("unpause", "day")
    true(b"frozen 0\n" in host.files.read(f"{group}/cgroup.events"), "it goes on")
    docker("commit", "day", "day:1")
    # It gives up after some seconds, which an emulated machine may need.
    docker("kill", "day", check=False)
    eventually(lambda: not running("day"), 60, "it has ended")
    docker("rm", "day")
    docker("volume", "rm", "day")
    eq(docker("run", "--rm", "--network", "none", "day:1", "cat", "/root/in").text, "copied")
    docker("rmi", "day:1")


@offloaded("docker run with a volume, a directory of the host, a tmpfs, and another container's ipc and network namespaces", only_full=True)
def docker_mounts(t):
    docker("run", "--rm", "--network", "none", "-v", "volume:/data", "--tmpfs", "/t", IMAGE, "sh", "-c", "echo kept >/data/file; mount | grep -q ' /t type tmpfs'")
    eq(docker("run", "--rm", "--network", "none", "-v", "volume:/data:ro", IMAGE, "cat", "/data/file").text, "kept")
    eq(host.files.read("/var/lib/docker/volumes/volume/_data/file"), b"kept\n")
    docker("volume", "rm", "volume")
    host.files.fresh_directory(BOUND)
    docker("run", "--rm", "--network", "none", "-v", f"{BOUND}:/bound", IMAGE, "sh", "-c", "echo written >/bound/file")
    eq(host.files.read(f"{BOUND}/file"), b"written\n")
    eq(os.listdir(BOUND), [])
    docker("run", "-d", "--name", "shm", "--ipc", "shareable", "--network", "none", IMAGE, "sleep", "1000")
    docker("exec", "shm", "sh", "-c", "echo shared >/dev/shm/file")
    joins = ("--network", "container:shm", "--ipc", "container:shm")
    found = docker("run", "--rm", *joins, IMAGE, "sh", "-c", "cat /dev/shm/file; readlink /proc/self/ns/net")
    eq(found.text.split("\n"), ["shared", host.os.readlink(f"/proc/{pid_of('shm')}/ns/net")])
    docker("rm", "-f", "shm")


@offloaded("docker exec, cp both ways, diff, top, stats, pause, stop, start, kill, restart, logs -f, events", only_full=True)
def docker_life(t):
    docker("run", "-d", "--name", "life", "--network", "none", IMAGE, "sh", "-c", "echo begun; trap 'exit 7' TERM; while :; do sleep 1; done")
    eq(docker("exec", "-i", "life", "cat", stdin=b"in\n").text, "in")
    files.write("/srv/in", b"copied\n")
    docker("cp", "/srv/in", "life:/tmp/in")
    eq(docker("exec", "life", "cat", "/tmp/in").text, "copied")
    docker("cp", "life:/etc/hello", "/srv/out")
    eq(files.read("/srv/out"), b"hello from the upper layer\n")
    true("A /tmp/in" in docker("diff", "life").text, "diff")
    true("sleep 1" in docker("top", "life").text or "while" in docker("top", "life").text, "top")
    stats = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "life").text
    true(re.fullmatch(r"life [0-9.]+[KM]iB / [0-9.]+[MG]iB [1-9]\d*", stats), stats)
    for command, status in (("pause", "paused"), ("unpause", "running")):
        docker(command, "life")
        eq(docker("inspect", "-f", "{{.State.Status}}", "life").text, status)
    docker("stop", "-t", "60", "life")
    eq(docker("inspect", "-f", "{{.State.ExitCode}}", "life").text, "7")
    docker("start", "life")
    true(running("life"), "started again")
    docker("kill", "life")
    eventually(lambda: not running("life"), 60)
    eq(docker("logs", "life").text.split(), ["begun", "begun"])
    docker("restart", "life")
    follows = subprocess.Popen(["docker", "logs", "-f", "life"], stdout=subprocess.PIPE, text=True)
    eq([follows.stdout.readline() for _ in range(3)], ["begun\n"] * 3)
    docker("rm", "-f", "life")
    follows.wait(PATIENT)

    def events():
        return docker("events", "--since", "1h", "--until", "0s", "--filter", "container=life", "--format", "{{.Action}}").text.split("\n")
    # The end of the time is a whole second.
    eventually(lambda: {"create", "start", "die", "kill", "destroy"} <= set(events()), 60, "all events are told")


@offloaded("docker import, commit, save, load, build of a Dockerfile, and rmi", only_full=True)
def docker_images(t):
    docker("import", offload.FLAT, "flat:1")
    eq(docker("run", "--rm", "--network", "none", "flat:1", "cat", "/old/gone").text, "gone")
    docker("run", "--name", "changed", "--network", "none", IMAGE, "sh", "-c", "echo new >/root/new")
    docker("commit", "changed", "committed:1")
    docker("rm", "changed")
    docker("save", "committed:1", "-o", "/srv/saved.tar")
    docker("rmi", "committed:1")
    docker("load", "-i", "/srv/saved.tar")
    eq(docker("run", "--rm", "--network", "none", "committed:1", "cat", "/root/new").text, "new")
    os.makedirs("/srv/build", exist_ok=True)
    files.write("/srv/build/added", b"added\n")
    files.write("/srv/build/Dockerfile", f"FROM {IMAGE}\nCOPY added /added\nRUN echo built >/built\nCMD [\"cat\", \"/added\", \"/built\"]\n".encode())
    built = process.run(["docker", "build", "--network", "none", "-t", "built:1", "/srv/build"], patience=PATIENT, env={"DOCKER_BUILDKIT": "0"})
    true("Successfully" in built.text, built.text)
    eq(docker("run", "--rm", "--network", "none", "built:1").text, "added\nbuilt")
    docker("rmi", "flat:1", "committed:1", "built:1")


@offloaded("docker run --restart brings back what failed or was killed, and system prune takes what nobody uses", only_full=True)
def docker_upkeep(t):
    docker("run", "-d", "--name", "fails", "--restart", "on-failure:2", "--network", "none", "-v", "tries:/data", IMAGE,
           "sh", "-c", "echo tried >>/data/file; exit 3")
    eventually(lambda: docker("inspect", "-f", "{{.RestartCount}} {{.State.ExitCode}} {{.State.Status}}", "fails").text == "2 3 exited", 120)
    eq(host.files.read("/var/lib/docker/volumes/tries/_data/file"), b"tried\n" * 3)
    docker("run", "-d", "--name", "dies", "--restart", "always", "--network", "none", IMAGE, "sleep", "1000")
    old = pid_of("dies")
    host.process.run(["kill", "-KILL", str(old)])
    eventually(lambda: running("dies") and pid_of("dies") not in (0, old), 120, "it runs again")
    eq(command_there(pid_of("dies")), b"sleep")
    docker("commit", "dies", "dangling")
    docker("tag", IMAGE, "dangling")
    docker("volume", "create", "unused")
    docker("system", "prune", "-f", "--volumes")
    eq(docker("ps", "-a", "--format", "{{.Names}}").text, "dies")
    eq(docker("images", "-q", "-f", "dangling=true").text, "")
    true(running("dies"), "what runs stays")
    docker("rm", "-f", "dies")
    docker("rmi", "dangling")
    docker("volume", "rm", "-f", "tries", "unused")


@offloaded("20 containers run at once", limit=1200, only_full=True)
def many(t):
    names = [f"many{number}" for number in range(20)]
    starts = [subprocess.Popen(["docker", "run", "-d", "--name", name, "--network", "none", IMAGE, "sleep", "1000"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for name in names]
    for start in starts:
        complaint = start.communicate(timeout=600)[1]
        eq((start.returncode, complaint), (0, ""))
    eq(len(left_there()["groups"]), len(names))
    docker("rm", "-f", *names)


# --- Faults. ---

@offloaded("dockerd killed with -9, or restarted, finds its container again, which lives on")
def dockerd_dies(t):
    docker("run", "-d", "--name", "lives", "--network", "none", IMAGE, "sleep", "1000")
    pid = pid_of("lives")
    for number in (signal.SIGTERM, signal.SIGKILL)[t.amount(1, 0):]:
        restarted("dockerd", number)
        true(running("lives"), "still known")
        eq(pid_of("lives"), pid)
        eq(docker("exec", "lives", "echo", "again").text, "again")
    docker("rm", "-f", "lives")


def begun():
    """A `docker run` whose shim is being started on the host."""
    def shims():
        return sum(name.startswith("containerd-shim") for name in host.call("qtest.offload", "commands"))
    before = shims()
    starts = subprocess.Popen(["docker", "run", "--rm", "--network", "none", IMAGE, "echo", "started"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    eventually(lambda: shims() > before, 60, "the shim is being started")
    return starts


@offloaded("the link is cut while a container is started and its log is followed: both go on", needs={"lab"}, limit=400)
def link_cut(t):
    docker("run", "-d", "--name", "talks", "--network", "none", IMAGE, "sh", "-c", "for i in $(seq 100); do echo $i; sleep 0.1; done; sleep 1000")
    follows = subprocess.Popen(["docker", "logs", "-f", "talks"], stdout=subprocess.PIPE, text=True)
    eq(follows.stdout.readline(), "1\n")
    starts = begun()
    lab.link("down")
    timer = threading.Timer(t.amount(3, 30), lambda: lab.link("up"))
    timer.start()
    timer.join()
    eq(starts.communicate(timeout=PATIENT)[0], "started\n")
    eq([int(follows.stdout.readline()) for _ in range(99)], list(range(2, 101)))
    docker("rm", "-f", "talks")
    follows.wait(PATIENT)


def goes_on(name, pid):
    """A container is the one that it was, and the daemons know it."""
    eventually(lambda: docker("exec", name, "echo", "again", check=False).text == "again", PATIENT, "exec works again")
    eq((running(name), pid_of(name)), (True, pid))
    docker("rm", "-f", name)


@offloaded("engine killed with -9 while a container runs: it lives on, and containerd finds it again", needs={"lab"}, limit=400)
def engine_dies(t):
    docker("run", "-d", "--name", "lives", "--network", "none", IMAGE, "sleep", "1000")
    pid = pid_of("lives")
    kill_there("engine")
    goes_on("lives", pid)


@offloaded("engine killed with -9 while containers start: they start, and nothing stays behind", needs={"lab"}, only_full=True)
def engine_dies_early(t):
    starts = [subprocess.Popen(["docker", "run", "--rm", "--network", "none", IMAGE, "echo", "started"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
              for _ in range(t.amount(1, 4))]
    kill_there("engine")
    for start in starts:
        eq(start.communicate(timeout=PATIENT)[0], "started\n")


@offloaded("rexec_server killed with -9: running containers live, and new ones start", needs={"lab"}, only_full=True)
def rexec_dies(t):
    docker("run", "-d", "--name", "lives", "--network", "none", IMAGE, "sleep", "1000")
    kill_there("rexec_server")
    ready = lambda: offload.offload("check", check=False).status == 0
    eventually(ready, 60, "the server is back")
    true(running("lives"), "the container lives")
    eq(docker("run", "--rm", "--network", "none", IMAGE, "echo", "new").text, "new")
    docker("rm", "-f", "lives")


@offloaded("udsproxyd killed with -9 while containers run: they live, and containerd finds them again", limit=400, only_full=True)
def udsproxyd_dies(t):
    docker("run", "-d", "--name", "lives", "--network", "none", IMAGE, "sleep", "1000")
    pid = pid_of("lives")
    kill_here("udsproxyd")
    goes_on("lives", pid)
    eq(docker("run", "--rm", "--network", "none", IMAGE, "echo", "new").text, "new")


@offloaded("engine, rexec_server or udsproxyd killed with -9 while a shim starts: its container runs or docker says why not, the next one runs, and nothing stays behind",
           limit=900, only_full=True)
def start_disturbed(t):
    for name, kill in (("engine", kill_there), ("rexec_server", kill_there), ("udsproxyd", kill_here)):
        starts = begun()
        kill(name)
        text = starts.communicate(timeout=PATIENT)[0]
        true(text == "started\n" if starts.returncode == 0 else text, (name, starts.returncode, text))
        eventually(lambda: docker("run", "--rm", "--network", "none", IMAGE, "echo", "new", check=False).text == "new", PATIENT, "the next one runs")
        eventually(lambda: docker("ps", "-aq").text == "", 60, "docker knows of none")
        nothing_left()


@offloaded("the host loses power while a container runs: it is dead then, keeps its data, and starts again", reboots=True, needs={"lab"}, limit=600, only_full=True)
def host_dies(t):
    docker("run", "-d", "--name", "dies", "--network", "none", "-v", "kept:/data", IMAGE, "sh", "-c", "date >>/data/file; sync; sleep 1000")
    eventually(lambda: host.files.read("/var/lib/docker/volumes/kept/_data/file"), 60, "it runs")
    lab.crash("host")
    lab.boot("host")
    host.call("qtest.offload", "offload", "up", patience=200)
    # The daemons are started anew, since what they have bound on the host is gone.
    eventually(lambda: docker("inspect", "-f", "{{.State.Running}}", "dies", check=False).text == "false", PATIENT, "it is known to be dead")
    nothing_left()
    eventually(lambda: docker("start", "dies", check=False).status == 0, PATIENT, "it starts again")
    eventually(lambda: host.files.read("/var/lib/docker/volumes/kept/_data/file").count(b"\n") == 2, 60, "it runs again, with its data")
    eq(docker("run", "--rm", "--network", "none", IMAGE, "echo", "new").text, "new")
    docker("rm", "-f", "dies")
    docker("volume", "rm", "kept")


# --- The supervisor by itself. ---

def supervised(script, check=True):
    """A script under `qtfs-offload run`."""
    return process.run([offload.program("qtfs-offload"), "run", "--", "sh", "-c", script], check=check, patience=60)


# <linux/mount.h>; tkill(2) is known by its number only.
MS_BIND, MS_MOVE, MOUNT_ATTR_RDONLY = 4096, 8192, 1
TKILL = 200
CALLER = """\
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print([ctypes.get_errno() if getattr(libc, name)(*words) < 0 else 0 for name, *words in {calls}])
"""


def called(*calls, before="exec"):
    """Functions of libc in a program under `qtfs-offload run`, which prints their errnos."""
    calls = [[word.encode() if number and isinstance(word, str) else word for number, word in enumerate(call)] for call in calls]
    return supervised(f"{before} python3 -c {shlex.quote(CALLER.format(calls=calls))}")


def errors(*calls, before="exec"):
    """The errno of each, 0 if it succeeds."""
    return ast.literal_eval(called(*calls, before=before).text)


@contextlib.contextmanager
def sleepers(count):
    """Processes of the host in a control group as containers have."""
    group = "/sys/fs/cgroup/docker/sleepers"
    host.process.run(["mkdir", "-p", group])
    try:
        start = f"for i in $(seq {count}); do sh -c 'echo $$ >{group}/cgroup.procs; exec sleep 600' >/dev/null 2>&1 & echo $!; done"
        started = host.process.run(start).text.split()
        eventually(lambda: set(host.process.run(["cat", f"{group}/cgroup.procs"]).text.split()) == set(started), 10, "they are in the group")
        yield [int(pid) for pid in started]
    finally:
        host.process.run(["sh", "-c", f"echo 1 >{group}/cgroup.kill"])
        eventually(lambda: host.process.run(["rmdir", group], check=False).status == 0, 10, "the group is empty")


OVERLAY = "/var/lib/docker/overlay2"


@offloaded("a mount below a directory of the host is made there, and seen here by the next system call")
def mount_there(t):
    script = f"cd {OVERLAY} && mkdir -p x/l x/u x/w x/m && echo low >x/l/f && mount -t overlay overlay -o lowerdir=x/l,upperdir=x/u,workdir=x/w x/m"
    eq(supervised(f"{script} && cat x/m/f && echo new >x/m/g && cat x/u/g").text, "low\nnew")
    eq(host.process.run(["cat", f"{OVERLAY}/x/m/g"]).text, "new")
    supervised(f"umount {OVERLAY}/x/m && ! ls {OVERLAY}/x/m/f 2>/dev/null")
    # As kubelet binds a part of a volume.
    supervised(f"cd {OVERLAY}/x && mkdir to && exec 9<l && LIBMOUNT_FORCE_MOUNT2=always mount --no-canonicalize -o bind /proc/self/fd/9 {OVERLAY}/x/to")
    eq([files.read(f"{OVERLAY}/x/to/f"), host.files.read(f"{OVERLAY}/x/to/f")], [b"low\n", b"low\n"])
    supervised(f"umount {OVERLAY}/x/to && rm -r {OVERLAY}/x")


@offloaded("a mount of the host whose files a program has just closed can be unmounted")
def unmount_after_close(t):
    # Files that were only read, and directories, are closed on the host without anybody waiting for it.
    supervised(f"""exec python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for number in range(20):
    top = b"{OVERLAY}/c%d" % number
    os.mkdir(top)
    if libc.mount(b"none", top, b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    open(top + b"/f", "w").write("x" * 5000)
    held = [os.open(top + b"/f", os.O_RDONLY) for _ in range(10)]
    [os.read(fd, 5000) for fd in held]
    os.listdir(top)
    [os.close(fd) for fd in held]
    if libc.umount2(top, 0):
        raise OSError(ctypes.get_errno(), "umount in round %d" % number)
    os.rmdir(top)
'""")


@offloaded("what a program mounts in a namespace of its own, or outside the host's directories, stays here")
def mount_here(t):
    supervised(f"mkdir {OVERLAY}/p; unshare -m sh -c 'mount -t tmpfs none {OVERLAY}/p && touch {OVERLAY}/p/x'; ! ls {OVERLAY}/p/x 2>/dev/null && rmdir {OVERLAY}/p")
    os.makedirs("/srv/m", exist_ok=True)
    read_only = struct.pack("4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    eq(errors(("mount", "none", "/srv/m", "tmpfs", 0, None), ("mkdir", "/srv/m/x", 0o700),
              ("mount_setattr", syscalls.AT_FDCWD, "/srv/m", 0, read_only, len(read_only)), ("mkdir", "/srv/m/y", 0o700),
              ("umount2", "/srv/m", 0), ("rmdir", "/srv/m/x")), [0, 0, 0, EROFS, 0, ENOENT])
    before = host.process.run(["cat", "/proc/mounts"]).text
    true("/srv/m" not in before, "nothing of it is on the host")


@offloaded("umount of a mounted directory of the host is EINVAL, and it stays mounted")
def unmount_top(t):
    found = supervised(f"umount {OVERLAY}", check=False)
    true(found.status != 0 and b"not mounted" in found.err, found)
    true(os.path.ismount(OVERLAY), "it is still mounted")


ENGINE_LOG = "/var/log/qtfs/engine.log"


def reload(policy):
    """Gives engine a policy, and waits until it has read it."""
    seen = host.files.read(ENGINE_LOG).count(b"read again")
    host.files.write(server.POLICY, policy)
    host.process.run(["pkill", "-HUP", "-x", "engine"])
    eventually(lambda: host.files.read(ENGINE_LOG).count(b"read again") > seen, 30, "engine has read the policy again")


@contextlib.contextmanager
def policy_with(more):
    """The host's policy says more for a while."""
    policy = host.files.read(server.POLICY)
    reload(policy + more.encode())
    try:
        yield
    finally:
        reload(policy)


def asked(**request):
    """What engine answers to a request that no supervisor has decided on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/run/qtfs/offload/engine.sock")
        sock.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(sock.makefile().readline())


@offloaded("what the host's policy does not allow is refused, with a line here and there that says why")
def refused(t):
    top = f"{OVERLAY}/r"
    ram, shown = f"{top}/ram", f"{top}/shown/d"
    host.process.run(f"mkdir -p {ram} {shown} && mount -t ramfs none {ram}")
    try:
        with policy_with(f'\n[[export]]\npath = "{top}/shown"\nmode = "ro"\n'):
            found = called(("mount", "none", top, "proc", 0, None), ("mount", "none", shown, "tmpfs", 0, None), ("mount", "/srv", top, None, MS_MOVE, None),
                           ("umount2", ram, 0), ("umount2", ram, syscalls.MNT_DETACH), ("kill", 2, signal.SIGKILL.value))
        eq(ast.literal_eval(found.text), [EPERM, EROFS, EXDEV, EPERM, EPERM, EPERM])
        true(f" {ram} ramfs " in host.files.read("/proc/mounts").decode(), "it is still mounted")
        outside = asked(bind={"source": "/etc", "target": shown, "flags": MS_BIND})
        eq((outside["errno"], outside["why"]), (EPERM, f"a bind mount of /etc on {shown}: /etc is in no export of HOST's policy"))
    finally:
        host.process.run(["umount", "-l", ram], check=False)
        process.run(["rm", "-r", top])
    for words in ("not in mount = [...] of [offload]", f"{shown} is exported read-only", f"moving a mount to HOST's {top}", "not in kill = [...]"):
        true(words in found.complaint, found)
    true(f"refused to an offloaded program: a mount of tmpfs on {shown}: {shown} is exported read-only" in host.files.read(ENGINE_LOG).decode(), "engine says so too")


@offloaded("a program without privileges, or with those of a namespace of its own, gets none of the supervisor's")
def unprivileged(t):
    files.write("/srv/victim", b"")
    calls = (("mount", "/proc/999999/ns/net", "/srv/victim", None, MS_BIND, None), ("mount", "none", OVERLAY, "tmpfs", 0, None),
             ("umount2", OVERLAY, syscalls.MNT_DETACH), ("kill", 2, 0), ("syscall", TKILL, 2, 0))
    # As user 1000 they do not even get to the directory.
    expected = ([EPERM] * 5, [EPERM, EACCES, EACCES, EPERM, EPERM])
    for before in ("setpriv --reuid 1000 --regid 1000 --clear-groups", "setpriv --bounding-set -all --inh-caps -all", "unshare -r"):
        true(errors(*calls, before=before) in expected, before)
    # Process 2 of a pid namespace of its own is no process of the host.
    true("No such process" in supervised("unshare -pf sh -c 'kill -0 2' 2>&1", check=False).text, "process 2 is its own")
    true("/srv/victim" not in process.run(["cat", "/proc/mounts"]).text, "nothing is mounted here")


# What shows how a process is scheduled, each as a program of util-linux says it.
SCHEDULED = ("taskset -cp {pid}", "chrt -p {pid}", "ionice -p {pid}", "prlimit --pid {pid} --nofile --output SOFT,HARD --noheadings", "ps -o ni= -p {pid}")


@offloaded("taskset, renice, chrt, ionice and prlimit for a process of the host act there, and say what is there")
def scheduling(t):
    with sleepers(1) as (pid,):
        change = "taskset -cp 1 {pid} && renice -n 5 -p {pid} && chrt --batch -p 0 {pid} && ionice -c 2 -n 6 -p {pid} && prlimit --pid {pid} --nofile=77:99"
        supervised(change.format(pid=pid))
        there = [host.process.run(["sh", "-c", command.format(pid=pid)]).text for command in SCHEDULED]
        for wanted, found in zip(("list: 1", "SCHED_BATCH", "best-effort: prio 6", "99", "5"), there):
            true(wanted in found, found)
        # ps reads /proc, which is this machine's here.
        commands = SCHEDULED[:-1]
        here = [supervised(command.format(pid=pid)).text for command in commands]
        eq(here, there[:-1])
        # The numbers of own processes are others, and calls about them stay here.
        true("list: 0" in supervised("taskset -cp 0 $$ && taskset -cp $$").text, "an own process")
        for command in ("taskset -cp 0 {pid}", "renice -n 1 -p {pid}", "prlimit --pid {pid} --nofile"):
            command = command.format(pid=pid)
            refusal = supervised(f"setpriv --bounding-set -all --inh-caps -all {command} 2>&1", check=False).text
            true("not permitted" in refusal, refusal)
        eq([host.process.run(["sh", "-c", command.format(pid=pid)]).text for command in SCHEDULED], there, "nothing has changed")
    true("No such process" in supervised("renice -n 1 -u 65000 2>&1", check=False).text, "users are those of this machine")
    found = supervised("taskset -cp 0 2 2>&1; echo $?")
    true("not permitted" in found.text and b"not in kill = [...]" in found.err, found)


@offloaded("signals for a container's processes arrive on the host, by kill, tkill, tgkill and sigqueue; pidfd_open of one is ENOSYS")
def signals(t):
    number = signal.SIGKILL.value
    with sleepers(4) as victims:
        kill, tkill, tgkill, sigqueue = victims
        # Process 1 is the program's own.
        eq(errors(("pidfd_open", 1, 0), ("pidfd_open", kill, 0), ("kill", kill, 0), ("kill", kill, number), ("syscall", TKILL, tkill, number),
                  ("tgkill", tgkill, tgkill, number), ("sigqueue", sigqueue, number, 0)), [0, ENOSYS, 0, 0, 0, 0, 0])
        eventually(lambda: not any(map(command_there, victims)), 10, "all have died")


@offloaded("pids of the program are none of the host's, so a signal for one of the host's never hits one here")
def pids(t):
    found = supervised("echo $$; kill -0 299 2>&1; echo $?").text.split("\n")
    true(int(found[0]) >= 3000000, found)
    true(re.search("[Nn]o such process|not permitted", found[1]), found)


@offloaded("exit status and death by a signal of the program are those of qtfs-offload run, and its descendants end with it")
def ends(t):
    eq(supervised("exit 41", check=False).status, 41)
    eq(supervised("kill -9 $$", check=False).status, 128 + 9)
    eq(process.run([offload.program("qtfs-offload"), "run", "--", "/no/program"], check=False).status, 127)
    supervised("setsid sleep 4321 & exit 0")
    true("4321" not in process.run(["ps", "-eo", "args"]).text, "nobody is left")
