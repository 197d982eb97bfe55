-- What psql does besides, on the database of schema.sql. It ends as it has begun: everything is run again.
\set ON_ERROR_STOP on
set search_path = shop, public;
\echo :SERVER_VERSION_NUM :DBNAME :USER :ENCODING

\echo * results of all forms
select name, weight, span from customers order by id limit 4 \gdesc
select 1 as one, 'two'::text as two, null::mood as three, array[1.5]::numeric(8, 3)[] as four \gdesc
create table never (x int) \gdesc
select format('select %L as word, %s as number', mood, place) from moods() \gexec
select format('create table made_%s (x int)', n), format('drop table made_%s', n) from generate_series(1, 3) n \gexec
select feels, extract(year from born)::int / 10 * 10 as decade, count(*)
from customers group by 1, 2 order by 1, 2 \crosstabview feels decade count decade
\crosstabview
select max(id) as top, min(id) as bottom from customers \gset found_
select :found_top - :found_bottom as range, :'found_top' as text;
select * from customers where id = 20 \gx
select 1 as a \; select 2 as b \; select 3 as c;
\x on
table parent;
\x off
\pset format csv
table watched;
\pset format html
table rooms;
\pset format aligned
\pset null '(nothing)'
table by_mood;
\pset null ''
select n from numbers \g (format=unaligned tuples_only=on)
select 'through a command' \g | cat
\if :{?found_top}
  \echo it is there
\else
  \quit
\endif

\echo * COPY
create temp table copied (like customers including all);
\copy customers (name, mail, picture, tags) to 'customers.text'
\copy copied (name, mail, picture, tags) from 'customers.text'
\copy (select name, mail from copied order by 1, 2 limit 3) to stdout with (format csv, header, force_quote *)
\copy copied to 'copied.binary' (format binary)
truncate copied;
-- Such a command is one line.
\copy copied (id, name, mail, home, feels, born, seen, rate, weight, span, picture, tags, facts, wait) from 'copied.binary' binary
select count(*), md5(string_agg(c::text, '|' order by c.id)) from copied c;
drop table copied;
create temp table copied (a int, b text);
copy copied from stdin;
1	one
2	two
\.
\copy copied from program 'printf "3\tthree\n4\t\\\\N\n"'
\copy copied to program 'cat'
copy copied to stdout;
\unset ON_ERROR_STOP
copy copied from stdin;
5	five
x	six
7	seven
\.
\copy copied from 'no such file'
\copy nothing to stdout
copy nothing from stdin;
select 'not data';
\.
\set ON_ERROR_STOP on
table copied;
drop table copied;

\echo * cursors that psql opens by itself
\set FETCH_COUNT 7
select n, word from watched order by n;
begin;
select n from watched order by n;
commit;
\unset ON_ERROR_STOP
select 10 / (15 - n) as x from watched order by n;
\set ON_ERROR_STOP on
\unset FETCH_COUNT

\echo * transactions that psql begins by itself
\set AUTOCOMMIT off
insert into fast values ('auto', 'rolled back');
rollback;
select count(*) from fast where key = 'auto';
commit;
\set ON_ERROR_ROLLBACK on
\unset ON_ERROR_STOP
insert into fast values ('auto', 'stays');
insert into fast values ('auto', 'a second time');
select 1 / 0;
no sql;
select value from fast where key = 'auto';
delete from fast where key = 'auto';
commit;
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT on

\echo * settings, and what is left of them
set datestyle = 'German';
set time zone 'Asia/Kathmandu';
set bytea_output = escape;
\encoding LATIN1
select '2024-02-29'::date, timestamptz '2024-02-29 12:00Z', '\x00ff'::bytea, pg_client_encoding(), octet_length('x');
\encoding UTF8
show datestyle;
begin;
set local datestyle = 'SQL, DMY';
savepoint here;
set local time zone 'UTC';
select '2024-02-29'::date, timestamptz '2024-02-29 12:00Z';
rollback to here;
select timestamptz '2024-02-29 12:00Z';
commit;
select timestamptz '2024-02-29 12:00Z';
reset all;
select timestamptz '2024-02-29 12:00Z', current_setting('search_path'), current_setting('app.tenant');
set search_path = shop, public;
prepare by_id (int) as select name from customers where id = $1;
execute by_id (30);
select 1;
execute by_id (40);
deallocate by_id;
create temp sequence turns;
create function pg_temp.turn() returns bigint language sql as $$ select nextval('turns') $$;
select pg_temp.turn(), pg_temp.turn();
select currval('turns');
discard temp;

\echo * large objects, by calls of functions
\! printf 'a large object\n' > large
\lo_import large 'My picture'
\set oid :LASTOID
select loid = :oid as is_known, convert_from(data, 'UTF8') from pg_largeobject where loid = :oid;
\lo_export :oid large.out
\! cmp large large.out && echo the same
begin;
select lo_put(:oid, 2, 'LARGE');
\lo_export :oid large.out
rollback;
\! cat large.out
\lo_unlink :oid
select count(*) from pg_largeobject_metadata where oid = :oid;

\echo * errors
\unset ON_ERROR_STOP
select 1 / 0;
\errverbose
select no_column from customers;
select
  'two lines' ||
  from watched;
\set VERBOSITY verbose
insert into customers (id, name, mail) overriding system value values (1, 'x', 'no at sign');
\set VERBOSITY sqlstate
call log_word(1, 2, 3);
\set VERBOSITY default
\set SHOW_CONTEXT always
do $$
begin
  raise notice 'heard';
  raise exception 'thrown' using hint = 'none', detail = 'some', errcode = 'ABCDE';
end $$;
\echo :ERROR :SQLSTATE :LAST_ERROR_MESSAGE
begin;
select 1 / 0;
select 1;
commit;
call log_word('word');
select 2 as two \; select 1 / 0 \; select 3 as three;
execute by_id (30);

\echo * again and again, until it fails
select nextval('three_times') as turn \watch 0.01
select setval('three_times', 1, false);

\echo * other databases
\c postgres
select current_database(), current_user;
\c tools_source tools_clerk
select current_database(), current_user, current_setting('work_mem'), current_setting('app.tenant');
\c - tools_chief
select current_database(), current_user;
