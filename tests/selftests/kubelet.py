# SPDX-License-Identifier: GPL-2.0
"""A real kubelet on the dpu, its pods on the host, as `qtfs-offload up` makes it."""

import json
import os
import shutil
import signal
import ssl
import urllib.request

from qtest import ROOT, case, eq, eventually, files, host, offload, on_host, process, true
from qtest.filesystems import build_directory
from qtest.offload import IMAGE, as_before, listening_sockets, nothing_left, state

MANUAL = True
KEEPS_MOUNTS = True
PATIENT = 150
DIRECTORY = "/etc/kubernetes"
MANIFEST = f"{DIRECTORY}/manifests/web.json"
PROGRAM = build_directory() + "/tools/kubelet"
CONFIG = """\
host = "10.0.0.1"
modules = "{modules}"

[docker]
start = false

[kubelet]
program = "%s"
arguments = ["--container-runtime=remote", "--config=%s/kubelet.json", "--hostname-override=node"]
""" % (PROGRAM, DIRECTORY)
SETTINGS = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "staticPodPath": os.path.dirname(MANIFEST),
    "fileCheckFrequency": "2s",
    "enforceNodeAllocatable": [],
    "failSwapOn": False,
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    # An emulated machine takes its time.
    "runtimeRequestTimeout": "10m",
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 2,
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "of-host", "hostPath": {"path": "/etc"}},
        ],
        "containers": [{
            "name": "web",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo begun; cat /of-host/hostname >>/scratch/file; touch /memory/file /part/file; exec sleep 100000"],
            "volumeMounts": [
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "memory", "mountPath": "/memory"},
                {"name": "scratch", "mountPath": "/part", "subPath": "part"},
                {"name": "of-host", "mountPath": "/of-host", "readOnly": True},
            ],
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
            "readinessProbe": {"exec": {"command": ["cat", "/memory/file"]}, "periodSeconds": 2, "timeoutSeconds": 60},
        }],
    },
}


# Of both machines, before the first pod.
BEFORE = {}


def set_up(_):
    true(os.path.exists(PROGRAM), "kubelet is there: make test-kubelet")
    os.makedirs(os.path.dirname(MANIFEST), exist_ok=True)
    files.write(f"{DIRECTORY}/kubelet.json", json.dumps(SETTINGS).encode())
    offload.set_up(CONFIG)
    process.run(["ctr", "-n", "k8s.io", "images", "import", offload.ARCHIVE], patience=PATIENT)
    # The last socket that it makes, after it is ready.
    eventually(lambda: "/var/lib/kubelet/device-plugins/kubelet.sock" in listening_sockets(), PATIENT)
    BEFORE.update(state())


def tear_down(_):
    offload.tear_down()
    forget()
    forget_there()
    shutil.rmtree(DIRECTORY)


def forget():
    """Takes away what kubelet keeps for the next one."""
    for directory in ("/var/lib/kubelet", "/var/log/pods", "/var/log/containers"):
        shutil.rmtree(directory, ignore_errors=True)


@on_host
def forget_there():
    forget()
    for top, _, _ in os.walk("/sys/fs/cgroup/kubepods", topdown=False):
        os.rmdir(top)


def ask(path):
    """What kubelet says of itself and its pods."""
    with urllib.request.urlopen(f"https://127.0.0.1:10250{path}", context=ssl._create_unverified_context(), timeout=60) as answer:  # pylint: disable=protected-access
        return answer.read()


def pod():
    """The pod, as kubelet sees it: None without one."""
    items = json.loads(ask("/pods"))["items"]
    return items[0] if items else None


def web():
    """The state of the container."""
    states = (pod() or {}).get("status", {}).get("containerStatuses", [{}])
    return states[0]


def process_there():
    """The process of the container, on the host."""
    found = host.process.run(["pgrep", "-f", "^sleep 100000"], check=False).text
    return int(found) if found else None


def ready():
    """Whether kubelet has the container running, and its probe is content."""
    return web().get("ready", False)


@case("a static pod runs on the host, with its limits, volumes, log, probe and statistics", who=[ROOT], needs={"qtfs", "two"}, limit=600, only_full=True)
def runs(t):
    files.write(MANIFEST, json.dumps(POD).encode())
    eventually(ready, PATIENT, "the pod is ready")
    pid = process_there()
    true(pid, "it runs on the host")
    eq(process.run(["pgrep", "-f", "^sleep 100000"], check=False).text, "", "and not here")
    identity = pod()["metadata"]["uid"]
    group = host.files.read(f"/proc/{pid}/cgroup").decode().strip().partition("::")[2]
    true(group.startswith(f"/kubepods/pod{identity}/"), group)
    eq(host.files.read(f"/sys/fs/cgroup{group}/memory.max"), b"67108864\n")
    eq(host.files.read(f"/sys/fs/cgroup{os.path.dirname(group)}/cpu.max"), b"50000 100000\n")
    volumes = f"/var/lib/kubelet/pods/{identity}/volumes/kubernetes.io~empty-dir"
    eq(host.files.read(f"{volumes}/scratch/file"), host.files.read("/etc/hostname"))
    eq(host.files.read(f"{volumes}/scratch/part/file"), b"")
    eq(host.files.read(f"{volumes}/memory/file"), b"")
    true(f" {volumes}/memory tmpfs " in host.files.read("/proc/mounts").decode(), "a tmpfs of the host")
    eq(ask("/containerLogs/default/web-node/web"), b"begun\n")

    def measured():
        pods = json.loads(ask("/stats/summary"))["pods"]
        return pods and pods[0]["containers"] and pods[0]["containers"][0].get("memory", {}).get("workingSetBytes", 0)
    eventually(measured, PATIENT, "its memory is measured")


@case("the container is started again when it is killed on the host", who=[ROOT], needs={"qtfs", "two"}, limit=600, only_full=True)
def restarts(t):
    pid = process_there()
    host.process.run(["kill", "-KILL", str(pid)])
    eventually(lambda: process_there() not in (None, pid) and web().get("restartCount") == 1 and ready(), PATIENT, "it runs again")


@case("kubelet killed with -9 finds its pod again, which lives on", who=[ROOT], needs={"qtfs", "two"}, limit=600, only_full=True)
def dies(t):
    pid, old = process_there(), int(process.run(["pgrep", "-x", "kubelet"]).text)
    os.kill(old, signal.SIGKILL)

    def back():
        try:
            return ready()
        except OSError:
            return False
    eventually(lambda: process.run(["pgrep", "-x", "kubelet"], check=False).text not in ("", str(old)) and back(), PATIENT, "it is back")
    eq(process_there(), pid)


@case("kubelet measures the host", who=[ROOT], needs={"qtfs", "two"}, limit=600, only_full=True)
def measures(t):
    pid = int(process.run(["pgrep", "-x", "kubelet"]).text)
    seen = [line.split(" ")[4] for line in files.read(f"/proc/{pid}/mountinfo").decode().splitlines() if " - qtfs " in line]
    for path in ("/sys", "/proc/meminfo", "/proc/stat"):
        true(path in seen, f"{path} is the host's: {seen}")
    card = "/sys/class/net/eth0/address"
    there = host.files.read(card)
    eq(files.read(f"/proc/{pid}/root{card}"), there)
    true(files.read(card) != there, "which is not this machine's")


@case("a pod whose manifest is removed ends, and leaves both machines as they were", who=[ROOT], needs={"qtfs", "two"}, limit=600, only_full=True)
def ends(t):
    identity = pod()["metadata"]["uid"]
    os.unlink(MANIFEST)
    eventually(lambda: pod() is None and process_there() is None, PATIENT, "it is gone")
    eventually(lambda: not host.files.exists(f"/var/lib/kubelet/pods/{identity}"), PATIENT, "its volumes are gone")
    process.run("ctr -n k8s.io images ls -q | xargs ctr -n k8s.io images rm", patience=PATIENT)
    nothing_left()
    # kubelet takes away what is dead once a minute.
    as_before(BEFORE, 2 * PATIENT)
