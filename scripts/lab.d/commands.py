# SPDX-License-Identifier: GPL-2.0
"""The commands of scripts/lab."""

import argparse
import os
import shlex
import sys
import threading
from pathlib import Path

import console
import link
import remote
from machine import Machine
from state import NAMES
from state import SIZES
from state import Failure
from state import Lab
from state import runtime

HELP = """\
Two virtual machines, host and dpu, for trying and testing qtfs.

machines:
  up [--cpus N] [--mem MIB] [--mtu N]
                            make the lab and boot both machines; what is up stays
  down [--force|--keep]     switch off and delete the lab (--keep: not its disks;
                            --force: without letting the guests shut down)
  boot host|dpu             boot a machine that is off
  halt host|dpu             switch a machine off cleanly
  crash host|dpu            cut a machine's power; its disks keep what was written
  status                    what runs; exit 1 unless both do, answer and are healthy
  list                      the labs of this user

in a machine:
  exec host|dpu [-t] [-n] [-C DIR] [-e NAME=VALUE] -- CMD [ARG]...
                            run a command as root; stdin, stdout, stderr and the
                            exit status are the command's own (-t: on a terminal,
                            -n: without stdin). 125: the lab failed, 126 and 127:
                            the command cannot be run, 128+N: killed by signal N
  shell host|dpu            an interactive shell
  put host|dpu FILE PATH    copy a file or directory in  (FILE -: stdin)
  get host|dpu PATH FILE    copy a file or directory out (FILE -: stdout)

what the kernel says:
  log host|dpu [-f] [--since-mark|--all] [--last N]
                            the kernel log since boot (--all: of all boots); also
                            of a machine that crashed
  mark                      remember where both logs are now
  health [host|dpu] [--since-mark]
                            print the kernel's complaints (WARNING, BUG, hung
                            tasks, stalls, ...) since the lab was made; exit 1 if
                            there are any, a machine ended by itself or hangs

the link between the machines:
  link                      show its state
  link down|up              packets vanish, as when a cable is cut; and not
  link delay MS             each packet takes MS milliseconds longer, both ways
  link loss PCT             so many percent of the packets get lost, both ways
  link reset                up, no delay, no loss

host is 10.0.0.1 and fd00:7174::1, dpu 10.0.0.2 and fd00:7174::2. In both /qtfs is
this project (read-only), /lab a directory shared with this computer (see status)
and /data a disk of its own. Documentation/lab.md has the rest.

environment: QTFS_LAB (the default of -n), QTFS_LAB_CPUS, QTFS_LAB_MEM,
QTFS_LAB_ACCEL=kvm|tcg (default: kvm if it works), QTFS_CACHE, KVER;
QTFS_KERNEL=debug: a new lab gets the debug kernel and its modules' release
"""


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """Has one help for everything and refuses as the rest does."""

    def format_help(self):
        return f"Usage: lab [-n NAME] COMMAND [ARGUMENT]...\n\n{HELP}"

    def error(self, message):
        raise Failure(f"{message}.", "See lab --help.", status=2)


def parse(args):
    command = []
    if "--" in args:
        cut = args.index("--")
        args, command = args[:cut], args[cut + 1:]
    parser = Parser(prog="lab", allow_abbrev=False)
    parser.add_argument("-n", dest="name", default=os.environ.get("QTFS_LAB") or "default")
    actions = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)

    def action(name, machine=None):
        sub = actions.add_parser(name, allow_abbrev=False)
        if machine:
            sub.add_argument("machine", choices=NAMES, nargs=machine if machine != 1 else None)
        return sub

    up = action("up")
    for option in SIZES:
        up.add_argument(f"--{option}", type=int, default=os.environ.get(f"QTFS_LAB_{option.upper()}") or None)
    down = action("down").add_mutually_exclusive_group()
    down.add_argument("--force", action="store_true")
    down.add_argument("--keep", action="store_true")
    for name in ("boot", "halt", "crash", "shell"):
        action(name, 1)
    for name in ("status", "list", "mark"):
        action(name)
    run = action("exec", 1)
    run.add_argument("-t", dest="tty", action="store_true")
    run.add_argument("-n", dest="no_stdin", action="store_true")
    run.add_argument("-C", dest="cwd", default="/root")
    run.add_argument("-e", dest="env", action="append", default=[])
    run.add_argument("--timeout", type=float, default=30)
    run.add_argument("word", nargs="*", help=argparse.SUPPRESS)
    for name in ("put", "get"):
        sub = action(name, 1)
        sub.add_argument("source")
        sub.add_argument("target")
    log = action("log", 1)
    log.add_argument("-f", dest="follow", action="store_true")
    log.add_argument("--last", type=int)
    part = log.add_mutually_exclusive_group()
    part.add_argument("--since-mark", action="store_true")
    part.add_argument("--all", action="store_true")
    action("health", "?").add_argument("--since-mark", action="store_true")
    fault = action("link")
    fault.add_argument("what", nargs="?", choices=("down", "up", "delay", "loss", "reset"))
    fault.add_argument("value", nargs="?")
    options = parser.parse_args(args)
    options.command = command
    return options


class Commands:
    """One method per command; each returns the exit status."""

    def __init__(self, options):
        self.options = options
        self.lab = Lab(options.name)
        self.machines = [Machine(self.lab, name) for name in NAMES]
        if getattr(options, "machine", None):
            self.machine = self.machines[NAMES.index(options.machine)]

    # --- Machines. ---

    def up(self):
        import setup  # pylint: disable=import-outside-toplevel
        with self.lab.locked():
            setup.prepare(self.lab, self.options)
            started = [machine for machine in self.machines if not machine.running]
            for machine in self.machines:
                if machine not in started:
                    changed = " ".join(f"--{name} {self.lab.config[name]}" for name in machine.outdated())
                    say(f"{machine.name} is up already" + (f"; {changed} has no effect until its next boot" if changed else ""))
            self._boot(started)
        return 0

    def boot(self):
        self.lab.config  # pylint: disable=pointless-statement  # Refuses when there is no lab.
        if self.machine.running:
            raise Failure(f"{self.machine.name} is running already.",
                          f"To boot it again, \"lab{self.lab.option} halt\" or \"crash\" it first.")
        with self.lab.locked():
            self._boot([self.machine])
        return 0

    def _boot(self, machines):
        """Boots machines at the same time and reports the first failure."""
        failures = []
        image = Path(self.lab.config["image"])
        for machine in machines:
            machine.make_disks(image)
            machine.start()

        def wait(machine):
            try:
                machine.wait()
                machine.note(came_up=machine.info["boots"])
                if self.lab.faults["delay"] or self.lab.faults["loss"]:
                    link.shape(machine, self.lab.faults)
                say(f"{machine.name} is up after {machine.process.age():.1f} s")
            except Failure as failure:
                failures.append(failure)

        threads = [threading.Thread(target=wait, args=(machine,), daemon=True) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def halt(self):
        with self.lab.locked():
            return self._halt([self.machine])

    def _halt(self, machines):
        stuck = []

        def halt(machine):
            if not machine.halt():
                stuck.append(machine.name)

        threads = [threading.Thread(target=halt, args=(machine,)) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in stuck:
            say(f"{name} did not switch itself off; its power was cut")
        return 1 if stuck else 0

    def crash(self):
        self.machine.require_running()
        with self.lab.locked():
            self.machine.crash()
        return 0

    def down(self):
        if not self.lab.exists:
            say(f"there is no lab \"{self.lab.name}\"")
            return 0
        with self.lab.locked():
            status = 0
            if self.options.force:
                for machine in self.machines:
                    machine.crash()
            else:
                status = self._halt(self.machines)
            # The guests' last words may be the interesting ones.
            for machine in self.machines:
                console.warn(machine)
            if not self.options.keep:
                import setup  # pylint: disable=import-outside-toplevel
                setup.discard(self.lab, self.machines)
        return status

    def status(self):
        config = self.lab.config
        faults = self.lab.faults
        print(f"lab {self.lab.name}: {config['cpus']} cpus, {config['mem']} MiB each, {config['accel']}, "
              f"kernel {config['release']}")
        print(f"link: {link.describe(faults)}")
        print(f"shared directory: {self.lab.share}")
        status = 0
        conditions = self._conditions()
        for machine in self.machines:
            words = [machine.state()]
            if machine.running:
                words += [f"for {machine.process.age():.0f} s", f"boot {machine.info['boots']}",
                          f"pid {machine.process.pid}", f"{machine.memory()} MiB used"]
                words += [f"{name} {machine.info['sizes'][name]} until its next boot" for name in machine.outdated()]
            trouble = machine.console.trouble()
            if trouble:
                words.append(f"{len(trouble)} lines of kernel trouble, see health")
            if conditions[machine]:
                words.append(conditions[machine])
            elif machine.running and not trouble:
                words.append("healthy")
            print(f"{machine.name}: {', '.join(words)}")
            for line in trouble[:5]:
                print(f"  {line}")
            if trouble or conditions[machine] or not machine.running:
                status = 1
        return status

    def _conditions(self):
        """Asks the machines that run whether they answer, all at the same time."""
        conditions = dict.fromkeys(self.machines)

        def ask(machine):
            conditions[machine] = machine.condition()

        threads = [threading.Thread(target=ask, args=(machine,)) for machine in self.machines if machine.running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return conditions

    @staticmethod
    def list():
        for path in sorted(runtime().iterdir()):
            lab = Lab(path.name)
            if lab.exists:
                print(f"{lab.name}: " + ", ".join(f"{name} {Machine(lab, name).state()}" for name in NAMES))
        return 0

    # --- In a machine. ---

    def exec(self):
        options = self.options
        argv = options.word + options.command
        if not argv:
            raise Failure("exec: no command is given.", "Usage: lab exec host|dpu [-t] -- CMD [ARG]...", status=2)
        env = dict(item.partition("=")[::2] for item in options.env)
        if options.tty:
            env.setdefault("TERM", os.environ.get("TERM", "dumb"))
        stdin = None if options.no_stdin else 0
        return remote.Command(self.machine, argv, tty=options.tty, env=env, cwd=options.cwd, stdin=stdin,
                              timeout=options.timeout).run()

    def shell(self):
        return remote.Command(self.machine, ["bash", "-l"], tty=True,
                              env={"TERM": os.environ.get("TERM", "dumb")}).run()

    def put(self):
        import copy_files  # pylint: disable=import-outside-toplevel
        return copy_files.put(self.machine, self.options.source, self.options.target)

    def get(self):
        import copy_files  # pylint: disable=import-outside-toplevel
        return copy_files.get(self.machine, self.options.source, self.options.target)

    # --- What the kernel says. ---

    def log(self):
        options = self.options
        log = self.machine.console
        if not log.path.exists():
            self.lab.config  # pylint: disable=pointless-statement  # Refuses when there is no lab.
            raise Failure(f"{self.machine.name} has no log.", "It was never booted in this lab.")
        start = 0 if options.all else log.offset("mark" if options.since_mark else "boot")
        if options.follow:
            try:
                log.follow(start, sys.stdout.buffer)
            except KeyboardInterrupt:
                return 0
        data = log.read(start)
        if options.last is not None:
            data = b"".join(data.splitlines(keepends=True)[-options.last:] if options.last else [])
        sys.stdout.buffer.write(data)
        return 0

    def mark(self):
        self.lab.config  # pylint: disable=pointless-statement  # Refuses when there is no lab.
        for machine in self.machines:
            machine.console.mark()
        return 0

    def health(self):
        self.lab.config  # pylint: disable=pointless-statement  # Refuses when there is no lab.
        status = 0
        conditions = self._conditions()
        for machine in self.machines:
            if self.options.machine not in (None, machine.name):
                continue
            start = machine.console.offset("mark") if self.options.since_mark else 0
            for line in machine.console.trouble(start, report=lambda lines: None):
                print(f"{machine.name}: {line}")
                status = 1
            if machine.state() == "ended":
                print(f"{machine.name}: ended by itself; last console lines:")
                for line in machine.console.tail(15):
                    print(f"{machine.name}:   | {line}")
                status = 1
            elif (conditions[machine] or "").startswith("hangs"):
                print(f"{machine.name}: {conditions[machine]}")
                status = 1
        return status

    # --- The link. ---

    def link(self):
        what, value = self.options.what, self.options.value
        self.lab.config  # pylint: disable=pointless-statement  # Refuses when there is no lab.
        if (what in ("delay", "loss")) != (value is not None):
            raise Failure("link: delay and loss take one number, the others none.", "See lab --help.", status=2)
        changes = {}
        if what in ("down", "up"):
            changes["down"] = what == "down"
        elif what == "delay":
            changes["delay"] = link.number(value, "delay in milliseconds", 60000)
        elif what == "loss":
            changes["loss"] = link.number(value, "loss in percent", 100)
        elif what == "reset":
            changes.update(down=False, delay=0.0, loss=0.0)
        if not changes:
            print(link.describe(self.lab.faults))
            return 0
        with self.lab.locked():
            link.change(self.lab, self.machines, **changes)
        return 0


def main(args):
    os.umask(0o022)
    commands = None
    try:
        options = parse(args)
        if options.command and options.action != "exec":
            raise Failure(f"{options.action} takes no \"--\".", f"What follows is {shlex.join(options.command)}.",
                          "See lab --help.", status=2)
        commands = Commands(options)
        status = getattr(commands, options.action)()
        sys.stdout.flush()
    except Failure as failure:
        print(f"lab: error: {failure.lines[0]}", file=sys.stderr)
        for line in failure.lines[1:]:
            print(f"lab:        {line}", file=sys.stderr)
        status = failure.status
    except (BrokenPipeError, remote.Unread):
        # As a program that SIGPIPE ended; python must not try to write the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except KeyboardInterrupt:
        status = 130
    if commands and commands.lab.exists and commands.options.action not in ("health", "status", "down"):
        for machine in commands.machines:
            console.warn(machine)
    sys.stdout.flush()
    # A thread may still wait for stdin.
    os._exit(status)
