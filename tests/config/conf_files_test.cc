// The files under conf/ against the loader: documentation that cannot rot.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "helios/config/loader.h"

namespace helios {
namespace {

const std::filesystem::path conf_directory = CONF_DIRECTORY;

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file.good());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The part of a text from a section's header to the next header.
std::string section_of(const std::string& text, const std::string& header) {
  const size_t begin = text.find("\n" + header + "\n");
  REQUIRE(begin != std::string::npos);
  const size_t end = text.find("\n[", begin + 1);
  return text.substr(begin, end - begin);
}

// "key = value" as it stands, or commented out.
bool is_written(const std::string& section, const std::string& key) {
  return section.find("\n" + key + " = ") != std::string::npos;
}
bool is_commented(const std::string& section, const std::string& key) {
  return section.find("\n# " + key + " = ") != std::string::npos;
}

std::optional<std::string> no_environment(std::string_view) {
  return std::nullopt;
}
std::optional<std::string> full_environment(std::string_view name) {
  if (name == "PGHOST" || name == "PGPORT") return std::nullopt;
  return "from the environment";
}

// What the loader knows in a section, from its own message about a key that is near to none.
std::vector<std::string> known_keys(const std::string& header) {
  const LoadResult result =
      load_config_text(header + "\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n", "x", no_environment);
  const std::string marker = "unknown key; known: ";
  std::vector<std::string> keys;
  for (const std::string& error : result.errors) {
    const size_t at = error.find(marker);
    if (at == std::string::npos) continue;
    std::istringstream list(error.substr(at + marker.size()));
    for (std::string key; list >> key;) {
      if (key.back() == ',') key.pop_back();
      keys.push_back(key);
    }
  }
  return keys;
}

const std::filesystem::path full_path = conf_directory / "heliosproxy.toml";

TEST_CASE("heliosproxy.toml says what the defaults are") {
  const LoadResult result = load_config_text(read_text(full_path), "full", no_environment);
  CHECK(result.errors == std::vector<std::string>());
  CHECK(result.warnings == std::vector<std::string>());
  REQUIRE(result.config.has_value());
  const Config& config = *result.config;
  CHECK(config.proxy == ProxyConfig());
  CHECK(config.pool == PoolConfig());

  NodeConfig node;
  node.name = "main";
  node.host = "127.0.0.1";
  CHECK(config.nodes == std::vector<NodeConfig>{node});
  DatabaseConfig database;
  database.name = "*";
  database.node = "main";
  CHECK(config.databases == std::vector<DatabaseConfig>{database});
  UserConfig user;
  user.name = "app";
  user.password = "change-me";
  CHECK(config.users == std::vector<UserConfig>{user});
}

TEST_CASE("no key that has a default is missing from heliosproxy.toml") {
  const std::string text = read_text(full_path);
  const std::vector<std::string> pool_keys = known_keys("[pool]");
  CHECK(pool_keys.size() == 10);
  for (const std::string header : {"[proxy]", "[pool]"}) {
    const std::vector<std::string> keys = known_keys(header);
    CHECK(keys.size() >= 9);
    for (const std::string& key : keys) {
      CAPTURE(key);
      CHECK(is_written(section_of(text, header), key));
    }
  }
}

TEST_CASE("no key of a node, database or user is missing from heliosproxy.toml") {
  const std::string text = read_text(full_path);
  const std::vector<std::string> pool_keys = known_keys("[pool]");
  for (const std::string header : {"[[node]]", "[[database]]", "[[user]]"}) {
    const std::string section = section_of(text, header);
    const std::vector<std::string> keys = known_keys(header);
    CHECK(keys.size() >= 5);
    for (const std::string& key : keys) {
      CAPTURE(header);
      CAPTURE(key);
      const bool is_of_pool = header != "[[node]]" &&
                              std::find(pool_keys.begin(), pool_keys.end(), key) != pool_keys.end();
      if (is_of_pool) {
        CHECK(section.find("Any key of [pool] may stand here.") != std::string::npos);
      } else {
        CHECK((is_written(section, key) || is_commented(section, key)));
      }
    }
  }
}

TEST_CASE("the keys that heliosproxy.toml shows commented out load as well") {
  std::string text;
  size_t shown_count = 0;
  for (const std::string& line : lines_of(read_text(full_path))) {
    const size_t equals = line.find(" = ");
    const bool is_shown = line.starts_with("# ") && equals != std::string::npos &&
                          line.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", 2) == equals;
    if (is_shown) ++shown_count;
    text += (is_shown ? line.substr(2) : line) + "\n";
  }
  CHECK(shown_count == 5);
  const LoadResult result = load_config_text(text, "full", full_environment);
  CHECK(result.errors == std::vector<std::string>());
  REQUIRE(result.config.has_value());
  CHECK(result.config->databases[0].dbname == "app");
  CHECK(result.config->users[0].node_password == "from the environment");
}

TEST_CASE("every example loads") {
  size_t example_count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(conf_directory / "examples")) {
    const std::string name = entry.path().filename();
    CAPTURE(name);
    const LoadResult result = load_config_text(read_text(entry.path()), name, full_environment);
    CHECK(result.errors == std::vector<std::string>());
    CHECK(result.config.has_value());
    ++example_count;
  }
  CHECK(example_count >= 2);
}

}  // namespace
}  // namespace helios
