#include "load/backend_settings.h"

#include <doctest/doctest.h>

#include "helios/wire/backend_messages.h"
#include "helios/wire/frame_reader.h"

namespace helios::bench {
namespace {

BackendSettings logged_in(std::vector<StartupParameter> given = {}) {
  StartupMessage startup;
  startup.user = "me";
  startup.settings = std::move(given);
  BackendSettings settings;
  settings.log_in(startup);
  return settings;
}

std::string value_of(const BackendSettings& settings, std::string_view name) {
  return std::string(settings.find(name).value_or("(none)"));
}

// "name=value," for each report.
std::string reports(BackendSettings& settings) {
  MessageWriter writer;
  settings.write_changes(writer);
  std::string texts;
  ByteSpan left = writer.bytes();
  MessageAssembler messages(1000);
  while (messages.feed(left) == FrameStatus::message) {
    const auto report = read_parameter_status(messages.body());
    REQUIRE(report.has_value());
    texts += std::string(report->name) + "=" + std::string(report->value) + ",";
  }
  return texts;
}

TEST_CASE("the client's values of the login hold, others have defaults") {
  const BackendSettings settings = logged_in({{"application_name", "app"}, {"timezone", "CET"}});
  CHECK(value_of(settings, "application_name") == "app");
  CHECK(value_of(settings, "TimeZone") == "CET");
  CHECK(value_of(settings, "client_encoding") == "UTF8");
  CHECK(value_of(settings, "session_authorization") == "me");
  CHECK(value_of(settings, "integer_datetimes") == "on");
  CHECK(value_of(settings, "unknown") == "(none)");
}

TEST_CASE("a change is reported once, and only if it is one") {
  BackendSettings settings = logged_in();
  CHECK_FALSE(settings.has_changes());
  settings.set("APPLICATION_NAME", "it''s", false);
  settings.set("DateStyle", "ISO, MDY", false);
  settings.set("work_mem", "1MB", false);
  CHECK(settings.has_changes());
  CHECK(reports(settings) == "application_name=it's,");
  CHECK_FALSE(settings.has_changes());
  CHECK(reports(settings).empty());
}

TEST_CASE("RESET goes back to the value of the login") {
  BackendSettings settings = logged_in({{"application_name", "app"}});
  settings.set("application_name", "other", false);
  settings.set("TimeZone", "CET", false);
  CHECK(reports(settings) == "application_name=other,TimeZone=CET,");
  settings.reset("application_name", false);
  CHECK(reports(settings) == "application_name=app,");
  settings.reset_all(false);
  CHECK(reports(settings) == "TimeZone=Etc/UTC,");
}

TEST_CASE("a block takes its changes back when it is rolled back, and only its own") {
  BackendSettings settings = logged_in();
  settings.set("TimeZone", "CET", false);
  settings.set("application_name", "one", true);
  settings.set("application_name", "two", true);
  CHECK(reports(settings) == "application_name=two,TimeZone=CET,");
  settings.undo_changes();
  CHECK(reports(settings) == "application_name=,");
  settings.set("application_name", "three", true);
  settings.keep_changes();
  settings.undo_changes();
  CHECK(value_of(settings, "application_name") == "three");
}

}  // namespace
}  // namespace helios::bench
