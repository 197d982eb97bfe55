#include "helios/pool/parameters.h"

#include <doctest/doctest.h>

namespace helios {

TEST_CASE("equal sets are one object, and unfollowed parameters are left out") {
  ParameterStore store;
  {
    ParameterSetRef a = store.intern({{"TimeZone", "UTC"}, {"server_version", "15.1"}});
    ParameterSetRef b = store.intern({{"TimeZone", "UTC"}});
    CHECK(a == b);
    CHECK(store.size() == 1);
    ParameterSetRef c = store.with(a, "timezone", "Europe/Rome");
    CHECK(!(c == a));
    CHECK(store.with(c, "TimeZone", "UTC") == a);
    CHECK(store.with(c, "is_superuser", "on") == c);
  }
  // Sets that nobody uses are kept for a while.
  CHECK(store.size() == 2);
}

TEST_CASE("unused sets are found again, up to a bound") {
  ParameterStore store;
  const auto make = [&](size_t number) {
    return store.intern({{"application_name", std::to_string(number)}});
  };
  const ParameterSetRef used = make(0);
  const ParameterSet* kept = &*make(1);
  CHECK(&*make(1) == kept);
  for (size_t i = 1; i <= ParameterStore::unused_max + 10; ++i) (void)make(i);
  CHECK(store.size() == ParameterStore::unused_max + 1);
  CHECK(make(0) == used);
}

TEST_CASE("a changed value leads to the same set whatever way it is made") {
  ParameterStore store;
  const ParameterSetRef none;
  const ParameterSetRef both = store.intern({{"TimeZone", "UTC"}, {"DateStyle", "ISO"}});
  CHECK(store.with(store.with(none, "TimeZone", "UTC"), "DateStyle", "ISO") == both);
  CHECK(store.with(store.with(none, "DateStyle", "ISO"), "TimeZone", "UTC") == both);
  const ParameterSetRef three = store.with(both, "IntervalStyle", "postgres");
  CHECK(three ==
        store.intern({{"DateStyle", "ISO"}, {"TimeZone", "UTC"}, {"IntervalStyle", "postgres"}}));
  CHECK(store.with(store.with(three, "timezone", "GMT"), "TIMEZONE", "UTC") == three);
}

TEST_CASE("values that differ only in case are different") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"application_name", "abc"}});
  ParameterSetRef b = store.intern({{"application_name", "ABC"}});
  CHECK(store.set_statement(*a, *b, "me") == "SET application_name='ABC'");
}

TEST_CASE("empty, long, quoted and backslashed values are set exactly") {
  ParameterStore store;
  ParameterSetRef base = store.intern({{"application_name", "x"}});
  CHECK(store.set_statement(*base, *store.intern({{"application_name", ""}}), "me") ==
        "SET application_name=''");
  CHECK(store.set_statement(*base, *store.intern({{"application_name", "it's"}}), "me") ==
        "SET application_name='it''s'");
  CHECK(store.set_statement(*base, *store.intern({{"application_name", "a\\b'"}}), "me") ==
        "SET application_name=E'a\\\\b'''");
  const std::string text(200, 'y');
  CHECK(store.set_statement(*base, *store.intern({{"application_name", text}}), "me") ==
        "SET application_name='" + text + "'");
}

TEST_CASE("several differences make one statement, the encoding last") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"client_encoding", "UTF8"}, {"TimeZone", "UTC"}});
  ParameterSetRef b = store.intern({{"client_encoding", "LATIN1"}, {"TimeZone", "GMT"}});
  CHECK(store.set_statement(*a, *b, "me") == "SET TimeZone='GMT';SET client_encoding='LATIN1'");
  CHECK(store.set_statement(*a, *a, "me").empty());
}

TEST_CASE("a search_path keeps its own quotes") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"search_path", "public"}});
  ParameterSetRef b = store.intern({{"search_path", "\"$user\", public"}});
  CHECK(store.set_statement(*a, *b, "me") ==
        "SELECT FROM pg_catalog.set_config('search_path','\"$user\", public',false)");
}

TEST_CASE("a parameter that one side lacks is left alone") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"TimeZone", "UTC"}});
  ParameterSetRef b = store.intern({{"TimeZone", "UTC"}, {"search_path", "x"}});
  CHECK(store.set_statement(*a, *b, "me").empty());
}

TEST_CASE("what a session has set makes a set of its own") {
  ParameterStore store;
  const ParameterSetRef plain = store.intern({{"TimeZone", "UTC"}});
  const ParameterSetRef set = store.with_settings(plain, {{"app.x", "1"}, {"work_mem", "64"}});
  CHECK(!(set == plain));
  CHECK(store.with_settings(set, {}) == plain);
  CHECK(store.intern({{"TimeZone", "UTC"}}, {{"work_mem", "64"}, {"app.x", "1"}}) == set);
  const ParameterSetRef moved = store.with(set, "TimeZone", "GMT");
  CHECK(moved->settings() == set->settings());
  CHECK(store.with_settings(moved, {}) == store.intern({{"TimeZone", "GMT"}}));
  // A name is no value, and the other way round.
  CHECK(!(store.intern({}, {{"TimeZone", "UTC"}}) == plain));
}

TEST_CASE("what only the old session has set is reset, what the new one has is set") {
  ParameterStore store;
  const ParameterSetRef none = store.intern({{"TimeZone", "UTC"}});
  const ParameterSetRef a =
      store.with_settings(none, {{"app.x", "1"}, {"search_path", "\"A\", b"}});
  const ParameterSetRef b = store.with_settings(none, {{"app.x", "1"}, {"work_mem", "64"}});
  CHECK(store.set_statement(*none, *a, "me") ==
        "SELECT FROM pg_catalog.set_config('app.x','1',false);"
        "SELECT FROM pg_catalog.set_config('search_path','\"A\", b',false)");
  CHECK(store.set_statement(*a, *none, "me") == "RESET \"app.x\";RESET \"search_path\"");
  CHECK(store.set_statement(*a, *b, "me") ==
        "RESET \"search_path\";SELECT FROM pg_catalog.set_config('work_mem','64',false)");
  CHECK(store.set_statement(*b, *b, "me").empty());
}

TEST_CASE("values of any length, with any letters, are set exactly") {
  ParameterStore store;
  const ParameterSetRef none = store.intern({{"TimeZone", "UTC"}});
  const auto statement = [&](const std::string& value) {
    const ParameterSetRef set = store.with_settings(none, {{"app.x", value}});
    return std::string(store.set_statement(*none, *set, "me"));
  };
  CHECK(statement("") == "SELECT FROM pg_catalog.set_config('app.x','',false)");
  CHECK(statement("it's") == "SELECT FROM pg_catalog.set_config('app.x','it''s',false)");
  CHECK(statement("a\\") == "SELECT FROM pg_catalog.set_config('app.x',E'a\\\\',false)");
  const std::string text(5000, 'y');
  CHECK(statement(text) == "SELECT FROM pg_catalog.set_config('app.x','" + text + "',false)");
  // In the encoding of the database, which the session's own may not be.
  CHECK(
      statement("\xc3\xa9") ==
      "SELECT FROM pg_catalog.set_config('app.x',pg_catalog.convert_from(pg_catalog.decode('c3a9',"
      "'hex'),pg_catalog.getdatabaseencoding()),false)");
}

TEST_CASE("a parameter that one server reports and another does not is set where it differs") {
  ParameterStore store;
  const ParameterSetRef reported = store.intern({{"search_path", "public"}});
  const ParameterSetRef set = store.intern({}, {{"search_path", "public"}});
  const ParameterSetRef other = store.intern({}, {{"search_path", "x"}});
  CHECK(store.set_statement(*reported, *set, "me").empty());
  CHECK(store.set_statement(*set, *reported, "me").empty());
  CHECK(store.set_statement(*reported, *other, "me") ==
        "SELECT FROM pg_catalog.set_config('search_path','x',false)");
  CHECK(store.set_statement(*other, *reported, "me") ==
        "SELECT FROM pg_catalog.set_config('search_path','public',false)");
}

TEST_CASE("parameters are set by who may set them, and the role is taken last") {
  ParameterStore store;
  const auto make = [&](const std::string& user, const std::string& role,
                        const std::string& value) {
    ParameterList settings;
    if (!role.empty()) settings.emplace_back("role", role);
    if (!value.empty()) settings.emplace_back("work_mem", value);
    return store.intern({{"session_authorization", user}}, settings);
  };
  const auto statement = [&](const ParameterSetRef& from, const ParameterSetRef& to) {
    return std::string(store.set_statement(*from, *to, "me"));
  };
  const std::string work_mem = "SELECT FROM pg_catalog.set_config('work_mem','64',false)";
  const std::string role = "SELECT FROM pg_catalog.set_config('role','r',false)";
  const std::string user = "SELECT FROM pg_catalog.set_config('session_authorization','bob',false)";
  CHECK(statement(make("me", "", ""), make("me", "r", "")) == role);
  CHECK(statement(make("me", "r", ""), make("me", "", "")) == "RESET ROLE");
  CHECK(statement(make("me", "q", ""), make("me", "r", "")) == "RESET ROLE;" + role);
  CHECK(statement(make("me", "r", ""), make("me", "r", "")).empty());
  CHECK(statement(make("me", "", ""), make("me", "r", "64")) == work_mem + ";" + role);
  CHECK(statement(make("me", "r", ""), make("me", "r", "64")) ==
        "RESET ROLE;" + work_mem + ";" + role);
  CHECK(statement(make("me", "r", "64"), make("me", "", "")) == "RESET ROLE;RESET \"work_mem\"");
  CHECK(statement(make("me", "", ""), make("bob", "", "64")) ==
        "RESET SESSION AUTHORIZATION;RESET ROLE;" + work_mem + ";" + user);
  CHECK(statement(make("bob", "", ""), make("me", "", "")) ==
        "RESET SESSION AUTHORIZATION;RESET ROLE");
  CHECK(statement(make("bob", "", ""), make("me", "r", "")) ==
        "RESET SESSION AUTHORIZATION;RESET ROLE;" + role);
  CHECK(statement(make("me", "r", ""), make("bob", "r", "")) ==
        "RESET SESSION AUTHORIZATION;RESET ROLE;" + user + ";" + role);
}

TEST_CASE("sets differ in their parse context where texts may mean something else") {
  ParameterStore store;
  const ParameterSetRef base = store.intern({{"DateStyle", "ISO, MDY"}, {"TimeZone", "UTC"}});
  const ParseContext context = base->parse_context();
  CHECK(store.with(base, "application_name", "psql")->parse_context() == context);
  CHECK(store.with_settings(base, {{"statement_timeout", "1s"}})->parse_context() == context);
  CHECK(store.with(base, "DateStyle", "ISO, DMY")->parse_context() != context);
  CHECK(store.with(base, "client_encoding", "LATIN1")->parse_context() != context);
  for (const char* name : {"search_path", "role", "array_nulls", "XmlOption"})
    CHECK(store.with_settings(base, {{name, "x"}})->parse_context() != context);
  // Where a server reports it makes no difference.
  CHECK(store.with(base, "search_path", "x")->parse_context() ==
        store.with_settings(base, {{"search_path", "x"}})->parse_context());
}

TEST_CASE("only plain application names are known to be canonical") {
  CHECK(is_canonical_value("application_name", "psql"));
  CHECK(!is_canonical_value("application_name", std::string(64, 'x')));
  CHECK(!is_canonical_value("application_name", "caf\xc3\xa9"));
  CHECK(!is_canonical_value("DateStyle", "ISO"));
}

}  // namespace helios
