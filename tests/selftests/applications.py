# SPDX-License-Identifier: GPL-2.0
"""Real programs: databases, git, rsync, tar, make."""

import dbm
import os
import random
import sqlite3

from qtest import ROOT, case, eq, files, host, on_host, run, spawn, true, USER


def fill(path, mode, rows):
    """Makes a database and fills it in several transactions."""
    database = sqlite3.connect(path, timeout=30)
    eq(database.execute(f"pragma journal_mode={mode}").fetchone()[0], mode)
    database.execute("create table t (id integer primary key, text)")
    for part in range(0, rows, 50):
        with database:
            database.executemany("insert into t values (?, ?)", [(number, f"row {number}" * 5) for number in range(part, part + 50)])
    with database:
        database.execute("delete from t where id % 7 = 0")
        database.execute("update t set text = 'changed' where id % 5 = 0")
    eq(database.execute("pragma integrity_check").fetchone()[0], "ok")
    return database


def check(path, rows):
    """What must be in it."""
    database = sqlite3.connect(path, timeout=30)
    eq(database.execute("pragma integrity_check").fetchone()[0], "ok")
    count = len([number for number in range(rows) if number % 7])
    eq(database.execute("select count(*) from t").fetchone()[0], count)
    database.close()


@on_host
def check_there(path, rows):
    check(path, rows)


@case("SQLite with a rollback journal, seen by both machines", limit=120)
def sqlite_delete(t):
    fill(t.path("db"), "delete", 300).close()
    check(t.path("db"), 300)
    check_there(t.there("db"), 300)


@case("SQLite in WAL mode, with its shared memory in a mapping of the directory", limit=120)
def sqlite_wal(t):
    database = fill(t.path("db"), "wal", 300)
    true(os.path.exists(t.path("db-shm")), "the shared memory file exists")
    reader = spawn(check, t.path("db"), 300)
    reader.result(60)
    database.execute("pragma wal_checkpoint(truncate)")
    database.close()
    check_there(t.there("db"), 300)


@case("several processes add to one SQLite database in WAL mode", who=[ROOT], limit=180)
def sqlite_concurrent(t):
    setup = sqlite3.connect(t.path("db"))
    setup.execute("pragma journal_mode=wal")
    setup.execute("create table t (who, number)")
    setup.close()

    def add(who):
        database = sqlite3.connect(t.path("db"), timeout=60)
        for number in range(20):
            with database:
                database.execute("insert into t values (?, ?)", (who, number))
        database.close()

    children = [spawn(add, who) for who in range(3)]
    for child in children:
        child.result(120)
    database = sqlite3.connect(t.path("db"))
    eq(database.execute("select who, count(*), max(number) from t group by who order by who").fetchall(),
       [(who, 20, 19) for who in range(3)])
    eq(database.execute("pragma integrity_check").fetchone()[0], "ok")


@case("SQLite on both machines at once, with the rollback journal", who=[ROOT], limit=240)
def sqlite_two_machines(t):
    setup = sqlite3.connect(t.path("db"))
    setup.execute("create table t (who, number)")
    setup.close()
    job = host.background.start(__file__, "insert", t.there("db"), "host", 15)
    insert.local(t.path("db"), "dpu", 15)
    host.background.finish(job, 120, patience=150)
    database = sqlite3.connect(t.path("db"))
    eq(database.execute("select who, count(*) from t group by who order by who").fetchall(), [("dpu", 15), ("host", 15)])
    eq(database.execute("pragma integrity_check").fetchone()[0], "ok")


@on_host
def insert(path, who, count):
    database = sqlite3.connect(path, timeout=100)
    for number in range(count):
        with database:
            database.execute("insert into t values (?, ?)", (who, number))
    database.close()


@case("a dbm database keeps what was stored", who=[ROOT], limit=120)
def dbm_database(t):
    generator = random.Random(5)
    wanted = {b"%d" % number: bytes(generator.randrange(256) for _ in range(200)) for number in range(150)}
    with dbm.open(t.path("db"), "n") as database:
        for key, value in wanted.items():
            database[key] = value
    with dbm.open(t.path("db"), "r") as database:
        eq({key: database[key] for key in wanted}, wanted)


@case("git: init, commits, branch, merge, gc, fsck and clone", who=[USER], limit=180)
def git(t):
    env = {"HOME": t.dir, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
           "GIT_COMMITTER_EMAIL": "a@b"}
    script = """
        set -e
        git init -q -b main repo && cd repo
        for n in 1 2 3; do echo "$n" >"file$n"; mkdir -p "dir$n"; echo "$n" >"dir$n/f"; git add .; git commit -qm "commit $n"; done
        git checkout -qb side && echo side >side && git add side && git commit -qm side
        git checkout -q main && echo more >>file1 && git commit -qam more && git merge -q --no-edit side
        git gc -q && git fsck --strict && git status --porcelain
        cd .. && git clone -q repo clone && cd clone && git log --oneline | wc -l
    """
    found = run(["sh", "-c", script], env=env, patience=150, cwd=t.dir)
    eq(found.text.splitlines()[-1], "6")
    host.run(["git", "-c", "safe.directory=*", "-C", t.there("repo"), "fsck", "--strict"])


@case("rsync -aHAX carries a tree over and back, and finds nothing to do the second time", who=[ROOT], limit=120)
def rsync(t):
    host.call(__file__, "make_tree", t.there("source"))
    run(["rsync", "-aHAX", "source/", "copy/"], patience=100)
    eq(run(["rsync", "-aHAXni", "--delete", "source/", "copy/"]).text, "")
    eq(files.snapshot("copy"), files.snapshot("source"))
    eq(host.files.snapshot(t.there("copy")), host.files.snapshot(t.there("source")))
    eq(os.stat("copy/hard1").st_ino, os.stat("copy/hard2").st_ino)
    run(["rsync", "-aHAX", "source/", "/dev/shm/qtest-rsync/"])
    run(["rsync", "-aHAX", "/dev/shm/qtest-rsync/", "back/"])
    run(["rm", "-rf", "/dev/shm/qtest-rsync"])
    eq(files.snapshot("back"), files.snapshot("source"))
    eq(os.getxattr("back/dir/inner", "user.name"), b"value")


def make_tree(top):
    os.makedirs(f"{top}/dir/empty")
    for number in range(20):
        files.write(f"{top}/dir/f{number}", files.pattern(number * 700, number))
    files.write(f"{top}/hard1", b"linked")
    os.link(f"{top}/hard1", f"{top}/hard2")
    os.symlink("dir/f1", f"{top}/link")
    os.mkfifo(f"{top}/fifo")
    os.mknod(f"{top}/null", 0o020644, os.makedev(1, 3))
    files.write(f"{top}/dir/inner", b"x")
    os.setxattr(f"{top}/dir/inner", "user.name", b"value")
    os.setxattr(f"{top}/dir", "trusted.overlay.opaque", b"y")
    os.chown(f"{top}/dir/inner", 1001, 2001)
    os.chmod(f"{top}/dir/inner", 0o4750)
    run(["setfacl", "-m", "u:1002:rw,d:g:2002:rx", f"{top}/dir"])
    files.write(f"{top}/sparse", b"")
    os.truncate(f"{top}/sparse", 1 << 20)
    os.utime(f"{top}/dir/f3", ns=(123456789123456789, 987654321987654321))


@case("tar out, compare, tar in: trees are equal", who=[ROOT], limit=120)
def tar(t):
    make_tree("a")
    run("tar --acls --xattrs --xattrs-include='*' -cf t.tar a && tar --compare -f t.tar && mkdir b && "
        "tar --acls --xattrs --xattrs-include='*' -C b -xpf t.tar", patience=100)
    eq(files.snapshot("b/a"), files.snapshot("a"))


@case("a C program is compiled, linked and run", who=[ROOT], limit=180)
def compiler(t):
    files.write("hello.c", b'#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n')
    files.write("Makefile", b"hello: hello.o\n\t$(CC) -o $@ $<\nhello.o: hello.c\n\t$(CC) -c -o $@ $<\n")
    run(["make", "-s", "CC=gcc"], patience=150)
    eq(run(["./hello"]).text, "hello")
    eq(run(["make", "CC=gcc"]).text, "make: 'hello' is up to date.")
