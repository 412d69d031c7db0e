# SPDX-License-Identifier: GPL-2.0
"""Copying files and directories into and out of a machine."""

import os
import subprocess
from pathlib import Path

import remote
from state import Failure

# Replaces the file as a whole and keeps the mode it had outside. $3 is a name
# for the case that the target is a directory.
RECEIVE = """
target=$1
[ ! -d "$target" ] || target=$target/$3
cat >"$target.lab-part" && chmod "$2" "$target.lab-part" && mv -T "$target.lab-part" "$target"
"""
# The clocks of the machines may differ by a second.
UNPACK = "mkdir -p \"$1\" && tar -C \"$1\" -x --no-same-owner --warning=no-timestamp"


def put(machine, source, target):
    if source == "-":
        return remote.Command(machine, ["sh", "-c", "cat >\"$1\"", "sh", target]).run()
    path = Path(source)
    if path.is_dir():
        return _put_directory(machine, path, target)
    try:
        with open(path, "rb") as file:
            mode = f"{os.fstat(file.fileno()).st_mode & 0o7777:o}"
            return remote.Command(machine, ["sh", "-c", RECEIVE, "sh", target, mode, path.name],
                                  stdin=file.fileno()).run()
    except OSError as error:
        raise Failure(f"cannot read {source}: {error.strerror}.") from error


def get(machine, source, target):
    if target == "-":
        return remote.Command(machine, ["cat", "--", source], stdin=None).run()
    status, kind = remote.output(machine, ["stat", "-L", "-c", "%F:%a", "--", source])
    if status:
        raise Failure(f"cannot read {source} in {machine.name}.", kind.strip())
    kind, _, mode = kind.strip().rpartition(":")
    path = Path(target)
    if kind == "directory":
        return _get_directory(machine, source, path)
    if path.is_dir():
        path /= Path(source).name
    part = path.with_name(f"{path.name}.lab-part")
    try:
        with open(part, "wb") as file:
            status = remote.Command(machine, ["cat", "--", source], stdin=None, stdout=file.fileno()).run()
        if status == 0:
            part.chmod(int(mode, 8))
            part.replace(path)
    except OSError as error:
        raise Failure(f"cannot write {target}: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)
    return status


def _put_directory(machine, path, target):
    reader, writer = os.pipe()
    with subprocess.Popen(["tar", "-C", path, "-c", "."], stdout=writer) as tar:
        os.close(writer)
        try:
            status = remote.Command(machine, ["sh", "-c", UNPACK, "sh", target], stdin=reader).run()
        finally:
            os.close(reader)
    return status or tar.returncode


def _get_directory(machine, source, path):
    path.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    with subprocess.Popen(["tar", "-C", path, "-x", "--no-same-owner", "--warning=no-timestamp"], stdin=reader) as tar:
        os.close(reader)
        try:
            status = remote.Command(machine, ["tar", "-C", source, "-c", "."], stdin=None, stdout=writer).run()
        finally:
            os.close(writer)
    return status or tar.returncode
