// pgx: every statement prepared by name and kept, binary results, batches, COPY in binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

const rowsCount = 200

// How often each client notifies, and the channel that all of them listen to.
const newsCount = 5
const news = "news"

var background = context.Background()

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(wanted, got interface{}) {
	if wanted != got {
		panic(fmt.Sprintf("%v expected, not %v", wanted, got))
	}
}

func expectCode(code string, err error) {
	var found *pgconn.PgError
	if !errors.As(err, &found) || found.Code != code {
		panic(fmt.Sprintf("%s expected, not %v", code, err))
	}
}

// By the environment: PGHOST and its like.
func open(options string) *pgx.Conn {
	conn, err := pgx.Connect(background, "sslmode=disable "+options)
	must(err)
	return conn
}

func shut(conn *pgx.Conn) {
	must(conn.Close(background))
}

func makeTable(table string) {
	conn := open("")
	defer shut(conn)
	sql := "drop table if exists " + table + "; create table " + table + " (id int primary key, name text)"
	_, err := conn.Exec(background, sql)
	must(err)
}

func simple(string) {
	conn := open("")
	defer shut(conn)
	for turn := 0; turn < 20; turn++ {
		results, err := conn.PgConn().Exec(background, fmt.Sprintf("select %d; select 'second'", turn)).ReadAll()
		must(err)
		expect(strconv.Itoa(turn), string(results[0].Rows[0][0]))
		expect("second", string(results[1].Rows[0][0]))
	}
}

// The ways in which the driver sends a statement: prepared and kept, described first, unnamed in one step.
func parameters(string) {
	for _, options := range []string{"", "statement_cache_mode=describe", "statement_cache_capacity=0"} {
		conn := open(options)
		for turn := 0; turn < 20; turn++ {
			var number int
			var text string
			var data []byte
			row := conn.QueryRow(background, "select $1::int, $2::text, $3::bytea", turn, "it's", []byte{0, 255})
			must(row.Scan(&number, &text, &data))
			expect(turn, number)
			expect("it's", text)
			expect(2, len(data))
		}
		shut(conn)
	}
}

func prepared(string) {
	conn := open("")
	defer shut(conn)
	_, err := conn.Prepare(background, "by name", "select $1::int + 1")
	must(err)
	for turn := 0; turn < 20; turn++ {
		var found int
		must(conn.QueryRow(background, "by name", turn).Scan(&found))
		expect(turn+1, found)
	}
	must(conn.Deallocate(background, "by name"))
	_, err = conn.Prepare(background, "bad", "select from where")
	expectCode("42601", err)
}

func batch(table string) {
	conn := open("")
	defer shut(conn)
	var batch pgx.Batch
	for id := 0; id < rowsCount; id++ {
		batch.Queue("insert into "+table+" values ($1, $2)", id, "name "+strconv.Itoa(id))
	}
	must(conn.SendBatch(background, &batch).Close())
	expect(rowsCount, count(conn, table))

	var failing pgx.Batch
	failing.Queue("insert into "+table+" values ($1, 'lost')", 900)
	failing.Queue("select 1 / $1::int", 0)
	failing.Queue("insert into "+table+" values ($1, 'lost')", 901)
	expectCode("22012", conn.SendBatch(background, &failing).Close())
	expect(rowsCount, count(conn, table))
}

func count(conn *pgx.Conn, table string) (found int) {
	must(conn.QueryRow(background, "select count(*) from "+table).Scan(&found))
	return
}

func copyRows(table string) {
	conn := open("")
	defer shut(conn)
	_, err := conn.Exec(background, "truncate "+table)
	must(err)
	var rows [][]interface{}
	for id := 0; id < rowsCount; id++ {
		rows = append(rows, []interface{}{int32(id), "name " + strconv.Itoa(id)})
	}
	columns := []string{"id", "name"}
	copied, err := conn.CopyFrom(background, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
	must(err)
	expect(int64(rowsCount), copied)
	_, err = conn.CopyFrom(background, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
	expectCode("23505", err)
	expect(rowsCount, count(conn, table))
}

func failures(table string) {
	conn := open("")
	defer shut(conn)
	must(conn.BeginFunc(background, func(tx pgx.Tx) error {
		_, err := tx.Exec(background, "insert into "+table+" values ($1, 'kept')", 500)
		must(err)
		err = tx.BeginFunc(background, func(inner pgx.Tx) error {
			_, err := inner.Exec(background, "insert into "+table+" values ($1, 'lost')", 501)
			must(err)
			_, err = inner.Exec(background, "select 1 / $1::int", 0)
			return err
		})
		expectCode("22012", err)
		return nil
	}))
	var sum int
	must(conn.QueryRow(background, "select sum(id) from "+table+" where id >= 500").Scan(&sum))
	expect(500, sum)
}

// On the channel of its table a client hears another one, on that of all itself, by the process id that its driver was
// told, and other clients.
func notify(table string) {
	conn, other := open(""), open("")
	defer shut(conn)
	defer shut(other)
	_, err := conn.Exec(background, "listen "+table+"; listen "+news)
	must(err)
	hear := func(channel, payload string, isOwn bool) {
		ctx, stop := context.WithTimeout(background, time.Minute)
		defer stop()
		for {
			found, err := conn.WaitForNotification(ctx)
			must(err)
			if found.Channel == channel && found.Payload == payload {
				expect(isOwn, found.PID == conn.PgConn().PID())
				return
			}
			// Nothing else of its own: neither out of turn nor twice.
			expect(news, found.Channel)
			expect("driver_", found.Payload[:7])
			expect(false, strings.HasPrefix(found.Payload, table+" "))
			expect(false, found.PID == conn.PgConn().PID())
		}
	}
	for turn := 0; turn < newsCount; turn++ {
		payload := fmt.Sprintf("%s %d", table, turn)
		_, err = other.Exec(background, "select pg_notify($1, $2)", table, payload)
		must(err)
		hear(table, payload, false)
		_, err = conn.Exec(background, "select pg_notify($1, $2)", news, payload)
		must(err)
		hear(news, payload, true)
	}
	_, err = conn.Exec(background, "unlisten *")
	must(err)
	_, err = other.Exec(background, "select pg_notify($1, 'to nobody')", table)
	must(err)
	_, err = conn.Exec(background, "select 1")
	must(err)
	// What has come and was not asked for: at most what others said before.
	ended, stop := context.WithCancel(background)
	stop()
	for found, _ := conn.WaitForNotification(ended); found != nil; found, _ = conn.WaitForNotification(ended) {
		expect(news, found.Channel)
		expect(false, found.PID == conn.PgConn().PID())
	}
}

// A context that ends closes the connection of this driver; its own cancel request leaves it open.
func cancel(string) {
	conn := open("")
	defer shut(conn)
	done := make(chan bool)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				must(conn.PgConn().CancelRequest(background))
			}
		}
	}()
	began := time.Now()
	_, err := conn.Exec(background, "select pg_sleep(30)")
	done <- true
	expectCode("57014", err)
	expect(true, time.Since(began) < 25*time.Second)
	var after string
	must(conn.QueryRow(background, "select 'after'").Scan(&after))
	expect("after", after)
}

func reconnect(string) {
	for turn := 0; turn < 10; turn++ {
		conn := open("")
		var found int
		must(conn.QueryRow(background, "select $1::int", turn).Scan(&found))
		expect(turn, found)
		shut(conn)
	}
}

func main() {
	names := []string{"simple", "parameters", "prepared", "batch", "copy", "errors", "notify", "cancel", "reconnect"}
	checks := []func(string){simple, parameters, prepared, batch, copyRows, failures, notify, cancel, reconnect}
	clients, err := strconv.Atoi(os.Getenv("DRIVER_CLIENTS"))
	must(err)
	var group sync.WaitGroup
	for number := 0; number < clients; number++ {
		group.Add(1)
		go func(table string) {
			defer group.Done()
			makeTable(table)
			for _, check := range checks {
				check(table)
			}
		}(fmt.Sprintf("driver_%s_%d", os.Getenv("DRIVER"), number))
	}
	group.Wait()
	for _, name := range names {
		fmt.Println("ok", name)
	}
}
