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
  CHECK(store.size() == 0);
}

TEST_CASE("values that differ only in case are different") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"application_name", "abc"}});
  ParameterSetRef b = store.intern({{"application_name", "ABC"}});
  CHECK(set_statement(*a, *b) == "SET application_name='ABC'");
}

TEST_CASE("empty, long, quoted and backslashed values are set exactly") {
  ParameterStore store;
  ParameterSetRef base = store.intern({{"application_name", "x"}});
  CHECK(set_statement(*base, *store.intern({{"application_name", ""}})) ==
        "SET application_name=''");
  CHECK(set_statement(*base, *store.intern({{"application_name", "it's"}})) ==
        "SET application_name='it''s'");
  CHECK(set_statement(*base, *store.intern({{"application_name", "a\\b'"}})) ==
        "SET application_name=E'a\\\\b'''");
  const std::string text(200, 'y');
  CHECK(set_statement(*base, *store.intern({{"application_name", text}})) ==
        "SET application_name='" + text + "'");
}

TEST_CASE("several differences make one statement, the encoding last") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"client_encoding", "UTF8"}, {"TimeZone", "UTC"}});
  ParameterSetRef b = store.intern({{"client_encoding", "LATIN1"}, {"TimeZone", "GMT"}});
  CHECK(set_statement(*a, *b) == "SET TimeZone='GMT';SET client_encoding='LATIN1'");
  CHECK(set_statement(*a, *a).empty());
}

TEST_CASE("a search_path keeps its own quotes") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"search_path", "public"}});
  ParameterSetRef b = store.intern({{"search_path", "\"$user\", public"}});
  CHECK(set_statement(*a, *b) ==
        "SELECT pg_catalog.set_config('search_path','\"$user\", public',false)");
}

TEST_CASE("a parameter that one side lacks is left alone") {
  ParameterStore store;
  ParameterSetRef a = store.intern({{"TimeZone", "UTC"}});
  ParameterSetRef b = store.intern({{"TimeZone", "UTC"}, {"search_path", "x"}});
  CHECK(set_statement(*a, *b).empty());
}

TEST_CASE("only plain application names are known to be canonical") {
  CHECK(is_canonical_value("application_name", "psql"));
  CHECK(!is_canonical_value("application_name", std::string(64, 'x')));
  CHECK(!is_canonical_value("application_name", "caf\xc3\xa9"));
  CHECK(!is_canonical_value("DateStyle", "ISO"));
}

}  // namespace helios
