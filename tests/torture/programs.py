# SPDX-License-Identifier: GPL-2.0
"""git and SQLite at length, each with its own check of what it keeps; and the host's copy of both checks what it sees."""

import random
import sqlite3

from qtest import USER, case, eq, files, on_host, run, spawn, true

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "HOME": "/nonexistent",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
PATIENCE = 3600


def git(*words, cwd="repository"):
    """One command."""
    return run(["git", *words], cwd=cwd, env=IDENTITY, patience=PATIENCE).text


@on_host
def git_there(path, *words):
    """The same on the host."""
    return run(["git", *words], cwd=path, env=IDENTITY, patience=PATIENCE).text


@case("git: many commits and branches, gc, fsck, clone, on both machines", who=[USER], limit=240, full=7200)
def repository(t):
    choose = random.Random(t.seed())
    run(["git", "init", "-q", "-b", "main", "repository"], env=IDENTITY)
    for number in range(t.amount(2, 150)):
        for _ in range(t.amount(2, 40)):
            path = f"repository/{choose.randrange(10)}"
            run(["mkdir", "-p", path])
            files.write(f"{path}/{choose.randrange(30)}", choose.randbytes(choose.randrange(20000)))
        git("add", "-A")
        git("commit", "-q", "-m", f"number {number}")
        if number % 10 == 4:
            git("checkout", "-q", "-b", f"branch{number}")
            files.write(f"repository/only-{number}", b"%d" % number)
            git("add", "-A")
            git("commit", "-q", "-m", "on a branch")
            git("checkout", "-q", "main")
            git("merge", "-q", "--no-edit", f"branch{number}")
    git("gc", "-q", *(["--aggressive", "--prune=now"] if t.full else ["--prune=now"]))
    git("fsck", "--strict", "--full")
    eq(git("status", "--porcelain"), "")
    run(["git", "clone", "-q", "--no-hardlinks", "repository", "clone"], env=IDENTITY, patience=PATIENCE)
    git("fsck", "--strict", "--full", cwd="clone")
    heads = git("log", "--format=%H %T")
    eq(git("log", "--format=%H %T", cwd="clone"), heads)
    git_there(t.there("clone"), "fsck", "--strict", "--full", patience=PATIENCE)
    eq(git_there(t.there("clone"), "log", "--format=%H %T").split(), heads.split())
    eq(git_there(t.there("repository"), "status", "--porcelain"), "")


def transfer(path, seed, rounds):
    """Moves amounts between accounts; the sum stays."""
    choose = random.Random(seed)
    database = sqlite3.connect(path, timeout=120, isolation_level=None)
    done = 0
    for _ in range(rounds):
        amount, giver, taker = choose.randrange(50), choose.randrange(100), choose.randrange(100)
        database.execute("begin immediate")
        database.execute("update account set money = money - ? where id = ?", (amount, giver))
        database.execute("update account set money = money + ? where id = ?", (amount, taker))
        database.execute("insert into entry (giver, taker, amount, text) values (?, ?, ?, ?)", (giver, taker, amount, "x" * choose.randrange(300)))
        database.execute("rollback" if choose.randrange(5) == 0 else "commit")
        done += 1
    database.close()
    return done


@case("SQLite: transfers between accounts from several processes, in each journal mode", who=[USER], limit=240, full=7200)
def accounts(t):
    first = t.seed()
    for mode in ("wal", "delete", "truncate", "persist"):
        path = t.path(f"{mode}.db")
        database = sqlite3.connect(path)
        eq(database.execute(f"pragma journal_mode={mode}").fetchone()[0], mode)
        database.execute("create table account (id integer primary key, money integer)")
        database.execute("create table entry (id integer primary key, giver, taker, amount, text)")
        with database:
            database.executemany("insert into account values (?, 1000)", [(number,) for number in range(100)])
        database.close()
        children = [spawn(transfer, path, first + number, t.amount(5, 1500)) for number in range(3)]
        for child in children:
            eq(child.result(t.amount(120, PATIENCE)), t.amount(5, 1500))
        verdicts = [verdict(path), verdict_there(t.there(f"{mode}.db"))]
        eq(verdicts[0], verdicts[1], "the same on both machines")
        eq(verdicts[0][:2], ("ok", 100_000))
        true(verdicts[0][2] > 0, "there are entries")


def verdict(path):
    """What SQLite says of it, the sum of all money, the number of entries."""
    database = sqlite3.connect(path, timeout=60)
    found = tuple(database.execute(question).fetchone()[0] for question in
                  ("pragma integrity_check", "select sum(money) from account", "select count(*) from entry"))
    # What each entry moved is what the accounts have.
    for number in (0, 17, 99):
        money = 1000 + database.execute("select coalesce(sum(amount), 0) from entry where taker = ?", (number,)).fetchone()[0] \
            - database.execute("select coalesce(sum(amount), 0) from entry where giver = ?", (number,)).fetchone()[0]
        eq(database.execute("select money from account where id = ?", (number,)).fetchone()[0], money)
    database.close()
    return found


@on_host
def verdict_there(path):
    """The same on the host."""
    return verdict(path)
