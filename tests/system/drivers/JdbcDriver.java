// The PostgreSQL JDBC driver: statements of its own naming after a few uses, binary results, batches.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

public class JdbcDriver {
  interface Check {
    void run(String table) throws Exception;
  }

  static final int ROWS = 200;

  static Connection connect(String... options) throws SQLException {
    Map<String, String> environment = System.getenv();
    Properties properties = new Properties();
    properties.setProperty("user", environment.get("PGUSER"));
    properties.setProperty("password", environment.get("PGPASSWORD"));
    properties.setProperty("sslmode", "disable");
    properties.setProperty("gssEncMode", "disable");
    for (int i = 0; i < options.length; i += 2) properties.setProperty(options[i], options[i + 1]);
    String host = environment.get("PGHOST") + ":" + environment.get("PGPORT");
    return DriverManager.getConnection(
        "jdbc:postgresql://" + host + "/" + environment.get("PGDATABASE"), properties);
  }

  static void expect(Object wanted, Object got) {
    if (!wanted.equals(got)) throw new AssertionError(wanted + " expected, not " + got);
  }

  static void mustFail(Connection connection, String sql, String state) {
    try (Statement statement = connection.createStatement()) {
      statement.execute(sql);
    } catch (SQLException error) {
      expect(state, error.getSQLState());
      return;
    }
    throw new AssertionError("no error " + state);
  }

  static String value(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet found = statement.executeQuery(sql)) {
      found.next();
      return found.getString(1);
    }
  }

  static void makeTable(String table) throws SQLException {
    try (Connection c = connect(); Statement s = c.createStatement()) {
      s.execute("drop table if exists " + table);
      s.execute("create table " + table + " (id int primary key, name text)");
    }
  }

  static void simple(String table) throws SQLException {
    try (Connection c = connect("preferQueryMode", "simple"); Statement s = c.createStatement()) {
      for (int turn = 0; turn < 20; ++turn) {
        s.execute("select " + turn + "; select 'second'");
        s.getMoreResults();
        s.getResultSet().next();
        expect("second", s.getResultSet().getString(1));
      }
    }
  }

  static void parameters(String table) throws SQLException {
    try (Connection c = connect(); PreparedStatement s = c.prepareStatement("select ?::int, ?::text, ?")) {
      s.setInt(1, 7);
      s.setString(2, "it's");
      s.setBytes(3, new byte[] {0, -1});
      ResultSet found = s.executeQuery();
      found.next();
      expect(7, found.getInt(1));
      expect("it's", found.getString(2));
      expect(2, found.getBytes(3).length);
    }
  }

  // From the fifth use on the driver gives the statement a name, and asks for binary results.
  static void prepared(String table) throws SQLException {
    for (String threshold : new String[] {"5", "1", "-1"}) {
      try (Connection c = connect("prepareThreshold", threshold);
          PreparedStatement s = c.prepareStatement("select ? + 1, ?::timestamptz, ?::float8")) {
        for (int turn = 0; turn < 20; ++turn) {
          s.setInt(1, turn);
          s.setString(2, "2024-02-29 12:00Z");
          s.setDouble(3, turn / 3.0);
          ResultSet found = s.executeQuery();
          found.next();
          expect(turn + 1, found.getInt(1));
          expect(1709208000000L, found.getTimestamp(2).getTime());
          expect(turn / 3.0, found.getDouble(3));
        }
      }
    }
  }

  static void batch(String table) throws SQLException {
    for (String rewrite : new String[] {"false", "true"}) {
      try (Connection c = connect("reWriteBatchedInserts", rewrite)) {
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("insert into " + table + " values (?, ?)")) {
          int start = rewrite.equals("true") ? ROWS / 2 : 0;
          for (int id = start; id < start + ROWS / 2; ++id) {
            s.setInt(1, id);
            s.setString(2, "name " + id);
            s.addBatch();
          }
          expect(ROWS / 2, s.executeBatch().length);
        }
        c.commit();
      }
    }
    try (Connection c = connect()) {
      expect("" + ROWS, value(c, "select count(*) from " + table));
      try (PreparedStatement s = c.prepareStatement("insert into " + table + " values (?, 'again')")) {
        for (int id : new int[] {900, 1, 901}) {
          s.setInt(1, id);
          s.addBatch();
        }
        s.executeBatch();
        throw new AssertionError("no error");
      } catch (SQLException error) {
        expect("23505", error.getSQLState());
      }
      expect("t", value(c, "select count(*) < " + (ROWS + 2) + " from " + table));
      c.createStatement().execute("delete from " + table + " where id >= 900");
    }
  }

  static void cursors(String table) throws SQLException {
    try (Connection c = connect()) {
      c.setAutoCommit(false);
      try (Statement s = c.createStatement()) {
        s.setFetchSize(30);
        ResultSet found = s.executeQuery("select id from " + table + " order by id");
        int count = 0;
        while (found.next()) expect(count++, found.getInt(1));
        expect(ROWS, count);
      }
      c.commit();
    }
  }

  static void copy(String table) throws Exception {
    StringBuilder text = new StringBuilder();
    for (int id = 0; id < ROWS; ++id) text.append(id).append("\tname ").append(id).append('\n');
    byte[] data = text.toString().getBytes(StandardCharsets.UTF_8);
    try (Connection c = connect()) {
      c.createStatement().execute("truncate " + table);
      CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
      expect((long) ROWS, copies.copyIn("copy " + table + " from stdin", new ByteArrayInputStream(data)));
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      copies.copyOut("copy (select * from " + table + " order by id) to stdout", out);
      expect(text.toString(), out.toString(StandardCharsets.UTF_8));
      try {
        byte[] bad = "no number\tx\n".repeat(5000).getBytes(StandardCharsets.UTF_8);
        copies.copyIn("copy " + table + " from stdin", new ByteArrayInputStream(bad));
        throw new AssertionError("no error");
      } catch (SQLException error) {
        expect("22P02", error.getSQLState());
      }
      expect("" + ROWS, value(c, "select count(*) from " + table));
    }
  }

  static void errors(String table) throws SQLException {
    try (Connection c = connect(); Statement s = c.createStatement()) {
      c.setAutoCommit(false);
      s.execute("insert into " + table + " values (500, 'kept')");
      Savepoint savepoint = c.setSavepoint();
      mustFail(c, "select 1 / 0", "22012");
      mustFail(c, "select 1", "25P02");
      c.rollback(savepoint);
      c.commit();
      expect("500", value(c, "select sum(id) from " + table + " where id >= 500"));
      s.execute("delete from " + table + " where id = 500");
      c.rollback();
    }
  }

  static void keys(String table) throws SQLException {
    String sql = "insert into " + table + " values (600, 'key') returning id";
    try (Connection c = connect(); Statement s = c.createStatement()) {
      s.execute("insert into " + table + " values (601, 'key')", Statement.RETURN_GENERATED_KEYS);
      s.getGeneratedKeys().next();
      ResultSet found = s.executeQuery(sql);
      found.next();
      expect(600, found.getInt(1));
    }
  }

  static void settings(String table) throws SQLException {
    try (Connection c = connect("ApplicationName", "jdbc", "readOnlyMode", "always")) {
      expect("jdbc", value(c, "show application_name"));
      c.setClientInfo("ApplicationName", "another name");
      for (int turn = 0; turn < 10; ++turn) expect("another name", value(c, "show application_name"));
      c.setReadOnly(true);
      mustFail(c, "create table never (x int)", "25006");
    }
  }

  static void say(Connection c, String channel, String payload) throws SQLException {
    try (PreparedStatement s = c.prepareStatement("select pg_notify(?, ?)")) {
      s.setString(1, channel);
      s.setString(2, payload);
      s.execute();
    }
  }

  // Waits until this is heard; all that has come by then.
  static void hear(PGConnection c, List<PGNotification> heard, String channel, String payload)
      throws SQLException {
    long deadline = System.nanoTime() + 60_000_000_000L;
    while (heard.stream().noneMatch(h -> h.getName().equals(channel) && h.getParameter().equals(payload))) {
      if (System.nanoTime() > deadline) throw new AssertionError(payload + " is not heard within a minute");
      PGNotification[] found = c.getNotifications(1000);
      if (found != null) heard.addAll(List.of(found));
    }
  }

  // On the channel of its table a client hears another one, on that of all itself, by the process id that its driver
  // was told, and other clients.
  static void listen(String table) throws SQLException {
    String all = "news";
    int count = 5;
    try (Connection c = connect(); Connection other = connect(); Statement s = c.createStatement()) {
      PGConnection pg = c.unwrap(PGConnection.class);
      List<PGNotification> heard = new ArrayList<>();
      s.execute("listen " + table);
      s.execute("listen " + all);
      for (int turn = 0; turn < count; ++turn) {
        say(other, table, table + " " + turn);
        hear(pg, heard, table, table + " " + turn);
        say(c, all, table + " " + turn);
        hear(pg, heard, all, table + " " + turn);
      }
      int byAnother = 0, byOneself = 0;
      for (PGNotification h : heard) {
        boolean isOwn = h.getName().equals(all) && h.getParameter().startsWith(table + " ");
        expect(isOwn, h.getPID() == pg.getBackendPID());
        if (isOwn) expect(table + " " + byOneself++, h.getParameter());
        else if (h.getName().equals(table)) expect(table + " " + byAnother++, h.getParameter());
        else expect("news driver_", h.getName() + " " + h.getParameter().substring(0, 7));
      }
      expect(count, byAnother);
      expect(count, byOneself);
      s.execute("unlisten *");
      pg.getNotifications();
      say(other, table, "to nobody");
      s.execute("select 1");
      PGNotification[] rest = pg.getNotifications();
      expect(0, rest == null ? 0 : rest.length);
    }
  }

  static void cancel(String table) throws Exception {
    try (Connection c = connect(); Statement s = c.createStatement()) {
      // A request that comes too early finds nothing to cancel.
      boolean[] done = {false};
      Thread canceller = new Thread(() -> {
        try {
          while (!done[0]) {
            Thread.sleep(50);
            s.cancel();
          }
        } catch (InterruptedException | SQLException error) {
          throw new RuntimeException(error);
        }
      });
      canceller.start();
      try {
        s.execute("select pg_sleep(30)");
        throw new AssertionError("no error from a cancelled query");
      } catch (SQLException error) {
        expect("57014", error.getSQLState());
      } finally {
        done[0] = true;
        canceller.join();
      }
      expect("after", value(c, "select 'after'"));
    }
  }

  static void reconnect(String table) throws SQLException {
    for (int turn = 0; turn < 10; ++turn) {
      try (Connection c = connect()) {
        expect("" + turn, value(c, "select " + turn));
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, Check> checks = new LinkedHashMap<>();
    checks.put("simple", JdbcDriver::simple);
    checks.put("parameters", JdbcDriver::parameters);
    checks.put("prepared", JdbcDriver::prepared);
    checks.put("batch", JdbcDriver::batch);
    checks.put("cursors", JdbcDriver::cursors);
    checks.put("copy", JdbcDriver::copy);
    checks.put("errors", JdbcDriver::errors);
    checks.put("keys", JdbcDriver::keys);
    checks.put("settings", JdbcDriver::settings);
    checks.put("notify", JdbcDriver::listen);
    checks.put("cancel", JdbcDriver::cancel);
    checks.put("reconnect", JdbcDriver::reconnect);

    List<Throwable> failures = new ArrayList<>();
    List<Thread> clients = new ArrayList<>();
    int clientsCount = Integer.parseInt(System.getenv("DRIVER_CLIENTS"));
    for (int number = 0; number < clientsCount; ++number) {
      String table = "driver_" + System.getenv("DRIVER") + "_" + number;
      Thread client = new Thread(() -> {
        try {
          makeTable(table);
          for (Check check : checks.values()) check.run(table);
        } catch (Throwable error) {
          synchronized (failures) {
            failures.add(error);
          }
        }
      });
      clients.add(client);
      client.start();
    }
    for (Thread client : clients) client.join();
    for (Throwable failure : failures) failure.printStackTrace();
    if (!failures.isEmpty()) System.exit(1);
    for (String name : checks.keySet()) System.out.println("ok " + name);
  }
}
