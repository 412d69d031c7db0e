# SPDX-License-Identifier: GPL-2.0
"""The lab, as the runner uses it: scripts/lab with a name."""

import ast
import subprocess
import threading
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
MACHINES = ("host", "dpu")
# Where both machines see this project.
SEEN = "/qtfs"
ENVIRONMENT = {"PYTHONPATH": f"{SEEN}/tests/lib", "PYTHONPYCACHEPREFIX": "/run/qtest-pycache", "LC_ALL": "C.UTF-8"}
# For downloading and making the machines' image, and booting.
IMAGE_PATIENCE = 1800
# How many times longer than on a stock kernel everything may take.
slowness = 1


def environment():
    """The options of `scripts/lab exec` for what the framework needs."""
    return [part for item in ENVIRONMENT.items() for part in ("-e", "=".join(item))]


class LabError(Exception):
    """scripts/lab failed."""


class Lab:
    """Two machines."""

    def __init__(self, name):
        self.name = name
        self.was_up = self.call("status", check=False, patience=60).returncode == 0

    def command(self, *words):
        """The command line for scripts/lab."""
        return [str(TOP / "scripts/lab"), "-n", self.name, *words]

    def call(self, *words, check=True, patience=300):
        """Runs scripts/lab to its end."""
        try:
            done = subprocess.run(self.command(*words), stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, errors="replace", timeout=patience * slowness, check=False)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"scripts/lab {' '.join(words)}: no end after {patience * slowness} s") from error
        if check and done.returncode:
            raise LabError(f"scripts/lab {' '.join(words)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done

    def up(self, note):
        """Boots what is not up; the first time this makes the machines' image, and note() is told how far that is."""
        if self.was_up:
            # A run that was killed may have left it cut.
            self.call("link", "reset")
            return
        process = subprocess.Popen(self.command("up"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace")
        timer = threading.Timer(IMAGE_PATIENCE, process.kill)
        timer.start()
        said = []
        try:
            for line in process.stdout:
                said.append(line.rstrip())
                note(said[-1])
        finally:
            timer.cancel()
        if process.wait():
            raise LabError("scripts/lab up: exit {}: {}".format(process.returncode, "\n".join(said[-20:])))

    def down(self):
        """Switches everything off."""
        self.call("down", "--force", check=False, patience=120)

    def python(self, machine, *words):
        """Starts a Python program of the framework in a machine, with pipes."""
        return subprocess.Popen(self.command("exec", machine, *environment(), "--", "python3", *words),
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def code(self, machine, code, *arguments):
        """Runs Python code in a machine to its end; what it prints."""
        process = self.python(machine, "-c", code, *arguments)
        output = process.communicate()[0].decode(errors="replace")
        if process.returncode:
            raise LabError(f"the preparation on {machine} failed:\n{output}")
        return output

    def results(self, machine, *words):
        """Runs a Python program whose results are lines that are Python tuples; yields these."""
        process, rest = self.python(machine, *words), []
        for line in process.stdout:
            line = line.decode(errors="replace").rstrip()
            try:
                result = ast.literal_eval(line)
            except (SyntaxError, ValueError):
                result = None
            if isinstance(result, tuple):
                yield result
            else:
                rest.append(line)
        if process.wait():
            raise LabError(f"the work on {machine} failed:\n" + "\n".join(rest))

    def agent(self):
        """Starts the agent on the host."""
        return self.python("host", "-c", "from qtest import agent; agent.main()")

    def log(self, machine, *options):
        """The end of a kernel log."""
        try:
            return self.call("log", machine, *options, check=False, patience=60).stdout
        except LabError as error:
            return str(error)

    def ask(self, machine, script, patience=40):
        """What a shell script prints; for reports, so errors become text."""
        try:
            done = self.call("exec", machine, "-n", "--", "timeout", str(patience - 10), "sh", "-c", script,
                             check=False, patience=patience)
            return done.stdout + done.stderr
        except LabError as error:
            return str(error)

    def complaints(self):
        """What the kernels complained about since the mark; empty when they did not."""
        done = self.call("health", "--since-mark", check=False, patience=120)
        return (done.stdout + done.stderr).strip() if done.returncode else ""

    def reboot(self):
        """Makes both machines new, after something went wrong in their kernels."""
        for machine in MACHINES:
            self.call("crash", machine, check=False)
        for machine in MACHINES:
            self.call("boot", machine)
        self.call("link", "reset")

    def hang_report(self):
        """Where everything is, on both machines."""
        script = ("echo w >/proc/sysrq-trigger; sleep 1; dmesg | tail -n 150; echo; echo '== processes'; "
                  "ps axo pid,ppid,stat,wchan:32,args | grep -v '\\]$'; "
                  "for p in /proc/[0-9]*; do case $(cut -d' ' -f3 $p/stat 2>/dev/null) in D) "
                  "echo \"== $p $(cat $p/comm)\"; cat $p/stack;; esac; done")
        parts = []
        for machine in MACHINES:
            parts.append(f"==== {machine} ====")
            answer = self.ask(machine, script)
            parts.append(answer)
            if "error" in answer[:80] or not answer.strip():
                parts += ["the kernel log as far as it got:", self.log(machine, "--last", "100")]
        return "\n".join(parts)
