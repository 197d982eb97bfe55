#include "helios/wire/startup.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "helios/wire/body_reader.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"

namespace helios {

namespace {

using MaybeError = std::optional<StartupError>;

constexpr uint16_t request_major =
    1234;  // The "major version" of the requests that are no start-up.
constexpr uint32_t cancel_request_code = protocol_version(request_major, 5678);
constexpr uint32_t ssl_request_code = protocol_version(request_major, 5679);
constexpr uint32_t gssenc_request_code = protocol_version(request_major, 5680);
constexpr size_t length_size = 4;
constexpr uint32_t startup_length_min = 8;  // Length and code.
constexpr std::string_view protocol_option_prefix = "_pq_.";

StartupError violation(std::string message) {
  return {sqlstate::protocol_violation, std::move(message)};
}

std::string quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool is_space(char c) noexcept {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool is_setting_byte(char c) noexcept {
  return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         c == '.' || static_cast<uint8_t>(c) > 127;
}

// Fields of the packet that are no settings. One of these among the `options` would become such a
// field of the packet that goes to the server: another user, say.
constexpr std::string_view field_names[] = {"user", "database", "options", "replication"};

// As PostgreSQL refuses a setting of a name that none can have.
StartupError bad_name(std::string_view name) {
  if (name.find('.') == std::string_view::npos) {
    return {sqlstate::undefined_object, "unrecognized configuration parameter " + quoted(name)};
  }
  return {sqlstate::invalid_name, "invalid configuration parameter name " + quoted(name),
          "Custom parameter names must be two or more simple identifiers separated by dots."};
}

StartupError bad_option(std::string_view word) {
  return {sqlstate::syntax_error,
          "invalid command-line argument for server process: " + std::string(word), "",
          "Try \"postgres --help\" for more information."};
}

// PostgreSQL has no setting with another name; refused here, so that nobody behind must quote it.
bool is_setting_name(std::string_view name) noexcept {
  const auto is_name = [&](std::string_view field) { return is_same_setting(field, name); };
  return !name.empty() && std::all_of(name.begin(), name.end(), is_setting_byte) &&
         std::none_of(std::begin(field_names), std::end(field_names), is_name);
}

// Sets or adds; an error with a message when the name or the number of settings is impossible.
MaybeError put_setting(std::vector<StartupParameter>& settings, std::string_view name,
                       std::string_view value) {
  if (!is_setting_name(name)) return bad_name(name);
  for (StartupParameter& setting : settings) {
    if (!is_same_setting(setting.name, name)) continue;
    setting = {std::string(name), std::string(value)};
    return std::nullopt;
  }
  if (settings.size() == startup_settings_max) return violation("too many startup parameters");
  settings.push_back({std::string(name), std::string(value)});
  return std::nullopt;
}

// Words of `options`, as PostgreSQL splits them.
std::vector<std::string> split_options(std::string_view options) {
  std::vector<std::string> words;
  size_t at = 0;
  while (at < options.size()) {
    if (is_space(options[at])) {
      ++at;
      continue;
    }
    std::string word;
    bool is_escaped = false;
    for (; at < options.size() && (is_escaped || !is_space(options[at])); ++at) {
      if (!is_escaped && options[at] == '\\') {
        is_escaped = true;
        continue;
      }
      is_escaped = false;
      word += options[at];
    }
    words.push_back(std::move(word));
  }
  return words;
}

// "name=value" behind the switch `prefix` ("-c " or "--").
MaybeError put_option(std::vector<StartupParameter>& settings, std::string_view prefix,
                      std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos) {
    return StartupError{sqlstate::syntax_error,
                        std::string(prefix) + std::string(assignment) + " requires a value"};
  }
  std::string name(assignment.substr(0, equals));
  std::replace(name.begin(), name.end(), '-', '_');
  return put_setting(settings, name, assignment.substr(equals + 1));
}

// PostgreSQL's spellings of a boolean: any unambiguous beginning of these words, in any case, and 1
// and 0.
std::optional<bool> read_bool(std::string_view text) noexcept {
  std::string word(text.substr(0, 6));
  std::transform(word.begin(), word.end(), word.begin(), lower);
  const auto begins = [&](std::string_view whole, size_t size_min) {
    return word.size() >= size_min && whole.substr(0, word.size()) == word;
  };
  if (begins("true", 1) || begins("yes", 1) || begins("on", 2) || word == "1") return true;
  if (begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0") return false;
  return std::nullopt;
}

MaybeError read_replication(std::string_view value, ReplicationMode& mode) {
  if (value == "database") {
    mode = ReplicationMode::database;
    return std::nullopt;
  }
  const std::optional<bool> is_on = read_bool(value);
  if (!is_on.has_value()) {
    return StartupError{sqlstate::invalid_parameter_value,
                        "invalid value for parameter \"replication\": " + quoted(value), "",
                        "Valid values are: \"false\", 0, \"true\", 1, \"database\"."};
  }
  mode = *is_on ? ReplicationMode::physical : ReplicationMode::none;
  return std::nullopt;
}

// The pairs of a StartupMessage, not yet put together.
struct Fields {
  std::string_view user;
  std::string_view database;
  std::string_view options;
  std::string_view replication;
  bool has_replication = false;
  std::vector<TextPair> others;  // In order.
};

// Names of the protocol's own are told apart by case, as in PostgreSQL.
MaybeError take_field(Fields& fields, StartupMessage& startup, TextPair field) {
  const auto& [name, value] = field;
  if (name == "user") {
    fields.user = value;
  } else if (name == "database") {
    fields.database = value;
  } else if (name == "options") {
    fields.options = value;
  } else if (name == "replication") {
    fields.replication = value;
    fields.has_replication = true;
  } else if (name.substr(0, protocol_option_prefix.size()) == protocol_option_prefix) {
    if (startup.protocol_options.size() == startup_settings_max) {
      return violation("too many protocol options");
    }
    startup.protocol_options.push_back({std::string(name), std::string(value)});
  } else {
    fields.others.push_back(field);
  }
  return std::nullopt;
}

// The pairs up to the zero byte that must be the packet's last.
MaybeError read_fields(BodyReader& reader, Fields& fields, StartupMessage& startup) {
  std::string_view name;
  std::string_view value;
  while (reader.read_text(name)) {
    if (name.empty()) {
      if (reader.at_end()) return std::nullopt;
      break;
    }
    if (!reader.read_text(value)) break;
    MaybeError error = take_field(fields, startup, {name, value});
    if (error) return error;
  }
  return violation("invalid startup packet layout: expected terminator as last byte");
}

// `options` first: a parameter of the packet overrules it wherever it stands.
MaybeError put_settings(const Fields& fields, StartupMessage& startup) {
  MaybeError error = read_startup_options(fields.options, startup.settings);
  if (error) return error;
  for (const auto& [name, value] : fields.others) {
    error = put_setting(startup.settings, name, value);
    if (error) return error;
  }
  return std::nullopt;
}

StartupPacket decode_startup_message(BodyReader reader, uint16_t minor) {
  StartupMessage startup;
  startup.minor = minor;
  Fields fields;
  MaybeError error = read_fields(reader, fields, startup);
  if (error) return *std::move(error);
  if (fields.has_replication) error = read_replication(fields.replication, startup.replication);
  if (error) return *std::move(error);
  if (fields.user.empty()) {
    return StartupError{sqlstate::invalid_authorization,
                        "no PostgreSQL user name specified in startup packet"};
  }
  error = put_settings(fields, startup);
  if (error) return *std::move(error);
  startup.user = fields.user;
  startup.database = fields.database.empty() ? fields.user : fields.database;
  if (startup.replication == ReplicationMode::physical) startup.database.clear();
  return startup;
}

StartupPacket decode_cancel_request(BodyReader reader) {
  CancelRequest cancel;
  if (!reader.read_int32(cancel.pid)) return violation("invalid length of cancel request packet");
  cancel.key = reader.left();
  if (cancel.key.size() < cancel_key_size_min || cancel.key.size() > cancel_key_size_max) {
    return violation("invalid length of cancel request packet");
  }
  return cancel;
}

}  // namespace

void StartupAssembler::take(ByteSpan& input, size_t held_size_wanted) {
  const size_t size = std::min(input.size(), held_size_wanted - held_.size());
  held_.insert(held_.end(), input.begin(), input.begin() + static_cast<ptrdiff_t>(size));
  input = input.subspan(size);
}

FrameStatus StartupAssembler::feed(ByteSpan& input) {
  if (is_malformed_) return FrameStatus::malformed;
  if (is_complete_) {
    held_.clear();
    is_complete_ = false;
  }
  if (held_.size() < length_size) take(input, length_size);
  if (held_.size() < length_size) return FrameStatus::need_more;
  const uint32_t length = load_be32(held_.data());
  if (length < startup_length_min || length - length_size > startup_body_size_max) {
    is_malformed_ = true;
    return FrameStatus::malformed;
  }
  take(input, length);
  is_complete_ = held_.size() == length;
  return is_complete_ ? FrameStatus::message : FrameStatus::need_more;
}

uint16_t StartupMessage::agreed_minor() const noexcept {
  return minor >= protocol_minor_max ? protocol_minor_max : 0;
}

bool StartupMessage::needs_negotiation() const noexcept {
  return minor != agreed_minor() || !protocol_options.empty();
}

const std::string* StartupMessage::find_setting(std::string_view name) const noexcept {
  for (const StartupParameter& setting : settings) {
    if (is_same_setting(setting.name, name)) return &setting.value;
  }
  return nullptr;
}

StartupPacket decode_startup(ByteSpan body) {
  BodyReader reader(body);
  uint32_t code = 0;
  if (!reader.read_int32(code)) return bad_startup_length();
  if (code == cancel_request_code) return decode_cancel_request(reader);
  if (code == ssl_request_code || code == gssenc_request_code) {
    if (!reader.at_end()) return bad_startup_length();
    return code == ssl_request_code ? StartupPacket(SslRequest{}) : StartupPacket(GssencRequest{});
  }
  const uint32_t major = code >> 16;
  const auto minor = static_cast<uint16_t>(code);
  if (major == protocol_major) return decode_startup_message(reader, minor);
  return StartupError{sqlstate::feature_not_supported,
                      "unsupported frontend protocol " + std::to_string(major) + "." +
                          std::to_string(minor) + ": server supports 3.0 to 3." +
                          std::to_string(protocol_minor_max)};
}

StartupError bad_startup_length() {
  return violation("invalid length of startup packet");
}

void write_negotiation(MessageWriter& writer, const StartupMessage& startup) {
  std::vector<std::string_view> names;
  for (const StartupParameter& option : startup.protocol_options) names.push_back(option.name);
  write_negotiate_protocol_version(writer, startup.agreed_minor(), names);
}

std::optional<StartupError> read_startup_options(std::string_view options,
                                                 std::vector<StartupParameter>& settings) {
  const std::vector<std::string> words = split_options(options);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    MaybeError error;
    if (word == "-c" && i + 1 < words.size()) {
      error = put_option(settings, "-c ", words[++i]);
    } else if (word.size() > 2 && word.substr(0, 2) == "-c") {
      error = put_option(settings, "-c ", word.substr(2));
    } else if (word.size() > 2 && word.substr(0, 2) == "--") {
      error = put_option(settings, "--", word.substr(2));
    } else if (word == "--" && i + 1 == words.size()) {
      break;
    } else {
      error = bad_option(word == "--" ? words[i + 1] : word);
    }
    if (error) return error;
  }
  return std::nullopt;
}

bool is_same_setting(std::string_view a, std::string_view b) noexcept {
  const auto is_same = [](char x, char y) { return lower(x) == lower(y); };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), is_same);
}

}  // namespace helios
