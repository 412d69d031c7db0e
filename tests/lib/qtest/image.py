# SPDX-License-Identifier: GPL-2.0
"""A container image of two layers, made of busybox: everything that is hard about images, and small."""

import hashlib
import io
import json
import struct
import tarfile

BUSYBOX = "/usr/bin/busybox"
COMMANDS = ("sh", "ls", "echo", "cat", "sleep", "id", "hostname", "ps", "mount", "ip", "mkfifo", "true", "env", "touch", "rm", "kill", "stat", "dd", "seq",
            "readlink")
# cap_net_raw+ep (linux/capability.h, vfs_cap_data of revision 2, without the effective bit's users).
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


class Layer:
    """A tar archive that is being made."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, data=None, kind=tarfile.REGTYPE, mode=0o644, link="", **attributes):
        """One entry."""
        entry = tarfile.TarInfo(name)
        entry.type = kind
        entry.mode = mode
        entry.linkname = link
        entry.size = len(data or b"")
        for attribute, value in attributes.items():
            setattr(entry, attribute, value)
        self.tar.addfile(entry, io.BytesIO(data or b""))

    def done(self):
        """Its bytes."""
        self.tar.close()
        return self.buffer.getvalue()


def lower():
    """Programs, and what the upper layer takes away."""
    layer = Layer()
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "old", "opaque", "special"):
        layer.add(name, kind=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
    with open(BUSYBOX, "rb") as file:
        layer.add("bin/busybox", file.read(), mode=0o755)
    for name in COMMANDS:
        layer.add(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox", mode=0o777)
    layer.add("bin/hard", kind=tarfile.LNKTYPE, link="bin/busybox", mode=0o755)
    layer.add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    layer.add("etc/group", b"root:x:0:\nuser:x:1000:\n")
    layer.add("old/gone", b"gone\n")
    layer.add("old/stays", b"stays\n", uid=1000, gid=1000)
    layer.add("opaque/below", b"below\n")
    layer.add("bin/capable", b"#!/bin/sh\n", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")})
    layer.add("special/zero", kind=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=5)
    layer.add("special/fifo", kind=tarfile.FIFOTYPE, mode=0o600)
    return layer.done()


def upper():
    """A whiteout, an opaque directory, a new file."""
    layer = Layer()
    layer.add("old/.wh.gone")
    layer.add("opaque", kind=tarfile.DIRTYPE, mode=0o755)
    layer.add("opaque/.wh..wh..opq")
    layer.add("opaque/above", b"above\n")
    layer.add("etc/hello", b"hello from the upper layer\n")
    return layer.done()


def save(path, name):
    """Writes the image as `docker save` would."""
    layers = [lower(), upper()]
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "100000"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": "lower"}, {"created_by": "upper"}]}).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    whole = Layer()
    whole.add(config_name, config)
    for digest, layer in zip(digests, layers):
        whole.add(f"{digest}/layer.tar", layer)
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    whole.add("manifest.json", json.dumps(manifest).encode())
    with open(path, "wb") as file:
        file.write(whole.done())


def save_flat(path):
    """Writes the lower layer alone, for `docker import`."""
    with open(path, "wb") as file:
        file.write(lower())
