#!/usr/bin/python3
"""The tools of PostgreSQL through transaction mode, as they are: pg_dump, pg_restore, psql and the others.

Most run on a pool of two connections, while other clients of that pool go on with transactions and settings of their
own, and have to do and to say what they do and say when they are connected to the server itself.
"""

import contextlib
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading

from harness import libpq, runner, wire
from harness.cluster import die_with_parent, free_port
from harness.wire import query

SCRIPTS = pathlib.Path(__file__).resolve().parent / "tools"
CHIEF = "tools_chief"
SOURCE, TARGET = "tools_source", "tools_target"

# Publications want it.
runner.use_cluster(wal_level="logical")


# What the tests stand on.


def pool(connections=2):
    """A proxy for every database, with so many connections in each pool."""
    return runner.proxy(cores=2, max_connections=connections, user=[{"name": "*", "auth": "trust"}])


def find(tool):
    """The program of this name that belongs to the server."""
    path = f"{runner.cluster().binaries}/{tool}"
    found = path if os.path.exists(path) else shutil.which(tool)
    if not found:
        raise runner.Skip(f"{tool} is not installed")
    return found


def environment(peer, directory):
    """Nothing of the caller's own: neither variables nor files."""
    host, port = peer.address
    names = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "PSQL"))}
    names.update({"PGHOST": host, "PGPORT": str(port), "PGUSER": CHIEF, "PGDATABASE": SOURCE, "PGTZ": "UTC"})
    names.update({"PGSSLMODE": "disable", "PGGSSENCMODE": "disable", "PGCLIENTENCODING": "UTF8"})
    return {**names, "LC_ALL": "C", "HOME": directory, "PATH": f"{runner.cluster().binaries}:{names['PATH']}"}


def start(peer, directory, tool, *arguments, **more):
    """The tool, about to work on `peer` (the proxy or the cluster). Without a terminal: it has to ask its input."""
    return subprocess.Popen(
        [find(tool), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        cwd=directory,
        env=environment(peer, directory),
        start_new_session=True,
        preexec_fn=die_with_parent,
        **{"stdin": subprocess.DEVNULL, **more},
    )


def run_to_end(peer, directory, tool, *arguments, given=None):
    """(exit code, what the tool writes to its output, to its error output)."""
    more = {} if given is None else {"stdin": subprocess.PIPE}
    with start(peer, directory, tool, *arguments, **more) as process:
        try:
            found = process.communicate(given, timeout=150)
        except BaseException:
            process.kill()
            raise
    return process.returncode, *found


def run(peer, directory, tool, *arguments, expected=0, **more):
    """What the tool writes, as above; it has to end with the expected exit code."""
    code, text, errors = run_to_end(peer, directory, tool, *arguments, **more)
    assert code == expected, f"{tool} {' '.join(map(str, arguments))}: exit code {code}\n{errors[-3000:]}"
    return text, errors


@contextlib.contextmanager
def directory():
    with tempfile.TemporaryDirectory(prefix="helios-tools-") as name:
        yield name


def make_database(name):
    """A fresh one, without anything in it."""
    cluster = runner.cluster()
    cluster.run(f"drop database if exists {name} with (force)", "postgres")
    cluster.run(f"create database {name} template template0 owner {CHIEF}", "postgres")


def source():
    """Makes the database of schema.sql, if it is not there yet."""
    cluster = runner.cluster()
    if cluster.value(f"select count(*) from pg_database where datname = '{SOURCE}'", "postgres") != "0":
        return
    cluster.run(f"create role {CHIEF} superuser login", "postgres")
    cluster.run("create role tools_clerk login", "postgres")
    make_database(SOURCE)
    with directory() as place:
        run(cluster, place, "psql", "-X", "-f", SCRIPTS / "schema.sql")


# Settings that would spoil the work of a tool that met them, and its words.
SETTINGS = {
    "search_path": ["elsewhere", "pg_catalog", "shop"],
    "datestyle": ["German, DMY", "SQL, MDY"],
    "intervalstyle": ["sql_standard", "iso_8601"],
    "timezone": ["Asia/Kathmandu", "America/St_Johns"],
    "client_encoding": ["LATIN1", "WIN1252"],
    "bytea_output": ["escape"],
    "extra_float_digits": ["-3", "-1"],
    "quote_all_identifiers": ["on"],
    "standard_conforming_strings": ["off"],
    "default_transaction_read_only": ["on"],
    "default_toast_compression": ["lz4"],
    "row_security": ["off"],
    "check_function_bodies": ["off"],
    "session_replication_role": ["replica"],
    "client_min_messages": ["error"],
    "lock_timeout": ["30s"],
    "app.tenant": ["one", "another"],
    "role": ["tools_clerk"],
}


def plain(value):
    """A value that a setting has. What was reset is empty, where it was never set it is not there; a path has quotes
    when quote_all_identifiers was on."""
    return (value or "").replace('"', "")


class Other(threading.Thread):
    """A client that goes on with its transactions until it is told to stop, and always finds what it has set."""

    def __init__(self, proxy, database, number):
        super().__init__(daemon=True)
        self.proxy, self.database, self.dice = proxy, database, random.Random(number)
        self.is_over = False
        self.failure = None
        self.turns = 0

    def run(self):
        try:
            with self.proxy.client(CHIEF, self.database) as client:
                asked = "select " + ", ".join(f"current_setting('{name}', true)" for name in SETTINGS)
                defaults = dict(zip(SETTINGS, client.query(asked)[0]))
                known = dict(defaults)
                while not self.is_over:
                    self.change(client, known, defaults)
                    found = dict(zip(SETTINGS, client.query(asked)[0]))
                    wrong = [n for n in SETTINGS if plain(found[n]) != plain(known[n])]
                    assert not wrong, [f"{name} is {found[name]}, not {known[name]}" for name in wrong]
                    self.turns += 1
        except BaseException as failure:  # pylint: disable=broad-except
            self.failure = failure

    def change(self, client, known, defaults):
        """Sets some and resets some, in one of the ways that there are."""
        names = self.dice.sample(list(SETTINGS), 4)
        if "role" in names or known["role"] != "none":
            # Not for the role, which may come first.
            names = [name for name in names if name != "session_replication_role"]
        chosen = {name: self.dice.choice([None, *SETTINGS[name]]) for name in names}
        texts = [self.set_text(name, value) for name, value in chosen.items()]
        kind = self.dice.choice(("each", "together", "block", "local", "rolled back", "all"))
        if kind == "each":
            for text in texts:
                client.query(text)
        elif kind == "together":
            client.query("; ".join(texts))
        elif kind == "all":
            client.query("discard all")
            known.update(defaults)
        else:
            client.query("begin")
            if kind == "local":
                texts = [f"set local {text.removeprefix('set ')}" for text in texts if text.startswith("set ")]
            client.query("; ".join(texts))
            client.query("select pg_sleep(0.002)")
            client.query("rollback" if kind == "rolled back" else "commit")
        if kind in ("each", "together", "block"):
            known.update({name: defaults[name] if value is None else value for name, value in chosen.items()})

    @staticmethod
    def set_text(name, value):
        if value is None:
            return f"reset {name}"
        return f"set {name} = {value if name in ('search_path', 'role') else repr(value)}"


@contextlib.contextmanager
def others(proxy, *databases):
    """While the block runs, clients of these databases are busy: each has been before, and is once more behind it."""
    running = [Other(proxy, database, number) for number, database in enumerate(databases)]

    def wait_turn():
        before = [other.turns for other in running]
        for other, turns in zip(running, before):
            runner.eventually(lambda o=other, t=turns: o.turns > t + 1 or o.failure, 60, "another client's turn")

    for other in running:
        other.start()
    try:
        wait_turn()
        yield
        wait_turn()
    finally:
        for other in running:
            other.is_over = True
        for other in running:
            other.join(60)
            if other.failure:
                raise other.failure


def without_what_differs(text, peer):
    """Without what depends on the moment and the connection."""
    text = re.sub(rf"\b(port \"|:){peer.address[1]}\b", r"\1(port)", text)
    # A key by chance for each dump; see the documentation of pg_dump.
    text = re.sub(r"^\\(un)?restrict \w+$", r"\\\1restrict", text, flags=re.MULTILINE)
    text = re.sub(r"^; Archive created at .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(lo_(?:import|unlink)) \d+$", r"\1 (oid)", text, flags=re.MULTILINE)
    return re.sub(r"^\w{3} \w{3} .* (\(every [\d.]+s\))$", r"(time) \1", text, flags=re.MULTILINE)


def expect_same(one, two, what):
    """Fails with the first lines that differ."""
    one, two = one.splitlines(), two.splitlines()
    for number, (left, right) in enumerate(zip(one, two)):
        assert left == right, f"{what}, line {number + 1}: {right!r} instead of {left!r}"
    assert len(one) == len(two), f"{what}: {len(two)} lines instead of {len(one)}; {(one + two)[-1]!r}"


def expect_both_say_the_same(proxy, place, tool, *arguments, **more):
    """Runs the tool on the server, then through the proxy. What it said, each time."""
    said = []
    for peer in (runner.cluster(), proxy):
        found = run(peer, place, tool, *arguments, **more)
        said.append([without_what_differs(text, peer) for text in found])
    for which, direct, proxied in zip(("output", "error output"), *said):
        expect_same(direct, proxied, f"{which} of {tool}")
    return said[0]


# pg_dump, pg_restore.


def dump(peer, place, database, *options):
    """A dump as the text of a script, and of its contents where it is an archive."""
    path = f"{place}/dump-{peer.address[1]}-{database}-{hashlib.md5(repr(options).encode()).hexdigest()}"
    _, errors = run(peer, place, "pg_dump", "-f", path, *options, database)
    assert not errors, errors
    if {"-Fp", "-Fc", "-Ft", "-Fd"}.isdisjoint(options) or "-Fp" in options:
        with open(path, encoding="latin-1" if "--encoding=LATIN1" in options else "utf-8") as file:
            text = file.read()
    else:
        text = run(peer, place, "pg_restore", "-f", "-", path)[0] + run(peer, place, "pg_restore", "-l", path)[0]
    return without_what_differs(text, peer)


def check_whole(text):
    """A dump that two ways agree about is one of something."""
    for word in ("CREATE TABLE shop.customers", "CREATE POLICY own", "lo_create", "large@example.org", "dump complete"):
        assert word in text, word


DUMPS = {
    "plain": (2, ["-Fp"]),
    "custom": (2, ["-Fc"]),
    "tar": (2, ["-Ft"]),
    "directory": (5, ["-Fd", "-j", "2"]),
    "inserts": (2, ["--column-inserts", "--rows-per-insert=7", "--serializable-deferrable"]),
    "clean": (2, ["--clean", "--if-exists", "--create", "--quote-all-identifiers", "--encoding=LATIN1"]),
    "parts": (2, ["--schema-only", "--section=pre-data", "-n", "shop", "-T", "shop.o*", "--no-owner"]),
}


@runner.cases(*DUMPS)
@runner.timeout(240)
def test_pg_dump(form):
    """A dump through the proxy is that of a connection of one's own."""
    source()
    connections, options = DUMPS[form]
    if form == "clean":
        # What LATIN1 does not have.
        options = [*options, "--exclude-table-data=shop.customers"]
    proxy = pool(connections)
    with directory() as place:
        direct = dump(runner.cluster(), place, SOURCE, *options)
        with others(proxy, SOURCE, SOURCE):
            proxied = dump(proxy, place, SOURCE, *options)
    expect_same(direct, proxied, "the dump")
    if form in ("plain", "directory"):
        check_whole(direct)


@runner.timeout(240)
def test_dumps_at_once():
    """Three dumps at a time on two connections: their statements and transactions have the same names."""
    source()
    proxy = pool()
    with directory() as place:
        forms = [["-Fp"], ["-Fc"], ["--inserts"]]
        direct = [dump(runner.cluster(), place, SOURCE, *form) for form in forms]
        with others(proxy, SOURCE):
            proxied = runner.in_threads([lambda f=form: dump(proxy, place, SOURCE, *f) for form in forms], 200)
    for form, one, two in zip(forms, direct, proxied):
        expect_same(one, two, f"the dump {form}")


@runner.timeout(240)
def test_pg_dumpall():
    """All databases, and the roles with their passwords."""
    source()
    proxy = pool()
    with directory() as place, others(proxy, "postgres", SOURCE):
        text, _ = expect_both_say_the_same(proxy, place, "pg_dumpall")
        assert "CREATE ROLE tools_clerk" in text and "PASSWORD 'SCRAM-SHA-256$" in text
        check_whole(text)
        expect_both_say_the_same(proxy, place, "pg_dumpall", "--globals-only")


# How a dump comes into a second database: pg_dump's format, the command.
RESTORES = {
    "psql": ("-Fp", f"psql -X -q -v ON_ERROR_STOP=1 -d {TARGET} -f dumped"),
    "pg_restore": ("-Fc", f"pg_restore -e -d {TARGET} dumped"),
    "pg_restore -1": ("-Ft", f"pg_restore -1 -d {TARGET} dumped"),
    "pg_restore -j 2": ("-Fd", f"pg_restore -e -j 2 -d {TARGET} dumped"),
    "pg_restore -j 4": ("-Fc", f"pg_restore -e -j 4 -d {TARGET} dumped"),
}


@runner.cases(*RESTORES)
@runner.timeout(240)
def test_restore(way):
    """What is restored through the proxy is what was dumped."""
    source()
    make_database(TARGET)
    form, command = RESTORES[way]
    proxy, cluster = pool(), runner.cluster()
    with directory() as place:
        with others(proxy, SOURCE):
            run(proxy, place, "pg_dump", form, "-f", "dumped", SOURCE)
        with others(proxy, TARGET, TARGET):
            _, errors = run(proxy, place, *command.split())
            assert not errors, errors
        text = dump(cluster, place, SOURCE)
        check_whole(text)
        expect_same(text, dump(cluster, place, TARGET), "the dump of what was restored")


@runner.cases(1, 2)
@runner.timeout(240)
def test_restore_over_what_is_there(jobs):
    """pg_restore --clean says the same and leaves the same as on the server. (It goes on after errors: it does not know
    how to drop the constraints of partitions.)"""
    source()
    proxy, cluster = pool(), runner.cluster()
    said, left = [], []
    with directory() as place:
        run(cluster, place, "pg_dump", "-Fc", "-f", "dumped", SOURCE)
        for peer in (cluster, proxy):
            make_database(TARGET)
            run(cluster, place, "pg_restore", "-e", "-d", TARGET, "dumped")
            with others(proxy, TARGET, TARGET):
                words = ["--clean", "--if-exists", "-j", jobs, "-d", TARGET, "dumped"]
                said.append(run_to_end(peer, place, "pg_restore", *words))
            left.append(dump(cluster, place, TARGET))
    assert said[0] == said[1], said
    check_whole(left[0])
    expect_same(*left, "the dump of what was restored")


# psql.


@runner.cases("describe", "commands")
@runner.timeout(240)
def test_psql(script):
    """It shows and does the same."""
    source()
    proxy = pool()
    with directory() as place, others(proxy, SOURCE, SOURCE):
        text, errors = expect_both_say_the_same(proxy, place, "psql", "-X", "-f", SCRIPTS / f"{script}.sql")
    if script == "describe":
        assert 'Table "shop.customers"' in text and "Publication everything" in text
    else:
        assert errors.count("ERROR:") > 10 and "unterminated" not in errors, errors
        assert text.count("You are now connected to database") == 3 and text.endswith("(1 row)\n\n"), text[-500:]


def test_psql_asks_for_a_password():
    """What \\password makes of it is a verifier of that password."""
    source()
    proxy, cluster = pool(), runner.cluster()
    with directory() as place, others(proxy, "postgres"):
        run(proxy, place, "psql", "-X", "-d", "postgres", "-c", r"\password tools_clerk", given="dröge\ndröge\n")
    made = cluster.value("select rolpassword from pg_authid where rolname = 'tools_clerk'", "postgres")
    cluster.run("alter role tools_clerk password null", "postgres")
    found = re.match(r"SCRAM-SHA-256\$(\d+):([^$]+)\$", made)
    assert found, made
    salt = wire.base64.b64decode(found[2])
    assert made == wire.scram_verifier("dröge", salt, int(found[1])), made


def test_psql_is_interrupted():
    """Ctrl-C cancels what runs, on the server too."""
    source()
    proxy = pool()
    with directory() as place, others(proxy, SOURCE):
        with start(proxy, place, "psql", "-X", "-c", "select pg_sleep(100) /* interrupted */") as process:
            try:
                runner.wait_running("pg_sleep(100) /* interrupted")
                process.send_signal(signal.SIGINT)
                text, errors = process.communicate(timeout=60)
            except BaseException:
                process.kill()
                raise
        assert (process.returncode, text) == (1, ""), (process.returncode, text)
    assert "canceling statement due to user request" in errors, errors
    assert not runner.cluster().backends("query like '%interrupted%' and state = 'active'")


# The others.


def relations(database=SOURCE):
    """Each table and index with the number of its file."""
    sql = "select oid::regclass, pg_relation_filenode(oid) from pg_class where relkind in ('r', 'i', 'm')"
    return dict(runner.cluster().run(sql + " and relnamespace = 'shop'::regnamespace", database))


def changed(before, after):
    """Names of tables and indexes that have another file now."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def vacuums():
    sql = "select relname, vacuum_count, analyze_count from pg_stat_user_tables where schemaname = 'shop'"
    return {name: (int(vacuum), int(analyze)) for name, vacuum, analyze in runner.cluster().run(sql, SOURCE)}


@runner.cases(1, 3)
@runner.timeout(180)
def test_vacuumdb(jobs):
    """Every table is vacuumed and analyzed, with as many jobs as one likes."""
    source()
    proxy = pool()
    with directory() as place, others(proxy, SOURCE):
        before = vacuums()
        run(proxy, place, "vacuumdb", "-z", "-j", jobs, SOURCE)
        tables = [name for name in before if not name.startswith(("amounts", "no_data", "customers_"))]

        def is_done():
            after = vacuums()
            # Tables that have partitions are not vacuumed themselves.
            return all(after[t][1] > before[t][1] for t in tables if t not in ("orders", "by_mood", "orders_2024"))

        assert len(tables) > 10
        runner.eventually(is_done, what="the statistics of all tables")
        run(proxy, place, "vacuumdb", "--analyze-in-stages", "-j", jobs, SOURCE)
        run(proxy, place, "vacuumdb", "--all", "--freeze", "-j", jobs)
        full = relations()
        run(proxy, place, "vacuumdb", "--full", "-t", "shop.customers", SOURCE)
        assert {"shop.customers", "shop.customers_key"} <= changed(full, relations())


@runner.timeout(180)
def test_reindexdb_and_clusterdb():
    """Indexes are built anew, with others at work; a table is put in order."""
    source()
    proxy = pool()
    with directory() as place, others(proxy, SOURCE, SOURCE):
        before = relations()
        run(proxy, place, "reindexdb", "--concurrently", "-j", 2, "-S", "shop", SOURCE)
        found = changed(before, relations())
        assert {"shop.customers_key", "shop.by_tags", "shop.orders_2023_pkey"} <= found, found
        assert "shop.customers" not in found
        run(proxy, place, "reindexdb", "--index", "shop.by_tags", SOURCE)
        before = relations()
        run(proxy, place, "clusterdb", SOURCE)
        assert "shop.customers" in changed(before, relations())
        invalid = runner.cluster().run("select indexrelid::regclass from pg_index where not indisvalid", SOURCE)
        assert invalid == [], invalid
        if os.path.exists(f"{runner.cluster().binaries}/pg_amcheck"):
            run(proxy, place, "pg_amcheck", "--install-missing=public", "-j", 2, "--heapallindexed", SOURCE)
            runner.cluster().run("drop extension amcheck", SOURCE)


@runner.timeout(120)
def test_databases_and_users_come_and_go():
    """createdb, dropdb, createuser and dropuser; a database of the same name that is another one is seen as that."""
    source()
    proxy, cluster = pool(), runner.cluster()
    with directory() as place, others(proxy, "postgres"):
        words = ["-T", "template0", "-E", "UTF8", "-l", "C", "--maintenance-db=postgres"]
        for turn in range(2):
            run(proxy, place, "createdb", *words, "tools_made", f"It's number {turn}")
            asked = ["-c", "create table t (x int)", "-c", r"\dt"]
            said, _ = run(proxy, place, "psql", "-X", "-A", "-t", "-d", "tools_made", *asked)
            assert said == "CREATE TABLE\npublic|t|table|tools_chief\n", said
            if turn == 0:
                # The pool keeps its connections to it.
                _, errors = run(proxy, place, "dropdb", "--maintenance-db=postgres", "tools_made", expected=1)
                assert "is being accessed by other users" in errors, errors
            run(proxy, place, "dropdb", "--maintenance-db=postgres", "--force", "tools_made")
        _, errors = run(proxy, place, "psql", "-X", "-d", "tools_made", "-c", "select 1", expected=2)
        assert 'database "tools_made" does not exist' in errors, errors
        run(proxy, place, "createuser", "--createdb", "--role=tools_clerk", "a user")
        made = "select rolcreatedb, pg_has_role(oid, 'tools_clerk', 'member') from pg_roles where rolname = 'a user'"
        assert cluster.run(made, "postgres") == [["t", "t"]]
        run(proxy, place, "dropuser", "a user")
        assert cluster.run(made, "postgres") == []


@runner.timeout(120)
def test_vacuumlo_and_oid2name():
    """Tools that work with a temporary table and a cursor WITH HOLD."""
    source()
    proxy, cluster = pool(), runner.cluster()
    known = cluster.run("select oid from pg_largeobject_metadata order by oid", SOURCE)
    for _ in range(20):
        cluster.run("select lo_from_bytea(0, 'nobody''s')", SOURCE)
    with directory() as place, others(proxy, SOURCE):
        said, _ = run(proxy, place, "vacuumlo", "-v", "-l", 7, SOURCE)
        assert "Successfully removed 20 large objects" in said.replace("  ", " "), said
        assert cluster.run("select oid from pg_largeobject_metadata order by oid", SOURCE) == known
        expect_both_say_the_same(proxy, place, "oid2name", "-d", SOURCE, "-t", "customers", "-x", "-i")


def test_pg_isready():
    """It takes the proxy for a server, and knows when there is none."""
    source()
    proxy = pool()
    with directory() as place:
        assert run(proxy, place, "pg_isready")[0].endswith("accepting connections\n")
        assert run(proxy, place, "pg_isready", "-d", "postgres", "-U", "nobody", "-q") == ("", "")
        assert "no response" in run(proxy, place, "pg_isready", "-p", free_port(), expected=2)[0]


@runner.timeout(180)
def test_pgbench_makes_its_tables():
    """pgbench -i, with COPY and without, and its transactions behind it."""
    source()
    proxy, cluster = pool(), runner.cluster()
    make_database(TARGET)
    with directory() as place, others(proxy, TARGET):
        for words in (["-I", "dtGvpf", "--partitions=3"], ["-I", "dtgvp"]):
            run(proxy, place, "pgbench", "-i", "-q", *words, TARGET)
            assert cluster.value("select count(*) from pgbench_accounts", TARGET) == "100000"
            said, _ = run(proxy, place, "pgbench", "-n", "-c", 3, "-t", 20, TARGET)
            assert "60/60" in said, said
            assert cluster.value("select count(*) from pgbench_history", TARGET) == "60"


# Migrations.

LOCK = "(4711, 42)"


class Migration:
    """What a program that changes schemas does on its connection; `ask` runs a statement and returns its rows."""

    def __init__(self, conn, how):
        self.conn = conn
        self.how = how

    def ask(self, sql, *values):
        if self.how == "simple":
            assert not values
            return self.conn.query(sql).rows
        return self.conn.execute(sql, values).rows

    def fail(self, sql, code):
        try:
            self.ask(sql)
        except libpq.Error as error:
            assert error.code == code, error
            return
        raise AssertionError(f"no error {code} from {sql}")

    def lock(self):
        self.ask("set client_min_messages = warning")
        self.ask("set lock_timeout = '20s'")
        self.ask("create schema if not exists app")
        self.ask("set search_path = app, public")
        assert self.ask(f"select pg_try_advisory_lock{LOCK}") == [["t"]]

    def unlock(self):
        assert self.ask(f"select pg_advisory_unlock{LOCK}") == [["t"]]

    def begin_history(self):
        self.ask("create table if not exists history (version int primary key, name text, at date default now())")

    @contextlib.contextmanager
    def step(self, version, name):
        """One migration in a transaction, with its entry in the history."""
        assert self.ask(f"select 1 from history where version = {version}") == []
        self.ask("begin")
        self.ask("set local statement_timeout = '30s'")
        yield
        self.ask(f"insert into history (version, name) values ({version}, '{name}')")
        self.ask("commit")

    def change(self):
        """The changes themselves; the history, of one name each, is written on the way."""
        with self.step(1, "people"):
            self.ask("create table people (id int generated always as identity primary key, name text, town text)")
            self.ask("insert into people (name, town) select 'n' || i, 't' || i % 10 from generate_series(1, 500) i")
            self.ask("create function greeting(text) returns text language sql as $$ select 'Hello; ' || $1 $$")
        with self.step(2, "savepoints"):
            self.ask("savepoint one")
            self.fail("create table people (x int)", "42P07")
            self.ask("rollback to savepoint one")
            self.ask("create table towns (id int generated always as identity primary key, name text unique)")
            self.ask("savepoint two")
            self.ask("create table never (x int)")
            self.ask("rollback to savepoint two")
            self.ask("release savepoint one")
            self.ask("insert into towns (name) select distinct town from people")
        with self.step(3, "a temporary table of a transaction"):
            moved = "select p.id, t.id as town from people p join towns t on t.name = p.town"
            self.ask(f"create temp table moved on commit drop as {moved}")
            self.ask("alter table people add town_id int references towns")
            self.ask("update people set town_id = moved.town from moved where moved.id = people.id")
            self.ask("set constraints all immediate")
            self.ask("alter table people alter town_id set not null, drop town")
        # These cannot be in a transaction block.
        self.ask("create index concurrently people_name on people (name)")
        self.fail("create unique index concurrently people_town on people (town_id)", "23505")
        self.ask("drop index concurrently people_town")
        self.ask("create index concurrently people_town on people (town_id)")
        self.ask("create type state as enum ('new')")
        self.ask("alter type state add value 'old'")
        self.fail("vacuum nothing", "42P01")
        # One of the session.
        self.ask("create temp table names (id int, name text)")
        self.ask("insert into names select id, upper(name) from people")
        with self.step(4, "a temporary table of the session"):
            self.ask("alter table people add state state default 'old'")
            self.ask("update people set name = greeting(names.name) from names where names.id = people.id")
        self.ask("drop table names")
        # One that fails is not there.
        self.ask("begin")
        self.ask("drop table people cascade")
        self.ask("set search_path = nowhere")
        self.fail("drop table people", "42P01")
        self.fail("select 1", "25P02")
        self.ask("rollback")
        assert self.ask("show search_path") == [["app, public"]]


def check_migrated(database):
    """The schema is what the steps make of it, and nothing more."""

    def ask(sql):
        return runner.cluster().run(sql, database)

    assert ask("select version, name from app.history order by 1") == [
        ["1", "people"],
        ["2", "savepoints"],
        ["3", "a temporary table of a transaction"],
        ["4", "a temporary table of the session"],
    ]
    tables = ask("select relname from pg_class where relnamespace = 'app'::regnamespace and relkind = 'r' order by 1")
    assert tables == [["history"], ["people"], ["towns"]], tables
    people = "(table_schema, table_name) = ('app', 'people')"
    columns = ask(f"select column_name from information_schema.columns where {people}")
    assert sorted(columns) == [["id"], ["name"], ["state"], ["town_id"]], columns
    indexes = ask("select indexrelid::regclass from pg_index where indrelid = 'app.people'::regclass and indisvalid")
    assert sorted(indexes) == [["app.people_name"], ["app.people_pkey"], ["app.people_town"]], indexes
    assert ask("select count(*), min(name), min(state::text) from app.people") == [["500", "Hello; N1", "old"]]
    assert ask("select count(*) from pg_class where relpersistence = 't'") == [["0"]]
    assert ask("select count(*) from pg_locks where locktype = 'advisory'") == [["0"]]


def check_clean(client):
    """A backend that this client has got holds nothing of others."""
    assert client.value("show search_path") == '"$user", public'
    assert client.value("show client_min_messages") == "notice"
    assert client.value("show lock_timeout") == "0"
    assert client.value("show statement_timeout") == "0"
    assert client.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"
    assert client.value("select count(*) from pg_prepared_statements where name not like 'helios%'") == "0"
    assert client.value("select count(*) from pg_class where pg_table_is_visible(oid) and relpersistence = 't'") == "0"


@runner.cases("simple", "extended")
@runner.timeout(120)
def test_migration_on_the_only_connection(how):
    """A lock of the session keeps the connection until it is released: from then on another client has it, clean."""
    source()
    make_database(TARGET)
    proxy = pool(1)
    with proxy.libpq(TARGET, CHIEF) as conn, proxy.client(CHIEF, TARGET) as other:
        migration = Migration(conn, how)
        pid = other.value("select pg_backend_pid()")
        migration.lock()
        other.send(query("select pg_backend_pid()"))
        migration.begin_history()
        migration.change()
        other.recv_quiet()
        migration.unlock()
        assert other.result() == [[pid]]
        check_clean(other)
        # The settings have stayed with who made them.
        assert migration.ask("show search_path") == [["app, public"]]
        assert migration.ask("select pg_backend_pid()") == [[pid]]
        check_clean(other)
    check_migrated(TARGET)


@runner.timeout(120)
def test_migration_like_rails():
    """One connection with prepared statements, on a pool that others use; a second program waits for the lock."""
    source()
    make_database(TARGET)
    proxy = pool()
    with others(proxy, TARGET, TARGET), proxy.libpq(TARGET, CHIEF) as conn:
        conn.query("set standard_conforming_strings = on")
        conn.query("set session timezone to 'UTC'")
        migration = Migration(conn, "simple")
        migration.lock()
        with proxy.libpq(TARGET, CHIEF) as late:
            assert late.value(f"select pg_try_advisory_lock{LOCK}") == "f"
        migration.begin_history()
        conn.prepare("a1", "select version from history where version = $1")
        assert conn.execute_prepared("a1", [1]).rows == []
        migration.change()
        assert conn.execute_prepared("a1", [4]).rows == [["4"]]
        conn.query("deallocate a1")
        migration.unlock()
        with proxy.libpq(TARGET, CHIEF) as late:
            assert late.value(f"select pg_try_advisory_lock{LOCK}") == "t"
            assert late.value(f"select pg_advisory_unlock{LOCK}") == "t"
    check_migrated(TARGET)
    check_given_back(proxy)


@runner.timeout(120)
def test_migration_like_flyway():
    """One connection holds the lock, another one changes the schema; others share what is left."""
    source()
    make_database(TARGET)
    proxy = pool(3)
    with others(proxy, TARGET, TARGET), proxy.libpq(TARGET, CHIEF) as main, proxy.libpq(TARGET, CHIEF) as conn:
        lock = Migration(main, "extended")
        lock.lock()
        lock.begin_history()
        migration = Migration(conn, "extended")
        migration.ask("select set_config('search_path', $1, false)", "app, public")
        migration.change()
        lock.unlock()
        assert lock.ask("select count(*) from history") == [["4"]]
    check_migrated(TARGET)
    check_given_back(proxy, 3)


@runner.timeout(120)
def test_migration_like_alembic():
    """Everything in one transaction but what cannot be; the lock is one of the session."""
    source()
    make_database(TARGET)
    proxy = pool()
    with others(proxy, TARGET, TARGET), proxy.libpq(TARGET, CHIEF) as conn:
        migration = Migration(conn, "simple")
        migration.ask("begin")
        migration.lock()
        migration.begin_history()
        migration.ask("commit")
        migration.change()
        migration.ask("begin")
        migration.unlock()
        migration.ask("commit")
    check_migrated(TARGET)
    check_given_back(proxy)


def check_given_back(proxy, connections=2):
    """So many clients have a connection each at the same time: nobody keeps one. They are clean."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.client(CHIEF, TARGET)) for _ in range(connections)]
        for client in clients:
            client.query("begin")
        assert len({client.value("select pg_backend_pid()") for client in clients}) == connections
        for client in clients:
            check_clean(client)


if __name__ == "__main__":
    runner.main()
