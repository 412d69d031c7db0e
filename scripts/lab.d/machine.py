# SPDX-License-Identifier: GPL-2.0
"""One virtual machine of a lab: starting, stopping and watching its QEMU."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import remote
from console import Console
from state import NAMES
from state import SIZES
from state import TOP
from state import Failure
from state import Process
from state import read_json
from state import write

AGENT_PORT = 7174
# How long a machine may take to boot, or to switch off, before it counts as stuck.
BOOT_TIMEOUT = 240
HALT_TIMEOUT = 60
# And to answer when it is only asked whether it is there; emulated machines are slow.
PROBE_TIMEOUT = 30
KERNEL_OPTIONS = (
    "console=ttyS0,115200 ignore_loglevel printk.devkmsg=on panic=-1 "
    # Emulated processors need no protection from each other, and the time that it costs.
    "mitigations=off nokaslr audit=0 8250.nr_uarts=1 tsc=reliable "
    # A stall on a busy machine is no bug until it is a long one.
    "rcupdate.rcu_cpu_stall_timeout=120 hung_task_panic=0"
)


class Machine:
    """The machine "host" or "dpu" of a lab."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.number = NAMES.index(name) + 1
        self.dir = lab.dir / name
        self.console = Console(self.dir)
        self.process = Process(self.dir / "process.json")
        self.disk = lab.disks / f"{name}-root.qcow2"
        self.data = lab.disks / f"{name}-data.img"

    # --- What it is doing. ---

    @property
    def running(self):
        return self.process.pid is not None

    @property
    def info(self):
        """Port, number of boots, which of them came up, sizes, and the state that the lab last brought about."""
        return {"port": 0, "boots": 0, "came_up": 0, "sizes": {}, "state": "off", **read_json(self.dir / "machine.json", {})}

    @property
    def port(self):
        return self.info["port"]

    @property
    def token(self):
        return (self.dir / "token").read_text()

    def note(self, **changes):
        write(self.dir / "machine.json", json.dumps({**self.info, **changes}))

    def state(self):
        """running, crashed (by the lab), off (by the lab), ended (by itself)."""
        if self.running:
            return "running"
        state = self.info["state"]
        return "ended" if state == "running" else state

    def condition(self):
        """What else is to be said of a machine that runs: it boots, hangs, or nothing."""
        try:
            self.wait(PROBE_TIMEOUT)
            return None
        except Failure:
            if self.info["came_up"] != self.info["boots"] and self.process.age() < BOOT_TIMEOUT:
                return "still booting"
            return f"hangs: its agent does not answer within {PROBE_TIMEOUT} s"

    def outdated(self):
        """The sizes that were changed since a running machine was started: it has others until its next boot."""
        config, sizes = self.lab.config, self.info["sizes"]
        return [name for name in SIZES if sizes.get(name, config[name]) != config[name]]

    def memory(self):
        """MiB of this computer's memory that it takes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        return 0

    # --- Refusals. ---

    def _last_lines(self):
        return [f"  | {line}" for line in self.console.tail(15)]

    def require_running(self):
        if self.running:
            return
        if not self.lab.exists:
            raise self.lab.missing(status=125)
        state = self.state()
        again = f"Start it with: scripts/lab{self.lab.option} boot {self.name}"
        if state == "ended":
            raise Failure(f"{self.name} is not running: it ended by itself.",
                          "Its kernel panicked, or something in it switched it off. Last console lines:",
                          *self._last_lines(), *self._emulator_lines(), again, status=125)
        raise Failure(f"{self.name} is not running.",
                      "The lab cut its power." if state == "crashed" else "The lab switched it off.", again, status=125)

    def silent(self, seconds):
        return Failure(f"{self.name} does not answer.",
                       f"Its agent said nothing for {seconds:.0f} s: the guest hangs, or this computer is too busy.",
                       "Last console lines:", *self._last_lines(),
                       f"See \"lab{self.lab.option} log {self.name}\"; a new start is "
                       f"\"lab{self.lab.option} crash {self.name}\" and \"boot {self.name}\".", status=125)

    def lost(self):
        time.sleep(0.3)
        self.require_running()
        return Failure(f"{self.name} ended the connection before the command had ended.",
                       "Its agent was killed or the guest's network broke. Last console lines:",
                       *self._last_lines(), status=125)

    def _emulator_lines(self):
        log = self.dir / "qemu.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [f"  | {line}" for line in lines[-5:]]

    # --- Starting. ---

    def make_disks(self, image):
        """Makes what is missing: an overlay over the image, and a copy of the empty data disk."""
        self.lab.share.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            tool = Path(self.lab.config["emulator"]) / "qemu-img"
            subprocess.run([tool, "create", "-q", "-f", "qcow2", "-F", "raw",
                            "-b", image / "root.img", self.disk], check=True)
        if not self.data.exists():
            part = self.data.with_suffix(".part")
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", image / "data.img", part], check=True)
            part.replace(self.data)

    def start(self):
        """Starts QEMU. The guest is up when its agent answers, see wait()."""
        self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        boots = self.info["boots"] + 1
        write(self.dir / "token", secrets.token_hex(16))
        self.console.new_boot(boots)
        for _ in range(5):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            (self.dir / "wire").unlink(missing_ok=True)
            with open(self.dir / "qemu.log", "wb") as log:
                qemu = subprocess.Popen(self._command(port), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        start_new_session=True, cwd="/")
            self.process.record(qemu.pid)
            self.note(port=port, boots=boots, state="running", sizes={name: self.lab.config[name] for name in SIZES})
            deadline = time.monotonic() + 20
            while qemu.poll() is None and time.monotonic() < deadline:
                try:
                    self.set_link(not self.lab.faults["down"])
                    return
                except OSError:
                    time.sleep(0.02)
            if "host forwarding" not in (self.dir / "qemu.log").read_text(errors="replace"):
                break
        self.note(state="off")
        raise Failure(f"QEMU of {self.name} did not start.", "It says:", *self._emulator_lines())

    def _command(self, port):
        config = self.lab.config
        image = Path(config["image"])
        peer = self.lab.dir / NAMES[2 - self.number]
        kvm = config["accel"] == "kvm"
        mac = "52:54:00:71:74:{}{}"
        share = "local,id={0},path={1},security_model=none,multidevs=remap,readonly={2}"
        return [
            config["emulator"] + "/qemu-system-x86_64", "-name", f"lab-{self.lab.name}-{self.name}",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35,usb=off,vmport=off,hpet=off,i8042=off",
            # Five page table levels would only make emulation slower.
            *(["-accel", "kvm", "-cpu", "host"] if kvm else
              ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off"]),
            "-smp", str(config["cpus"]), "-m", str(config["mem"]),
            "-kernel", str(image / "kernel"), "-initrd", str(image / "initrd"),
            "-append", f"{KERNEL_OPTIONS} lab.machine={self.name} lab.mtu={config['mtu']}",
            "-fw_cfg", f"name=opt/lab/token,file={self.dir / 'token'}",
            "-chardev", f"file,id=console,path={self.console.path},append=on", "-serial", "chardev:console",
            "-qmp", f"unix:{self.dir / 'qmp'},server=on,wait=off",
            "-gdb", f"unix:{self.dir / 'gdb'},server=on,wait=off",
            # What the guest flushed is in this computer's page cache and survives
            # QEMU; only this computer's own crash could lose it.
            "-drive", f"if=none,id=root,file={self.disk},format=qcow2,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"if=none,id=data,file={self.data},format=raw,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=data",
            # Behind a hub the guest does not notice when the wire is cut.
            "-netdev", f"dgram,id=wire,local.type=unix,local.path={self.dir / 'wire'},"
                       f"remote.type=unix,remote.path={peer / 'wire'}",
            "-netdev", "hubport,id=plug,hubid=1,netdev=wire", "-netdev", "hubport,id=card,hubid=1",
            "-device", f"virtio-net-pci,netdev=card,romfile=,mac={mac.format(0, self.number)}",
            "-netdev", f"user,id=mgmt,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{AGENT_PORT}",
            "-device", f"virtio-net-pci,netdev=mgmt,romfile=,mac={mac.format(1, self.number)}",
            "-fsdev", share.format("qtfs", TOP, "on"), "-device", "virtio-9p-pci,fsdev=qtfs,mount_tag=qtfs",
            "-fsdev", share.format("lab", self.lab.share, "off"), "-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab",
        ]

    def wait(self, timeout=BOOT_TIMEOUT):
        """Returns when the machine takes commands."""
        remote.Connection(self, timeout).sock.close()

    # --- Stopping. ---

    def crash(self):
        """Cuts the power: nothing in the guest gets to know."""
        self.note(state="crashed")
        self._kill()

    def _kill(self):
        pid = self.process.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
        self._gone(20)

    def _gone(self, seconds):
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def halt(self):
        """Switches off as a button does. Returns whether the guest did it by itself."""
        if not self.running:
            self.note(state="off")
            return True
        self.note(state="off")
        try:
            # A moment later, so that the command can report its success.
            remote.output(self, ["sh", "-c", "(sleep 0.1; exec busybox poweroff) >/dev/null 2>&1 &"], timeout=20)
            clean = self._gone(HALT_TIMEOUT)
        except Failure:
            clean = False
        self._kill()
        return clean

    def discard(self):
        self.disk.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- QEMU's own commands. ---

    def set_link(self, up):
        self.qmp("set_link", name="wire", up=up)

    def qmp(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(self.dir / "qmp"))
            with sock.makefile("rw", encoding="utf-8") as stream:
                stream.readline()
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    # Events come in between.
                    reply = {}
                    while not reply.keys() & {"return", "error"}:
                        reply = json.loads(stream.readline() or '{"error": "it ended"}')
        if "error" in reply:
            raise Failure(f"QEMU of {self.name} refused {command}.", json.dumps(reply["error"]))
        return reply["return"]
