"""Random scripts of frontend messages for the twin test: the same seed gives the same script.

A script is a list of exchanges: messages, and what to read before the next ones are sent. What PostgreSQL answers is
decided by the bytes alone, not by their timing, so that two servers give equal replies. Each script has a table of its
own (see TABLE).

Left out, because the pooler differs by decision or does not follow yet; a place to add to as it learns:
- currval and setseed beyond a transaction; custom parameters that are not set, or empty;
- RESET of what the start-up packet named: the client may be told of its value behind ReadyForQuery only;
- the answer of a statement whose plan no longer fits its table (0A000), where the pooler has prepared it anew;
- the unnamed statement after the batch that binds it, where its Parse is in that batch, too;
- lengths that are out of range: PostgreSQL closes without a word, the pooler says what is wrong;
- Terminate with replies under way: the pooler drops them;
- a Sync or Flush within the data of a COPY that fails: nobody can tell which the server reads;
- process ids, names of statements in pg_prepared_statements, statistics: what is a matter of the server connection.
"""

import random
import struct

from . import wire
from .wire import COPY_DONE, FLUSH, SYNC, copy_data, copy_fail

TABLE = """
drop table if exists {t};
create table {t} (
  id int primary key check (id < 1000),
  name text not null,
  amount numeric(12, 2),
  bytes bytea,
  moment timestamptz,
  parent int references {t} (id) deferrable initially deferred
);
grant all on {t} to public;
"""
ROWS = """
alter table {t} drop column if exists extra;
truncate {t};
insert into {t} select g, 'row ' || g, g * 1.5, int4send(g), timestamptz '2024-02-29 12:00Z' + g * interval '1 day'
from generate_series(1, 10) g;
"""

# Statements of both Parse and PREPARE. In SQL the last one has quotes.
SHARED_NAMES = ("s1", "s2", "S1")

INT4, INT8, FLOAT8, BOOL, TEXT, BYTEA = 23, 20, 701, 16, 25, 17

# Values of parameters that a client sets, good and bad ones. The server reports the first of them.
SETTINGS = {
    "application_name": ("''", "'twin'", "'TWIN'", "'it''s \\ \"me\"'", "'" + "long " * 40 + "'"),
    "timezone": ("'UTC'", "'Europe/Berlin'", "'America/New_York'", "-3.5", "'Nowhere/At_All'", "default"),
    "datestyle": ("'ISO, MDY'", "'German'", "'SQL, DMY'", "'Postgres, MDY'", "'nonsense'", "default"),
    "intervalstyle": ("postgres", "iso_8601", "sql_standard", "postgres_verbose", "default"),
    "client_encoding": ("'UTF8'", "'LATIN1'", "'UTF8'", "'no such'", "default"),
    "standard_conforming_strings": ("on", "off", "default"),
    "default_transaction_read_only": ("off", "off", "on", "default"),
    "work_mem": ("'5MB'", "'1x'", "default"),
    "search_path": ("pg_catalog, public", "public", "'$user', public", "'no such', public", "default"),
    "default_transaction_isolation": ("serializable", "'read committed'", "default"),
    "extra_float_digits": ("0", "3", "99", "default"),
    "bytea_output": ("escape", "hex", "default"),
    "role": ("bench", "none", "'no such role'"),
}


# What may not fit its table any more: a statement of Parse, or of PREPARE.
STALE, STALE_IN_SQL = "Parse", "PREPARE"

# Other ways to set something.
OTHER_SETS = (
    "set time zone interval '+02:00' hour to minute",
    "set names 'UTF8'",
    "set schema 'public'",
    "set session characteristics as transaction read write",
    "set session characteristics as transaction isolation level serializable, read only",
    "set session authorization default",
    "set seed to 0.5",
    "set no_such_parameter = 1",
    "set mix.own = 'value'; select current_setting('mix.own')",
    "do $$ begin perform set_config('work_mem', '9MB', false); end $$",
    "set local work_mem from current",
)


class Exchange:
    """Messages to send, each with what it is, and what to read then.

    `until`, counted from the last exchange after which the server owed nothing, is ("Z", n): n times ReadyForQuery;
    ("some", kinds, n): n replies of these kinds, or an error; ("row", text): ReadyForQuery behind a row with this text;
    ("end",): end of file. `before`: SQL that somebody else runs first. `may_be_stale`: PostgreSQL may say that a
    plan does not fit any more.
    """

    def __init__(self, messages, until):
        self.messages = messages
        self.until = until
        self.before = ""
        self.may_be_stale = ""

    @property
    def data(self):
        return b"".join(data for _, data in self.messages)

    def __str__(self):
        before = f"  (somebody else: {self.before})\n" if self.before else ""
        return before + "\n".join(what for what, _ in self.messages) + f"\n  read until {self.until}"


def describe(data):
    """A message in a line."""
    shown = data if len(data) < 160 else data[:140] + b" ... " + data[-10:]
    return f"  {chr(data[0])} {bytes(shown[5:])!r} ({len(data)} bytes)"


def bind(values, formats, name="", portal="", result_formats=()):
    """`values`: encoded, None for NULL."""
    body = wire.cstr(portal) + wire.cstr(name)
    body += struct.pack(f"!H{len(formats)}H", len(formats), *formats)
    body += struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    body += struct.pack(f"!H{len(result_formats)}H", len(result_formats), *result_formats)
    return wire.message("B", body)


def encode(kind, value, binary):
    """A parameter value as it is sent."""
    if value is None:
        return None
    if not binary:
        if kind == BYTEA:
            return b"\\x" + value.hex().encode()
        return str(value).encode()
    if kind == INT4:
        return struct.pack("!i", value)
    if kind == INT8:
        return struct.pack("!q", value)
    if kind == FLOAT8:
        return struct.pack("!d", value)
    if kind == BOOL:
        return struct.pack("!?", value)
    return value.encode() if isinstance(value, str) else value


class Script:
    """The script of a seed, for the table `table`."""

    def __init__(self, seed, table):
        self.seed = seed
        self.chance = random.Random(seed)
        self.table = table
        self.exchanges = []
        self.startup = {}
        self._messages = []
        self._due = 0  # ReadyForQuery messages since nothing was owed.
        self._number = 0
        self._has_unnamed = False  # A statement without a name in this batch,
        self._has_portal = False  # and a portal.
        self._make()

    def __str__(self):
        text = "\n".join(map(str, self.exchanges))
        return f"start-up {self.startup}\n{text}"

    # Building.

    def _put(self, *messages):
        self._messages += [(describe(data), data) for data in messages]

    def _send(self, *messages):
        self._put(*filter(self._is_portable, messages))

    def _is_portable(self, data):
        """Not what uses the unnamed statement of an earlier batch; nor its unnamed portal, which may be that of a simple
        query: PostgreSQL 15 crashes when a failed one is executed."""
        kind, words = data[:1], data[5:].split(b"\0")
        if kind in (b"S", b"Q", b"F"):
            self._has_unnamed = self._has_portal = False
        elif kind == b"P":
            self._has_unnamed = self._has_unnamed or words[0] == b""
        elif kind == b"B":
            if words[1:2] == [b""] and not self._has_unnamed:
                return False
            self._has_portal = self._has_portal or words[0] == b""
        elif kind == b"D" and words[0] == b"S":
            return self._has_unnamed
        elif kind == b"E" and words[0] == b"" or kind in (b"D", b"C") and words[0] == b"P":
            return self._has_portal
        return True

    def _wait(self, until):
        self.exchanges.append(Exchange(self._messages, until))
        self._messages = []

    def _wait_ready(self):
        if self._messages or self._due:
            self._wait(("Z", self._due))
        self._due = 0

    def _wait_some(self, kinds, count=1):
        """Waits within a batch or COPY; behind an error for nothing more."""
        self._wait(("some", kinds, count))

    def _maybe_wait(self, percent=60):
        if self._one_in_hundred(percent):
            self._wait_ready()

    def _barrier(self):
        """Brings the server to a known place, whatever it was doing, and waits for it there."""
        self._number += 1
        text = f"barrier {self._number} of {self.seed}"
        self._send(copy_fail("barrier"), SYNC, wire.query("rollback"), wire.query(f"select '{text}'"))
        self._wait(("row", text))
        self._due = 0

    def _one_in_hundred(self, percent):
        return self.chance.randrange(100) < percent

    def _make(self):
        if self._one_in_hundred(30):
            self.startup = self._pick(
                {"application_name": "start"},
                {"TimeZone": "Asia/Tokyo"},
                {"DateStyle": "German", "client_encoding": "LATIN1"},
                {"options": "-c IntervalStyle=iso_8601"},
            )
        units = (
            (20, self._simple_unit),
            (20, self._batch_unit),
            (12, self._pipeline_unit),
            (18, self._block_unit),
            (8, self._named_unit),
            (4, self._later_bind_unit),
            (8, self._portal_unit),
            (8, self._copy_in_unit),
            (4, self._copy_out_unit),
            (5, self._call_unit),
            (8, self._settings_unit),
            (6, self._state_unit),
            (8, self._prepare_unit),
            (3, self._stale_unit),
            (5, self._cursor_unit),
            (3, self._large_unit),
            (6, self._flush_unit),
            (6, self._wild_unit),
            (4, self._malformed_unit),
        )
        for _ in range(self.chance.randrange(3, 12)):
            unit = self.chance.choices([u for _, u in units], [w for w, _ in units])[0]
            unit()
            self._maybe_wait()
        self._wait_ready()
        self._barrier()
        if self._one_in_hundred(10):
            self._violation()

    def _pick(self, *choices):
        return self.chance.choice(choices)

    # Statements.

    def _id(self):
        return self.chance.choice((1, 2, 3, 5, 10, 11, 12, 20, 999, self.chance.randrange(1, 40)))

    def _statement(self):
        """One statement without parameters; some fail."""
        t, i = self.table, self._id()
        return self._pick(
            f"select {i}",
            f"select {i} as a, null as b, 'text' as c, {i}.5 as d",
            f"select id, name from {t} where id <= {i} order by id",
            f"select * from {t} order by id limit 3",
            f"select moment, moment - timestamptz '2023-01-01 00:00Z' from {t} where id = {i}",
            f"select count(*), sum(amount) from {t}",
            f"insert into {t} (id, name) values ({i}, 'new {i}')",
            f"insert into {t} (id, name) values ({i}, 'new') on conflict do nothing returning id, name",
            f"insert into {t} (id, name, parent) values ({i}, 'child', {self._id()}) on conflict do nothing",
            f"update {t} set amount = amount + 1 where id < {i}",
            f"delete from {t} where id = {i} returning *",
            f"truncate {t}",
            f"merge into {t} using (values (1)) v (i) on id = i when matched then update set name = 'merged'",
            f"select g, repeat('r', {i}) from generate_series(1, {i}) g",
            f"do $$ begin raise notice 'notice {i}'; end $$",
            f"do $$ begin raise warning 'warning' using hint = 'hint {i}', detail = 'detail'; end $$",
            f"do $$ begin raise exception 'exception {i}' using errcode = 'ZX0{i % 10}1'; end $$",
            f"select {i} / 0",
            f"selec {i}",
            "select 'ä€' as \"Ü\"",
            "select $$\u00e9$$, '\\' || 'x', E'\\\\'",
            f"select no_such_column from {t}",
            "select * from no_such_table",
            f"insert into {t} (id, name) values (5000, 'too large')",
            f"insert into {t} (id, name) values (30, null)",
            f"select name::int from {t} order by id",
            f"declare c cursor for select id from {t} order by id",
            f"declare c scroll cursor for select id, name from {t} order by id desc",
            "fetch 2 from c",
            "fetch backward 1 from c",
            "move 2 in c",
            f"update {t} set name = 'current' where current of c",
            "close c",
            "close all",
            f"lock table {t}",
            "notify nobody, 'payload'",
            "select from generate_series(1, 3)",
            f"explain (costs off) select * from {t}",
            "show timezone",
            "show application_name",
            "set local timezone = 'Asia/Tokyo'",
            "set transaction isolation level repeatable read",
            "show transaction_isolation",
            "set constraints all immediate",
            "savepoint s",
            "rollback to s",
            "release s",
            "select 1 where false",
            f"vacuum {t}",
            "",
            ";",
            " -- comment\n",
        )

    def _parameters(self):
        """A statement with parameters: (text, [(type, value), ...], columns)."""
        t, i = self.table, self._id()
        return self._pick(
            ("select $1::int + $2::int", [(INT4, i), (INT4, 1)], 1),
            ("select $1::int / $2::int", [(INT4, i), (INT4, self._pick(0, 1, 2))], 1),
            ("select $1::text, length($1), $2::bool", [(TEXT, "wörter" * i), (BOOL, True)], 3),
            ("select $1::text", [(TEXT, None)], 1),
            ("select $1::bytea, md5($1)", [(BYTEA, bytes(range(i % 256)))], 2),
            ("select $1::float8 * 2, $2::int8", [(FLOAT8, i / 3), (INT8, i << 33)], 2),
            (f"select id, name, amount from {t} where id <= $1 order by id", [(INT4, i)], 3),
            (f"insert into {t} (id, name) values ($1, $2)", [(INT4, i), (TEXT, "by parameter")], 0),
            (
                f"insert into {t} (id, name, bytes) values ($1, $2, $3) on conflict (id) do update"
                " set name = excluded.name returning id, name, bytes",
                [(INT4, i), (TEXT, "again"), (BYTEA, b"\0\1\2")],
                3,
            ),
            (f"update {t} set name = $2 where id = $1", [(INT4, i), (TEXT, "changed")], 0),
            ("select g, g * $1::int from generate_series(1, $1) g", [(INT4, i)], 2),
            (f"select moment from {t} where id = $1::int", [(INT4, i)], 1),
        )

    # Batches of the extended protocol.

    def _formats(self, count):
        return self._pick([], [0], [1], [self.chance.randrange(2) for _ in range(count)])

    def _bind(self, parameters, columns, name="", portal=""):
        formats = self._formats(len(parameters))
        if self._one_in_hundred(3):
            formats = [0] * (len(parameters) + 2)  # Their number is wrong: refused.
        values = []
        for index, (kind, value) in enumerate(parameters):
            given = formats[index] if len(formats) > 1 else (formats or [0])[0]
            values.append(encode(kind, value, given == 1))
        if values and self._one_in_hundred(6):
            values[0] = b"x"  # No number in either format.
        if values and self._one_in_hundred(4):
            values.pop()
        results = self._pick([], [], [0], [1], [self.chance.randrange(2) for _ in range(columns)])
        return bind(values, formats, name, portal, results)

    def _extended(self, name="", portal=""):
        """Parse up to Execute of one statement, some of them left out."""
        if self._one_in_hundred(45):
            text, parameters, columns = self._statement(), [], 1
        else:
            text, parameters, columns = self._parameters()
        types = [kind for kind, _ in parameters] if self._one_in_hundred(60) else []
        messages = [wire.parse(text, name, types)]
        if self._one_in_hundred(25):
            messages.append(wire.describe("S", name))
        messages.append(self._bind(parameters, columns, name, portal))
        if self._one_in_hundred(60):
            messages.append(wire.describe("P", portal))
        messages.append(wire.execute(portal, self._pick(0, 0, 0, 1, 2, 5)))
        if self._one_in_hundred(15):
            messages.append(wire.execute(portal, self._pick(0, 1)))
        if self._one_in_hundred(15):
            messages.append(wire.close("P", portal))
        if self._one_in_hundred(8):
            del messages[self.chance.randrange(len(messages))]
        return messages

    def _batch(self):
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            self._send(*self._extended())
            if self._one_in_hundred(10):
                self._send(FLUSH)
        self._sync()

    def _sync(self):
        self._send(SYNC)
        self._due += 1

    def _query(self, text):
        self._send(wire.query(text))
        self._due += 1

    # Units: each ends where the server owes `_due` times ReadyForQuery.

    def _simple_unit(self):
        for _ in range(self.chance.choice((1, 1, 2, 4))):
            count = self.chance.choice((1, 1, 1, 2, 3, 5))
            parts = [self._statement() for _ in range(count)]
            if count > 1 and self._one_in_hundred(20):
                parts.insert(self.chance.randrange(count), self._pick("begin", "commit", "rollback"))
            self._query(";".join(parts))
            self._maybe_wait(40)

    def _batch_unit(self):
        self._batch()

    def _pipeline_unit(self):
        for _ in range(self.chance.randrange(2, 9)):
            kind = self.chance.randrange(10)
            if kind < 6:
                self._batch()
            elif kind < 7:
                self._sync()
            elif kind < 8:
                self._call()
            else:
                self._query(self._statement())

    def _control(self, text):
        """BEGIN and its like, in either protocol."""
        if self._one_in_hundred(60):
            return self._query(text)
        self._send(wire.parse(text), bind([], []), wire.execute())
        return self._sync()

    def _block_unit(self):
        begin = "begin", "begin isolation level serializable", "start transaction read only"
        self._control(self._pick(*begin))
        steps = (self._simple_unit, self._batch_unit, self._pipeline_unit, self._savepoint_step)
        steps += (self._copy_in_unit, self._portal_step, self._settings_unit, self._call)
        steps += (self._prepare_unit, self._cursor_unit)
        for _ in range(self.chance.randrange(6)):
            self._pick(*steps)()
            self._maybe_wait(50)
        if self._one_in_hundred(95):
            end = "commit", "commit", "rollback", "rollback", "end", "abort", "commit and chain"
            self._control(self._pick(*end))

    def _savepoint_step(self):
        steps = "savepoint s", "rollback to s", "release s", "savepoint t", "rollback to t", "release t"
        self._control(self._pick(*steps))

    def _named_unit(self):
        """Named statements: used over several batches, parsed twice, closed, unknown."""
        names = *SHARED_NAMES, "a b", "n" * 80
        for _ in range(self.chance.randrange(1, 6)):
            name = self._pick(*names)
            kind = self.chance.randrange(9)
            if kind < 3:
                self._send(*self._extended(name))
            elif kind < 5:
                text, parameters, columns = self._parameters()
                self._send(wire.parse(text, name), wire.describe("S", name))
                for _ in range(self.chance.randrange(3)):
                    self._send(self._bind(parameters, columns, name), wire.execute())
                    self._sync()
            elif kind < 6:
                self._send(bind([], [], name), wire.execute())
            elif kind < 7:
                self._send(wire.close("S", name))
            elif kind < 8:
                self._send(wire.describe("S", name))
            else:
                self._query(self._pick("prepare sql as select 1", "execute sql", "deallocate sql", "deallocate all"))
                self._shared_step()
                continue
            self._sync()
        if self._one_in_hundred(70):
            self._query(self._pick("deallocate all", "discard all") if not self.startup else "deallocate all")

    def _later_bind_unit(self):
        """The unnamed statement, parsed in one batch and bound by others; and bound where there is none."""
        self._query("select 'drops the unnamed statement'")
        text, parameters, columns = self._parameters()
        for kind in self.chance.choices(range(9), (6, 1, 8, 2, 2, 1, 1, 1, 1), k=self.chance.randrange(2, 9)):
            if kind == 0:
                text, parameters, columns = self._parameters()
                self._put(wire.parse(text, "", [each for each, _ in parameters]), wire.describe("S"))
            elif kind == 1:
                self._put(wire.parse("selec", ""), wire.describe("S"))
            elif kind == 2:
                self._put(self._bind(parameters, columns), wire.execute())
            elif kind == 3:
                self._put(wire.describe("S"))
            elif kind == 4:
                self._send(*self._extended(self._pick(*SHARED_NAMES)))
            elif kind == 5:
                self._put(wire.execute("none"), wire.parse("select 'skipped'", ""), wire.describe("S"))
            elif kind == 6:
                self._put(wire.close("S", ""))
            elif kind == 7:
                self._query(self._pick("select 'drops it'", "selec 'drops it'"))
                continue
            else:
                self._put(wire.close("S", "none"), wire.describe("S", "none"))
            self._sync()
            self._maybe_wait(50)

    def _portal_step(self):
        """A portal that is read in pieces, within a block over several batches."""
        portal = self._pick("p1", "p2", "")
        count = self._pick(0, 1, 5, 40)
        self._send(wire.parse(f"select g, 'row ' || g from generate_series(1, {count}) g"))
        self._send(bind([], [], "", portal, self._pick([], [1], [0, 1])))
        if self._one_in_hundred(50):
            self._send(wire.describe("P", portal))
        for _ in range(self.chance.randrange(1, 5)):
            self._send(wire.execute(portal, self._pick(0, 1, 3, 20)))
            if self._one_in_hundred(40):
                self._sync()
                self._maybe_wait(30)
        if self._one_in_hundred(50):
            self._send(wire.close("P", portal), wire.describe("P", portal))
        self._sync()

    def _portal_unit(self):
        inside = self._one_in_hundred(70)
        if inside:
            self._control("begin")
        self._portal_step()
        if inside:
            self._control("commit")

    def _rows(self):
        """The data of a COPY into the table; in half the cases something is wrong with it."""
        start = self.chance.randrange(100, 900)
        lines = [f"{start + i}\tcopied\t{i}.25\n" for i in range(self.chance.randrange(20))]
        if self._one_in_hundred(50):
            bad = self._pick("x\ty\tz\n", "1\tduplicate\t0\n", "7\n", "\\N\tnull\t1\n", "2000\tcheck\t1\n", "\\.\n")
            lines.insert(self.chance.randrange(len(lines) + 1), bad)
        data = "".join(lines).encode()
        pieces = []
        while data:
            size = self.chance.choice((1, 7, 40, 500, 5000))
            pieces.append(copy_data(data[:size]))
            data = data[size:]
        if self._one_in_hundred(20):
            pieces.insert(self.chance.randrange(len(pieces) + 1), copy_data(b""))
        return pieces

    def _copy_in_unit(self):
        text = f"copy {self.table} (id, name, amount) from stdin"
        if self._one_in_hundred(10):
            return self._copy_with_early_sync(text)
        if self._one_in_hundred(15):
            text = self._pick(text + " (format csv, header)", "copy no_such_table from stdin", text + " binary")
        is_simple = self._one_in_hundred(60)
        is_interactive = not self._messages and not self._due and self._one_in_hundred(50)
        if is_simple:
            if self._one_in_hundred(25):
                text = self._statement() + ";" + text + ";" + self._statement()
            self._query(text)
        else:
            self._send(wire.parse(text), bind([], []), wire.execute())
            if is_interactive:
                self._send(FLUSH)
        if is_interactive:
            self._wait_some("G")
        self._send(*self._rows())
        self._send(COPY_DONE if self._one_in_hundred(75) else copy_fail(self._pick("enough", "", "wörter")))
        if self._one_in_hundred(10):
            self._send(copy_data(b"late\n"), self._pick(COPY_DONE, copy_fail()))
        if not is_simple:
            self._sync()

    def _copy_with_early_sync(self, text):
        """A Sync right behind the Execute, ignored by the COPY; if that cannot begin it ends the batch."""
        self._send(wire.parse(text), bind([], []), wire.execute(), SYNC)
        self._send(COPY_DONE, SYNC)
        self._barrier()

    def _copy_out_unit(self):
        text = self._pick(
            f"copy {self.table} to stdout",
            f"copy {self.table} (id, name) to stdout (format csv, header)",
            f"copy (select * from {self.table} order by id) to stdout binary",
            f"copy (select 1 / (id - 5) from {self.table} order by id) to stdout",
            "copy (select repeat('x', 3000) from generate_series(1, 100)) to stdout",
            f"copy {self.table} (id) to stdout; select 1; copy {self.table} (name) to stdout",
        )
        if self._one_in_hundred(60):
            return self._query(text)
        self._send(wire.parse(text), bind([], []), wire.execute())
        return self._sync()

    def _call(self):
        """A function call message: int4pl, int4div, and what fails."""
        oid = self._pick(177, 154, 154, 1, 4_000_000)
        left, right = struct.pack("!i", self._id()), struct.pack("!i", self._pick(0, 1, 3))
        arguments = self._pick([left, right], [left, right], [left], [left, b"x"])
        self._send(wire.function_call(oid, arguments))
        self._due += 1

    def _call_unit(self):
        self._call()

    def _settings_unit(self):
        for _ in range(self.chance.randrange(1, 4)):
            name = self._pick(*SETTINGS)
            value = self._pick(*SETTINGS[name])
            if value == "default" and self.startup:
                continue
            text = self._pick(f"set {name} = {value}", f"set {name} = {value}", f"set local {name} = {value}")
            if self._one_in_hundred(20):
                text = f"select set_config('{name}', 'utc', {self._pick('true', 'false')})"
            elif self._one_in_hundred(20) and not self.startup:
                text = self._pick(f"reset {name}", f"reset {name}", "reset all")
            elif self._one_in_hundred(10):
                text = self._pick(*OTHER_SETS)
            self._control(text)
            self._maybe_wait(30)
            if self._one_in_hundred(60):
                self._control(f"show {name}")
        if self._one_in_hundred(50):
            shown = "moment, interval '1 mon 2 days 03:04:05', '\\'"
            self._query(f"select {shown} from {self.table} where id < 3 order by id")

    def _prepare_unit(self):
        """PREPARE, EXECUTE and DEALLOCATE in SQL, in and out of blocks, by either protocol."""
        t, i = self.table, self._id()
        names = ("q1", "q1", "q2", "Q1", '"Q 3"')
        for _ in range(self.chance.randrange(1, 7)):
            if self._one_in_hundred(15):
                self._shared_step()
                continue
            name = self._pick(*names)
            text = self._pick(
                f"prepare {name} as select {i}, 'text'",
                f"prepare {name} (int) as select $1 + {i}",
                f"prepare {name} (int, text) as select $1, $2, length($2)",
                f"prepare {name} as select * from {t} where id = $1",
                f"prepare {name} (int) as update {t} set amount = amount + $1 where id < {i} returning id, amount",
                f"prepare {name} as selec",
                f"execute {name}",
                f"execute {name} ({i})",
                f"execute {name} ({i})",
                f"execute {name} ({i}, 'it''s')",
                f"explain (costs off) execute {name} ({i})",
                f"execute {name} (1 / ({i} - {i}))",
                f"deallocate {name}",
                f"deallocate prepare {name}",
                f"begin; prepare {name} as select 'block'; rollback",
            )
            if self._one_in_hundred(10):
                text += f"; execute {name}"
            if ";" in text or self._one_in_hundred(50):
                self._query(text)
            else:
                self._control(text)
            self._maybe_wait(30)
        if self._one_in_hundred(60):
            self._control("deallocate all")

    def _shared_step(self):
        """SQL of names that Parse uses, too."""
        name = self._pick(*SHARED_NAMES)
        in_sql = name.replace("S1", '"S1"')
        i = self._id()
        if self._one_in_hundred(30):
            # The name is taken then.
            self._send(wire.parse(f"select {i}, 'of Parse'", name))
            self._sync()
            self._maybe_wait(30)
            return self._query(f"prepare {in_sql}{self._pick('', ' (int)')} as select {i}, 'of PREPARE'")
        other = self._pick(*SHARED_NAMES).replace("S1", '"S1"')
        if self._one_in_hundred(35):
            return self._shared_batch(name, in_sql)
        text = self._pick(
            f"explain (costs off) execute {in_sql}",
            f"select {i}; execute {in_sql}; deallocate {in_sql}",
            f"begin; deallocate {in_sql}; rollback",
            f"begin; prepare {in_sql} as select {i}; savepoint s",
            f"deallocate {in_sql}; deallocate {other}",
            f"deallocate {in_sql}; prepare {in_sql} as select {i}, 'of PREPARE'; execute {in_sql}",
            f"execute {in_sql}",
            f"execute {in_sql} ({i})",
            f"execute {in_sql} ({i}, 'two')",
            f"execute {in_sql} (1 / ({i} - {i}))",
            f"execute {in_sql} ({i}); select {i}",
            f"deallocate {in_sql}",
            f"deallocate prepare {in_sql}",
        )
        return self._query(text)

    def _shared_batch(self, name, in_sql):
        """The same by extended messages, with others of that name in the same batch, or in the next."""
        text = self._pick(
            f"deallocate {in_sql}",
            f"deallocate {in_sql}",
            f"execute {in_sql}",
            f"explain (costs off) execute {in_sql}",
            f"prepare {in_sql} as select 'of PREPARE'",
        )
        command = self._pick("", "", "command")
        if self._one_in_hundred(70 if command else 95):
            self._send(wire.parse(text, command))
        if self._one_in_hundred(20):
            self._send(wire.describe("S", command))
        if self._one_in_hundred(15):
            self._sync()
            self._maybe_wait(50)
        self._send(bind([], [], command))
        if self._one_in_hundred(30):
            self._send(wire.describe("P", ""))
        if self._one_in_hundred(90):
            self._send(wire.execute())
        if self._one_in_hundred(50):
            self._sync()
            self._maybe_wait(30)
        follow = self.chance.randrange(5)
        if follow == 0:
            self._send(*self._extended(name))
        elif follow == 1:
            self._send(bind([], [], name), wire.execute())
        elif follow == 2:
            self._send(wire.close("S", name))
        elif follow == 3:
            self._send(wire.parse("select 'behind it'", name))
        self._sync()

    def _stale_unit(self):
        """Somebody else adds a column to what a prepared statement selects, and takes it away."""
        self._wait_ready()
        self._barrier()
        in_sql = self._one_in_hundred(40)
        text = f"select * from {self.table} order by id limit 2"
        self._query("deallocate all")
        if in_sql:
            self._query(f"prepare stale as {text}")
        else:
            self._send(wire.parse(text, "stale"))
            self._sync()
        use = [wire.query("execute stale")]
        if not in_sql:
            use = [bind([], [], "stale"), wire.describe("P", ""), wire.execute(), SYNC]
        self._put(*use)
        self._due += 1
        self._wait_ready()
        for change in ("add extra int", "drop extra"):
            for number in range(self.chance.randrange(1, 4)):
                self._put(*use)
                self._due += 1
                self._wait_ready()
                self.exchanges[-1].may_be_stale = STALE_IN_SQL if in_sql else STALE
                if number == 0:
                    self.exchanges[-1].before = f"alter table {self.table} {change}"
        self._query("deallocate stale" if in_sql else "select 1")
        self._send(wire.close("S", "stale"))
        self._sync()

    def _cursor_unit(self):
        """Cursors in SQL over several queries; outside of a block there is none."""
        declares = (
            f"declare k cursor for select id, name from {self.table} order by id",
            f"declare k scroll cursor with hold for select id from {self.table} order by id",
            "declare k no scroll cursor for select generate_series(1, 30)",
            "declare k binary cursor for select 1::int4, 'x'::text",
        )
        moves = ("fetch k", "fetch 3 from k", "fetch all k", "fetch last k", "fetch prior k", "fetch absolute 2 k")
        moves += ("move 2 k", "move backward all k", "fetch 0 k", f"delete from {self.table} where current of k")
        self._control(self._pick(*declares))
        for _ in range(self.chance.randrange(1, 5)):
            self._control(self._pick(*moves))
            self._maybe_wait(30)
        self._control(self._pick("close k", "close k", "close all", "fetch 1 k"))

    def _state_unit(self):
        """What a session has beside its parameters."""
        lane, key = self.table[-1], self._id()
        states = (
            "create temporary table own (x int)",
            "create temporary table own as select 5 as x",
            "insert into own values (1), (2)",
            "select count(*), sum(x) from own",
            "drop table own",
            f"declare held cursor with hold for select id from {self.table} order by id",
            "fetch 3 from held",
            "close held",
            f"select pg_advisory_lock({lane}, {key})",
            f"select pg_advisory_unlock({lane}, {key})",
            f"listen channel_{lane}",
            f"notify channel_{lane}, 'payload {key}'",
            f"unlisten channel_{lane}",
            "discard temp",
        )
        for _ in range(self.chance.randrange(1, 6)):
            self._control(self._pick(*states))
            self._maybe_wait(30)

    def _large_unit(self):
        size = self._pick(9_000, 70_000, 300_000)
        kind = self.chance.randrange(5)
        if kind == 0:
            self._query(f"select repeat('x', {size}), {size}")
        elif kind == 1:
            self._query(f"select g, md5(g::text) from generate_series(1, {size // 100}) g")
        elif kind == 2:
            self._query(f"select length('{'y' * size}')")
        elif kind == 3:
            self._send(wire.parse("select $1::text, length($1)"), bind([b"z" * size], []), wire.execute())
            self._sync()
        else:
            self._send(wire.parse("select 5" + " " * size, "large"), bind([], [], "large"), wire.execute())
            self._send(wire.close("S", "large"))
            self._sync()

    def _flush_unit(self):
        """A client that reads each answer before it goes on, by Flush."""
        self._wait_ready()
        self._send(wire.parse("select generate_series(1, 4)"), FLUSH)
        self._wait_some("1")
        self._send(bind([], [], "", "p1"), wire.describe("P", "p1"), FLUSH)
        self._wait_some("T")
        for number in range(self.chance.randrange(1, 4)):
            self._send(wire.execute("p1", 2), FLUSH)
            if self._one_in_hundred(70):
                self._wait_some("sC", number + 1)
        self._send(*self._extended())
        self._sync()

    def _wild_unit(self):
        """Messages in any order. How many ReadyForQuery they bring is not known here."""
        names, portals = ("", "", "s1", "s2"), ("", "", "p1")
        for _ in range(self.chance.randrange(2, 25)):
            kind = self.chance.choice("PPPBBBBDDEEEECSSSHQFdcf")
            name, portal = self._pick(*names), self._pick(*portals)
            if kind == "P":
                self._send(wire.parse(self._pick(self._statement(), self._parameters()[0], "begin", "commit"), name))
            elif kind == "B":
                _, parameters, columns = self._parameters()
                self._send(self._bind(self._pick(parameters, []), columns, name, portal))
            elif kind == "D":
                self._send(self._pick(wire.describe("S", name), wire.describe("P", portal)))
            elif kind == "E":
                self._send(wire.execute(portal, self._pick(0, 1, 3)))
            elif kind == "C":
                self._send(self._pick(wire.close("S", name), wire.close("P", portal)))
            elif kind == "Q":
                self._send(wire.query(self._pick(self._statement(), "begin", "commit", "deallocate all")))
            elif kind == "F":
                self._send(wire.function_call(177, [b"\0\0\0\1", b"\0\0\0\2"]))
            elif kind == "d":
                self._send(copy_data(b"no copy\n"))
            else:
                self._send({"S": SYNC, "H": FLUSH, "c": COPY_DONE, "f": copy_fail()}[kind])
        self._barrier()

    def _malformed_unit(self):
        """Bodies that are no messages, in frames that are: PostgreSQL says so and goes on."""
        kind = self._pick("Q", "P", "B", "D", "E", "C", "F", "S")
        body = self._pick(b"", b"x", b"\0\0", b"no end", b"a\0b\0\0\0\0\0\0\0\0", b"\0" * 40, b"Z\0")
        if kind == "D" or kind == "C":
            body = self._pick(b"Z\0", b"S\0rest", b"P", b"", b"Snone\0")
        self._send(*self._extended())
        self._send(wire.message(kind, body))
        self._send(*self._extended())
        self._barrier()

    def _violation(self):
        """The end of a script: what PostgreSQL does not forgive."""
        if self._one_in_hundred(50):
            self._query(self._statement())
            self._maybe_wait(50)
            self._send(wire.message("z", b"what is this"))
        else:
            self._query("begin read write")
            self._wait_ready()
            self._send(wire.query(f"copy {self.table} from stdin"))
            self._wait_some("G")
            self._send(wire.query("select 1"))
        self._wait(("end",))
