# SPDX-License-Identifier: GPL-2.0
"""What is tested without machines: that everything builds, lint, and the cargo crates' tests."""

import os
import re
import signal
import subprocess
import threading
import time

from runner.machines import TOP

# What the scripts say of long steps: downloads, the build root, the kernel's crates.
PROGRESS = re.compile(r"(kernel|build-root|guest-image): ")
# For building and running the tests of a crate.
CARGO_PATIENCE = 1800
# Not a test, but what writes the vectors anew.
TOOLS = {"rewrite"}


def default_signals():
    """For a child: signals as in a terminal, also when a shell runs this in the background and has some ignored."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def follow(report, command, limit, cwd=TOP):
    """Runs a command, and passes on what the scripts say of long steps; returns its output and exit status, None after the limit."""
    process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
                               preexec_fn=default_signals)
    late = threading.Event()

    def end():
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if PROGRESS.match(line):
                report.note(line.rstrip())
        status = process.wait()
    except BaseException:
        # An interrupted run leaves nothing behind.
        end()
        raise
    finally:
        timer.cancel()
    return "".join(lines), None if late.is_set() else status


def execute(report, name, command, limit, cwd=TOP):
    """Runs a command as one test; returns its output, or None when it failed."""
    begin = time.monotonic()
    output, status = follow(report, command, limit, cwd)
    seconds = time.monotonic() - begin
    if status is None:
        report.not_ok(name, seconds, f"{output[-6000:]}\nno end after {limit} s: {' '.join(command)}")
        return None
    if status:
        report.not_ok(name, seconds, f"{output[-12000:]}\nexit {status}: {' '.join(command)}")
        return None
    report.ok(name, seconds)
    return output


def build(report):
    """make; without it nothing else makes sense."""
    return execute(report, "build: both modules and all programs", ["make", "all", "test-tools"], 1800) is not None


def build_debug(report):
    """The same for the debug kernel, which is built too the first time."""
    return execute(report, "build: both modules and all programs, for the debug kernel", ["make", "debug", "test-tools"], 7200) is not None


def lint(report):
    """Formatting, clippy and shellcheck."""
    for part, name in (("lint-format", "rustfmt has nothing to change"), ("lint-modules", "clippy accepts the modules"),
                       ("lint-proto", "clippy accepts the format, its tests and its fuzz target"),
                       ("lint-userspace", "clippy accepts the programs"), ("lint-scripts", "shellcheck accepts the scripts")):
        execute(report, f"lint: {name}", ["make", part], 900)


def cargo(report):
    """The tests of the crates that also build outside the kernel; each counts."""
    for crate, manifest in (("proto", "rust/proto/Cargo.toml"), ("userspace", "userspace/Cargo.toml")):
        if not (TOP / manifest).exists():
            continue
        begin = time.monotonic()
        command = ["scripts/build-root", "run", "--", "cargo", "test", "--workspace", "--manifest-path", manifest,
                   "--target-dir", "build/target", "--no-fail-fast"]
        output, status = follow(report, command, CARGO_PATIENCE)
        found = re.findall(r"^test (.+?) \.\.\. (ok|FAILED|ignored)", output, re.MULTILINE)
        if status is None:
            report.not_ok(f"{crate}: cargo test", time.monotonic() - begin, f"{output[-6000:]}\nno end after {CARGO_PATIENCE} s")
        elif status and not any(outcome == "FAILED" for _, outcome in found):
            report.not_ok(f"{crate}: cargo test", time.monotonic() - begin, output[-12000:])
        for name, outcome in found:
            if outcome == "ok":
                report.ok(f"{crate}: {name}")
            elif name in TOOLS:
                continue
            elif outcome == "ignored":
                report.skip(f"{crate}: {name}", "marked #[ignore]")
            else:
                told = re.search(rf"^---- {re.escape(name)} stdout ----\n(.*?)(?=^---- |^failures:)", output, re.MULTILINE | re.DOTALL)
                report.not_ok(f"{crate}: {name}", None, told[1] if told else None)


PHASES = {"build": build, "lint": lint, "cargo": cargo}
