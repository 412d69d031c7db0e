# SPDX-License-Identifier: GPL-2.0
"""What a lab needs before its machines can start, and throwing it away."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from console import Console
from state import CACHE
from state import SIZES
from state import TOP
from state import Failure
from state import write

# A stock kernel that works at all gets this far within a few seconds.
PROBE_TIMEOUT = 20


def prepare(lab, options):
    """Sees to emulator and image, and writes the lab's configuration."""
    # A lab keeps its sizes until it is told others.
    sizes = {**SIZES, **(lab.config if lab.exists else {})}
    sizes = {name: sizes[name] if getattr(options, name) is None else getattr(options, name) for name in SIZES}
    _limits(sizes)
    emulator = _answer("emulator", TOP / "scripts/lab.d/emulator")
    image = _answer("guest image", TOP / "scripts/guest-image", "path")
    if not lab.exists:
        # Disks without a lab are what an interrupted "down" left.
        shutil.rmtree(lab.disks, ignore_errors=True)
        lab.faults = {"down": False, "delay": 0.0, "loss": 0.0}
    elif lab.config["image"] != str(image):
        # Its disks are overlays over the old image and useless without it.
        image = Path(lab.config["image"])
        if not (image / "root.img").exists():
            raise Failure(f"the guest image of lab \"{lab.name}\" is gone.",
                          f"It was {image}, and the lab's disks hold only what differs from it.",
                          f"Delete them: scripts/lab{lab.option} down")
        print(f"lab: keeps the guest image that the lab began with; \"lab{lab.option} down\" "
              "and \"up\" take the new one", file=sys.stderr)
    lab.config = {"emulator": str(emulator), "image": str(image), "release": (image / "release").read_text().strip(),
                  **sizes, "accel": _accelerator(emulator, image)}


def discard(lab, machines):
    # First the file that says that there is a lab.
    (lab.dir / "config.json").unlink(missing_ok=True)
    for machine in machines:
        machine.discard()
    (lab.dir / "link.json").unlink(missing_ok=True)
    shutil.rmtree(lab.disks, ignore_errors=True)


def _limits(sizes):
    for name, least, most, unit in (("cpus", 1, 64, "processors"), ("mem", 256, 65536, "MiB"),
                                    ("mtu", 1280, 65535, "bytes")):
        if not least <= sizes[name] <= most:
            raise Failure(f"--{name} {sizes[name]} is out of range.", f"It is from {least} to {most} {unit}.", status=2)


def _answer(what, *command):
    """What one of the project's scripts prints; it says itself what it does and what fails."""
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    if run.returncode:
        raise Failure(f"there is no {what}.", "The messages above say why.")
    return Path(run.stdout.strip())


def _accelerator(emulator, image):
    """kvm when a stock kernel boots with it, else tcg. The answer holds until this computer reboots."""
    forced = os.environ.get("QTFS_LAB_ACCEL")
    if forced:
        if forced not in ("kvm", "tcg"):
            raise Failure(f"QTFS_LAB_ACCEL={forced} is unknown.", "It is kvm or tcg.", status=2)
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = CACHE / "lab" / f"accel-{boot}"
    if not answer.exists():
        answer.parent.mkdir(parents=True, exist_ok=True)
        write(answer, "kvm" if _probe_kvm(emulator, image) else "tcg")
    return answer.read_text()


def _probe_kvm(emulator, image):
    print("lab: trying whether KVM runs a stock kernel here (once)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="qtfs-lab-probe-") as directory:
        console = Console(Path(directory))
        probe = subprocess.Popen(
            [emulator / "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "512", "-nodefaults",
             "-no-user-config", "-display", "none", "-no-reboot", "-chardev", f"file,id=console,path={console.path}",
             "-serial", "chardev:console", "-kernel", image / "kernel", "-initrd", image / "initrd",
             "-append", "console=ttyS0 panic=-1 lab.probe"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            deadline = time.monotonic() + PROBE_TIMEOUT
            while probe.poll() is None and time.monotonic() < deadline:
                if b"lab: the probe runs" in console.read():
                    return True
                time.sleep(0.1)
            return b"lab: the probe runs" in console.read()
        finally:
            if probe.poll() is None:
                probe.send_signal(signal.SIGKILL)
                probe.wait()
