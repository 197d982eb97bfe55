#!/usr/bin/python3
"""COPY in both directions and both protocols: large, failing at every moment, and what comes after."""

import time

from harness import libpq, runner, wire
from harness.wire import COPY_DONE, SYNC, bind, copy_data, copy_fail, execute, extended, parse, query

ROWS = [f"{i}\tname {i}\n".encode() for i in range(1000)]


def make_table(name):
    runner.cluster().run(f"drop table if exists {name}")
    runner.cluster().run(f"create table {name} (id int primary key, name text)")
    runner.cluster().run(f"grant all on {name} to public")


def count(name):
    return int(runner.cluster().value(f"select count(*) from {name}"))


def start_copy(client, sql, protocol):
    """Sends the COPY. "sync" is the extended protocol with Sync right behind Execute; "named" executes a statement that
    was prepared before."""
    if protocol == "simple":
        client.send(query(sql))
    elif protocol == "named":
        client.send(parse(sql, "copy") + SYNC)
        assert wire.kinds(client.recv_until("Z")) == "1Z"
        client.send(bind(name="copy"), execute(), wire.FLUSH)
    elif protocol == "flush":
        client.send(extended(sql), wire.FLUSH)
    else:
        client.send(extended(sql), SYNC)


def finish_copy(client, protocol):
    """The server ignores a Sync that came while it was copying; the extended protocol sends one."""
    if protocol != "simple":
        client.send(SYNC)


def check_clean(proxy, client):
    """This client and the next one find a clean backend."""
    assert client.value("select 'same'") == "same"
    with proxy.client() as following:
        assert following.value("select 'next'") == "next"
        assert following.execute("select 'extended'") == [["extended"]]
    assert client.execute("select 'again'") == [["again"]]


PROTOCOLS = [(p, cores) for p in ("simple", "flush", "sync", "named") for cores in (1, 2)]


@runner.cases(*PROTOCOLS)
def test_copy_in(protocol, cores):
    """COPY FROM STDIN stores its rows and leaves a clean backend."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        start_copy(client, "copy copied from stdin", protocol)
        client.recv_until("G")
        client.send(*(copy_data(row) for row in ROWS), COPY_DONE)
        finish_copy(client, protocol)
        found = client.recv_until("Z")
        assert wire.kinds(found) == "CZ" and found[0].text == "COPY 1000", found
        check_clean(proxy, client)
    assert count("copied") == 1000


@runner.cases(*PROTOCOLS)
def test_copy_in_without_waiting(protocol, cores):
    """Rows and CopyDone sent right behind the COPY, before its answer, are stored."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        start_copy(client, "copy copied from stdin", protocol)
        client.send(*(copy_data(row) for row in ROWS), COPY_DONE)
        finish_copy(client, protocol)
        found = client.recv_until("Z")
        assert wire.kinds(found)[-2:] == "CZ" and not wire.errors(found), found
        check_clean(proxy, client)
    assert count("copied") == 1000


@runner.cases(*PROTOCOLS)
def test_copy_out(protocol, cores):
    """COPY TO STDOUT delivers its rows and leaves a clean backend."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        start_copy(client, "copy (select g from generate_series(1, 5000) g) to stdout", protocol)
        finish_copy(client, "simple" if protocol == "sync" else protocol)
        found = client.recv_until("Z")
        data = b"".join(m.body for m in found if m.kind == "d")
        assert data == b"".join(f"{i}\n".encode() for i in range(1, 5001))
        assert wire.kinds(found)[-3:] == "cCZ", found[-3:]
        check_clean(proxy, client)


@runner.cases(*PROTOCOLS)
def test_copy_fail(protocol, cores):
    """CopyFail ends the COPY with the client's own words, and nothing is stored."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        start_copy(client, "copy copied from stdin", protocol)
        client.recv_until("G")
        client.send(*(copy_data(row) for row in ROWS), copy_fail("no more of this"))
        finish_copy(client, protocol)
        (fields,) = wire.errors(client.recv_until("Z"))
        assert fields["C"] == "57014" and "no more of this" in fields["M"], fields
        check_clean(proxy, client)
    assert count("copied") == 0


@runner.cases(*PROTOCOLS)
def test_server_error_before_the_end_of_copy(protocol, cores):
    """A bad row fails the COPY; rows and CopyDone that come later are swallowed."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        start_copy(client, "copy copied from stdin", protocol)
        client.recv_until("G")
        client.send(copy_data(b"not a number\trow\n") + copy_data(b"x" * 10000 + b"\n"))
        (fields,) = wire.errors(client.recv_until("E"))
        assert fields["C"] == "22P02", fields
        client.send(*(copy_data(row) for row in ROWS), COPY_DONE)
        finish_copy(client, protocol)
        assert wire.kinds(client.recv_until("Z")) == "Z"
        check_clean(proxy, client)
    assert count("copied") == 0


@runner.cases(*PROTOCOLS)
def test_server_error_after_the_end_of_copy(protocol, cores):
    """An error found at CopyDone is reported, and the backend is clean after it."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        start_copy(client, "copy copied from stdin", protocol)
        client.recv_until("G")
        client.send(copy_data(b"1\tone\n2\n"), COPY_DONE)
        finish_copy(client, protocol)
        (fields,) = wire.errors(client.recv_until("Z"))
        assert fields["C"] == "22P04", fields
        check_clean(proxy, client)
    assert count("copied") == 0


@runner.cases(1, 2)
def test_late_copy_data_takes_no_backend(cores):
    """Rows that arrive after the COPY has failed and the backend has gone take no other backend."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client, proxy.client() as other:
        client.send(query("copy copied from stdin"))
        client.recv_until("G")
        client.send(copy_data(b"bad\n"))
        client.recv_until("Z")
        other.query("begin")
        client.send(*(copy_data(row) for row in ROWS))
        client.send(COPY_DONE)
        client.recv_quiet(0.2)
        assert other.value("select 'in block'") == "in block"
        other.query("commit")
        client.send(copy_data(b"late\n"), copy_fail())
        assert client.value("select 'ordinary'") == "ordinary"
        check_clean(proxy, client)


@runner.cases(1, 2)
def test_many_failing_copies_in_a_row(cores):
    """Failing and working COPYs in turns, rows sent blindly, never shift a reply."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client, proxy.client() as other:
        for turn in range(runner.scaled(60, 12)):
            protocol = ("simple", "flush", "sync")[turn % 3]
            start_copy(client, "copy copied from stdin", protocol)
            row = f"{turn}\tx\n".encode() if turn % 2 else b"bad\n"
            client.send(copy_data(row), copy_data(b"" if turn % 2 else b"more\n" * 500), COPY_DONE)
            finish_copy(client, protocol)
            found = client.recv_until("Z")
            assert bool(wire.errors(found)) == (turn % 2 == 0), (turn, found)
            assert client.value(f"select {turn}") == str(turn)
            assert other.value(f"select -{turn}") == f"-{turn}" or turn == 0


@runner.cases(1, 2)
def test_copies_in_a_block_and_in_one_query(cores):
    """Several COPYs in a transaction, and in one query text, work."""
    make_table("copied")
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as client:
        client.send(query("begin"))
        client.recv_until("Z")
        for start in (0, 500):
            client.send(query("copy copied from stdin"))
            client.recv_until("G")
            client.send(*(copy_data(row) for row in ROWS[start : start + 500]), COPY_DONE)
            assert not wire.errors(client.recv_until("Z"))
        client.query("commit")
        client.send(query("truncate copied; copy copied from stdin; copy copied to stdout; select 5"))
        client.recv_until("G")
        client.send(copy_data(ROWS[0]), COPY_DONE)
        found = client.recv_until("Z")
        assert wire.kinds(found) == "CHdcCTDCZ", found
        check_clean(proxy, client)


def test_client_leaves_in_the_middle_of_copy():
    """A client that goes in the middle of a COPY stores nothing and harms nobody."""
    make_table("copied")
    proxy = runner.proxy(max_connections=1)
    for end in ("terminate", "close", "reset"):
        for half in (False, True):
            if half and end == "terminate":
                continue  # Inside half a message Terminate would be a part of it.
            client = proxy.client()
            client.send(query("copy copied from stdin"))
            client.recv_until("G")
            client.send(copy_data(ROWS[0]))
            if half:
                client.send(copy_data(b"y" * 10000)[:500])
            getattr(client, end)()
            with proxy.client() as following:
                assert following.value("select count(*) from copied") == "0", (end, half)
        client = proxy.client()
        client.send(query("copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout"))
        client.recv_until("d")
        getattr(client, end)()
        with proxy.client() as following:
            assert following.value("select 'next'") == "next", end


@runner.cases(1, 2)
@runner.timeout(240)
def test_large_copy_both_ways(cores):
    """COPY of 200 MB in and out leaves the proxy's memory below 64 MB, every byte in place."""
    runner.cluster().run("drop table if exists big")
    runner.cluster().run("create unlogged table big (line text)")
    runner.cluster().run("grant all on big to public")
    runner.cluster().run("alter table big alter line set storage external")
    block = b"".join(f"{i:06d}".encode() + b"w" * 994 + b"\n" for i in range(64))
    blocks = runner.scaled(200_000_000 // len(block), 200)
    with runner.fresh_proxy(cores=cores, max_connections=2) as proxy:
        with proxy.libpq(user="bench") as conn:
            conn.timeout = 100
            conn.query("copy big from stdin")
            for _ in range(blocks):
                conn.put_copy(block)
            for result in conn.end_copy():
                result.check()
            assert conn.value("select count(*) from big") == str(blocks * 64)
            conn.query("copy big to stdout")
            total, piece = 0, conn.get_copy()
            while piece is not None:
                expected = block[total % len(block) :][: len(piece)]
                assert piece == expected, f"{total}: {piece[:9]}, {len(piece)}, instead of {expected[:9]}"
                total += len(piece)
                piece = conn.get_copy()
            assert total == blocks * len(block), total
            for result in conn.results():
                result.check()
            assert conn.value("select 1") == "1"
        proxy.check_memory()
    runner.cluster().run("drop table big")


@runner.timeout(120)
def test_copy_out_to_a_client_that_stops_reading():
    """While a client of a large COPY does not read, memory stays flat and others are served."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client(receive_buffer=8192) as slow, proxy.client() as other:
            slow.send(
                query("copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout")
            )
            slow.recv_until("d")
            for number in range(100):
                assert other.value(f"select {number}") == str(number)
            before = proxy.rss()
            time.sleep(0.5)
            assert proxy.is_sanitized() or proxy.rss() - before < 4 << 20
            total, got = 1, None
            while got is None or got.kind != "Z":
                got = slow.recv()
                total += got.kind == "d"
            assert total == 100000, total
        proxy.check_memory()


def test_psql_copy_protocol_by_libpq():
    """libpq sees the server's error of a COPY that it feeds blindly, and goes on."""
    make_table("copied")
    proxy = runner.proxy(max_connections=1)
    with proxy.libpq() as conn:
        for _ in range(5):
            conn.query("copy copied from stdin")
            codes = []
            try:
                for _ in range(50):
                    conn.put_copy(b"bad row\n" * 100)
                codes = [r.code for r in conn.end_copy()]
            except libpq.Error:
                codes = [r.code for r in conn.results()]
            assert "22P02" in codes or "22P04" in codes, codes
            assert conn.value("select 'fine'") == "fine"


if __name__ == "__main__":
    runner.main()
