#include "helios/session/client_login.h"

#include <doctest/doctest.h>

#include <functional>

#include "helios/wire/backend_messages.h"
#include "helios/wire/error_response.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/message.h"
#include "helios/wire/saslprep.h"
#include "wire/wire_support.h"

namespace helios {
namespace {

using test::ExactBytes;
using test::InputMaker;
using test::message;
using test::string_of;
using namespace std::string_literals;
using namespace std::string_view_literals;
using Kind = UserSecret::Kind;
using Step = ClientLoginStep;

constexpr Sha256Digest login_secret = {1, 2, 3};
constexpr uint32_t rounds = 64;  // Few: nothing here depends on the number.

StartupMessage startup_for(std::string_view user) {
  StartupMessage startup;
  startup.user = user;
  startup.database = "db";
  return startup;
}

ScramVerifier verifier_of(std::string_view password) {
  const std::string_view salt = "0123456789abcdef";
  return verifier_from(pbkdf2(as_bytes(password), as_bytes(salt), rounds), as_bytes(salt), rounds);
}

UserSecret secret_of(Kind kind, std::string_view password) {
  UserSecret secret;
  secret.kind = kind;
  if (kind == Kind::plain_password) secret.text = SecretBytes(password);
  if (kind == Kind::md5_hash) secret.text = SecretBytes(md5_hash(password, "me"));
  if (kind == Kind::scram_verifier) secret.verifier = verifier_of(password);
  return secret;
}

struct Message {
  uint8_t tag;
  std::string body;
};

std::vector<Message> messages_of(ByteSpan bytes) {
  std::vector<Message> messages;
  MessageAssembler assembler(frame_body_size_limit);
  while (assembler.feed(bytes) == FrameStatus::message) {
    messages.push_back({assembler.tag(), string_of(assembler.body())});
  }
  REQUIRE(assembler.at_boundary());
  return messages;
}

// A login and what it said, with the key derivation that an owner would do.
class Login {
 public:
  explicit Login(UserSecret secret, const StartupMessage& startup = startup_for("me"))
      : login_(login_secret, random_) {
    finish(login_.start(startup, std::move(secret), out_));
  }

  void feed(std::string_view bytes) {
    const ExactBytes copy(bytes);
    ByteSpan input = copy.span();
    finish(login_.on_input(input, out_));
    left_ = string_of(input);
  }

  // Hands over what was said since the last call.
  std::vector<Message> take_said() {
    std::vector<Message> said = messages_of(out_.bytes());
    for (const Message& one : said) tags_ += static_cast<char>(one.tag);
    out_.clear();
    return said;
  }

  // The one error that was said last. Requires: refused.
  ErrorFields error() {
    REQUIRE(step_ == Step::refused);
    said_last_ = take_said();
    REQUIRE(said_last_.size() == 1);
    REQUIRE(said_last_[0].tag == backend_tag::error_response);
    return read_error(as_bytes(said_last_[0].body));
  }

  [[nodiscard]] Step step() const { return step_; }
  [[nodiscard]] int keys_count() const { return keys_count_; }
  [[nodiscard]] const std::string& left() const { return left_; }
  [[nodiscard]] const std::string& tags() const { return tags_; }
  [[nodiscard]] ClientLogin& login() { return login_; }
  [[nodiscard]] MessageWriter& out() { return out_; }

 private:
  void finish(Step step) {
    step_ = step;
    if (step != Step::need_key) return;
    ++keys_count_;
    REQUIRE(out_.empty());
    step_ =
        login_.on_key(pbkdf2(login_.password(), as_bytes(login_.salt()), login_.rounds()), out_);
  }

  SeededRandom random_{7};
  ClientLogin login_;
  MessageWriter out_;
  Step step_ = Step::more;
  int keys_count_ = 0;
  std::string left_;
  std::string tags_;
  std::vector<Message> said_last_;
};

std::string bytes_of(const std::function<void(MessageWriter&)>& write) {
  MessageWriter writer;
  write(writer);
  return string_of(writer.bytes());
}

// The client's side of a SCRAM login, with a password.
class ScriptedClient {
 public:
  explicit ScriptedClient(std::string_view password) : password_(password) {}

  std::string first(std::string_view mechanism = scram_mechanism) {
    std::string text;
    REQUIRE(scram_.start(random_, text) == ScramStep::more);
    return bytes_of([&](MessageWriter& w) { write_sasl_initial_response(w, mechanism, text); });
  }

  // The answer to the server's challenge.
  std::string final(const std::vector<Message>& said) {
    REQUIRE(said.size() == 1);
    const auto request = read_authentication(as_bytes(said[0].body));
    REQUIRE(request->kind == AuthenticationKind::sasl_continue);
    REQUIRE(scram_.on_server_first(as_text(request->data)) == ScramStep::need_key);
    salt_ = scram_.salt();
    rounds_ = scram_.rounds();
    std::string text;
    const SecretBytes prepared = scram_password(password_);
    const Sha256Digest key = pbkdf2(prepared.bytes(), as_bytes(salt_), rounds_);
    REQUIRE(scram_.on_key(key, text) == ScramStep::more);
    return bytes_of([&](MessageWriter& w) { write_sasl_response(w, text); });
  }

  ScramStep check(const Message& said) {
    const auto request = read_authentication(as_bytes(said.body));
    REQUIRE(request->kind == AuthenticationKind::sasl_final);
    return scram_.on_server_final(as_text(request->data));
  }

  [[nodiscard]] const std::string& salt() const { return salt_; }
  [[nodiscard]] uint32_t rounds() const { return rounds_; }

 private:
  SeededRandom random_{8};
  std::string password_;
  ScramClient scram_;
  std::string salt_;
  uint32_t rounds_ = 0;
};

// Runs a whole SCRAM login and checks that it was accepted and the server proved itself.
void log_in(Login& login, std::string_view password, size_t piece_size) {
  const auto feed = [&](const std::string& bytes) {
    for (size_t at = 0; at < bytes.size(); at += piece_size) {
      REQUIRE(login.step() == Step::more);
      login.feed(std::string_view(bytes).substr(at, piece_size));
    }
  };
  ScriptedClient client(password);
  const auto offer = login.take_said();
  REQUIRE(offer.size() == 1);
  const auto request = read_authentication(as_bytes(offer[0].body));
  REQUIRE(request->kind == AuthenticationKind::sasl);
  REQUIRE(request->has_mechanism("SCRAM-SHA-256"));
  REQUIRE_FALSE(request->has_mechanism("SCRAM-SHA-256-PLUS"));
  feed(client.first());
  feed(client.final(login.take_said()));
  REQUIRE(login.step() == Step::accepted);
  const auto said = login.take_said();
  REQUIRE(said.size() == 2);
  CHECK(client.check(said[0]) == ScramStep::done);
  CHECK(read_authentication(as_bytes(said[1].body))->kind == AuthenticationKind::ok);
}

std::string md5_answer(Login& login, std::string_view password) {
  const auto said = login.take_said();
  REQUIRE(said.size() == 1);
  const auto request = read_authentication(as_bytes(said[0].body));
  REQUIRE(request->kind == AuthenticationKind::md5_password);
  Md5Salt salt;
  std::copy(request->data.begin(), request->data.end(), salt.begin());
  const std::string response = md5_response(md5_hash(password, "me"), salt);
  return bytes_of([&](MessageWriter& w) { write_password(w, response); });
}

// What a SCRAM login that is refused shows to its client.
struct Refusal {
  std::string tags;
  std::string salt;
  uint32_t rounds = 0;
  std::string sqlstate;
  std::string text;
  std::string reason;
};

Refusal refusal_of(UserSecret secret, std::string_view user, std::string_view password) {
  Login login(std::move(secret), startup_for(user));
  login.take_said();
  ScriptedClient client(password);
  login.feed(client.first());
  login.feed(client.final(login.take_said()));
  const ErrorFields error = login.error();
  CHECK(error.is_fatal());
  return {login.tags(),
          client.salt(),
          client.rounds(),
          std::string(error.sqlstate),
          std::string(error.message),
          std::string(login.login().reason())};
}

TEST_CASE("a trusted user is accepted at once") {
  Login login(secret_of(Kind::trust, ""));
  CHECK(login.step() == Step::accepted);
  CHECK(string_of(login.out().bytes()) == message('R', "\0\0\0\0"sv));
}

TEST_CASE("a user with a verifier logs in, with whatever segmentation") {
  for (const size_t piece_size : {1, 2, 7, 1000}) {
    Login login(secret_of(Kind::scram_verifier, "pencil"));
    log_in(login, "pencil", piece_size);
    CHECK(login.keys_count() == 0);
  }
}

TEST_CASE("a user with a plain password logs in after one key was derived") {
  Login login(secret_of(Kind::plain_password, "pencil"));
  log_in(login, "pencil", 1000);
  CHECK(login.keys_count() == 1);
}

TEST_CASE("the verifier of a plain password serves the next login without a key") {
  Login first(secret_of(Kind::plain_password, "pencil"));
  UserSecret secret;
  secret.kind = Kind::scram_verifier;
  secret.verifier = first.login().verifier();
  Login second(std::move(secret));
  log_in(second, "pencil", 1000);
  CHECK(second.keys_count() == 0);
}

TEST_CASE("a plain password that SASLprep changes is accepted in either form") {
  Login login(secret_of(Kind::plain_password, "I\xc2\xadX"));  // A soft hyphen, which goes.
  log_in(login, "IX", 1000);
}

TEST_CASE("a user with an md5 hash logs in") {
  Login login(secret_of(Kind::md5_hash, "pencil"));
  login.feed(md5_answer(login, "pencil"));
  CHECK(login.step() == Step::accepted);
  CHECK(string_of(login.out().bytes()) == message('R', "\0\0\0\0"sv));
}

TEST_CASE("a wrong md5 answer is refused") {
  Login login(secret_of(Kind::md5_hash, "pencil"));
  login.feed(md5_answer(login, "pen"));
  CHECK(login.error().sqlstate == "28P01");
}

TEST_CASE("an md5 salt differs from login to login") {
  SeededRandom random(9);
  std::string said[2];
  for (std::string& bytes : said) {
    ClientLogin login(login_secret, random);
    MessageWriter out;
    REQUIRE(login.start(startup_for("me"), secret_of(Kind::md5_hash, "x"), out) == Step::more);
    bytes = string_of(out.bytes());
  }
  CHECK(said[0] != said[1]);
}

TEST_CASE("bytes behind the last message of the login are left to the session") {
  Login login(secret_of(Kind::md5_hash, "pencil"));
  const std::string query = bytes_of([](MessageWriter& w) { write_query(w, "select 1"); });
  login.feed(md5_answer(login, "pencil") + query);
  CHECK(login.step() == Step::accepted);
  CHECK(login.left() == query);
}

TEST_CASE("unknown user, wrong password and empty password cannot be told apart") {
  const Refusal unknown = refusal_of(secret_of(Kind::unknown_user, ""), "me", "guess");
  const Refusal plain = refusal_of(secret_of(Kind::plain_password, "pencil"), "me", "guess");
  const Refusal empty = refusal_of(secret_of(Kind::plain_password, ""), "me", "");
  const Refusal verifier = refusal_of(secret_of(Kind::scram_verifier, "pencil"), "me", "guess");
  for (const Refusal& refusal : {unknown, plain, empty, verifier}) {
    CHECK(refusal.tags == unknown.tags);
    CHECK(refusal.salt.size() == unknown.salt.size());
    CHECK(refusal.sqlstate == "28P01");
    CHECK(refusal.text == "password authentication failed for user \"me\"");
  }
  for (const Refusal& refusal : {plain, empty}) {
    CHECK(refusal.salt == unknown.salt);
    CHECK(refusal.rounds == unknown.rounds);
  }
  CHECK(unknown.reason != plain.reason);  // The log may know.
}

TEST_CASE("the salt of an unknown user depends on the name and never changes") {
  const Refusal first = refusal_of(secret_of(Kind::unknown_user, ""), "me", "guess");
  const Refusal again = refusal_of(secret_of(Kind::unknown_user, ""), "me", "another guess");
  const Refusal other = refusal_of(secret_of(Kind::unknown_user, ""), "you", "guess");
  CHECK(first.salt == again.salt);
  CHECK(first.salt != other.salt);
}

TEST_CASE("a negotiation comes once and before the first request") {
  StartupMessage startup = startup_for("me");
  startup.minor = 9;
  startup.protocol_options.push_back({"_pq_.x", "1"});
  for (const Kind kind : {Kind::trust, Kind::unknown_user, Kind::plain_password,
                          Kind::scram_verifier, Kind::md5_hash}) {
    SeededRandom random(1);
    ClientLogin login(login_secret, random);
    MessageWriter out;
    Step step = login.start(startup, secret_of(kind, "pencil"), out);
    if (step == Step::need_key) step = login.on_key(Sha256Digest{}, out);
    CHECK(step == (kind == Kind::trust ? Step::accepted : Step::more));
    const auto said = messages_of(out.bytes());
    REQUIRE(said.size() == 2);
    CHECK(said[0].tag == backend_tag::negotiate_protocol_version);
    CHECK(read_negotiate_protocol_version(as_bytes(said[0].body))->newest_minor == 2);
    CHECK(said[1].tag == backend_tag::authentication);
  }
}

// A login that waits for its client in the given state.
enum class Waiting { initial, final_response, md5 };

Login& bring_to(Waiting state, std::optional<Login>& login) {
  if (state == Waiting::md5) {
    login.emplace(secret_of(Kind::md5_hash, "pencil"));
  } else {
    login.emplace(secret_of(Kind::scram_verifier, "pencil"));
    if (state == Waiting::final_response) login->feed(ScriptedClient("pencil").first());
  }
  REQUIRE(login->step() == Step::more);
  login->take_said();
  return *login;
}

constexpr Waiting every_state[] = {Waiting::initial, Waiting::final_response, Waiting::md5};

TEST_CASE("any message but a password message is refused in each state at its first byte") {
  for (const Waiting state : every_state) {
    for (int tag = 0; tag < 256; ++tag) {
      if (tag == frontend_tag::password) continue;
      std::optional<Login> login;
      bring_to(state, login).feed(std::string(1, static_cast<char>(tag)));
      const ErrorFields error = login->error();
      CHECK(error.is_fatal());
      CHECK(error.sqlstate == "08P01");
      CHECK(error.message.find("got message type " + std::to_string(tag)) != std::string::npos);
    }
  }
}

TEST_CASE("a second start-up message is refused in each state") {
  const TextPair parameters[] = {{"user", "admin"}};
  const std::string packet =
      bytes_of([&](MessageWriter& w) { write_startup(w, protocol_version(3, 0), parameters); });
  for (const Waiting state : every_state) {
    std::optional<Login> login;
    bring_to(state, login).feed(packet);
    CHECK(login->error().sqlstate == "08P01");
    CHECK(login->login().reason().find("got message type 0") != std::string_view::npos);
  }
}

TEST_CASE("a message while the key is derived is refused") {
  SeededRandom random(1);
  ClientLogin login(login_secret, random);
  MessageWriter out;
  REQUIRE(login.start(startup_for("me"), secret_of(Kind::plain_password, "x"), out) ==
          Step::need_key);
  CHECK(login.on_message('p', as_bytes("x"), out) == Step::refused);
  CHECK(read_error(out.bytes().subspan(5)).sqlstate == "08P01");
}

TEST_CASE("a message of another state is refused, never taken for the one that is due") {
  const std::string password = bytes_of([](MessageWriter& w) { write_password(w, "pencil"); });
  for (const Waiting state : {Waiting::initial, Waiting::final_response}) {
    std::optional<Login> login;
    bring_to(state, login).feed(password);
    CHECK(login->error().sqlstate == "08P01");
  }
  std::optional<Login> login;
  bring_to(Waiting::final_response, login).feed(ScriptedClient("pencil").first());
  CHECK(login->error().sqlstate == "08P01");
  bring_to(Waiting::md5, login).feed(ScriptedClient("pencil").first());
  CHECK(login->error().sqlstate == "08P01");
}

TEST_CASE("a message above 64 KiB or of an impossible length is refused before it comes") {
  for (const Waiting state : every_state) {
    for (const uint32_t length : {0u, 3u, 64 * 1024 + 5u, 0x7fffffffu, 0xffffffffu}) {
      uint8_t header[5] = {'p'};
      store_be32(header + 1, length);
      std::optional<Login> login;
      bring_to(state, login).feed(as_text(header));
      CHECK(login->error().sqlstate == "08P01");
    }
  }
}

std::string initial_response(std::string_view mechanism, std::string_view text) {
  return bytes_of([&](MessageWriter& w) { write_sasl_initial_response(w, mechanism, text); });
}

TEST_CASE("another mechanism is refused, the one with channel binding included") {
  for (const std::string_view mechanism :
       {"SCRAM-SHA-256-PLUS", "", "PLAIN", "SCRAM-SHA-256x", "scram-sha-256"}) {
    std::optional<Login> login;
    bring_to(Waiting::initial, login).feed(initial_response(mechanism, "n,,n=,r=abc"));
    const ErrorFields error = login->error();
    CHECK(error.sqlstate == "08P01");
    CHECK(error.message == "client selected an invalid SASL authentication mechanism");
  }
}

TEST_CASE("channel binding may be unsupported or unused, but not asked for") {
  for (const std::string_view flag : {"n", "y"}) {
    std::optional<Login> login;
    bring_to(Waiting::initial, login)
        .feed(initial_response(scram_mechanism, std::string(flag) + ",,n=,r=abc"));
    CHECK(login->step() == Step::more);
  }
  for (const std::string_view flag : {"p=tls-server-end-point", "p", "", "x"}) {
    std::optional<Login> login;
    bring_to(Waiting::initial, login)
        .feed(initial_response(scram_mechanism, std::string(flag) + ",,n=,r=abc"));
    const ErrorFields error = login->error();
    CHECK(error.sqlstate == "08P01");
    CHECK(error.message == "malformed SCRAM message");
    CHECK_FALSE(error.detail.empty());
  }
}

TEST_CASE("an initial response of a wrong shape is refused") {
  const std::string text = "n,,n=,r=abc";
  for (const std::string& body :
       {""s, "SCRAM-SHA-256"s, "SCRAM-SHA-256\0"s, "SCRAM-SHA-256\0\0\0\0"s,
        "SCRAM-SHA-256\0\0\0\0\x0a"s + text, "SCRAM-SHA-256\0\0\0\0\x0c"s + text,
        "SCRAM-SHA-256\0\xff\xff\xff\xff"s, "SCRAM-SHA-256\0\x7f\xff\xff\xff"s + text,
        "SCRAM-SHA-256\0\0\0\0\0"s}) {
    std::optional<Login> login;
    bring_to(Waiting::initial, login).feed(message('p', body));
    CHECK(login->error().sqlstate == "08P01");
  }
}

TEST_CASE("a final response without nonce, with another nonce or without a proof is refused") {
  for (const std::string_view body :
       {""sv, "c=biws"sv, "c=biws,r=x"sv, "c=biws,p=AAAA"sv, "r=,p="sv, "\0"sv}) {
    std::optional<Login> login;
    bring_to(Waiting::final_response, login).feed(message('p', body));
    CHECK(login->error().sqlstate == "08P01");
  }
}

TEST_CASE("an md5 answer without its zero byte, or with bytes behind it, is refused") {
  for (const std::string_view body : {""sv, "md5"sv, "md5\0x"sv}) {
    std::optional<Login> login;
    bring_to(Waiting::md5, login).feed(message('p', body));
    CHECK(login->error().sqlstate == "08P01");
  }
}

TEST_CASE("random bytes in any state never log anybody in") {
  InputMaker maker(10);
  for (const Waiting state : every_state) {
    const std::string legal =
        state == Waiting::final_response
            ? message('p', "c=biws,r=abcdefghijklmnopqrstuvwx,p=" + std::string(43, 'A') + "=")
            : initial_response(scram_mechanism, "n,,n=,r=abcdef");
    for (int i = 0; i < test::random_inputs_count / 10; ++i) {
      std::optional<Login> login;
      bring_to(state, login);
      std::string bytes = maker.next(legal);
      // Past the frame now and then, to what reads the body.
      if (maker.below(2) == 0) bytes = message('p', maker.damaged(legal.substr(5)));
      while (!bytes.empty() && login->step() == Step::more) {
        const size_t size = 1 + maker.below(bytes.size());
        login->feed(std::string_view(bytes).substr(0, size));
        bytes.erase(0, size);
      }
      REQUIRE(login->step() != Step::accepted);
    }
  }
}

}  // namespace
}  // namespace helios
