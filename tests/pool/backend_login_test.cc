#include "helios/pool/backend_login.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "helios/wire/error_response.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/md5_auth.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"

namespace helios {
namespace {

std::string be32(uint32_t value) {
  uint8_t bytes[4];
  store_be32(bytes, value);
  return std::string(as_text(bytes));
}

// Bodies of authentication requests.
std::string auth(uint32_t code, std::string_view data = {}) {
  return be32(code) + std::string(data);
}
const std::string auth_ok = auth(authentication_code::ok);
const std::string auth_cleartext = auth(authentication_code::cleartext_password);
const std::string auth_md5 = auth(authentication_code::md5_password, "\x01\x02\x03\x04");
const std::string auth_sasl =
    auth(authentication_code::sasl, std::string_view("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", 34));

BackendLoginOptions options_with(std::string password) {
  BackendLoginOptions options;
  options.user = "app";
  options.database = "shop";
  options.password = std::move(password);
  options.parameters = {{"client_encoding", "UTF8"}};
  return options;
}

// A login that is fed by hand; each body is a heap copy of exactly its size.
struct Dialogue {
  explicit Dialogue(BackendLoginOptions login_options = options_with("secret"))
      : options(std::move(login_options)), login(options, random) {
    REQUIRE(login.start() == LoginStep::more);
    start_packet = take();
  }
  LoginStep feed(char tag, std::string_view body) {
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[body.size()]);
    std::copy(body.begin(), body.end(), exact.get());
    return login.on_message(static_cast<uint8_t>(tag), {exact.get(), body.size()});
  }
  std::string take() { return login.take_output(); }
  // Feeds the message and checks that it ends the login.
  void refuses(char tag, std::string_view body, std::string_view sqlstate) {
    CHECK(feed(tag, body) == LoginStep::failed);
    CHECK(login.error().sqlstate == sqlstate);
    CHECK_FALSE(login.error().message.empty());
    CHECK_FALSE(login.has_output());
  }
  LoginStep give_key() {
    return login.on_key(pbkdf2(login.password(), as_bytes(login.salt()), login.rounds()));
  }

  SeededRandom random{1};
  BackendLoginOptions options;
  BackendLogin login;
  std::string start_packet;
};

// The body of a PasswordMessage or SASLResponse at the front of `output`.
std::string password_body(std::string_view output) {
  REQUIRE(output.size() > 5);
  REQUIRE(output[0] == 'p');
  REQUIRE(load_be32(as_bytes(output).data() + 1) == output.size() - 1);
  return std::string(output.substr(5));
}

// A server for the password "secret" (or another), driven up to a point of the SCRAM exchange.
struct ScramPeer {
  explicit ScramPeer(Dialogue& with, std::string_view password = "secret", uint32_t rounds = 3)
      : dialogue(with),
        server(verifier_from(pbkdf2(as_bytes(password), as_bytes("salt"), rounds), as_bytes("salt"),
                             rounds),
               ScramUser::real) {}
  // AuthenticationSASL, and the server-first that answers the client.
  std::string begin() {
    REQUIRE(dialogue.feed('R', auth_sasl) == LoginStep::more);
    const std::string body = password_body(dialogue.take());
    const std::string head = std::string("SCRAM-SHA-256\0", 14);
    REQUIRE(body.substr(0, head.size()) == head);
    REQUIRE(load_be32(as_bytes(body).data() + head.size()) == body.size() - head.size() - 4);
    std::string first;
    REQUIRE(server.on_client_first(body.substr(head.size() + 4), dialogue.random, first) ==
            ScramStep::more);
    return auth(authentication_code::sasl_continue, first);
  }
  // Up to client-final. The body of AuthenticationSASLFinal; empty when the server refuses.
  std::string prove() {
    REQUIRE(dialogue.feed('R', begin()) == LoginStep::need_key);
    REQUIRE(dialogue.give_key() == LoginStep::more);
    std::string final;
    if (server.on_client_final(password_body(dialogue.take()), final) != ScramStep::done) return "";
    return auth(authentication_code::sasl_final, final);
  }

  Dialogue& dialogue;
  ScramServer server;
};

std::string error_body(std::string_view sqlstate, std::string_view message) {
  MessageWriter writer;
  write_error(writer, Severity::fatal, sqlstate, message);
  return std::string(as_text(writer.bytes().subspan(5)));
}

std::string parameter(std::string_view name, std::string_view value) {
  return std::string(name) + '\0' + std::string(value) + '\0';
}

TEST_CASE("The start-up packet asks for protocol 3.0 with user, database and parameters in order") {
  Dialogue dialogue;
  const std::string body = be32(196608) + parameter("user", "app") + parameter("database", "shop") +
                           parameter("client_encoding", "UTF8") + '\0';
  CHECK(dialogue.start_packet == be32(static_cast<uint32_t>(body.size() + 4)) + body);
}

TEST_CASE("A start-up parameter that cannot be sent ends the login before it begins") {
  const auto fails = [](const BackendLoginOptions& options) {
    SeededRandom random(1);
    BackendLogin login(options, random);
    CHECK(login.start() == LoginStep::failed);
    CHECK(login.error().sqlstate == sqlstate::invalid_parameter_value);
    CHECK_FALSE(login.has_output());
  };
  BackendLoginOptions options = options_with("x");
  options.user = std::string("a\0b", 3);
  fails(options);
  options = options_with("x");
  options.parameters.emplace_back("search_path", std::string("a\0b", 3));
  fails(options);
  options = options_with("x");
  options.parameters.emplace_back("", "value");
  fails(options);
}

TEST_CASE("A trusting server lets us in and its settings are kept in order") {
  Dialogue dialogue;
  CHECK(dialogue.feed('R', auth_ok) == LoginStep::more);
  CHECK(dialogue.feed('S', parameter("server_version", "17.2")) == LoginStep::more);
  CHECK(dialogue.feed('N', "anything") == LoginStep::more);
  CHECK(dialogue.feed('S', parameter("TimeZone", "UTC")) == LoginStep::more);
  CHECK(dialogue.feed('S', parameter("server_version", "18")) == LoginStep::more);
  CHECK(dialogue.feed('K', be32(4711) + "KEYS") == LoginStep::more);
  CHECK(dialogue.feed('Z', "I") == LoginStep::done);
  CHECK(dialogue.login.parameters() ==
        std::vector<NamedValue>{{"server_version", "18"}, {"TimeZone", "UTC"}});
  CHECK(dialogue.login.process_id() == 4711);
  CHECK(dialogue.login.cancel_key() == "KEYS");
  CHECK_FALSE(dialogue.login.has_output());
}

TEST_CASE("A server that sends no cancel key is taken, a key of 256 bytes too") {
  Dialogue without;
  REQUIRE(without.feed('R', auth_ok) == LoginStep::more);
  CHECK(without.feed('Z', "I") == LoginStep::done);
  CHECK(without.login.cancel_key().empty());
  Dialogue longest;
  REQUIRE(longest.feed('R', auth_ok) == LoginStep::more);
  CHECK(longest.feed('K', be32(1) + std::string(256, 'k')) == LoginStep::more);
  CHECK(longest.login.cancel_key().size() == 256);
}

TEST_CASE("A plain password is sent to a server that asks for it in clear") {
  Dialogue dialogue;
  CHECK(dialogue.feed('R', auth_cleartext) == LoginStep::more);
  CHECK(password_body(dialogue.take()) == std::string("secret\0", 7));
  CHECK(dialogue.feed('R', auth_ok) == LoginStep::more);
  CHECK(dialogue.feed('Z', "I") == LoginStep::done);
}

TEST_CASE("A password and its md5 hash give the same md5 answer") {
  const Md5Salt salt = {1, 2, 3, 4};
  const std::string expected = md5_response(md5_hash("secret", "app"), salt) + '\0';
  for (const std::string& password : {std::string("secret"), md5_hash("secret", "app")}) {
    Dialogue dialogue(options_with(password));
    CHECK(dialogue.feed('R', auth_md5) == LoginStep::more);
    CHECK(password_body(dialogue.take()) == expected);
    CHECK(dialogue.feed('R', auth_ok) == LoginStep::more);
  }
}

TEST_CASE("A plain password that looks like a hash is a password when it is said to be one") {
  BackendLoginOptions options = options_with(md5_hash("secret", "app"));
  options.password_is_plain = true;
  Dialogue dialogue(options);
  CHECK(dialogue.feed('R', auth_cleartext) == LoginStep::more);
  CHECK(password_body(dialogue.take()) == options.password + '\0');
}

TEST_CASE("SCRAM logs in after the server has proved itself") {
  Dialogue dialogue;
  ScramPeer peer(dialogue);
  const std::string final = peer.prove();
  REQUIRE_FALSE(final.empty());
  CHECK(dialogue.login.password().empty());  // Wiped as soon as the key is there.
  CHECK(dialogue.feed('R', final) == LoginStep::more);
  CHECK(dialogue.feed('R', auth_ok) == LoginStep::more);
  CHECK(dialogue.feed('Z', "I") == LoginStep::done);
}

TEST_CASE("SCRAM hashes the prepared form of the password") {
  Dialogue dialogue(options_with("pa\u0308ss"));
  ScramPeer peer(dialogue, "p\u00e4ss");
  CHECK_FALSE(peer.prove().empty());
}

TEST_CASE("A wrong password ends with the server's own error") {
  Dialogue dialogue(options_with("wrong"));
  ScramPeer peer(dialogue);
  CHECK(peer.prove().empty());
  dialogue.refuses('E', error_body("28P01", "password authentication failed for user \"app\""),
                   "28P01");
  CHECK(dialogue.login.server_refused());
  CHECK(dialogue.login.error().message == "password authentication failed for user \"app\"");
}

TEST_CASE("A server that says ok before it has proved itself is not believed") {
  SUBCASE("instead of server-first") {
    Dialogue dialogue;
    ScramPeer peer(dialogue);
    peer.begin();
    dialogue.refuses('R', auth_ok, sqlstate::protocol_violation);
  }
  SUBCASE("while the key is derived") {
    Dialogue dialogue;
    ScramPeer peer(dialogue);
    REQUIRE(dialogue.feed('R', peer.begin()) == LoginStep::need_key);
    dialogue.refuses('R', auth_ok, sqlstate::protocol_violation);
    CHECK(dialogue.login.password().empty());
  }
  SUBCASE("instead of server-final") {
    Dialogue dialogue;
    ScramPeer peer(dialogue);
    peer.prove();
    dialogue.refuses('R', auth_ok, sqlstate::protocol_violation);
  }
  SUBCASE("with a wrong signature") {
    Dialogue dialogue;
    ScramPeer peer(dialogue);
    peer.prove();
    dialogue.refuses('R', auth(authentication_code::sasl_final, "v=" + base64_encode(sha256({}))),
                     sqlstate::invalid_password);
    CHECK_FALSE(dialogue.login.server_refused());
  }
  SUBCASE("with no signature") {
    Dialogue dialogue;
    ScramPeer peer(dialogue);
    peer.prove();
    dialogue.refuses('R', auth(authentication_code::sasl_final), sqlstate::protocol_violation);
  }
}

TEST_CASE("A server cannot change its mind once it has chosen a method") {
  const std::string requests[] = {auth_cleartext, auth_md5, auth_sasl,
                                  auth(authentication_code::sasl_final, "v=")};
  for (const std::string& second : requests) {
    Dialogue after_md5;
    REQUIRE(after_md5.feed('R', auth_md5) == LoginStep::more);
    after_md5.take();
    after_md5.refuses('R', second, sqlstate::protocol_violation);

    Dialogue after_sasl;
    REQUIRE(after_sasl.feed('R', auth_sasl) == LoginStep::more);
    after_sasl.take();
    after_sasl.refuses('R', second, sqlstate::protocol_violation);

    Dialogue in_scram_key;
    ScramPeer key_peer(in_scram_key);
    REQUIRE(in_scram_key.feed('R', key_peer.begin()) == LoginStep::need_key);
    in_scram_key.refuses('R', second, sqlstate::protocol_violation);

    Dialogue proved;
    ScramPeer peer(proved);
    REQUIRE(proved.feed('R', peer.prove()) == LoginStep::more);
    proved.refuses('R', second, sqlstate::protocol_violation);

    Dialogue logged_in;
    REQUIRE(logged_in.feed('R', auth_ok) == LoginStep::more);
    logged_in.refuses('R', second, sqlstate::protocol_violation);
  }
}

TEST_CASE("SASL messages without a SASL exchange are refused") {
  for (uint32_t code : {authentication_code::sasl_continue, authentication_code::sasl_final}) {
    Dialogue dialogue;
    dialogue.refuses('R', auth(code, "r=x,s=c2FsdA==,i=2"), sqlstate::protocol_violation);
  }
}

TEST_CASE("A server may ask for no more rounds than allowed") {
  BackendLoginOptions options = options_with("secret");
  options.scram_rounds_max = 10;
  Dialogue within(options);
  ScramPeer cheap(within, "secret", 10);
  CHECK(within.feed('R', cheap.begin()) == LoginStep::need_key);
  CHECK(within.login.rounds() == 10);
  Dialogue above(options);
  ScramPeer dear(above, "secret", 11);
  above.refuses('R', dear.begin(), sqlstate::protocol_violation);
}

TEST_CASE("An error ends the login while the key is derived, a notice does not") {
  Dialogue dialogue;
  ScramPeer peer(dialogue);
  REQUIRE(dialogue.feed('R', peer.begin()) == LoginStep::need_key);
  CHECK(dialogue.feed('N', "") == LoginStep::more);
  CHECK(as_text(dialogue.login.password()) == "secret");
  dialogue.refuses('E', error_body("57P01", "shutting down"), "57P01");
}

TEST_CASE("A password that does not serve the server's method names the keys that would") {
  const std::string verifier = print_scram_verifier(verifier_from({}, as_bytes("salt"), 1));
  const std::pair<std::string, std::string> refusals[] = {
      {"", auth_cleartext},
      {"", auth_md5},
      {"", auth_sasl},
      {verifier, auth_cleartext},
      {verifier, auth_md5},
      {verifier, auth_sasl},
      {md5_hash("secret", "app"), auth_cleartext},
      {md5_hash("secret", "app"), auth_sasl}};
  for (const auto& [password, request] : refusals) {
    Dialogue dialogue(options_with(password));
    dialogue.refuses('R', request, sqlstate::invalid_password);
    CHECK(dialogue.login.error().message.find("node_user") != std::string::npos);
    CHECK(dialogue.login.error().message.find("node_password") != std::string::npos);
    if (!password.empty())
      CHECK(dialogue.login.error().message.find(password) == std::string::npos);
  }
}

TEST_CASE("Methods that are not supported are refused by name or number") {
  Dialogue plus;
  plus.refuses('R', auth(authentication_code::sasl, std::string_view("SCRAM-SHA-256-PLUS\0\0", 20)),
               sqlstate::feature_not_supported);
  CHECK(plus.login.error().message.find("SCRAM-SHA-256-PLUS") != std::string::npos);
  Dialogue unknown;
  unknown.refuses('R', auth(authentication_code::sasl, std::string_view("OAUTHBEARER\0\0", 13)),
                  sqlstate::feature_not_supported);
  Dialogue gss;
  gss.refuses('R', auth(7), sqlstate::feature_not_supported);
  CHECK(gss.login.error().message.find(" 7,") != std::string::npos);
}

TEST_CASE("Malformed messages are refused") {
  const std::pair<char, std::string> messages[] = {{'R', ""},
                                                   {'R', std::string("\0\0\0", 3)},
                                                   {'R', auth_ok + "x"},
                                                   {'R', auth(5, "\x01\x02\x03")},
                                                   {'R', auth(10, "SCRAM-SHA-256")},
                                                   {'v', ""},
                                                   {'v', be32(0)}};
  for (const auto& [tag, body] : messages) {
    Dialogue dialogue;
    dialogue.refuses(tag, body, sqlstate::protocol_violation);
  }
  const std::pair<char, std::string> later[] = {{'S', ""},
                                                {'S', "name"},
                                                {'S', std::string("name\0value", 10)},
                                                {'S', parameter("", "x")},
                                                {'K', be32(1)},
                                                {'K', be32(1) + "abc"},
                                                {'K', be32(1) + std::string(257, 'k')},
                                                {'Z', ""},
                                                {'Z', "X"},
                                                {'Z', "II"},
                                                {'Z', "T"},
                                                {'Z', "E"}};
  for (const auto& [tag, body] : later) {
    Dialogue dialogue;
    REQUIRE(dialogue.feed('R', auth_ok) == LoginStep::more);
    dialogue.refuses(tag, body, sqlstate::protocol_violation);
  }
}

TEST_CASE("Messages of the settings are refused before the login is ok, others always") {
  for (char tag : {'S', 'K', 'Z'}) {
    const std::string body = tag == 'S' ? parameter("a", "b") : tag == 'K' ? be32(1) + "KEYS" : "I";
    Dialogue at_once;
    at_once.refuses(tag, body, sqlstate::protocol_violation);
    Dialogue in_scram;
    ScramPeer peer(in_scram);
    REQUIRE(in_scram.feed('R', peer.prove()) == LoginStep::more);
    in_scram.refuses(tag, body, sqlstate::protocol_violation);
  }
  for (int tag = 0; tag < 256; ++tag) {
    if (std::string_view("RSKZEN").find(static_cast<char>(tag)) != std::string_view::npos) continue;
    Dialogue dialogue;
    REQUIRE(dialogue.feed('R', auth_ok) == LoginStep::more);
    dialogue.refuses(static_cast<char>(tag), "", sqlstate::protocol_violation);
  }
}

TEST_CASE("BackendKeyData and NegotiateProtocolVersion come once") {
  Dialogue dialogue;
  CHECK(dialogue.feed('v', be32(196608) + be32(0)) == LoginStep::more);
  Dialogue twice;
  REQUIRE(twice.feed('v', be32(196608) + be32(0)) == LoginStep::more);
  twice.refuses('v', be32(196608) + be32(0), sqlstate::protocol_violation);
  REQUIRE(dialogue.feed('R', auth_ok) == LoginStep::more);
  REQUIRE(dialogue.feed('K', be32(1) + "KEYS") == LoginStep::more);
  dialogue.refuses('K', be32(1) + "KEYS", sqlstate::protocol_violation);
}

TEST_CASE("A server's settings are bounded in number and size") {
  Dialogue many;
  REQUIRE(many.feed('R', auth_ok) == LoginStep::more);
  for (size_t i = 0; i < BackendLogin::parameters_max; ++i)
    REQUIRE(many.feed('S', parameter("name" + std::to_string(i), "v")) == LoginStep::more);
  CHECK(many.feed('S', parameter("name0", "again")) == LoginStep::more);
  many.refuses('S', parameter("one too many", "v"), sqlstate::protocol_violation);

  Dialogue large;
  REQUIRE(large.feed('R', auth_ok) == LoginStep::more);
  const size_t half = BackendLogin::parameters_size_max / 2;
  REQUIRE(large.feed('S', parameter("a", std::string(half - 1, 'x'))) == LoginStep::more);
  REQUIRE(large.feed('S', parameter("b", std::string(half - 1, 'x'))) == LoginStep::more);
  REQUIRE(large.feed('S', parameter("b", std::string(half - 1, 'y'))) == LoginStep::more);
  large.refuses('S', parameter("a", std::string(half, 'x')), sqlstate::protocol_violation);
}

TEST_CASE("A server cannot keep a login going with notices, nor send a message without bound") {
  Dialogue dialogue;
  for (size_t i = 0; i < BackendLogin::messages_max; ++i)
    REQUIRE(dialogue.feed('N', "") == LoginStep::more);
  dialogue.refuses('N', "", sqlstate::protocol_violation);
  Dialogue large;
  CHECK(large.feed('N', std::string(BackendLogin::message_size_max, 'x')) == LoginStep::more);
  large.refuses('N', std::string(BackendLogin::message_size_max + 1, 'x'),
                sqlstate::protocol_violation);
}

TEST_CASE("A server's error is kept as it is, cut to size and complete without its parts") {
  Dialogue plain;
  plain.refuses('E', error_body("3D000", "database \"shop\" does not exist"), "3D000");
  CHECK(plain.login.error().message == "database \"shop\" does not exist");
  CHECK(plain.login.server_refused());
  Dialogue empty;  // CVE-2026-6666: an error without a SQLSTATE.
  empty.refuses('E', "", sqlstate::connection_exception);
  Dialogue no_state;
  no_state.refuses('E', std::string("Mgo away\0\0", 10), sqlstate::connection_exception);
  CHECK(no_state.login.error().message == "go away");
  Dialogue large;
  std::string text = "x";
  while (text.size() < 2 * BackendLogin::error_size_max) text += "\u00e4";
  large.refuses('E', error_body("XX000", text), "XX000");
  // One less than the limit: not within a character.
  CHECK(large.login.error().message.size() == BackendLogin::error_size_max - 1);
  CHECK(text.starts_with(large.login.error().message));
}

TEST_CASE(
    "A refused start-up parameter is told apart from other refusals behind the authentication") {
  MessageWriter writer;
  write_error(writer, Severity::fatal, "22023", "message", "detail", "hint");
  const std::string refusal(as_text(writer.bytes().subspan(5)));
  BackendLoginOptions options = options_with("");
  for (const bool has_parameters : {true, false}) {
    for (const bool is_authenticated : {true, false}) {
      if (!has_parameters) options.parameters.clear();
      Dialogue dialogue(options);
      if (is_authenticated) REQUIRE(dialogue.feed('R', auth_ok) == LoginStep::more);
      dialogue.refuses('E', refusal, "22023");
      const PoolError& error = dialogue.login.error();
      CHECK(error.message == "message");
      CHECK(error.detail == "detail");
      CHECK(error.hint == "hint");
      CHECK(error.is_of_parameters == (has_parameters && is_authenticated));
    }
  }
  for (const char* code :
       {"22023", "25001", "42501", "42602", "42704", "55P02", "58P01", "0A000"}) {
    Dialogue dialogue;
    REQUIRE(dialogue.feed('R', auth_ok) == LoginStep::more);
    dialogue.refuses('E', error_body(code, "no"), code);
    CHECK(dialogue.login.error().is_of_parameters);
  }
  for (const char* code : {"3D000", "53300", "55000", "57P03", "58000", "XX000"}) {
    Dialogue dialogue;
    REQUIRE(dialogue.feed('R', auth_ok) == LoginStep::more);
    dialogue.refuses('E', error_body(code, "no"), code);
    CHECK_FALSE(dialogue.login.error().is_of_parameters);
  }
}

TEST_CASE("A password with a zero byte is not sent cut short") {
  BackendLoginOptions options = options_with(std::string("sec\0ret", 7));
  options.password_is_plain = true;
  Dialogue dialogue(options);
  dialogue.refuses('R', auth_cleartext, sqlstate::invalid_password);
}

TEST_CASE("Random messages never crash a login and never complete it without an ok") {
  SeededRandom random(77);
  constexpr std::string_view tags = "RRRRSKZENv";
  for (int round = 0; round < 3000; ++round) {
    Dialogue dialogue;
    bool was_ok = false;
    for (int i = 0; i < 20; ++i) {
      std::array<uint8_t, 44> dice;
      random.fill(dice);
      const char tag = tags[dice[0] % tags.size()];
      std::string body(as_text(ByteSpan(dice).subspan(4, dice[1] % 40)));
      if (tag == 'R' && dice[2] % 8 != 0)
        body = be32(std::array<uint32_t, 6>{0, 3, 5, 10, 11, 12}[dice[3] % 6]) +
               body.substr(0, dice[2] % 5);
      if (tag == 'R' && body == auth_sasl.substr(0, 4)) body = auth_sasl;
      const LoginStep step = dialogue.feed(tag, body);
      was_ok = was_ok || (tag == 'R' && body == auth_ok);
      if (step == LoginStep::done) CHECK(was_ok);
      if (step == LoginStep::done || step == LoginStep::failed) break;
    }
  }
}

}  // namespace
}  // namespace helios
