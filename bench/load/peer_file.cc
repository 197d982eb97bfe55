#include "load/peer_file.h"

#include <utility>

#include "config/file.h"
#include "config/findings.h"
#include "config/section.h"
#include "config/toml_tree.h"
#include "helios/config/environment.h"

namespace helios::bench {
namespace {

constexpr size_t name_size_max = 64;
constexpr size_t words_max = 64;
constexpr size_t config_size_max = 64 * 1024;
constexpr NumberRange clients_range = {0, 1'000'000};

std::vector<std::string> read_words(Section& section, std::string_view key) {
  std::vector<std::string> words;
  if (auto texts = section.texts(key, words_max)) {
    for (Section::LocatedText& text : *texts) words.push_back(std::move(text.text));
  }
  return words;
}

// The name becomes part of a path and of table cells.
bool is_plain_name(std::string_view name) {
  return name.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string_view::npos &&
         !name.starts_with('.');
}

Peer read_peer(Section& section) {
  Peer peer;
  peer.kind = PeerKind::custom;
  if (auto name = section.text("name", name_size_max)) {
    peer.name = std::move(*name);
    if (!is_plain_name(peer.name))
      section.error("name", "may hold letters, digits, dots, dashes and underscores only");
  } else if (!section.has("name")) {
    section.error("name", "is missing: what the peer is called in the report");
  }
  peer.custom.command = read_words(section, "command");
  if (!section.has("command"))
    section.error("command", "is missing: how the peer is started, as a list of words");
  peer.custom.version_command = read_words(section, "version_command");
  peer.custom.config = section.text("config", config_size_max).value_or("");
  peer.custom.user = section.text("user", name_size_max).value_or("");
  peer.custom.clients_max = section.number("clients_max", clients_range).value_or(0);
  peer.custom.unix_sockets = section.flag("unix_sockets").value_or(false);
  section.finish();
  return peer;
}

Error errors_of(Findings& findings) {
  std::string text;
  for (const std::string& line : findings.take_errors()) {
    if (!text.empty()) text += '\n';
    text += line;
  }
  return Error{std::move(text)};
}

const TomlTable* find_table(const TomlDocument& document, Findings& findings) {
  const TomlTable* table = nullptr;
  for (const TomlSection& section : document.sections) {
    if (section.name == "peer" && section.form == SectionForm::table)
      table = &section.tables.front();
    else
      findings.error(section.place, section.name, "is unknown: a peer's file has one [peer] table");
  }
  if (table == nullptr && !findings.has_errors())
    findings.error({}, "peer", "is missing: a peer's file has one [peer] table");
  return table;
}

}  // namespace

Result<Peer> parse_peer_file(std::string_view text, const std::string& file_name) {
  Findings findings(file_name);
  const TomlDocument document = parse_toml(text);
  if (document.error) {
    findings.error(document.error->place, "TOML", document.error->text);
    return errors_of(findings);
  }
  const TomlTable* table = find_table(document, findings);
  if (table == nullptr) return errors_of(findings);
  const EnvironmentLookup lookup = process_environment;
  Section section("peer", *table, findings, lookup);
  Peer peer = read_peer(section);
  if (findings.has_errors()) return errors_of(findings);
  return peer;
}

Result<Peer> read_peer_file(const std::string& path) {
  const Result<ConfigFile> file = read_config_file(path);
  if (!file.ok()) return Error{path + " " + file.error()};
  return parse_peer_file(file.value().text, path);
}

}  // namespace helios::bench
