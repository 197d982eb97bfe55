#!/usr/bin/python3
"""Startup packets and logins: of clients at the proxy, and of the proxy at its nodes."""

import hashlib
import os
import re
import struct
import tempfile
import time

from harness import cluster as cluster_module
from harness import proxy as proxy_module
from harness import runner, wire
from harness.wire import PROTOCOL_3_0, PROTOCOL_3_2, query

VERIFIER = wire.scram_verifier("verified secret")


def two_kinds_of_users():
    return [
        {"name": "app", "password": "app-secret"},
        {"name": "alice", "password": VERIFIER, "node_user": "bench", "node_password": "x"},
        {"name": "bob", "password": wire.scram_verifier("many rounds", rounds=20000)},
        {"name": "bench", "auth": "trust"},
    ]


def check_cancel(proxy, conn):
    """What the client runs is cancelled with the key that it was told."""
    conn.send(query("select pg_sleep(30) /* to be cancelled */"))
    runner.wait_running("to be cancelled")
    proxy.cancel(conn.pid, conn.key)
    assert [f["C"] for f in wire.errors(conn.recv_until("Z"))] == ["57014"]


def login_error(proxy, user, database, password, **parameters):
    """(fields of the refusal, round trips until then, first bytes of each message's kind)."""
    with proxy.open() as conn:
        try:
            conn.login(user, database, password, **parameters)
        except wire.ServerError as error:
            assert conn.recv_to_end() == b"", "something behind the refusal"
            return error.fields, conn.round_trips
        raise AssertionError(f"{user} got into {database}")


@runner.cases(1, 2)
def test_scram_logins(cores):
    """Users with a plain password and with a verifier log in by SCRAM-SHA-256."""
    proxy = runner.proxy(cores=cores, user=two_kinds_of_users())
    for user, password in (("app", "app-secret"), ("alice", "verified secret")):
        with proxy.open() as conn:
            conn.login(user, "app", password)
            assert conn.round_trips == 2
            assert conn.value("select 1") == "1"
    with proxy.open() as conn:
        conn.login("bob", "app", "many rounds")
        assert conn.value("select current_user") == "bob"


def test_libpq_login_by_scram():
    """libpq logs in by SCRAM-SHA-256, and asks for no less."""
    proxy = runner.proxy()
    with proxy.libpq() as conn:
        assert conn.value("select current_user") == "app"


def test_many_scram_logins_at_once():
    """Sixty logins by SCRAM at the same time all succeed, and a running client is not held up."""
    proxy = runner.proxy(cores=1, user=two_kinds_of_users())
    with proxy.client("bench") as client:
        longest = [0.0]

        def busy():
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                began = time.monotonic()
                assert client.value("select 1") == "1"
                longest[0] = max(longest[0], time.monotonic() - began)

        def login(number):
            time.sleep(number * 0.01)
            with proxy.open() as conn:
                conn.login("app", "app", "app-secret")
                assert conn.value("select 2") == "2"

        runner.in_threads([busy] + [lambda n=n: login(n) for n in range(60)])
    print(f"        longest query beside the logins: {longest[0] * 1000:.0f} ms")


def test_trust():
    """A trusted user is asked nothing; a wildcard user comes in under any name."""
    user = [{"name": "*", "auth": "trust"}, {"name": "app", "password": "app-secret"}]
    with runner.fresh_proxy(user=user) as proxy:
        for name in ("alice", "bob", "bench"):
            with proxy.open() as conn:
                conn.login(name, "app")
                assert conn.round_trips == 0
                assert conn.value("select current_user") == name
        fields, _ = login_error(proxy, "app", "app", "wrong")
        assert fields["C"] == "28P01"
        with proxy.open() as conn:
            conn.login("app", "app", "app-secret")
            assert conn.value("select 1") == "1"


@runner.cases(1, 2)
def test_unknown_user_looks_like_a_wrong_password(cores):
    """Wrong password and unknown user give the same messages in the same number of round trips."""
    proxy = runner.proxy(cores=cores, user=two_kinds_of_users())
    seen = []
    for user in ("app", "alice", "nobody-at-all"):
        fields, trips = login_error(proxy, user, "app", "wrong")
        assert fields["C"] == "28P01" and fields["S"] == fields["V"] == "FATAL", fields
        seen.append((fields["M"].replace(user, "USER"), sorted(fields), trips))
    assert seen[0] == seen[1] == seen[2], seen
    assert "password authentication failed" in seen[0][0]


def challenge(proxy, user):
    """Salt and rounds that the proxy shows for a user."""
    with proxy.open() as conn:
        conn.start(user, "app")
        assert conn.recv().kind == "R"
        scram = wire.ScramClient("x")
        conn.send(wire.sasl_initial(scram.first()))
        scram.final(conn.recv().body[4:])
        return scram.salt, scram.rounds


def test_salt_of_an_unknown_user():
    """An unknown user's salt stays the same, differs from others', and looks like a real one."""
    proxy = runner.proxy(user=two_kinds_of_users())
    unknown = [challenge(proxy, "ghost") for _ in range(3)]
    assert unknown[0] == unknown[1] == unknown[2]
    other, known = challenge(proxy, "phantom"), challenge(proxy, "app")
    assert other[0] != unknown[0][0]
    assert challenge(proxy, "app") == known
    assert len(other[0]) == len(known[0]) and other[1] == known[1], (other, known)


def test_unknown_database():
    """An unknown database is told after the authentication only, with 3D000."""
    database = [{"name": "app", "node": "main"}]
    with runner.fresh_proxy(database=database) as proxy:
        fields, trips = login_error(proxy, "app", "nowhere", "app-secret")
        assert fields["C"] == "3D000" and fields["M"] == 'database "nowhere" does not exist', fields
        assert trips == 2
        fields, trips = login_error(proxy, "app", "nowhere", "wrong")
        assert fields["C"] == "28P01" and trips == 2, fields
        fields, _ = login_error(proxy, "bench", "nowhere", "")
        assert fields["C"] == "3D000", fields


def test_unknown_database_on_the_node():
    """A wildcard database that the node does not have is refused with the node's 3D000."""
    proxy = runner.proxy()
    with proxy.open() as conn:
        try:
            conn.login("bench", "missing-on-the-node")
            code = conn.recv_last_error()["C"] if conn.socket else ""
        except wire.ServerError as error:
            code = error.code
        assert code == "3D000", code
    with proxy.client() as client:
        assert client.value("select 1") == "1"


def test_database_renamed_on_the_node():
    """dbname names the database on the node; node_user and node_password log in there."""
    database = [
        {"name": "alias", "node": "main", "dbname": "other"},
        {
            "name": "forced",
            "node": "main",
            "dbname": "app",
            "node_user": "node_scram",
            "node_password": "scram secret",
        },
    ]
    with runner.fresh_proxy(database=database) as proxy:
        with proxy.client("bench", "alias") as client:
            assert client.value("select current_database()") == "other"
        with proxy.client("bench", "forced") as client:
            assert client.query("select current_user, current_database()") == [["node_scram", "app"]]


@runner.cases("", "node_password", "node_md5", "node_scram")
def test_node_logins(user):
    """The proxy logs in at its node by trust, cleartext password, md5 and SCRAM-SHA-256."""
    name = user or "alice"
    password = cluster_module.USERS[name][1]
    with runner.fresh_proxy(user=[{"name": name, "password": password}]) as proxy:
        with proxy.open() as conn:
            conn.login(name, "app", password)
            assert conn.value("select current_user") == name


@runner.cases("node_password", "node_md5", "node_scram")
def test_wrong_password_at_the_node(user):
    """A password that the node refuses fails the client with the node's code, and no one else."""
    users = [{"name": user, "password": "not the node's"}, {"name": "bench", "auth": "trust"}]
    with runner.fresh_proxy(user=users) as proxy:
        for _ in range(3):
            with proxy.open() as conn:
                try:
                    conn.login(user, "app", "not the node's")
                    conn.send(query("select 1"))
                    fields = conn.recv_last_error()
                except wire.ServerError as error:
                    fields = error.fields
                assert fields["C"].startswith("28"), fields
            with proxy.client() as client:
                assert client.value("select 1") == "1"


def test_md5_hash_at_an_md5_node():
    """A user known by md5 hash only gets in, and through to a node that asks for md5."""
    stored = runner.cluster().value("select rolpassword from pg_authid where rolname = 'node_md5'")
    with runner.fresh_proxy(user=[{"name": "node_md5", "password": stored}]) as proxy:
        with proxy.open() as conn:
            conn.login("node_md5", "app", "md5 secret")
            assert conn.value("select current_user") == "node_md5"
        fields, _ = login_error(proxy, "node_md5", "app", "wrong")
        assert fields["C"] == "28P01"


def test_verifier_alone_at_a_node_that_asks():
    """With a verifier only, a node that asks for a password cannot be served; the log says how."""
    users = [{"name": "node_scram", "password": wire.scram_verifier("scram secret")}]
    with runner.fresh_proxy(user=users) as proxy:
        with proxy.open() as conn:
            try:
                conn.login("node_scram", "app", "scram secret")
                conn.send(query("select 1"))
                conn.recv_last_error()
            except wire.ServerError:
                pass
        runner.eventually(
            lambda: "node_user" in proxy.log() and "node_password" in proxy.log(),
            what="a log line that names node_user and node_password",
        )


def test_unix_sockets():
    """Clients come in by a unix socket, and the proxy reaches its node by one."""
    cluster = runner.cluster()
    with tempfile.TemporaryDirectory(prefix="helios-") as directory:
        os.chmod(directory, 0o777)
        configuration = proxy_module.config(cluster, node={"host": cluster.sockets})
        configuration["proxy"]["listen"].append("unix:" + directory)
        for cores in (1, 2):
            configuration["proxy"]["cores"] = cores
            with runner.fresh_proxy(configuration) as proxy:
                for _ in range(6):
                    with wire.Conn(proxy.socket_path) as conn:
                        conn.login("app", "app", "app-secret")
                        assert conn.value("select inet_client_addr()") is None
                with proxy.client() as client:
                    assert client.value("select 1") == "1"


@runner.cases(("app", "transaction"), ("bench", "transaction"), ("app", "statement"))
def test_small_pool_gathers_its_clients(user, mode):
    """Whichever core and socket a client of a small pool comes in by, one core serves it, with all it has asked for."""
    with tempfile.TemporaryDirectory(prefix="helios-") as directory:
        os.chmod(directory, 0o777)
        configuration = proxy_module.config(runner.cluster(), mode=mode, cores=2, max_connections=2)
        configuration["proxy"]["listen"].append("unix:" + directory)
        with runner.fresh_proxy(configuration) as proxy:
            # Clients of another pool, of whom each core gets its part.
            others = [proxy.client("alice") for _ in range(3)]
            cores = set()
            for number in range(8):
                with wire.Conn(proxy.socket_path if number % 2 else proxy.address) as conn:
                    conn.login(user, "app", "app-secret", application_name=f"number {number}")
                    assert conn.parameters["application_name"] == f"number {number}", conn.parameters
                    assert conn.value("show application_name") == f"number {number}"
                    # The process id that a client is told names its core (but for that of a server, in session mode).
                    cores.add((conn.pid - (1 << 22)) // 2_000_000)
                    check_cancel(proxy, conn)
                    others.append(proxy.client("alice"))
            for client in others:
                client.close()
            assert len(cores) == 1, cores
            proxy.signal(15)
            code = proxy.wait()
            moved = sum(map(int, re.findall(r"(\d+) moved to another core", proxy.log())))
            assert moved > 0, proxy.log()
            proxy.finish(code)


# Startup packets.


@runner.cases(("bench", 1), ("app", 1), ("app", 2))
def test_startup_byte_by_byte(user, cores):
    """A startup packet, and all of a login, may arrive one byte at a time."""
    proxy = runner.proxy(cores=cores)
    packet = wire.startup({"user": user, "database": "app", "application_name": "slow"})
    with proxy.open() as conn:
        conn.send_in_pieces(wire.request(wire.SSL_REQUEST), 1, 0.002)
        assert conn.recv_bytes(1) == b"N"
        conn.send_in_pieces(packet, 1, 0.001)
        whole = conn.send
        conn.send = lambda *parts: conn.send_in_pieces(b"".join(parts), 1, 0.001)
        conn.finish_login(user, "app-secret")
        conn.send = whole
        assert conn.value("select 1") == "1"


def test_startup_larger_than_a_buffer():
    """A startup packet of nearly 10,000 bytes, the most that PostgreSQL takes, comes through buffers of 4 KiB."""
    with runner.fresh_proxy(proxy={"client_buffer_size": "4KiB"}) as proxy:
        value = "v" * 9_800
        with proxy.client(**{"app.long": value}) as client:
            assert client.value("select md5(current_setting('app.long'))") == hashlib.md5(value.encode()).hexdigest()
        with proxy.client(application_name="n" * 5_000) as client:
            assert client.value("show application_name") == "n" * 63
        check_refused(proxy, wire.startup({"user": "bench", "database": "app", "app.long": "v" * 10_000}))


def test_encryption_requests():
    """SSLRequest and GSSENCRequest are answered N, in any order, and the startup may follow."""
    proxy = runner.proxy()
    ssl, gss = wire.request(wire.SSL_REQUEST), wire.request(wire.GSSENC_REQUEST)
    for requests in ((ssl,), (gss,), (ssl, gss), (gss, ssl)):
        with proxy.open() as conn:
            for data in requests:
                conn.send(data)
                assert conn.recv_bytes(1) == b"N"
            conn.login("bench", "app")
            assert conn.value("select 1") == "1"


def check_refused(proxy, data, codes=("08P01", "0A000", "28000", ""), old=False):
    """The bytes end the connection: without an answer, or with one FATAL of these codes.

    `old`: an error as protocol 2 knew it will do, too.
    """
    with proxy.open() as conn:
        conn.send(data)
        found, rest = wire.split(conn.recv_to_end().removeprefix(b"N"))
        if old and rest.startswith(b"E") and rest.endswith(b"\0"):
            return
        assert not rest and len(found) <= 1, (found, rest)
        for got in found:
            assert got.kind == "E" and got.fields["S"] == "FATAL", got
            assert got.fields["C"] in codes, got.fields


def test_bytes_before_the_answer():
    """Bytes sent behind an encryption request before its answer end the connection."""
    proxy = runner.proxy()
    startup = wire.startup({"user": "bench", "database": "app"})
    for code in (wire.SSL_REQUEST, wire.GSSENC_REQUEST):
        check_refused(proxy, wire.request(code) + startup)
        check_refused(proxy, wire.request(code) + b"\x16\x03\x01")
    with proxy.client() as client:
        assert client.value("select 1") == "1"


def test_malformed_startup_packets():
    """Startup packets that are too long, too short or badly formed end their connection only."""
    proxy = runner.proxy()
    good = wire.startup({"user": "bench", "database": "app"})
    head = struct.pack("!I", PROTOCOL_3_0)

    def packet(body):
        return struct.pack("!I", len(body) + 4) + body

    bad = {
        "length 0": struct.pack("!II", 0, PROTOCOL_3_0),
        "length 7": struct.pack("!II", 7, PROTOCOL_3_0),
        "length 4 GB": struct.pack("!II", 0xFFFFFFFF, PROTOCOL_3_0),
        "length 1 MB": struct.pack("!II", 1 << 20, PROTOCOL_3_0),
        "no body": packet(head),
        "no user": packet(head + b"database\0app\0\0"),
        "empty user": packet(head + b"user\0\0\0"),
        "no last zero": packet(head + b"user\0bench\0"),
        "half a pair": packet(head + b"user\0bench\0database\0\0"),
        "no zero at all": packet(head + b"user"),
        "bytes behind the end": packet(head + b"user\0bench\0\0junk"),
        "protocol 1": packet(struct.pack("!I", 1 << 16) + b"user\0bench\0\0"),
        "protocol 2": packet(struct.pack("!I", 2 << 16) + b"x" * 292),
        "protocol 4": packet(struct.pack("!I", 4 << 16) + b"user\0bench\0\0"),
        "unknown request": packet(struct.pack("!I", (1234 << 16) | 9999)),
        "long request": wire.request(wire.SSL_REQUEST, b"more"),
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 32,
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    for name, data in bad.items():
        try:
            check_refused(proxy, data, old=name in ("protocol 1", "protocol 2"))
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"{name}: {error}") from error
    with proxy.open() as conn:
        conn.send(good)
        conn.finish_login("bench")
        assert conn.value("select 1") == "1"


def test_half_a_startup_then_gone():
    """Clients that go in the middle of startup or login leave nothing behind."""
    proxy = runner.proxy(user=two_kinds_of_users())
    with proxy.client("bench") as client:
        client.value("select 1")
        before = proxy.fds()
        packet = wire.startup({"user": "app", "database": "app"})
        for size in range(0, len(packet) + 1, 3):
            conn = proxy.open()
            conn.send(packet[:size])
            if size % 2:
                conn.reset()
            conn.close()
        for stage in range(2):
            conn = proxy.open()
            conn.send(packet)
            conn.recv()
            if stage:
                conn.send(wire.sasl_initial(wire.ScramClient("x").first()))
                conn.recv()
            conn.close()
        runner.eventually(lambda: proxy.fds() <= before + 2, what="all descriptors closed")
        assert client.value("select 1") == "1"


def test_startup_in_the_middle_of_a_login():
    """A second startup packet in the middle of a login, or after it, ends the connection."""
    proxy = runner.proxy(user=two_kinds_of_users())
    packet = wire.startup({"user": "bench", "database": "app"})
    for stage in range(3):
        with proxy.open() as conn:
            conn.send(wire.startup({"user": "app", "database": "app"}))
            conn.recv()
            if stage >= 1:
                scram = wire.ScramClient("app-secret")
                conn.send(wire.sasl_initial(scram.first()))
                got = conn.recv()
                if stage == 2:
                    conn.send(wire.message("p", scram.final(got.body[4:])))
                    conn.recv_until("Z")
            conn.send(packet)
            found, _ = wire.split(conn.recv_to_end())
            assert all(m.kind == "E" for m in found), found
            assert not found or found[-1].fields["C"] == "08P01", found
    with proxy.client("bench") as client:
        assert client.value("select 1") == "1"


def test_queries_before_the_login_is_done():
    """A query sent in place of a password is refused, and never run."""
    proxy = runner.proxy(user=two_kinds_of_users())
    for data in (query("select 1"), wire.SYNC, wire.message("p", b"x" * 20000), wire.message("p")):
        with proxy.open() as conn:
            conn.send(wire.startup({"user": "app", "database": "app"}))
            assert conn.recv().kind == "R"
            conn.send(data)
            found, _ = wire.split(conn.recv_to_end())
            assert [m.kind for m in found] in ([], ["E"]), found


def test_malformed_scram_messages():
    """SCRAM messages that are no SCRAM end the login with 28P01 or 08P01."""
    proxy = runner.proxy(user=two_kinds_of_users())
    first = [
        wire.sasl_initial(b""),
        wire.sasl_initial(b"n,,n=,r="),
        wire.sasl_initial(b"y,,n=,r=abc", "SCRAM-SHA-256-PLUS"),
        wire.sasl_initial(b"p=tls-unique,,n=,r=abc"),
        wire.sasl_initial(b"n,a=other,n=,r=abc"),
        wire.sasl_initial(b"n,,m=x,n=,r=abc"),
        wire.sasl_initial(b"\xff\xfe" * 50),
        wire.sasl_initial(b"n,,n=,r=abc", "PLAIN"),
        wire.message("p", b"SCRAM-SHA-256\0" + struct.pack("!I", 0xFFFFFFF0) + b"n,,n=,r=abc"),
        wire.message("p", b"SCRAM-SHA-256\0" + struct.pack("!I", 2) + b"n,,n=,r=abc"),
    ]
    for data in first:
        with proxy.open() as conn:
            conn.send(wire.startup({"user": "app", "database": "app"}))
            conn.recv()
            conn.send(data)
            fields = conn.recv_last_error()
            assert fields["C"] in ("28P01", "28000", "08P01", "0A000"), (data, fields)
    for final in (b"", b"c=biws,r=wrong,p=AAAA", b"c=biws", b"x" * 900, b"c=eSws,r=%s,p=QUFBQQ=="):
        with proxy.open() as conn:
            conn.send(wire.startup({"user": "app", "database": "app"}))
            conn.recv()
            conn.send(wire.sasl_initial(wire.ScramClient("x").first()))
            nonce = conn.recv().body[4:].split(b",")[0][2:]
            conn.send(wire.message("p", final.replace(b"%s", nonce)))
            fields = conn.recv_last_error()
            assert fields["C"] in ("28P01", "08P01"), (final, fields)


def test_options_name_no_other_user():
    """What options set are settings: they name no user, no database and no kind of connection."""
    proxy = runner.proxy()
    for name in ("user", "database", "replication", "options", "User"):
        for form in ("-c {}=postgres", "--{}=postgres"):
            fields, _ = login_error(proxy, "bench", "app", "", options=form.format(name))
            assert fields["C"] == "42704" and name in fields["M"], fields


# What the server refuses of a start, by `options` and in the packet; where the server is asked, and where the pooler
# knows as well as it.
REFUSED_STARTS = [
    *({"options": options} for options in (
        "-c work_mem=abc",
        "-cwork_mem=9999999999999",
        "--work-mem=abc",
        "-c no_such_parameter=1",
        "-c role=nobody_at_all",
        "-c session_authorization=nobody_at_all",
        "-c enable_seqscan=perhaps",
        "-c statement_timeout=-5",
        "-c statement_timeout=5parsecs",
        "-c default_transaction_isolation=none",
        "-c default_tablespace=nowhere",
        "-c search_path=\\\"",
        "-c log_statement=all",
        "-c shared_buffers=1GB",
        "-c is_superuser=on",
        "-c transaction_isolation=serializable",
        "-c local_preload_libraries=no_such_library",
        "-c a..b=1",
        "-c TimeZone=No/Where",
        "-c TimeZone=N\u00f6/Where",
        "-c DateStyle=xyz",
        "-c DateStyle=ISO,DMY,MDY",
        "-c IntervalStyle=xyz",
        "-c intervalstyle=xyz",
        "-c client_encoding=nonsense",
        "-c client_encoding=MULE_INTERNAL",
        "-c Standard_Conforming_Strings=perhaps",
        "-c a.b!c=1",
        "-c a!b=1",
        "-c user=bob",
        "-c =1",
        "-c x",
        "--x",
        "-c",
        "-x",
        "-",
        "x",
        "-- x",
    )),
    {"work_mem": "abc"},
    {"work_mem": "v" * 9_000},
    {"no_such_parameter": "1"},
    {"role": "nobody_at_all"},
    {"a.b c": "1"},
    {"replication": "perhaps"},
]


def refusal(address, start):
    """What a client that starts so is told, less where in its source the server says it."""
    with wire.Conn(address) as conn:
        try:
            conn.login("bench", "app", **start)
        except wire.ServerError as error:
            assert conn.recv_to_end() == b"", "something behind the refusal"
            return {code: text for code, text in error.fields.items() if code not in "FLR"}
    raise AssertionError(f"{start} was taken")


@runner.cases(1, 2)
def test_malformed_options_wait_for_nobody(cores):
    """Malformed options are refused as by the server itself also where no connection to it is to be had."""
    pool = {"acquire_timeout": "1s"}
    with runner.fresh_proxy(cores=cores, node={"max_connections": 1}, pool=pool) as proxy, proxy.client() as holder:
        holder.query("begin")
        for options in ("-c =x", "-c ", "-c", "-c x", "--=x", "-", "-c a!b=1"):
            start = {"options": options}
            told = refusal(proxy.address, start)
            assert told == refusal(runner.cluster().address, start), (options, told)
        # The others wait for the server's word.
        last = refusal(proxy.address, {"options": "-c work_mem=abc"})
        assert "query_wait_timeout" in last["M"], last
        holder.query("commit")


@runner.cases(1, 2)
def test_refused_starts(cores):
    """Who starts with what the server refuses is told so as by the server itself, and nobody else is told anything."""
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        other_set = {"options": "-c work_mem=6MB"}
        with proxy.client(**other_set) as holder, proxy.client(**other_set) as waiter:
            holder.query("begin")
            waiter.send(query("select 'served'"))
            for start in REFUSED_STARTS:
                told, expected = refusal(proxy.address, start), refusal(runner.cluster().address, start)
                assert told == expected and told["S"] == told["V"] == "FATAL", (start, told, expected)
            # Several at once, of one kind and of others.
            several = [{"options": "-c work_mem=abc"}] * 3 + [{"options": "-c role=nobody_at_all"}, {"TimeZone": "x y"}]
            expected = [refusal(runner.cluster().address, start) for start in several]
            told = runner.in_threads([lambda s=start: refusal(proxy.address, s) for start in several])
            assert told == expected, (told, expected)
            with proxy.client(options="-c work_mem=5MB") as other:
                assert other.value("show work_mem") == "5MB"
            waiter.recv_quiet()
            holder.query("commit")
            assert waiter.result() == [["served"]]
        assert "is down" not in proxy.log(), proxy.log()


def test_refused_starts_in_session_mode():
    """The same where clients keep a server connection from their login on; who is refused keeps none."""
    with runner.fresh_proxy(max_connections=1, mode="session") as proxy:
        for start in REFUSED_STARTS:
            told, expected = refusal(proxy.address, start), refusal(runner.cluster().address, start)
            assert told == expected, (start, told, expected)
            with proxy.client() as client:
                assert client.value("select 1") == "1"
        assert "is down" not in proxy.log(), proxy.log()


def test_a_start_that_is_refused_at_one_time():
    """What the server refuses at one time and takes at another is refused and taken then."""
    cluster = runner.cluster()
    start = {"options": "-c role=passing"}
    with runner.fresh_proxy(max_connections=2) as proxy:
        expected = refusal(cluster.address, start)
        assert refusal(proxy.address, start) == expected
        cluster.run("create role passing; grant passing to bench")
        try:
            with proxy.client(**start) as client:
                assert client.value("select current_user") == "passing"
        finally:
            cluster.run("drop role passing")
        # The pool knows how its server welcomes; only the next server connection is refused.
        runner.eventually(lambda: cluster.kill_idle() or not cluster.backends("usename = 'bench'"), what="their end")
        with proxy.client(**start) as client:
            client.send(query("select 1"))
            fields = client.recv_last_error()
            assert {code: fields[code] for code in expected} == expected, (fields, expected)


def test_protocol_versions():
    """3.0 is taken as it is, 3.2 and what is newer are negotiated, unknown options are named."""
    proxy = runner.proxy()
    with proxy.open() as conn:
        conn.login("bench", "app", version=PROTOCOL_3_0)
        assert conn.negotiated is None
        assert conn.value("select 1") == "1"
    for user in ("bench", "app"):
        with proxy.open() as conn:
            conn.login(user, "app", "app-secret", version=PROTOCOL_3_2)
            assert conn.negotiated is None or conn.negotiated[0] in (0, 2), conn.negotiated
            assert 4 <= len(conn.key) <= 256
            assert conn.value("select 1") == "1"
    for version in ((3 << 16) | 99, (3 << 16) | 9999):
        with proxy.open() as conn:
            conn.login("bench", "app", version=version)
            assert conn.negotiated is not None and conn.negotiated[0] in (0, 2), conn.negotiated
            assert conn.value("select 1") == "1"
    with proxy.open() as conn:
        conn.login("bench", "app", **{"_pq_.invented": "x", "_pq_.second": "y"})
        assert conn.negotiated is not None
        assert sorted(conn.negotiated[1]) == ["_pq_.invented", "_pq_.second"], conn.negotiated
        assert conn.value("select 1") == "1"


def test_cancel_with_a_key_of_protocol_3_2():
    """Whatever key a client of protocol 3.2 gets, it cancels with it."""
    proxy = runner.proxy(max_connections=1)
    with proxy.open() as conn:
        conn.login("bench", "app", version=PROTOCOL_3_2)
        check_cancel(proxy, conn)


def test_database_defaults_to_the_user():
    """Without a database the user's name is the database."""
    proxy = runner.proxy()
    with proxy.open() as conn:
        conn.send(wire.startup({"user": "bench"}))
        conn.finish_login("bench")
        assert conn.value("select current_database()") == "bench"


@runner.cases(1, 2)
def test_max_clients(cores):
    """Clients beyond max_clients are refused with 53300; places come back."""
    with runner.fresh_proxy(cores=cores, proxy={"max_clients": 5}) as proxy:
        for _ in range(2):
            runner.eventually(lambda: can_login(proxy), what="a free place")
            clients = []
            deadline = time.monotonic() + 10
            while len(clients) < 5 and time.monotonic() < deadline:
                try:
                    clients.append(proxy.client())
                except wire.ServerError:
                    time.sleep(0.05)
            assert len(clients) == 5
            for _ in range(3):
                fields, _ = login_error(proxy, "bench", "app", "")
                assert fields["C"] == "53300" and fields["S"] == "FATAL", fields
            for client in clients:
                assert client.value("select 1") == "1"
                client.close()


def can_login(proxy):
    try:
        proxy.client().close()
        return True
    except wire.ServerError:
        return False


def test_failed_logins_leave_no_trace():
    """Logins that fail in every way take no place of max_clients."""
    with runner.fresh_proxy(proxy={"max_clients": 3}) as proxy:
        for _ in range(5):
            for user, database, password in (
                ("app", "app", "wrong"),
                ("unknown", "app", "x"),
                ("bench", "missing-database", ""),
            ):
                runner.eventually(lambda: can_login(proxy), what="a free place")
                with proxy.open() as conn:
                    try:
                        conn.login(user, database, password)
                        conn.recv_last_error()
                    except wire.ServerError as error:
                        assert error.code != "53300", error


def test_login_timeout():
    """A client that does not finish its login in time is told so and closed; one that did is not."""
    with runner.fresh_proxy(proxy={"client_login_timeout": "1s"}) as proxy:
        with proxy.open() as silent, proxy.open() as half, proxy.client() as client:
            half.send(wire.startup({"user": "app", "database": "app"}))
            assert half.recv().kind == "R"
            for conn in (silent, half):
                fields = conn.recv_last_error(10)
                assert (fields["S"], fields["C"]) == ("FATAL", "57014"), fields
                assert "client_login_timeout" in fields["M"], fields
            assert client.value("select 1") == "1"


# Scripted nodes.


def node_proxy(server, **more):
    """A proxy whose node is a scripted server."""
    users = [{"name": "app", "password": "app-secret"}, {"name": "bench", "auth": "trust"}]
    arguments = {"user": users, **more}
    arguments["pool"] = {"acquire_timeout": "4s", "connect_timeout": "4s", **more.get("pool", {})}
    arguments["node"] = {"port": server.port, **arguments.get("node", {})}
    configuration = proxy_module.config(None, **arguments)
    return runner.fresh_proxy(configuration)


def answer(conn, got):
    conn.send(
        wire.row_description("x"), wire.data_row("1"), wire.command_complete("SELECT 1"), wire.ready()
    )
    return got


def check_unservable(proxy, user="app"):
    """A client of this proxy is told FATAL within the time of a test."""
    with proxy.open() as conn:
        try:
            conn.login(user, "app", "app-secret")
            conn.send(query("select 1"))
            fields = conn.recv_last_error()
        except wire.ServerError as error:
            fields = error.fields
        assert fields["S"] == "FATAL", fields
        return fields


def sasl(code, data):
    return wire.message("R", struct.pack("!I", code) + data)


@runner.cases(100_001, 10**9, 2**31, 2**40, 0, -5)
def test_node_that_asks_for_too_many_rounds(rounds):
    """A node that asks for an absurd number of SCRAM rounds is refused, at no cost."""

    def script(conn):
        if conn.read_startup():
            conn.send(sasl(10, b"SCRAM-SHA-256\0\0"))
            first = conn.recv().body.rpartition(b"r=")[2]
            conn.send(sasl(11, b"r=" + first + b"server,s=QUFBQUFBQUE=,i=%d" % rounds))
            conn.recv()

    with wire.ScriptedServer(script) as server, node_proxy(server) as proxy:
        before = proxy.cpu()
        check_unservable(proxy)
        assert proxy.cpu() - before < 2.0


BAD_NODE_LOGINS = {
    "no mechanism of ours": sasl(10, b"SCRAM-SHA-512\0\0"),
    "empty mechanisms": sasl(10, b"\0"),
    "unknown authentication": sasl(7, b""),
    "length below four": b"R\0\0\0\3",
    "huge length": b"R\x7f\xff\xff\xff" + b"x" * 100,
    "not the protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "row in the login": wire.data_row("x"),
    "half an error": wire.error_response("28000", "no")[:9],
    "error without a code": wire.message("E", b"SFATAL\0Mno code\0\0"),
    "nothing": b"",
    "md5 without a salt": wire.message("R", struct.pack("!I", 5)),
}


@runner.cases(*BAD_NODE_LOGINS)
def test_node_that_breaks_the_login(name):
    """A node that answers a login with nonsense fails its clients clearly, not the proxy."""

    def script(conn):
        if conn.read_startup():
            conn.send(BAD_NODE_LOGINS[name])
            conn.socket.settimeout(0.3)
            conn.socket.recv(1000)

    with wire.ScriptedServer(script) as server, node_proxy(server) as proxy:
        check_unservable(proxy)


def test_node_without_the_right_signature():
    """A node that cannot prove that it knows the password gets no query."""
    asked = []

    def script(conn):
        if not conn.read_startup():
            return
        conn.send(sasl(10, b"SCRAM-SHA-256\0\0"))
        first = conn.recv().body.rpartition(b"r=")[2]
        conn.send(sasl(11, b"r=" + first + b"server,s=QUFBQUFBQUE=,i=4096"))
        conn.recv()
        conn.send(sasl(12, b"v=" + b"A" * 43 + b"="))
        conn.welcome()
        conn.serve_queries(lambda c, got: asked.append(got))

    with wire.ScriptedServer(script) as server, node_proxy(server) as proxy:
        check_unservable(proxy)
        assert not asked


@runner.cases(4, 8, 32, 256)
def test_node_with_long_keys(size):
    """A node's cancel key of up to 256 bytes is kept and used whole."""
    key = bytes(range(256))[:size]
    cancels = []

    def script(conn):
        if not conn.read_startup():
            cancels.append((conn.pid, conn.key))
            return
        conn.welcome(key=key)
        conn.serve_queries(hold)

    def hold(conn, got):
        if "hold" not in got.text:
            answer(conn, got)
            return
        runner.eventually(lambda: cancels)
        conn.send(wire.error_response("57014", "canceling statement due to user request"), wire.ready())

    with wire.ScriptedServer(script) as server, node_proxy(server) as proxy:
        with proxy.client() as client:
            assert client.value("select 1") == "1"
            client.send(query("select hold"))
            deadline = time.monotonic() + 15
            while not cancels and time.monotonic() < deadline:
                proxy.cancel(client.pid, client.key)
                time.sleep(0.05)
            assert cancels and cancels[0] == (4242, key), cancels
            assert [f["C"] for f in wire.errors(client.recv_until("Z"))] == ["57014"]
        server.check()


def test_node_that_negotiates():
    """NegotiateProtocolVersion from a node does not disturb the login."""

    def script(conn):
        if conn.read_startup():
            if conn.version != PROTOCOL_3_0:
                conn.send(wire.message("v", struct.pack("!II", PROTOCOL_3_0, 0)))
            conn.welcome()
            conn.serve_queries(answer)

    with wire.ScriptedServer(script) as server, node_proxy(server) as proxy:
        with proxy.client() as client:
            assert client.value("select 1") == "1"
        server.check()


@runner.timeout(90)
def test_node_that_logs_in_byte_by_byte():
    """A node's login may arrive one byte at a time."""

    def script(conn):
        if conn.read_startup():
            whole = conn.socket.sendall
            packet = []
            conn.send = lambda *parts: packet.append(b"".join(parts))
            conn.welcome()
            for byte in b"".join(packet):
                whole(bytes([byte]))
            del conn.send
            conn.serve_queries(answer)

    with wire.ScriptedServer(script) as server, node_proxy(server) as proxy:
        with proxy.client() as client:
            assert client.value("select 1") == "1"
        server.check()


def test_node_that_never_answers():
    """A node that takes the connection and says nothing ends in connect_timeout."""

    def script(conn):
        conn.read_startup()
        conn.recv()

    pool = {"connect_timeout": "1s"}
    with wire.ScriptedServer(script) as server, node_proxy(server, pool=pool) as proxy:
        fields = check_unservable(proxy)
        assert fields["C"] in ("08006", "08001"), fields


@runner.cases("28000", "57P03", "53300", "3D000")
def test_node_that_refuses(code):
    """The node's own refusal reaches the client with its code and words."""

    def script(conn):
        if conn.read_startup():
            conn.send(wire.error_response(code, "the node's own words", "FATAL"))

    # A server that says that it is starting (57P03) is waited for.
    pool = {"acquire_timeout": "2s"}
    with wire.ScriptedServer(script) as server, node_proxy(server, pool=pool) as proxy:
        fields = check_unservable(proxy)
        if code != "57P03":
            assert fields["C"] == code and "the node's own words" in fields["M"], fields


if __name__ == "__main__":
    runner.main()
