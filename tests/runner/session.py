# SPDX-License-Identifier: GPL-2.0
"""One test file: its process on the dpu, the host's agent, and the lines between them.

The process on the dpu prints KTAP, and lines that start with `@@`: requests for
the host's agent, which are passed on, for the lab, which are carried out here,
and news about which test begins. See tests/lib/qtest/wire.py.
"""

import os
import re
import select
import time

from qtest import wire
from runner import machines

# How long after a test's own limit the process on the dpu may be silent.
GRACE = 120


class Agent:
    """The agent on the host, started when it is needed."""

    def __init__(self, lab):
        self.lab = lab
        self.process = None
        self.buffer = b""
        self.waiting = None

    def send(self, number, payload):
        """Passes a request on. One that is still unanswered was given up by the test: start afresh."""
        if self.process and (self.waiting or self.process.poll() is not None):
            self.stop()
        if not self.process:
            self.process = self.lab.agent()
            self.buffer = b""
        self.waiting = number
        try:
            self.process.stdin.write(f"{number} {payload}\n".encode("ascii"))
            self.process.stdin.flush()
        except OSError:
            pass

    def fileno(self):
        """For select."""
        return self.process.stdout.fileno()

    def receive(self):
        """Reads what there is; returns whole lines, None at the end."""
        data = os.read(self.fileno(), 1 << 20)
        if not data:
            return None
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        return [line.decode("ascii", "replace") for line in lines]

    def stop(self):
        """Ends it."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
        self.process = self.waiting = None


class Session:
    """The run of one test file."""

    def __init__(self, lab, report, options):
        self.lab = lab
        self.report = report
        self.options = options
        self.agent = Agent(lab)
        self.limit = 60 * machines.slowness
        self.current = None
        self.planned = self.results = self.failed = 0
        self.dpu = None
        self.other_output = []

    def run(self, file, deadline):
        """Runs a file; whether the machines are fit for the next one."""
        subject = file.stem
        begin = time.monotonic()
        self.lab.call("mark", check=False)
        words = ["-m", "qtest.main", "--runner", "--fs", self.options.fs]
        words += ["--seed", str(self.options.seed)]
        if self.options.torture:
            words += ["--full"]
        if self.options.k:
            words += ["-k", self.options.k]
        seen = f"{machines.SEEN}/{file.resolve().relative_to(machines.TOP)}"
        self.dpu = self.lab.python("dpu", *words, seen)
        try:
            hang = self.serve(deadline)
        finally:
            self.dpu.kill()
            self.dpu.wait()
            self.agent.stop()
        fit = True
        if hang:
            self.report.not_ok(f"{subject}: {self.current or 'start'}", time.monotonic() - begin, hang)
            fit = False
        elif self.results < self.planned or self.planned == 0 and self.dpu.returncode:
            self.report.not_ok(f"{subject}: all tests are made", time.monotonic() - begin,
                               f"the test process ended in: {self.current}\n" + "\n".join(self.other_output[-40:]))
            fit = False
        complaints = self.lab.complaints()
        if complaints:
            fit = False
            text = complaints + "".join(f"\n{machine}'s log:\n" + self.lab.log(machine, "--since-mark")[-6000:]
                                        for machine in machines.MACHINES)
            if self.failed:
                self.report.note(complaints)
            else:
                self.report.not_ok(f"{subject}: both kernels have nothing to complain about", None, text)
        return fit

    def serve(self, deadline):
        """Passes lines on until the process ends; returns a text if it hangs instead."""
        buffer = b""
        heard = time.monotonic()
        while True:
            now = time.monotonic()
            if now > deadline:
                return f"the whole run took too long; this is where it was\n{self.lab.hang_report()}"
            if now > heard + self.limit + GRACE * machines.slowness:
                return f"silent for {now - heard:.0f} s; the test's limit is {self.limit} s\n{self.lab.hang_report()}"
            sources = [self.dpu.stdout] + ([self.agent] if self.agent.process else [])
            ready = select.select(sources, [], [], 1)[0]
            if self.agent in ready:
                self.from_agent()
            if self.dpu.stdout not in ready:
                continue
            data = os.read(self.dpu.stdout.fileno(), 1 << 20)
            if not data:
                return None
            heard = time.monotonic()
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                self.from_dpu(line.decode("utf-8", "replace"))
                heard = time.monotonic()

    def from_agent(self):
        lines = self.agent.receive()
        if lines is None:
            number = self.agent.waiting
            self.agent.stop()
            if number:
                self.reply(number, wire.to_line(("gone", "the host's agent ended")))
            return
        for line in lines:
            number, _, payload = line.partition(" ")
            if number == self.agent.waiting and payload:
                self.agent.waiting = None
                self.reply(number, payload)
            else:
                self.report.note(f"host: {line}")

    def reply(self, number, payload):
        try:
            self.dpu.stdin.write(f"{number} {payload}\n".encode("ascii"))
            self.dpu.stdin.flush()
        except OSError:
            pass

    def from_dpu(self, line):
        """A line of the test process."""
        if line.startswith("@@ "):
            _, number, target, payload = line.split(" ", 3)
            if target == "host":
                self.agent.send(number, payload)
            elif target == "lab":
                self.reply(number, self.for_lab(wire.from_line(payload)))
            else:
                what, *arguments = wire.from_line(payload)
                if what == "start":
                    self.limit, self.current = arguments
            return
        if match := re.match(r"1\.\.(\d+)$", line):
            self.planned = int(match[1])
        elif match := re.match(r"(ok|not ok) \d+ (.*?)(?: # (?:SKIP (.*)|([\d.]+) s))?$", line):
            self.results += 1
            if match[1] == "not ok":
                self.failed += 1
                self.report.not_ok(match[2], float(match[4] or 0))
            elif match[3] is not None:
                self.report.skip(match[2], match[3])
            else:
                self.report.ok(match[2], float(match[4] or 0))
        elif line.startswith("#"):
            self.report.line(line)
        elif not line.startswith("KTAP"):
            self.other_output.append(line)
            self.report.note(line)

    def for_lab(self, request):
        """Carries out a request for the lab; returns the reply's line."""
        command, arguments = request
        if command not in ("link", "crash", "boot", "log", "exec", "halt"):
            return wire.to_line(("error", f"lab.{command} is not for tests"))
        if command == "crash" and arguments[0] == "host":
            self.agent.stop()
        try:
            done = self.lab.call(command, *map(str, arguments))
            return wire.to_line(("ok", done.stdout))
        except machines.LabError as error:
            return wire.to_line(("error", str(error)))
