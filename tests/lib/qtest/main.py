# SPDX-License-Identifier: GPL-2.0
"""Runs the cases of one test file on the dpu and prints KTAP.

    python3 -m qtest.main --fs qtfs|nfs|local [--export DIR] [-k PATTERN] FILE

Started by the runner, which answers requests for the host and the lab on
stdin; with --fs local it needs nobody.
"""

import argparse
import os
import re
import signal
import sys
import time
import traceback

from . import agent
from . import counters
from . import filesystems
from . import kernellog
from . import process
from . import registry
from . import remote
from . import server
from . import syscalls
from .checks import Skip, patience
from .remote import host, lab
from .wire import RemoteFailure


class Runner:
    """The run of one file."""

    def __init__(self, options):
        self.options = options
        self.fs = filesystems.KINDS[options.fs](options)
        self.failed = 0
        self.manual = False
        self.keeps_mounts = False
        self.kept = set()
        self.unkillable = False
        self.subject = os.path.basename(options.file).removesuffix(".py")
        self.channel = remote.Channel(0, 1, "@@") if options.runner else None
        self.number = 0

    def run(self):
        """Runs what was chosen; the number of failures."""
        module = agent.load(os.path.abspath(self.options.file))
        # Such a file mounts and unmounts itself.
        self.manual = getattr(module, "MANUAL", False)
        self.keeps_mounts = getattr(module, "KEEPS_MOUNTS", False)
        # What the host serves for it.
        self.exports = getattr(module, "EXPORTS", server.EXPORTS)
        chosen = self.chosen()
        print("KTAP version 1")
        print(f"1..{len(chosen)}", flush=True)
        self.fs.connect(self.channel)
        if not chosen:
            return 0
        kernellog.begin()
        ready, attempts = False, 0
        for one, who, label in chosen:
            self.number += 1
            lacking = one.needs - self.fs.provides
            if lacking:
                self.report("ok", label, 0, f"SKIP {self.fs.name} does not have {' and '.join(sorted(lacking))}")
                continue
            if not ready and attempts < 2:
                attempts += 1
                self.tell("start", patience(60), "bringing the file system up")
                ready = self.prepare_file(module)
            if ready:
                self.tell("start", patience(self.limit(one)), label)
                self.run_case(one, who, label)
                if self.unkillable:
                    return self.failed
            else:
                self.failed += 1
                self.diagnose(f"{self.fs.name} could not be made ready, see above")
                self.report("not ok", label, 0)
        self.tell("start", patience(60), "taking the file system down")
        self.finish_file(module)
        return self.failed

    def chosen(self):
        """The cases to run with their identities and full names."""
        found = []
        for one in registry.cases:
            if one.only_full and not self.options.full:
                continue
            for who in one.who:
                label = one.name if len(one.who) == 1 else f"{one.name} ({who})"
                if self.options.k is None or re.search(self.options.k, f"{self.subject}: {label}"):
                    found.append((one, who, label))
        return found

    def tell(self, what, *arguments):
        """Tells the runner where we are, so that it can tell what hangs."""
        if self.channel:
            self.channel.tell("runner", (what, *arguments))

    def prepare_file(self, module):
        """Brings the file system up, unless the file does that itself."""
        try:
            if not self.manual:
                self.fs.up()
            if hasattr(module, "set_up"):
                module.set_up(self.fs)
            # Mounts of the whole file; a file that mounts by itself says whether its cases share them.
            if not self.manual or self.keeps_mounts:
                self.kept = set(self.mounted())
            return True
        except BaseException as error:  # pylint: disable=broad-except
            self.diagnose(f"could not make {self.fs.name} ready:\n" + self.story(error))
            return False

    def finish_file(self, module):
        """Leaves nothing mounted and no trees behind; a failure to do so counts as one more."""
        try:
            if hasattr(module, "tear_down"):
                module.tear_down(self.fs)
            os.chdir("/")
            self.fs.down()
            host.files.remove_tree(os.path.join(self.fs.export, self.subject))
        except BaseException as error:  # pylint: disable=broad-except
            self.failed += 1
            self.number += 1
            self.diagnose(self.story(error))
            self.report("not ok", f"leaves {self.fs.name} as it was", 0)

    # --- One case. ---

    def limit(self, one):
        """After how many seconds a case counts as hung."""
        return one.full if self.options.full and one.full else one.limit

    def run_case(self, one, who, label):
        """Runs it in a child and judges the outcome."""
        begin = time.monotonic()
        name = f"{self.subject}/{self.number}"
        test = registry.Test(self.fs, name, who, self.options)
        problems, skipped, child = [], None, None
        try:
            kernellog.note(f"qtest: {self.subject}: {label}")
            host.call("qtest.main", "host_begin", f"{self.subject}: {label}",
                      None if self.manual else test.host_dir, who.uid, who.gid)
            child = process.spawn(self.body, one, test, who)
            limit = self.limit(one)
            if child.finished(limit):
                child.result(1)
            else:
                problems.append(f"did not end within {patience(limit):g} s")
                problems.append(self.hang_report(child))
        except Skip as reason:
            skipped = str(reason)
        except BaseException as error:  # pylint: disable=broad-except
            problems.append(self.story(error))
        finally:
            if child:
                self.kill_group(child.pid)
            if problems and self.channel:
                self.mend_machines()
            if self.manual or problems:
                self.umount_left()
        problems += self.end_of_case(bool(problems), one.loses)
        seconds = time.monotonic() - begin
        if problems:
            self.failed += 1
            for problem in problems:
                self.diagnose(problem)
            self.report("not ok", label, seconds)
        elif skipped:
            self.report("ok", label, seconds, f"SKIP {skipped}")
        else:
            self.report("ok", label, seconds)

    def body(self, one, test, who):
        """What the child does."""
        os.setsid()
        try:
            who.visit()
            if os.path.isdir(test.dir):
                os.chdir(test.dir)
            os.umask(0o022)
            one.function(test)
        except Skip:
            raise
        except BaseException as error:
            error.add_note(self.locals_of(error))
            raise

    @staticmethod
    def locals_of(error):
        """The variables of the test function where it failed."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)
                  if frame.f_code.co_filename.rpartition("/")[0].endswith(("selftests", "torture"))]
        if not frames:
            return ""
        lines = [f"    {name} = {repr(value)[:200]}" for name, value in frames[-1].f_locals.items() if name != "t"]
        return "\n".join(["variables:"] + lines) if lines else ""

    def hang_report(self, child):
        """What both machines say about a case that hangs; then ends it."""
        lines = ["processes of the case:", process.stacks([child.pid, *process.children(child.pid)])]
        if self.channel:
            lines += ["blocked on the dpu:", *kernellog.blocked()[-80:]]
            try:
                lines += ["blocked on the host:", *host.call("qtest.kernellog", "blocked", patience=10)[-80:]]
            except BaseException as error:  # pylint: disable=broad-except
                lines.append(f"the host does not say: {error}")
        child.kill()
        self.kill_group(child.pid)
        if not child.finished(10):
            lines.append("it can't be killed; the rest of this file is not made")
            self.unkillable = True
        return "\n".join(lines)

    def mend_machines(self):
        """A case that failed could not undo what it did to the link and to the server; the next one needs both."""
        lab.link("reset")
        # A file that has set the host up in its own way knows how to mend that.
        if self.keeps_mounts:
            return
        if self.fs.name == "qtfs":
            try:
                host.server.start(self.exports)
            except BaseException as error:  # pylint: disable=broad-except
                self.diagnose("the server could not be started anew:\n" + self.story(error))

    @staticmethod
    def kill_group(pid):
        """Ends the processes that a case left."""
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def mounted(self):
        """Where the file system under test is mounted."""
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ")[1:3] for line in file]
        return [target for target, kind in mounts if kind == self.fs.name]

    def umount_left(self):
        """A case that mounts itself may have failed in between; the file's own mount stays."""
        ours = self.mounted()
        # The host's mount points go with the mount that they are in.
        tops = [target for target in ours if not any(target.startswith(f"{other}/") for other in ours)]
        for target in reversed([target for target in tops if target not in self.kept]):
            syscalls.umount(counters.plain(target), syscalls.MNT_FORCE | syscalls.MNT_DETACH)

    def end_of_case(self, failed, loses):
        """What must hold after every case: both kernels have nothing to complain about, and nothing is lost."""
        problems = []
        for machine, ask in (("dpu", kernellog.since), ("host", lambda: host.call("qtest.main", "host_end", self.fs.export))):
            try:
                lines = ask()
            except BaseException as error:  # pylint: disable=broad-except
                problems.append(f"the {machine} does not tell what its kernel said: {error}")
                continue
            if bad := kernellog.bad(lines):
                problems.append(f"the kernel of the {machine} complains:\n" + "\n".join([*bad[:10], "of this:", *lines[-150:]]))
            elif kernellog.losses(lines) and not loses:
                problems.append(f"the {machine} has lost something:\n" + "\n".join(lines[-40:]))
            elif failed and any("qtest: " not in line for line in lines):
                problems.append(f"the kernel of the {machine} says:\n" + "\n".join(lines[-40:]))
        return problems

    # --- Output. ---

    @staticmethod
    def story(error):
        """An exception for people. What a case's process raised has been told there."""
        if isinstance(error, (process.ChildFailed, RemoteFailure)):
            return str(error)
        return "\n".join(getattr(error, "__notes__", [])) or process.story(error)

    @staticmethod
    def diagnose(text):
        """KTAP diagnostic lines."""
        for line in str(text).splitlines():
            print(f"# {line}")
        sys.stdout.flush()

    def report(self, outcome, label, seconds, directive=None):
        """The result line of a case."""
        text = f"{outcome} {self.number} {self.subject}: {label}"
        print(f"{text} # {directive}" if directive else f"{text} # {seconds:.2f} s", flush=True)


# --- What the agent does around each case. ---

def host_begin(label, directory, uid, gid):
    """A fresh directory, and a mark in the kernel's log."""
    kernellog.begin()
    kernellog.note(f"qtest: {label}")
    if directory is not None:
        from . import files
        files.fresh_directory(directory, uid, gid)


def host_end(export):
    """Ends what the case left on the host; returns the kernel's new lines."""
    from . import background
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        left = [line.split(" ")[1] for line in file]
    for path in reversed(left):
        if path.startswith(export + "/"):
            syscalls.umount(path, syscalls.MNT_DETACH)
    background.stop_all()
    background.close_all()
    return kernellog.since()


def main():
    """The command."""
    parser = argparse.ArgumentParser(prog="qtest.main")
    parser.add_argument("--fs", choices=sorted(filesystems.KINDS), default="qtfs")
    parser.add_argument("--mnt", default="/mnt/qtest")
    parser.add_argument("--export", default="/data/export")
    parser.add_argument("--full", action="store_true", help="the full form of cases that have one")
    parser.add_argument("--seed", type=int, default=1, help="of random cases")
    parser.add_argument("--runner", action="store_true", help="a runner answers on stdin")
    parser.add_argument("-k", metavar="PATTERN", help="only cases whose name matches")
    parser.add_argument("file")
    options = parser.parse_args()
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    # Children would otherwise print what the parent has buffered.
    sys.stdout.reconfigure(line_buffering=True)
    return 1 if Runner(options).run() else 0


if __name__ == "__main__":
    from qtest import main as this

    sys.exit(this.main())
