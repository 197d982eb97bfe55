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
  CHECK(store.set_statement(*a, *b) == "SET application_name='ABC'");
}

TEST_CASE("empty, long, quoted and backslashed values are set exactly") {
  ParameterStore store;
  ParameterSetRef base = store.intern({{"application_name", "x"}});
  CHECK(store.set_statement(*base, *store.intern({{"application_name", ""}})) ==
        "SET application_name=''");
  CHECK(store.set_statement(*base, *store.intern({{"application_name", "it's"}})) ==
        "SET application_name='it''s'");
  CHECK(store.set_statement(*base, *store.intern({{"application_name", "a\\b'"}})) ==
        "SET application_name=E'a\\\\b'''");
  const std::string text(200, 'y');
  CHECK(store.set_statement(*base, *store.intern({{"application_name", text}})) ==
        "SET application_name='" + text + "'");
}

TEST_CASE("several differences make one statement, the encoding last") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"client_encoding", "UTF8"}, {"TimeZone", "UTC"}});
  ParameterSetRef b = store.intern({{"client_encoding", "LATIN1"}, {"TimeZone", "GMT"}});
  CHECK(store.set_statement(*a, *b) == "SET TimeZone='GMT';SET client_encoding='LATIN1'");
  CHECK(store.set_statement(*a, *a).empty());
}

TEST_CASE("a search_path keeps its own quotes") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"search_path", "public"}});
  ParameterSetRef b = store.intern({{"search_path", "\"$user\", public"}});
  CHECK(store.set_statement(*a, *b) ==
        "SELECT pg_catalog.set_config('search_path','\"$user\", public',false)");
}

TEST_CASE("a parameter that one side lacks is left alone") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"TimeZone", "UTC"}});
  ParameterSetRef b = store.intern({{"TimeZone", "UTC"}, {"search_path", "x"}});
  CHECK(store.set_statement(*a, *b).empty());
}

TEST_CASE("only plain application names are known to be canonical") {
  CHECK(is_canonical_value("application_name", "psql"));
  CHECK(!is_canonical_value("application_name", std::string(64, 'x')));
  CHECK(!is_canonical_value("application_name", "caf\xc3\xa9"));
  CHECK(!is_canonical_value("DateStyle", "ISO"));
}

}  // namespace helios
