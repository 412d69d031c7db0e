# SPDX-License-Identifier: GPL-2.0
"""Both machines as `qtfs-offload up` makes them: containerd and dockerd here, containers on the host."""

import glob
import os
import re
import shutil
import signal
from collections import Counter

from . import files
from . import image
from . import process
from . import server
from .checks import eq, eventually, true
from .filesystems import build_directory, program, unload_module
from .remote import host

DIRECTORY = "/etc/qtfs"
CONFIG = """\
host = "10.0.0.1"
modules = "{modules}"
"""
CONTAINERD = "/etc/containerd/config.toml"
# An emulated machine takes longer than containerd's limits for the programs that it calls.
TIMEOUTS = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'docker.io/library/test:1'\n[timeouts]\n" + "".join(
    f'"io.containerd.timeout.{name}" = "{seconds}s"\n'
    for name, seconds in (("shim.cleanup", 120), ("shim.load", 120), ("shim.shutdown", 60), ("task.state", 60)))
IMAGE = "docker.io/library/test:1"
ARCHIVE = "/srv/test-image.tar"
FLAT = "/srv/test-flat.tar"
STATE = ("/var/lib/containerd", "/var/lib/docker", "/run/containerd", "/run/docker")
BUNDLES = "/run/containerd/io.containerd.runtime.v2.task"


def offload(*arguments, check=True, patience=200):
    """qtfs-offload ARGUMENTS"""
    return process.run([program("qtfs-offload"), *arguments], check=check, patience=patience)


def does_not_run(name, *options):
    """`qtfs-offload status` fails, and says that a program, or one like this, was not started."""
    found = offload("status", *options, check=False)
    eq(found.status, 1)
    true(re.search(f"^DOWN +{name} +not started: qtfs-offload up$", found.text, re.MULTILINE), found)


def configure(key, config=CONFIG):
    """The description and the key of this machine; what the command makes itself is made anew."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    os.makedirs(DIRECTORY)
    files.write(f"{DIRECTORY}/offload.toml", config.format(modules=build_directory()).encode())
    files.write(f"{DIRECTORY}/rexec.key", key, 0o600)


def prepare(key, config=CONFIG):
    """A machine as it is before the first `qtfs-offload up`."""
    for directory in STATE:
        shutil.rmtree(directory, ignore_errors=True)
    configure(key, config)
    os.makedirs(os.path.dirname(CONTAINERD), exist_ok=True)
    files.write(CONTAINERD, TIMEOUTS.encode())


def install():
    """Installs the programs where a user does."""
    directory = f"{build_directory()}/bin"
    process.run(["install", "-t", "/usr/bin", *(f"{directory}/{name}" for name in os.listdir(directory))])


def root_file_system(path):
    """A root file system with Debian's programs, which wrappers may replace without touching this machine's."""
    for name in ("etc", "var/lib", "run", "tmp", "root", "usr", "proc", "sys", "dev"):
        os.makedirs(f"{path}/{name}")
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink(f"usr/{name}", f"{path}/{name}")
    os.symlink("../run", f"{path}/var/run")
    for name in ("passwd", "group", "hosts", "containerd"):
        process.run(["cp", "-a", f"/etc/{name}", f"{path}/etc/"])
    files.write(f"{path}/etc/resolv.conf", b"")
    process.run(f"mkdir /srv/upper /srv/work && mount -t overlay overlay -o lowerdir=/usr,upperdir=/srv/upper,workdir=/srv/work {path}/usr")


def remove_root_file_system(path):
    """Takes it away."""
    process.run(["umount", f"{path}/usr"])
    for directory in (path, "/srv/upper", "/srv/work"):
        shutil.rmtree(directory)


def host_up(key, config=CONFIG):
    """The host, from what the tests have there to what users have."""
    server.stop()
    prepare(key, config)
    offload("up")


NATIVE = (("containerd", "containerd", ["ctr", "version"]),
          ("dockerd", "dockerd --containerd=/run/containerd/containerd.sock --bridge=none --iptables=false --ip6tables=false", ["docker", "version"]))


def native_up():
    """The same daemons on this machine alone, for comparison."""
    for directory in STATE:
        shutil.rmtree(directory, ignore_errors=True)
    for name, command, ready in NATIVE:
        process.run(f"setsid -f {command} </dev/null >/run/{name}.log 2>&1")
        eventually(lambda: process.run(ready, check=False).status == 0, 120, f"{name} is ready")  # pylint: disable=cell-var-from-loop


def native_down():
    """Ends them."""
    for name, *_ in reversed(NATIVE):
        process.end(name, 120)


def host_down():
    """The opposite."""
    offload("down")
    shutil.rmtree(DIRECTORY)


def set_up(config=CONFIG):
    """Brings both machines up, with an image here."""
    unload_module()
    key = os.urandom(32)
    host.call("qtest.offload", "host_up", key, config, patience=200)
    prepare(key, config)
    offload("up")
    image.save(ARCHIVE, IMAGE)
    image.save_flat(FLAT)


def tear_down():
    """Takes everything down again."""
    offload("down")
    shutil.rmtree(DIRECTORY)
    host.call("qtest.offload", "host_down", patience=200)


# --- What is where. ---

def commands():
    """The names of all processes of this machine."""
    return [name for _, name in process.names()]


def containers():
    """The control groups that containers have on this machine, or that systemd would make for them."""
    patterns = ("docker/*/", "default/*/", "k8s.io/*/", "system.slice/docker-*.scope/", "system.slice/cri-containerd-*.scope/")
    return sorted(path.rstrip("/") for pattern in patterns for path in glob.glob(pattern, root_dir="/sys/fs/cgroup"))


def left_here():
    """What a container leaves on a machine while it lives: mounts, processes, control groups, bundles."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        mounts = sorted(line.split(" ")[4] for line in file if " - overlay " in line or "/mounts/shm" in line)
    spaces = os.listdir(BUNDLES) if os.path.isdir(BUNDLES) else []
    tasks = sorted(f"{space}/{name}" for space in spaces for name in os.listdir(f"{BUNDLES}/{space}"))
    names = commands()
    shims = sum(name.startswith("containerd-shim") for name in names)
    return {"mounts": mounts, "bundles": tasks, "shims": shims, "rexec": names.count("rexec-keeper"), "groups": containers(),
            "sockets": sorted(os.listdir("/run/containerd/s")) if os.path.isdir("/run/containerd/s") else []}


def left_there():
    """The same of the host."""
    return host.call("qtest.offload", "left_here")


EMPTY = {"mounts": [], "bundles": [], "shims": 0, "rexec": 0, "groups": [], "sockets": []}


def nothing_left():
    """After the containers nothing of them is on the host."""
    seen = {}

    def gone():
        seen.update(left_there())
        return seen == EMPTY
    try:
        eventually(gone, 60)
    except AssertionError as error:
        raise AssertionError(f"left on the host: {seen}") from error


# --- Both machines before and after. ---

# What comes and goes on a machine for other reasons: helpers of the tests, and this machine's own housekeeping.
PASSING = ("python3", "agent", "sh", "sleep", "pgrep")
# Directories of the daemons, and how deep they are looked at: what is below belongs to images.
LOOKED_AT = {"/run/containerd": 4, "/run/docker": 4, "/run/qtfs": 3, "/var/lib/docker/containers": 2, "/var/lib/docker/volumes": 2,
             "/var/lib/docker/overlay2": 1, "/var/lib/docker/image/overlay2/layerdb/mounts": 1, "/var/lib/containerd/io.containerd.runtime.v2.task": 3,
             "/var/lib/containerd/io.containerd.grpc.v1.cri": 3, "/var/lib/containerd/tmpmounts": 1, "/var/lib/kubelet/pods": 1}
# What the first container, of a namespace of containerd or of all, makes for those that follow.
FIRST = re.compile(r".*/(moby|default|docker|k8s\.io|kubepods(/besteffort|/burstable)?)|/run/docker/(netns|runtime-runc)|/run/containerd/(s|runc|fifo)"
                   r"|.*/(containers|sandboxes)"
                   # dockerd takes the first away once a minute; one that was killed leaves the second, until a machine boots.
                   r"|/run/docker/netns/.*|/run/docker/libnetwork/.*\.sock")


def names_below(top, depth):
    """The paths below a directory, to a depth."""
    found = set()
    for directory, directories, names in os.walk(top):
        if directory.count("/") - top.count("/") >= depth - 1:
            directories[:] = []
        found.update(os.path.join(directory, name) for name in (*directories, *names))
    return found


def listening_sockets():
    """The paths of unix sockets that listen on this machine; relays have names of descriptors, which come and go (proc_pid_net(5))."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        fields = [line.split(maxsplit=7) for line in file.readlines()[1:]]
    listening = "00010000"
    paths = [field[7].rstrip("\n") for field in fields if len(field) == 8 and field[3] == listening]
    return Counter(without_numbers(path) for path in paths if not path.startswith(("@", "/proc/self/fd/")))


def without_numbers(path):
    """Guards of supervisors, and sockets of dockerd, kubelet and rexec_server, have other names when the program is started again."""
    return re.sub("(/run/qtfs/guards/|/run/docker/libnetwork/|/var/lib/kubelet/pod-resources/|/run/qtfs/rexec-status.new-)[0-9a-f]+", r"\1N", path)


def state_here():
    """All that a container could leave on this machine: mounts, processes, sockets, and names in directories and of control groups."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        mounts = Counter(line.split(" ")[4] for line in file)
    groups = [directory for directory, _, _ in os.walk("/sys/fs/cgroup")]
    below = [name for top, depth in LOOKED_AT.items() for name in names_below(top, depth)]
    return {
        "mounts": mounts,
        "processes": Counter(name for pid, name in process.names() if name not in PASSING and not is_kernel_thread(pid)),
        "sockets": listening_sockets(),
        "names": Counter(without_numbers(name) for name in (*groups, *below) if not FIRST.fullmatch(name)),
    }


def is_kernel_thread(pid):
    """Whether it has no memory of its own."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return file.read().startswith("0 ")
    except OSError:
        return True


def state():
    """The same of both machines."""
    return {"here": state_here(), "there": host.call("qtest.offload", "state_here")}


def difference(before, after, rebooted):
    """What is there more or less than before, by machine and kind."""
    found = {}
    for machine, kinds in before.items():
        for kind, counts in kinds.items():
            was, is_now = Counter(counts), Counter(after[machine][kind])
            more, less = is_now - was, was - is_now
            if more or less and not rebooted:
                found[machine, kind] = dict(more), dict(less)
    return found


def as_before(before, seconds=60, rebooted=False, now=state):
    """All is as it was, soon, on both machines unless now() tells of others; what was booted anew may have lost what it does not need."""
    seen = {}

    def same():
        seen.clear()
        seen.update(difference(before, now(), rebooted))
        return not seen
    try:
        eventually(same, seconds)
    except AssertionError as error:
        raise AssertionError(f"more and less than before: {seen}") from error


def kill_there(name, number=signal.SIGKILL):
    """Kills all processes of a name on the host; their keepers start them again."""
    host.process.run(["pkill", f"-{int(number)}", "-x", name])
