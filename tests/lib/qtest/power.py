# SPDX-License-Identifier: GPL-2.0
"""What happens on each machine while the power of the dpu is cut; the runner calls these one after another."""

import ast
import json
import os

from . import files
from . import image
from . import offload
from . import process
from .checks import eq, eventually, true
from .filesystems import unload_module

PATIENT = 200
BEFORE = "/srv/state-before"
# What the lab's machines keep is on their disks; this is what a provisioned DPU has there.
COUNT = "echo started >>/v/log; i=0; while sleep 1; do i=$((i+1)); echo tick $i; done"


def docker(*arguments, check=True):
    """What docker ARGUMENTS prints."""
    return process.run(["docker", *arguments], check=check, patience=PATIENT).text


def ctr(*arguments, check=True):
    """The same of ctr."""
    return process.run(["ctr", *arguments], check=check, patience=PATIENT).text


def up(key):
    """A machine before its first container."""
    unload_module()
    offload.prepare(key.encode())
    offload.offload("up")


def load():
    """On the dpu: both daemons have an image."""
    image.save(offload.ARCHIVE, offload.IMAGE)
    docker("load", "-i", offload.ARCHIVE)
    ctr("images", "import", offload.ARCHIVE)


def remember():
    """On each machine: what it has before the first container."""
    files.write(BEFORE, json.dumps(offload.state_here()).encode())
    os.sync()


def begin():
    """On the dpu: containers of both daemons run. Their processes."""
    docker("run", "-d", "--name", "counts", "--network", "none", "-v", "kept:/v", offload.IMAGE, "sh", "-c", COUNT)
    docker("run", "-d", "--name", "paused", "--network", "none", offload.IMAGE, "sleep", "1234")
    docker("pause", "paused")
    ctr("run", "-d", offload.IMAGE, "task", "sleep", "1235")
    pids = [int(docker("inspect", "-f", "{{.State.Pid}}", name)) for name in ("counts", "paused")]
    pids.append(int(ctr("task", "ls").splitlines()[-1].split()[1]))
    print((pids, ticks()))


def ticks():
    """How far the container has counted."""
    lines = docker("logs", "counts").splitlines()
    return int(lines[-1].split()[1]) if lines else 0


def started(pid):
    """What a process is, when it started, and its control group."""
    command = files.read(f"/proc/{pid}/cmdline")
    group = files.read(f"/proc/{pid}/cgroup").decode().strip().partition("::")[2]
    return command, files.read(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()[19], group


def processes(pids):
    """On the host: the containers' processes, in control groups that are not systemd's."""
    found = [started(pid) for pid in ast.literal_eval(pids)]
    eq([group.split("/")[1] for *_, group in found], ["docker", "docker", "default"])
    print(found)


def found_again(pids, counted):
    """On the dpu after it was booted: the daemons come up and have the same containers, which can be used."""
    offload.offload("up")
    offload.offload("status")
    pids, counted = ast.literal_eval(pids), int(counted)
    eq([docker("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", name) for name in ("counts", "paused")],
       [f"{pids[0]} running", f"{pids[1]} paused"])
    eq(ctr("task", "ls").splitlines()[-1].split(), ["task", str(pids[2]), "RUNNING"])
    # It went on meanwhile, and what it says arrives.
    true(ticks() > counted, f"{ticks()} ticks after {counted}")
    now = ticks()
    eventually(lambda: ticks() > now, 60, "it counts on")
    eq(docker("exec", "counts", "cat", "/v/log"), "started")
    docker("unpause", "paused")
    eq(ctr("task", "exec", "--exec-id", "e", "task", "echo", "here"), "here")
    docker("restart", "-t", "1", "counts")
    eq(docker("exec", "counts", "cat", "/v/log"), "started\nstarted")
    docker("rm", "-f", "counts", "paused")
    docker("volume", "rm", "kept")
    ctr("task", "kill", "-s", "KILL", "task")
    eventually(lambda: "STOPPED" in ctr("task", "ls"), 60, "it is dead")
    ctr("task", "rm", "task", check=False)
    ctr("container", "rm", "task")
    eq(docker("run", "--rm", "--network", "none", offload.IMAGE, "echo", "new"), "new")


def nothing_left():
    """On each machine: nothing of the containers is there."""
    eventually(lambda: offload.left_here() == offload.EMPTY, 60, f"nothing is left: {offload.left_here()}")
    before = json.loads(files.read(BEFORE))
    offload.as_before({"here": before}, rebooted=True, now=lambda: {"here": offload.state_here()})
