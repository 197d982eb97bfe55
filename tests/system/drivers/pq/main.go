// lib/pq: unnamed and named statements by the extended protocol, COPY, cancel by context.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/lib/pq"
)

const rowsCount = 200

// How often each client notifies, and the channel that all of them listen to.
const newsCount = 5
const news = "news"

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
	if err == nil {
		panic("no error " + code)
	}
	if found, ok := err.(*pq.Error); !ok || string(found.Code) != code {
		panic(fmt.Sprintf("%s expected, not %v", code, err))
	}
}

// By the environment: PGHOST and its like.
func open(options string) *sql.DB {
	db, err := sql.Open("postgres", "sslmode=disable "+options)
	must(err)
	db.SetMaxOpenConns(1)
	return db
}

func makeTable(table string) {
	db := open("")
	defer db.Close()
	_, err := db.Exec("drop table if exists " + table + "; create table " + table + " (id int primary key, name text)")
	must(err)
}

func simple(string) {
	db := open("")
	defer db.Close()
	for turn := 0; turn < 20; turn++ {
		rows, err := db.Query(fmt.Sprintf("select %d; select %d", turn, turn+1))
		must(err)
		var found []int
		for more := true; more; more = rows.NextResultSet() {
			for rows.Next() {
				var value int
				must(rows.Scan(&value))
				found = append(found, value)
			}
		}
		must(rows.Close())
		expect(fmt.Sprint([]int{turn, turn + 1}), fmt.Sprint(found))
	}
}

func parameters(string) {
	for _, options := range []string{"", "binary_parameters=yes"} {
		db := open(options)
		for turn := 0; turn < 20; turn++ {
			var number int
			var text string
			var data []byte
			row := db.QueryRow("select $1::int, $2::text, $3::bytea", turn, "it's", []byte{0, 255})
			must(row.Scan(&number, &text, &data))
			expect(turn, number)
			expect("it's", text)
			expect(2, len(data))
		}
		db.Close()
	}
}

func prepared(string) {
	db := open("")
	defer db.Close()
	first, err := db.Prepare("select $1::int + 1")
	must(err)
	second, err := db.Prepare("select $1::int * 2")
	must(err)
	for turn := 0; turn < 20; turn++ {
		var one, two int
		must(first.QueryRow(turn).Scan(&one))
		must(second.QueryRow(turn).Scan(&two))
		expect(turn+1, one)
		expect(turn*2, two)
	}
	must(first.Close())
	must(second.Close())
}

func batch(table string) {
	db := open("")
	defer db.Close()
	tx, err := db.Begin()
	must(err)
	statement, err := tx.Prepare("insert into " + table + " values ($1, $2)")
	must(err)
	for id := 0; id < rowsCount; id++ {
		_, err = statement.Exec(id, "name "+strconv.Itoa(id))
		must(err)
	}
	must(statement.Close())
	must(tx.Commit())
	expect(rowsCount, count(db, table))
}

func count(db *sql.DB, table string) (found int) {
	must(db.QueryRow("select count(*) from " + table).Scan(&found))
	return
}

func copyRows(table string) {
	db := open("")
	defer db.Close()
	_, err := db.Exec("truncate " + table)
	must(err)
	feed := func(ids ...interface{}) error {
		tx, err := db.Begin()
		must(err)
		defer tx.Rollback()
		statement, err := tx.Prepare(pq.CopyIn(table, "id", "name"))
		must(err)
		for _, id := range ids {
			if _, err = statement.Exec(id, fmt.Sprintf("name %v", id)); err != nil {
				return err
			}
		}
		if _, err = statement.Exec(); err != nil {
			return err
		}
		must(statement.Close())
		return tx.Commit()
	}
	var ids []interface{}
	for id := 0; id < rowsCount; id++ {
		ids = append(ids, id)
	}
	must(feed(ids...))
	expectCode("22P02", feed(1000, "no number"))
	expect(rowsCount, count(db, table))
}

func errors(table string) {
	db := open("")
	defer db.Close()
	tx, err := db.Begin()
	must(err)
	_, err = tx.Exec("insert into "+table+" values ($1, 'lost')", 500)
	must(err)
	_, err = tx.Exec("select 1 / $1::int", 0)
	expectCode("22012", err)
	_, err = tx.Exec("select 1")
	expectCode("25P02", err)
	must(tx.Rollback())
	expect(rowsCount, count(db, table))
	_, err = db.Prepare("select from where")
	expectCode("42601", err)
}

// The Listener has a connection of its own, which it does not tell the process id of.
func notify(table string) {
	db := open("")
	defer db.Close()
	events := make(chan error, 10)
	onEvent := func(_ pq.ListenerEventType, err error) {
		if err != nil {
			events <- err
		}
	}
	listener := pq.NewListener("sslmode=disable", time.Minute, time.Minute, onEvent)
	defer listener.Close()
	must(listener.Listen(table))
	must(listener.Listen(news))
	heard := map[string]int{}
	hear := func(channel, payload string) {
		for {
			select {
			case found := <-listener.Notify:
				if found == nil || found.BePid <= 0 {
					panic(fmt.Sprintf("not a notification: %v", found))
				}
				heard[found.Channel+" "+found.Extra]++
				if found.Channel == channel && found.Extra == payload {
					return
				}
				expect(news, found.Channel)
				expect("driver_", found.Extra[:7])
			case err := <-events:
				panic(err)
			case <-time.After(time.Minute):
				panic(payload + " is not heard within a minute")
			}
		}
	}
	for turn := 0; turn < newsCount; turn++ {
		payload := fmt.Sprintf("%s %d", table, turn)
		for _, channel := range []string{table, news} {
			_, err := db.Exec("select pg_notify($1, $2)", channel, payload)
			must(err)
			hear(channel, payload)
		}
	}
	for turn := 0; turn < newsCount; turn++ {
		for _, channel := range []string{table, news} {
			expect(1, heard[fmt.Sprintf("%s %s %d", channel, table, turn)])
		}
	}
	must(listener.UnlistenAll())
}

func cancel(string) {
	db := open("")
	defer db.Close()
	ctx, stop := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer stop()
	began := time.Now()
	_, err := db.ExecContext(ctx, "select pg_sleep(30)")
	if err == nil || time.Since(began) > 25*time.Second {
		panic(fmt.Sprintf("not cancelled: %v", err))
	}
	var after string
	must(db.QueryRow("select 'after'").Scan(&after))
	expect("after", after)
}

func reconnect(string) {
	for turn := 0; turn < 10; turn++ {
		db := open("")
		var found int
		must(db.QueryRow("select $1::int", turn).Scan(&found))
		expect(turn, found)
		must(db.Close())
	}
}

func main() {
	names := []string{"simple", "parameters", "prepared", "batch", "copy", "errors", "notify", "cancel", "reconnect"}
	checks := []func(string){simple, parameters, prepared, batch, copyRows, errors, notify, cancel, reconnect}
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
