#!/bin/sh
# What runs inside the machine that tools/test-kernel boots. As process 1 it makes the machine usable, starts itself
# again as an ordinary user, and switches the machine off. The report goes to the second serial line, the kernel's
# messages to the first, so that neither is in the middle of the other. Lines of the report:
#   @begin NAME, @end STATUS     around the output of a program or a series of checks
#   @doing WHAT                  what is done now
#   @check passed|failed WHAT    one check
#   @note TEXT                   what a reader wants to know
# What is tested is in /test, and the parameter POSTGRES of the kernel says where PostgreSQL's programs are.

program_seconds=900 # A program that takes longer hangs.

prepare_machine() {
  /bin/busybox --install -s /bin
  mount -t devtmpfs devtmpfs /dev
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=1777 tmpfs /tmp
  mkdir /dev/shm /dev/pts
  mount -t devpts devpts /dev/pts
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  ip link set lo up
  # As systemd gives them to a service.
  ulimit -Hn 524288
  ulimit -Sn 1024
}

run_program() { # NAME, command...
  echo "@begin $1"
  shift
  "$@" </dev/null 2>&1
  echo "@end $?"
}

check() { # WHAT, command...: good when the command is.
  what=$1
  shift
  echo "@doing $what"
  if output=$("$@" 2>&1); then
    echo "@check passed $what"
  else
    echo "@check failed $what"
    printf '%s\n' "$output" | tail -n 30 | sed 's/^/@note     /'
  fi
}

gives() { # EXPECTED, command...
  expected=$1
  shift
  got=$("$@" 2>&1)
  [ "$got" = "$expected" ] || {
    printf 'expected: %s\ngot: %s\n' "$expected" "$got"
    return 1
  }
}

wait_for() { # seconds, command...
  seconds=$1
  shift
  until "$@" >/dev/null 2>&1; do
    seconds=$((seconds - 1))
    [ "$seconds" -gt 0 ] || return 1
    sleep 1
  done
}

start_postgres() {
  initdb -D /tmp/data -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions >/tmp/initdb.log 2>&1 || {
    cat /tmp/initdb.log
    return 1
  }
  cat >>/tmp/data/postgresql.conf <<'TEXT'
port = 5432
listen_addresses = '127.0.0.1'
unix_socket_directories = '/tmp'
shared_buffers = '32MB'
fsync = off
autovacuum = off
TEXT
  printf '%s\n' 'local all all trust' 'host all all 127.0.0.1/32 scram-sha-256' >/tmp/data/pg_hba.conf
  postgres -D /tmp/data </dev/null >/tmp/postgres.log 2>&1 &
  wait_for 120 at_server -c 'SELECT 1' || {
    cat /tmp/postgres.log
    return 1
  }
  at_server -c "CREATE ROLE app LOGIN PASSWORD '$APP_PASSWORD'" -c 'CREATE DATABASE app OWNER app'
}

start_proxy() {
  cat >/tmp/proxy.toml <<'TEXT'
[proxy]
listen = ["127.0.0.1:6432", "unix:/tmp"]
cores = 2
log_level = "debug"  # Says at the end whether anything leaked.

[pool]
max_connections = 4
acquire_timeout = "0s"

[[node]]
name = "main"
host = "127.0.0.1"

[[database]]
name = "app"
node = "main"

[[user]]
name = "app"
password = "${APP_PASSWORD}"
TEXT
  {
    /test/heliosproxy --config /tmp/proxy.toml
    echo $? >/tmp/proxy.status
  } </dev/null >/tmp/proxy.log 2>&1 &
  wait_for 60 grep 'ready: 2 cores' /tmp/proxy.log || {
    cat /tmp/proxy.log
    return 1
  }
}

at_server() { psql -XAtq -v ON_ERROR_STOP=1 -h /tmp -p 5432 -U postgres "$@" postgres; }

through_proxy() { PGPASSWORD=$APP_PASSWORD psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p 6432 -U app "$@" app; }

large_reply() {
  through_proxy -c "COPY (SELECT repeat('x', 999) FROM generate_series(1, 20000)) TO STDOUT" | wc -c
}

large_query() {
  { printf "SELECT length('" && head -c 4000000 /dev/zero | tr '\0' x && printf "')"; } >/tmp/large.sql
  through_proxy -f /tmp/large.sql
}

make_counters() {
  through_proxy -c 'CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL)' \
    -c 'INSERT INTO counter SELECT id, 0 FROM generate_series(1, 16) id'
}

# More clients than server connections, on both cores: waiting, borrowing, and waking the other core.
count_with_pgbench() { # arguments of pgbench
  cat >/tmp/count.sql <<'TEXT'
\set id random(1, 16)
BEGIN;
UPDATE counter SET n = n + 1 WHERE id = :id;
END;
TEXT
  PGPASSWORD=$APP_PASSWORD pgbench -n -f /tmp/count.sql -c 16 -j 2 "$@" -h 127.0.0.1 -p 6432 -U app app
}

has_few_connections() { gives t at_server -c "SELECT count(*) <= 4 FROM pg_stat_activity WHERE usename = 'app'"; }

with_wrong_password() {
  APP_PASSWORD=wrong through_proxy -c 'SELECT 1' 2>&1 | grep -o 'password authentication failed'
}

proxy_stops() {
  kill -TERM "$(pidof heliosproxy)"
  wait_for 60 test -s /tmp/proxy.status
  gives 0 cat /tmp/proxy.status && grep 'leaks: none' /tmp/proxy.log
}

test_proxy() {
  export APP_PASSWORD=app-secret
  check 'PostgreSQL starts' start_postgres
  check 'the proxy starts on two cores' start_proxy
  echo "@note $(grep -o 'io_uring on kernel.*' /tmp/proxy.log)"
  check 'a query is answered over TCP' gives 42 through_proxy -c 'SELECT 6 * 7'
  check 'a query is answered over a unix socket' gives 42 through_proxy -h /tmp -c 'SELECT 6 * 7'
  check 'a wrong password is refused' gives 'password authentication failed' with_wrong_password
  check 'a reply of 20 MB arrives whole' gives 20000000 large_reply
  check 'a query of 4 MB arrives whole' gives 4000000 large_query
  check 'a table is made and filled' make_counters
  check '16 clients share 4 server connections' count_with_pgbench -t 50
  check '16 clients share them with the extended protocol' count_with_pgbench -t 50 -M extended
  check '16 clients connect for each transaction' count_with_pgbench -t 10 -C
  check 'the server has 4 connections at the most' has_few_connections
  check 'each transaction was done once' gives 1760 through_proxy -c 'SELECT sum(n) FROM counter'
  check 'the proxy stops without an error or a leak' proxy_stops
  cat /tmp/proxy.log
}

run_tests() {
  echo "@note Linux $(uname -r), $(nproc) CPUs, user $(id -un)"
  for program in runtime_test thread_test net_test; do
    run_program "$program" timeout -s KILL "$program_seconds" "/test/$program" --no-colors=true --duration=true
  done
  run_program proxy test_proxy
}

if [ $$ -ne 1 ]; then
  run_tests
  exit
fi
export PATH="/bin:$POSTGRES"
prepare_machine
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw
su -s /bin/sh tester -c /init
poweroff -f
