# SPDX-License-Identifier: GPL-2.0
"""Tests of the lab itself, on which all selftests rely: scripts/lab with machines that are up."""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from qtest.checks import eq, eventually, same_bytes, true
from runner import machines
from runner.phases import default_signals

# The longest that one call may take; computers are busy at times.
PATIENCE = 60
ALL_BYTES = bytes(range(256))


def run(lab, *words, stdin=b""):
    """Runs scripts/lab to its end, with bytes."""
    return subprocess.run(lab.command(*words), input=stdin, capture_output=True, timeout=PATIENCE, check=False)


def shell(lab, machine, script, *words, stdin=b""):
    """Runs a shell script in a machine."""
    return run(lab, "exec", machine, "--", "sh", "-c", script, *words, stdin=stdin)


def outcome(done):
    """Exit status, stdout and stderr."""
    return done.returncode, done.stdout, done.stderr


def refused(done, status, *words):
    """It must have failed with one line that has these words, and perhaps others that say why and what to do."""
    lines = done.stderr.decode().splitlines()
    text = "\n".join(lines)
    eq(done.returncode, status, f"exit status of what says {text!r}")
    true(lines and lines[0].startswith("lab: "), f"it says who refuses: {text!r}")
    for word in words:
        true(word in lines[0], f"{word!r} is in the first line: {text!r}")
    true(all(re.match(r"lab:( error:|  {6}) ?\S", line) for line in lines) and len(lines) <= 4, f"nothing else is said: {text!r}")
    eq(done.stdout, b"", "stdout")


def exit_status(lab):
    """Exit statuses are those of a shell."""
    for script, status in (("true", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)):
        eq(outcome(shell(lab, "dpu", script)), (status, b"", b""), script)
    for word, status, why in (("nosuch", 127, "No such file"), ("/etc/hosts", 126, "Permission denied")):
        done = run(lab, "exec", "host", "--", word)
        eq(outcome(done)[:2], (status, b""))
        true(re.fullmatch(f"lab: host: {why}[^\n]*{word}\n", done.stderr.decode()), f"one line: {done.stderr!r}")


def streams(lab):
    """Arguments, stdin, stdout and stderr arrive as they were, each by itself."""
    words = ["", " ", "a b", "$HOME", "'\"\\", "*", "line\nline", "-n", "--", "\udcff\udc80"]
    done = shell(lab, "dpu", r'printf "<%s>" "$@"; cat >&2', "sh", *words, stdin=b"input\n")
    eq(outcome(done), (0, b"".join(b"<" + os.fsencode(word) + b">" for word in words), b"input\n"))
    eq(outcome(shell(lab, "host", "cat; echo err >&2; exit 3", stdin=b"")), (3, b"", b"err\n"))
    eq(outcome(run(lab, "exec", "host", "-n", "-C", "/tmp", "-e", "A=b c", "--", "sh", "-c", 'echo "$PWD $A"; cat', stdin=b"unread")),
       (0, b"/tmp b c\n", b""))


def eight_bits(lab):
    """1 MiB of all byte values there and back."""
    data = ALL_BYTES * 2048 + os.urandom(512 << 10)
    for machine in machines.MACHINES:
        done = run(lab, "exec", machine, "--", "cat", stdin=data)
        eq((done.returncode, done.stderr), (0, b""))
        same_bytes(done.stdout, data)


def several(lab):
    """Eight at once keep apart, and none waits for another."""
    inputs = [bytes([number]) * 100_000 for number in range(8)]
    calls = [subprocess.Popen(lab.command("exec", machines.MACHINES[number % 2], "--", "sh", "-c", 'head -c 1000; read -r _; cat >&2; exit "$0"',
                                          str(number)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
             for number in range(8)]
    try:
        # All of them run before any gets what it needs to end.
        for call, data in zip(calls, inputs):
            call.stdin.write(data[:1000])
            call.stdin.flush()
        for call, data in zip(calls, inputs):
            same_bytes(call.stdout.read(1000), data[:1000])
        for number, (call, data) in enumerate(zip(calls, inputs)):
            out, err = call.communicate(b"\n" + data, timeout=PATIENCE)
            eq((call.returncode, out), (number, b""))
            same_bytes(err, data)
    finally:
        for call in calls:
            call.kill()
            call.wait()


def signals(lab):
    """The command gets SIGTERM and SIGINT, and its exit status tells."""
    command = lab.command("exec", "dpu", "-n", "--", "sh", "-c", "echo runs; exec sleep 100")
    for number in (signal.SIGTERM, signal.SIGINT):
        call = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=default_signals)
        try:
            eq(call.stdout.readline(), b"runs\n")
            call.send_signal(number)
            eq(call.wait(PATIENCE), 128 + number)
        finally:
            call.kill()
            call.wait()
            call.stdout.close()


def copies(lab):
    """Files of all byte values and whole directories go in and come out the same, with their modes."""
    name = f"/tmp/lab-tools-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="qtfs-lab-tools-") as directory:
        top = Path(directory)
        source, back = top / "source", top / "back"
        source.mkdir()
        (source / "all bytes").write_bytes(ALL_BYTES * 100)
        (source / "all bytes").chmod(0o751)
        (source / "empty").touch()
        (source / "to").symlink_to("all bytes")
        try:
            for words in (("put", "dpu", str(source / "all bytes"), name), ("get", "dpu", name, str(back)),
                          ("put", "dpu", str(source), f"{name}.d"), ("get", "dpu", f"{name}.d", str(top / "tree"))):
                eq(outcome(run(lab, *words)), (0, b"", b""), " ".join(words))
            for copy in (back, top / "tree" / "all bytes"):
                same_bytes(copy.read_bytes(), ALL_BYTES * 100)
                eq(oct(copy.stat().st_mode & 0o7777), "0o751")
            eq(sorted(os.listdir(top / "tree")), sorted(os.listdir(source)))
            eq(os.readlink(top / "tree/to"), "all bytes")
            eq(outcome(run(lab, "put", "dpu", "-", name, stdin=ALL_BYTES)), (0, b"", b""))
            eq(outcome(run(lab, "get", "dpu", name, "-")), (0, ALL_BYTES, b""))
        finally:
            run(lab, "exec", "dpu", "-n", "--", "rm", "-rf", name, f"{name}.d")


def log(lab):
    """The kernel's log is there at once, and from a mark on."""
    before, after = (f"lab-tools {os.getpid()} {part}\n".encode() for part in ("before", "after"))
    shell(lab, "dpu", "cat >/dev/kmsg", stdin=before)
    eventually(lambda: before in run(lab, "log", "dpu").stdout, PATIENCE, "what was said is in the log")
    eq(run(lab, "mark").returncode, 0)
    shell(lab, "dpu", "cat >/dev/kmsg", stdin=after)
    eventually(lambda: after in run(lab, "log", "dpu", "--since-mark").stdout, PATIENCE, "what was said is in the log since the mark")
    true(before not in run(lab, "log", "dpu", "--since-mark").stdout, "what was said before the mark is not")
    eq(len(run(lab, "log", "dpu", "--last", "3").stdout.splitlines()), 3)
    true(before not in run(lab, "log", "host", "--all").stdout, "the other machine has another log")


def status(lab):
    """Two machines run and are healthy."""
    done = run(lab, "status")
    eq((done.returncode, done.stderr), (0, b""), done.stdout)
    for machine in machines.MACHINES:
        true(re.search(rf"^{machine}: running, .*healthy$", done.stdout.decode(), re.MULTILINE), f"{machine} is healthy: {done.stdout}")
    true(f"{lab.name}: host running, dpu running\n".encode() in run(lab, "list").stdout, "it is listed")
    eq(outcome(run(lab, "health", "--since-mark")), (0, b"", b""))


def ping(lab, *options):
    """The milliseconds of a round trip, None when nothing comes back."""
    done = run(lab, "exec", "dpu", "-n", "--", "ping", "-c", "1", *options, "host")
    found = re.search(r"time=([\d.]+) ms", done.stdout.decode())
    return float(found[1]) if found else None


def link(lab):
    """The link can be slowed down, cut and mended."""
    try:
        for words, shown in (("reset",), "up"), (("delay", "60"), "delay 60 ms"):
            eq(outcome(run(lab, "link", *words)), (0, b"", b""), str(words))
            true(shown in run(lab, "link").stdout.decode(), shown)
        eventually(lambda: (ping(lab) or 0) >= 120, PATIENCE, "a round trip is delayed twice")
        run(lab, "link", "reset")
        eventually(lambda: (ping(lab) or 120) < 120, PATIENCE, "it is fast again")
        run(lab, "link", "down")
        eq(ping(lab, "-W", "1"), None)
        eq(run(lab, "exec", "host", "--", "true").returncode, 0, "commands do not come over the link")
        run(lab, "link", "up")
        eventually(lambda: ping(lab, "-W", "1"), PATIENCE, "packets pass again")
    finally:
        run(lab, "link", "reset")


def refusals(lab):
    """What cannot be done is refused in few words that name it."""
    refused(run(lab, "exec", "nosuch", "--", "true"), 2, "nosuch", "host", "dpu")
    refused(run(lab, "exec", "host"), 2, "no command")
    refused(run(lab, "nosuch"), 2, "nosuch")
    refused(run(lab, "link", "delay", "fast"), 2, "fast", "milliseconds")
    refused(run(lab, "link", "delay"), 2, "number")
    refused(run(lab, "put", "dpu", "/nosuch/file", "/tmp/x"), 1, "/nosuch/file", "No such file")
    refused(run(lab, "get", "dpu", "/nosuch/file", "/tmp/x"), 1, "/nosuch/file")
    refused(run(lab, "boot", "host"), 1, "host", "running already")
    # Options that come later count.
    refused(run(lab, "-n", "no such name", "status"), 2, "no such name")
    refused(run(lab, "-n", f"none-{os.getpid()}", "exec", "host", "--", "true"), 125, f"none-{os.getpid()}")


CHECKS = (exit_status, streams, eight_bits, several, signals, copies, log, status, link, refusals)


def tools(lab, report):
    """Each check is a test."""
    for check in CHECKS:
        begin = time.monotonic()
        name = f"tools: {check.__doc__[0].lower()}{check.__doc__[1:].rstrip('.')}"
        try:
            check(lab)
        except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            place = error.__traceback__.tb_next
            report.not_ok(name, time.monotonic() - begin, f"tools.py:{place.tb_lineno if place else 0}: {error}")
        else:
            report.ok(name, time.monotonic() - begin)
