#!/usr/bin/python3
"""SIGHUP: the configuration changes while clients are at work."""

import copy
import signal
import threading

from harness import cluster as cluster_module
from harness import proxy as proxy_module
from harness import runner, wire
from harness.cluster import LimitWatch

IN_EFFECT = "the new configuration is in effect on every core"
NAMED = [{"name": "app", "node": "main"}, {"name": "bench", "node": "main"}]


def write(proxy, text):
    with open(proxy.config_path, "w", encoding="utf-8") as file:
        file.write(text)


def reload_text(proxy, text, word):
    """SIGHUP with this text as the file; waits until `word` is logged once more. What was logged."""
    before = proxy.log()
    write(proxy, text)
    proxy.signal(signal.SIGHUP)
    runner.eventually(
        lambda: proxy.log().count(word) > before.count(word), what=f"{word!r} in the log"
    )
    return proxy.log()[len(before) :]


def reload(proxy, change, word=IN_EFFECT):
    """The same with the running configuration, changed."""
    change(proxy.configuration)
    return reload_text(proxy, proxy_module.to_toml(proxy.configuration), word)


class Load:
    """Clients that run transactions until they are told to end; any error is a failure."""

    def __init__(self, proxy, count=12, sql="select pg_sleep(0.002)"):
        self.done = [0] * count
        self.failures = []
        self._proxy = proxy
        self._sql = sql
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(count)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_turns(3)
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if kind is None:
            assert not self.failures, self.failures[:3]
            assert not any(t.is_alive() for t in self._threads), "a client hangs"

    def wait_turns(self, count):
        """Until each client has done so many more transactions."""
        goal = [n + count for n in self.done]
        runner.eventually(
            lambda: self.failures or all(n >= g for n, g in zip(self.done, goal)),
            what="progress of every client",
        )
        assert not self.failures, self.failures[:3]

    def _run(self, index):
        try:
            with self._proxy.client() as conn:
                while not self._stop.is_set():
                    for sql in ("begin", self._sql, "commit"):
                        conn.query(sql)
                    self.done[index] += 1
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(repr(error))


@runner.cases(1, 2)
def test_databases_and_users_are_added(cores):
    """A database and a user that a reload adds can be used at once, and were unknown before."""
    with runner.fresh_proxy(cores=cores, database=copy.deepcopy(NAMED)) as proxy:
        with proxy.client() as witness:
            pid = witness.value("select pg_backend_pid()")
            with proxy.open() as conn:
                conn.start("bench", "postgres")
                assert conn.recv_last_error()["C"] == "3D000"

            def change(config):
                config["database"].append({"name": "renamed", "node": "main", "dbname": "postgres"})
                config["user"].append(
                    {"name": "new", "password": "new-secret", "node_user": "bench"}
                )

            told = reload(proxy, change)
            assert 'database "renamed": added' in told, told
            assert 'user "new": added' in told, told
            with wire.Conn(proxy.address) as conn:
                conn.login("new", "renamed", "new-secret")
                assert conn.value("select current_database()") == "postgres"
            # Whom it does not concern notices nothing.
            assert witness.value("select pg_backend_pid()") == pid


def test_a_password_changes():
    """New logins need the new password; clients that are in stay."""
    with runner.fresh_proxy() as proxy:
        with proxy.client("app") as old:
            assert old.value("select 1") == "1"

            def change(config):
                for user in config["user"]:
                    if user["name"] == "app":
                        # Towards the node it stays what it is.
                        user.update(password="changed", node_user="app", node_password="app-secret")

            told = reload(proxy, change)
            assert 'user "app": password changed' in told and "secret" not in told, told
            assert old.value("select 2") == "2"
            with wire.Conn(proxy.address) as conn:
                conn.start("app", "app")
                try:
                    conn.finish_login("app", "app-secret")
                    raise AssertionError("the old password is still good")
                except wire.ServerError as error:
                    assert error.code == "28P01", error
            with wire.Conn(proxy.address) as conn:
                conn.login("app", "app", "changed")
                assert conn.value("select 3") == "3"


@runner.cases(1, 2)
@runner.timeout(120)
def test_pools_shrink_and_grow_under_load(cores):
    """max_connections of a pool and of a node change under load: no error, and the limit holds."""
    cluster = runner.cluster()
    with runner.fresh_proxy(cores=cores, max_connections=8) as proxy:
        with Load(proxy) as load:

            def pool_limit(count):
                return lambda config: config["pool"].update(max_connections=count)

            def node_limit(count):
                return lambda config: config["node"][0].update(max_connections=count)

            for make in (pool_limit, node_limit):
                for count in (3, 6, 1, 8):
                    reload(proxy, make(count))
                    # What is in a transaction may end it; then the limit holds.
                    runner.eventually(
                        lambda limit=count: len(cluster.backends()) <= limit, what="the new limit"
                    )
                    with LimitWatch(cluster) as watch:
                        load.wait_turns(10)
                    watch.check(count)


@runner.cases(1, 2)
@runner.timeout(120)
def test_a_node_moves_under_load(cores):
    """A node moves to another server: no client sees an error, and nothing goes to the old one."""
    first = runner.cluster()
    second = cluster_module.Cluster()
    try:
        with runner.fresh_proxy(cores=cores, max_connections=4) as proxy:
            with proxy.client() as slow, Load(proxy) as load:
                slow.query("begin")
                port = slow.value("select inet_server_port()")
                assert port == str(first.port)
                told = reload(proxy, lambda config: config["node"][0].update(port=second.port))
                assert f'node "main": port {first.port} -> {second.port}' in told, told
                load.wait_turns(10)
                # The open transaction goes on where it began, alone.
                assert slow.value("select inet_server_port()") == str(first.port)
                runner.eventually(lambda: len(first.backends()) == 1, what="one connection left")
                slow.query("commit")
                runner.eventually(lambda: not first.backends(), what="the old server's last one")
                assert slow.value("select inet_server_port()") == str(second.port)
                load.wait_turns(10)
                assert not first.backends()
                reload(proxy, lambda config: config["node"][0].update(port=first.port))
                load.wait_turns(10)
                runner.eventually(lambda: not second.backends(), what="the way back")
    finally:
        second.stop()


@runner.cases(1, 2)
@runner.timeout(120)
def test_a_node_is_added_and_another_removed(cores):
    """A second node comes, a database moves to it under load, the first node goes and comes back: whom it does not
    concern keeps its connection, and nothing is left open at a node that was removed."""
    first = runner.cluster()
    second = cluster_module.Cluster()
    where = "select inet_server_port()"
    try:
        with runner.fresh_proxy(cores=cores, max_connections=4, database=copy.deepcopy(NAMED)) as proxy:
            with proxy.client(database="bench") as staying, Load(proxy) as load:
                pid = staying.value("select pg_backend_pid()")

                def add(config):
                    config["node"].append({"name": "second", "host": "127.0.0.1", "port": second.port})
                    config["database"].append({"name": "new", "node": "second", "dbname": "other"})

                told = reload(proxy, add)
                assert 'node "second": added' in told, told
                with proxy.client(database="new") as new, proxy.client() as slow:
                    new_pid = new.value("select pg_backend_pid()")
                    assert new.value(where) == str(second.port)
                    slow.query("begin")
                    reload(proxy, lambda config: config["database"][0].update(node="second"))
                    load.wait_turns(10)
                    # The open transaction goes on where it began, alone.
                    assert slow.value(where) == str(first.port)
                    runner.eventually(lambda: len(first.backends("datname = 'app'")) == 1, what="one connection left")
                    assert staying.value("select pg_backend_pid()") == pid
                    assert new.value("select pg_backend_pid()") == new_pid

                    def remove(config):
                        del config["node"][0], config["database"][1]

                    kept = copy.deepcopy(proxy.configuration["node"][0])
                    told = reload(proxy, remove)
                    assert 'node "main": removed' in told, told
                    assert staying.recv_last_error()["C"] == "57P04"
                    # Its transaction is the last of the node that was removed.
                    assert slow.value(where) == str(first.port)
                    runner.eventually(lambda: len(first.backends()) == 1, what="the last connection")
                    slow.query("commit")
                    runner.eventually(lambda: not first.backends(), what="no connection to the removed node")
                    load.wait_turns(10)
                    assert slow.value(where) == str(second.port)
                    assert new.value("select pg_backend_pid()") == new_pid
                    assert not first.backends()

                    def restore(config):
                        config["node"].append(kept)
                        config["database"].append({"name": "bench", "node": "main"})

                    reload(proxy, restore)
                    with proxy.client(database="bench") as back:
                        assert back.value(where) == str(first.port)
                    assert new.value("select pg_backend_pid()") == new_pid
    finally:
        second.stop()


@runner.cases(1, 2)
def test_a_node_that_is_still_used_is_not_removed(cores):
    """A file that removes a node and leaves a database at it is refused, and the database goes on."""
    with runner.fresh_proxy(cores=cores, database=copy.deepcopy(NAMED)) as proxy:
        with proxy.client() as conn:
            pid = conn.value("select pg_backend_pid()")
            changed = copy.deepcopy(proxy.configuration)
            changed["node"] = [{"name": "second", "host": "127.0.0.1"}]
            told = reload_text(proxy, proxy_module.to_toml(changed), "everything stays as it was")
            assert '"main"' in told, told
            assert conn.value("select pg_backend_pid()") == pid


@runner.cases(1, 2)
def test_a_database_is_removed(cores):
    """Idle and waiting clients are told at once, one in a transaction when it ends; it comes back."""
    cluster = runner.cluster()
    with runner.fresh_proxy(
        cores=cores, max_connections=1, database=copy.deepcopy(NAMED)
    ) as proxy:
        with proxy.client() as idle, proxy.client() as owner, proxy.client() as waiting:
            with proxy.client(database="bench") as other:
                other.value("select 1")
                idle.value("select 1")
                owner.query("begin")
                waiting.send(wire.query("select 'too late'"))
                told = reload(
                    proxy, lambda config: config.update(database=copy.deepcopy(NAMED[1:]))
                )
                assert 'database "app": removed' in told, told
                for conn in (idle, waiting):
                    error = conn.recv_last_error()
                    assert error["C"] == "57P04", error
                    assert 'database "app" was removed' in error["M"], error
                assert owner.value("select 'still here'") == "still here"
                # Its limit is 1, old connections included.
                reload(proxy, lambda config: config.update(database=copy.deepcopy(NAMED)))
                with proxy.client() as back:
                    back.send(wire.query("select 'served'"))
                    reload(
                        proxy, lambda config: config.update(database=copy.deepcopy(NAMED[1:]))
                    )
                    assert back.recv_last_error()["C"] == "57P04"
                assert len(cluster.backends("datname = 'app'")) == 1
                owner.send(wire.query("commit"))
                assert owner.recv_last_error()["C"] == "57P04"
                runner.eventually(
                    lambda: not cluster.backends("datname = 'app'"), what="the last connection"
                )
                with proxy.open() as conn:
                    conn.start("bench", "app")
                    assert conn.recv_last_error()["C"] == "3D000"
                assert other.value("select 2") == "2"
        reload(proxy, lambda config: config.update(database=copy.deepcopy(NAMED)))
        with proxy.client() as conn:
            assert conn.value("select 3") == "3"


def test_a_file_with_an_error_changes_nothing():
    """An error is named with file, line and key; everything goes on as before, and can be mended."""
    with runner.fresh_proxy(database=copy.deepcopy(NAMED)) as proxy:
        with proxy.client() as conn:
            conn.query("begin")
            good = proxy_module.to_toml(proxy.configuration)
            bad = good.replace("max_connections = 10", 'max_connections = "many"')
            bad = bad.replace('name = "app"', 'name = "gone"', 1)
            line = 1 + bad[: bad.index('"many"')].count("\n")
            told = reload_text(proxy, bad, "everything stays as it was")
            assert f"{proxy.config_path}:{line}:" in told, told
            assert "pool.max_connections" in told, told
            conn.query("commit")
            with proxy.client() as other:
                assert other.value("select 1") == "1"
            told = reload_text(proxy, good, "SIGHUP: nothing has changed")
            assert IN_EFFECT not in told, told


def test_keys_that_need_a_restart_are_named():
    """What cannot change is told with file, line and key; the rest of the file takes effect."""
    with runner.fresh_proxy() as proxy:

        def change(config):
            config["proxy"].update(cores=3, max_clients=20_000, log_level="debug")

        told = reload(proxy, change)
        lines = proxy_module.to_toml(proxy.configuration).splitlines()
        for key in ("cores", "max_clients"):
            line = 1 + next(i for i, text in enumerate(lines) if text.startswith(key + " ="))
            assert f"{proxy.config_path}:{line}:1: proxy.{key}: " in told, told
        assert told.count("needs a restart") == 2, told
        assert '[proxy]: log_level "info" -> "debug"' in told, told
        with proxy.client() as conn:
            assert conn.value("select 1") == "1"
        runner.eventually(lambda: " debug " in proxy.log().lower(), what="a line of the new level")

        def fewer(config):
            config["proxy"].update(max_clients=1)

        reload(proxy, fewer)
        with proxy.client():
            with proxy.open() as conn:
                conn.start("bench", "app")
                assert conn.recv_last_error()["C"] == "53300"


def test_harmless_functions():
    """A new list of harmless functions holds for the clients that are there."""
    runner.cluster().run(
        "create or replace function hides() returns text language plpgsql as "
        "$$ begin return set_config('hidden.owner', 'mine', false); end $$"
    )
    seen = "select coalesce(current_setting('hidden.owner', true), '')"
    with runner.fresh_proxy(max_connections=1) as proxy:
        with proxy.client() as one, proxy.client() as two:
            for functions, found in ((["hides"], "mine"), (["other"], ""), (["x", "hides"], "mine"), ([], "")):
                told = reload(proxy, lambda config: config["pool"].update(harmless_functions=functions))
                assert "harmless_functions" in told, told
                one.query("select hides()")
                assert two.value(seen) == found, functions
                one.query("do $$ begin end $$")
                assert two.value(seen) == ""


if __name__ == "__main__":
    runner.main()
