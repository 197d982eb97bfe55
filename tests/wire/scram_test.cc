#include "helios/wire/scram.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "helios/wire/key_derivation.h"

namespace helios {
namespace {

// The exchange of RFC 7677 section 3: user "user", password "pencil".
constexpr std::string_view rfc_client_nonce = "rOprNGfwEbeRWgbNEkqO";
constexpr std::string_view rfc_server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
constexpr std::string_view rfc_client_first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
constexpr std::string_view rfc_server_first =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
constexpr std::string_view rfc_client_final =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
constexpr std::string_view rfc_server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

Sha256Digest rfc_key() {
  return pbkdf2(as_bytes("pencil"), as_bytes(*base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==")), 4096);
}

// A cheap verifier of the password "secret".
ScramVerifier cheap_verifier() {
  const ByteSpan salt = as_bytes("0123456789abcdef");
  return verifier_from(pbkdf2(as_bytes("secret"), salt, 2), salt, 2);
}

// A server that has sent server-first for the client nonce "abc".
struct Server {
  explicit Server(ScramUser user = ScramUser::real) : scram(cheap_verifier(), user) {
    scram.set_nonce("XYZ");
    REQUIRE(scram.on_client_first("n,,n=,r=abc", random, output) == ScramStep::more);
  }
  ScramStep finish(std::string_view message) { return scram.on_client_final(message, output); }

  SeededRandom random{1};
  ScramServer scram;
  std::string output;
};

// A client that waits for server-first; its nonce is "abc".
struct Client {
  explicit Client(uint32_t rounds_max = 100) : scram(rounds_max) {
    scram.set_nonce("abc");
    REQUIRE(scram.start(random, output) == ScramStep::more);
  }
  // With the right key, up to server-final.
  void give_key(std::string_view server_first) {
    REQUIRE(scram.on_server_first(server_first) == ScramStep::need_key);
    const Sha256Digest key = pbkdf2(as_bytes("secret"), as_bytes(scram.salt()), scram.rounds());
    REQUIRE(scram.on_key(key, output) == ScramStep::more);
  }

  SeededRandom random{2};
  ScramClient scram;
  std::string output;
};

ScramStep first_step(std::string_view message) {
  SeededRandom random(1);
  ScramServer server(cheap_verifier(), ScramUser::real);
  std::string output;
  const ScramStep step = server.on_client_first(message, random, output);
  CHECK(output.empty() == (step != ScramStep::more));
  return step;
}

// The whole exchange with a password. The server's last step.
ScramStep log_in(const ScramVerifier& verifier, ScramUser user, std::string_view password) {
  SeededRandom random(3);
  ScramServer server(verifier, user);
  ScramClient client;
  std::string text;
  std::string reply;
  REQUIRE(client.start(random, text) == ScramStep::more);
  REQUIRE(server.on_client_first(text, random, reply) == ScramStep::more);
  REQUIRE(client.on_server_first(reply) == ScramStep::need_key);
  CHECK(client.salt() == verifier.salt);
  CHECK(client.rounds() == verifier.rounds);
  const Sha256Digest key = pbkdf2(as_bytes(password), as_bytes(client.salt()), client.rounds());
  REQUIRE(client.on_key(key, text) == ScramStep::more);
  reply.clear();
  const ScramStep step = server.on_client_final(text, reply);
  CHECK(reply.empty() == (step != ScramStep::done));
  CHECK_FALSE(client.is_done());
  if (step == ScramStep::done) {
    CHECK(client.on_server_final(reply) == ScramStep::done);
    CHECK(client.is_done());
  }
  return step;
}

TEST_CASE("The client says what RFC 7677 says") {
  SeededRandom random(1);
  ScramClient client;
  client.set_nonce(rfc_client_nonce);
  client.set_user("user");
  std::string output;
  REQUIRE(client.start(random, output) == ScramStep::more);
  CHECK(output == rfc_client_first);
  REQUIRE(client.on_server_first(rfc_server_first) == ScramStep::need_key);
  CHECK(client.rounds() == 4096);
  REQUIRE(client.on_key(rfc_key(), output) == ScramStep::more);
  CHECK(output == rfc_client_final);
  CHECK_FALSE(client.is_done());
  CHECK(client.on_server_final(rfc_server_final) == ScramStep::done);
  CHECK(client.is_done());
}

TEST_CASE("The server says what RFC 7677 says") {
  SeededRandom random(1);
  const std::string salt = *base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==");
  ScramServer server(verifier_from(rfc_key(), as_bytes(salt), 4096), ScramUser::real);
  server.set_nonce(rfc_server_nonce);
  std::string output;
  REQUIRE(server.on_client_first(rfc_client_first, random, output) == ScramStep::more);
  CHECK(output == rfc_server_first);
  REQUIRE(server.on_client_final(rfc_client_final, output) == ScramStep::done);
  CHECK(output == rfc_server_final);
}

TEST_CASE("The right password is let in, another is not, and nobody is a mock user") {
  const ScramVerifier verifier = cheap_verifier();
  CHECK(log_in(verifier, ScramUser::real, "secret") == ScramStep::done);
  CHECK(log_in(verifier, ScramUser::real, "Secret") == ScramStep::refused);
  CHECK(log_in(verifier, ScramUser::real, "") == ScramStep::refused);
  CHECK(log_in(verifier, ScramUser::mock, "secret") == ScramStep::refused);
  CHECK(log_in(mock_verifier(sha256({}), "nobody", 2), ScramUser::mock, "x") == ScramStep::refused);
}

TEST_CASE("A mock verifier looks the same each time and different for each user and secret") {
  const Sha256Digest secret = sha256(as_bytes("process"));
  const ScramVerifier verifier = mock_verifier(secret, "nobody");
  CHECK(verifier == mock_verifier(secret, "nobody"));
  CHECK(verifier.salt.size() == scram_salt_size);
  CHECK(verifier.rounds == scram_rounds_default);
  CHECK(verifier.salt != mock_verifier(secret, "somebody").salt);
  CHECK(verifier.salt != mock_verifier(sha256(as_bytes("other")), "nobody").salt);
}

TEST_CASE("Two exchanges have different nonces") {
  SeededRandom random(1);
  std::string first;
  std::string second;
  ScramClient client;
  REQUIRE(client.start(random, first) == ScramStep::more);
  ScramClient other;
  REQUIRE(other.start(random, second) == ScramStep::more);
  CHECK(first != second);
  CHECK(first.size() == 8 + 24);  // "n,,n=,r=" and 18 bytes in base64.
}

constexpr std::string_view stored =
    "SCRAM-SHA-256$4096:1EwowNOmil4HIEN2SWQ9Og==$xRGWK7/lXqNFysiTvdocahryFZ5s8aa03nnBW1TtrTw=:"
    "LhzoQ/em6VRyZTMdDuFHy0U4VrVoq4K/TAHaBT8ebbk=";

TEST_CASE("A verifier that PostgreSQL has stored is read, checked and printed as it was") {
  const auto verifier = parse_scram_verifier(stored);
  REQUIRE(verifier.has_value());
  CHECK(verifier->rounds == 4096);
  CHECK(verifier->salt.size() == 16);
  CHECK(print_scram_verifier(*verifier) == stored);
  CHECK(log_in(*verifier, ScramUser::real, "secret") == ScramStep::done);
  CHECK(log_in(*verifier, ScramUser::real, "secreT") == ScramStep::refused);
}

TEST_CASE("A verifier that is cut short anywhere is refused") {
  for (size_t size = 0; size < stored.size(); ++size)
    CHECK_FALSE(parse_scram_verifier(stored.substr(0, size)).has_value());
}

TEST_CASE("Malformed verifiers are refused") {
  const std::string key = "xRGWK7/lXqNFysiTvdocahryFZ5s8aa03nnBW1TtrTw=";
  const auto with = [&](const std::string& head) { return head + "$" + key + ":" + key; };
  CHECK(parse_scram_verifier(with("SCRAM-SHA-256$1:c2FsdA==")).has_value());
  CHECK(parse_scram_verifier(with("SCRAM-SHA-256$2147483647:c2FsdA==")).has_value());
  for (const char* head :
       {"SCRAM-SHA-256$0:c2FsdA==", "SCRAM-SHA-256$:c2FsdA==", "SCRAM-SHA-256$-1:c2FsdA==",
        "SCRAM-SHA-256$+1:c2FsdA==", "SCRAM-SHA-256$ 1:c2FsdA==", "SCRAM-SHA-256$01:c2FsdA==",
        "SCRAM-SHA-256$1x:c2FsdA==", "SCRAM-SHA-256$2147483648:c2FsdA==",
        "SCRAM-SHA-256$99999999999:c2FsdA==", "SCRAM-SHA-256$1:", "SCRAM-SHA-256$1:c2FsdA",
        "SCRAM-SHA-256$1:c2Fs dA=", "scram-sha-256$1:c2FsdA==", "SCRAM-SHA-1$1:c2FsdA==",
        " SCRAM-SHA-256$1:c2FsdA=="})
    CHECK_MESSAGE(!parse_scram_verifier(with(head)).has_value(), head);
  CHECK_FALSE(parse_scram_verifier(std::string(stored) + "=").has_value());
  CHECK_FALSE(parse_scram_verifier(std::string(stored) + ":").has_value());
  CHECK_FALSE(parse_scram_verifier("SCRAM-SHA-256$1:c2FsdA==$" + key + ":c2FsdA==").has_value());
  const std::string salt_max = base64_encode(as_bytes(std::string(scram_salt_size_max, 's')));
  const std::string salt_over = base64_encode(as_bytes(std::string(scram_salt_size_max + 1, 's')));
  CHECK(parse_scram_verifier(with("SCRAM-SHA-256$1:" + salt_max)).has_value());
  CHECK_FALSE(parse_scram_verifier(with("SCRAM-SHA-256$1:" + salt_over)).has_value());
}

TEST_CASE("The server takes client-first with and without the y flag, a name and extensions") {
  for (const char* message :
       {"n,,n=,r=abc", "y,,n=,r=abc", "n,,n=somebody,r=abc", "n,,n=,r=abc,x=1", "n,,n=,r=!~;a+=/"})
    CHECK_MESSAGE(first_step(message) == ScramStep::more, message);
}

TEST_CASE("The server refuses every malformed client-first") {
  for (const char* message : {"",
                              "n",
                              "n,",
                              "n,,",
                              "x,,n=,r=abc",
                              "p=tls-unique,,n=,r=abc",
                              "p,,n=,r=abc",
                              "n;,n=,r=abc",
                              "n,a=admin,n=,r=abc",
                              "n,a=,n=,r=abc",
                              "n,b,n=,r=abc",
                              "n,,m=1,n=,r=abc",
                              "n,,r=abc",
                              "n,,n=",
                              "n,,n=,",
                              "n,,n=,r",
                              "n,,n=,r=",
                              "n,,n=,s=abc",
                              "n,,n=,r=a b",
                              "n,,n=,r=\x7f",
                              "n,,n=,r=\xc3\xa4",
                              "n,,n=,r=abc,",
                              "n,,n=,r=abc,,",
                              "n,,n=,r=abc,x",
                              "n,,n=,r=abc,1=2",
                              "n,,n,r=abc",
                              ",,n=,r=abc"})
    CHECK_MESSAGE(first_step(message) == ScramStep::malformed, message);
  CHECK(first_step(std::string_view("n,,n=,r=a\0c", 11)) == ScramStep::malformed);
  CHECK(first_step(std::string_view("n,,n=,r=abc,\0=x", 15)) == ScramStep::malformed);
  const std::string nonce(scram_nonce_size_max - 24, 'r');
  CHECK(first_step("n,,n=,r=" + nonce) == ScramStep::more);
  CHECK(first_step("n,,n=,r=" + nonce + "r") == ScramStep::malformed);
  CHECK(first_step("n,,n=" + std::string(scram_message_size_max, 'u') + ",r=abc") ==
        ScramStep::malformed);
}

// The client-final that is right for Server, made by hand from RFC 5802.
std::string right_final(const Server& server, std::string_view binding = "biws",
                        std::string_view extension = "") {
  const ScramVerifier verifier = cheap_verifier();
  const std::string without_proof =
      "c=" + std::string(binding) + ",r=abcXYZ" + std::string(extension);
  const std::string signed_text = "n=,r=abc," + server.output + "," + without_proof;
  const Sha256Digest salted = pbkdf2(as_bytes("secret"), as_bytes(verifier.salt), verifier.rounds);
  const Sha256Digest client_key = hmac_sha256(salted, as_bytes("Client Key"));
  Sha256Digest proof = hmac_sha256(verifier.stored_key, as_bytes(signed_text));
  for (size_t i = 0; i < proof.size(); ++i) proof[i] ^= client_key[i];
  return without_proof + ",p=" + base64_encode(proof);
}

TEST_CASE("The server takes a right client-final, with extensions that it signs too") {
  Server plain;
  CHECK(plain.output == "r=abcXYZ,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=2");
  CHECK(plain.finish(right_final(plain)) == ScramStep::done);
  Server extended;
  CHECK(extended.finish(right_final(extended, "biws", ",x=1,y=2")) == ScramStep::done);
}

TEST_CASE("The server insists on the channel binding of the first message") {
  Server server;
  CHECK(server.finish(right_final(server, "eSws")) == ScramStep::malformed);
  SeededRandom random(1);
  ScramServer other(cheap_verifier(), ScramUser::real);
  other.set_nonce("XYZ");
  std::string output;
  REQUIRE(other.on_client_first("y,,n=,r=abc", random, output) == ScramStep::more);
  CHECK(other.on_client_final(right_final(server, "biws"), output) == ScramStep::malformed);
}

TEST_CASE("The server refuses every malformed client-final without reading past it") {
  const std::string proof = base64_encode(sha256({}));
  const std::vector<std::string> messages = {
      "",
      "c",
      "c=",
      "c=biws",
      "c=biws,",
      "c=biws,r",
      "c=biws,r=",
      "c=biws,r=abcXYZ",
      "c=biws,r=abcXYZ,",
      "c=biws,r=abcXYZ,p",
      "c=biws,r=abcXYZ,p=",
      "c=biws,p=" + proof,
      "r=abcXYZ,p=" + proof,
      "p=" + proof,
      "c=biws,r=abcXY,p=" + proof,
      "c=biws,r=abcXYZZ,p=" + proof,
      "c=biws,r=,p=" + proof,
      "c=,r=abcXYZ,p=" + proof,
      "c=biws,r=abcXYZ,p=" + proof + ",x=1",
      "c=biws,r=abcXYZ,p=" + proof + ",",
      "c=biws,r=abcXYZ,p=" + proof.substr(1),
      "c=biws,r=abcXYZ,p=c2FsdA==",
      "c=biws,r=abcXYZ,,p=" + proof,
      "c=biws,r=abcXYZ,1=2,p=" + proof,
      "c=biws,r=abcXYZ,x,p=" + proof,
      std::string("c=biws,r=abcXYZ,x=1,\0", 21),
      "c=biws,r=abcXYZ," + std::string(scram_message_size_max, 'x')};
  for (const std::string& message : messages) {
    Server server;
    std::string reply;
    const std::unique_ptr<char[]> exact(new char[message.size()]);
    std::copy(message.begin(), message.end(), exact.get());
    CHECK_MESSAGE(
        server.scram.on_client_final({exact.get(), message.size()}, reply) == ScramStep::malformed,
        message);
    CHECK(reply.empty());
  }
}

TEST_CASE("The server refuses a well-formed proof that is wrong, in each of its bits") {
  Server reference;
  const std::string right = right_final(reference);
  const size_t proof_offset = right.find(",p=") + 3;
  const std::string proof = *base64_decode(std::string_view(right).substr(proof_offset));
  for (size_t bit = 0; bit < proof.size() * 8; bit += 5) {
    std::string wrong = proof;
    wrong[bit / 8] = static_cast<char>(wrong[bit / 8] ^ (1 << bit % 8));
    Server server;
    CHECK(server.finish(right.substr(0, proof_offset) + base64_encode(as_bytes(wrong))) ==
          ScramStep::refused);
  }
}

TEST_CASE("The server takes each message once and in turn") {
  SeededRandom random(1);
  std::string output;
  ScramServer early(cheap_verifier(), ScramUser::real);
  CHECK(early.on_client_final("c=biws,r=,p=", output) == ScramStep::malformed);
  CHECK(early.on_client_first("n,,n=,r=abc", random, output) == ScramStep::malformed);

  Server twice;
  const std::string right = right_final(twice);
  CHECK(twice.scram.on_client_first("n,,n=,r=abc", twice.random, output) == ScramStep::malformed);
  CHECK(twice.finish(right) == ScramStep::malformed);

  Server finished;
  CHECK(finished.finish(right) == ScramStep::done);
  CHECK(finished.finish(right) == ScramStep::malformed);
  Server refused;
  CHECK(refused.finish("c=biws,r=abcXYZ,p=" + base64_encode(sha256({}))) == ScramStep::refused);
  CHECK(refused.finish(right) == ScramStep::malformed);
}

TEST_CASE("The client refuses every malformed server-first") {
  const std::string salt_over = base64_encode(as_bytes(std::string(scram_salt_size_max + 1, 's')));
  const std::string nonce_over(scram_nonce_size_max, 'X');
  const std::vector<std::string> messages = {
      "",
      "r",
      "r=",
      "r=abcX",
      "r=abcX,",
      "r=abcX,s=c2FsdA==",
      "r=abcX,s=c2FsdA==,",
      "s=c2FsdA==,i=2",
      "r=abcX,i=2",
      "r=abc,s=c2FsdA==,i=2",
      "r=ab,s=c2FsdA==,i=2",
      "r=Xabc,s=c2FsdA==,i=2",
      "r=abdX,s=c2FsdA==,i=2",
      "r=,s=c2FsdA==,i=2",
      "r=abc\x01,s=c2FsdA==,i=2",
      "r=abcX,s=,i=2",
      "r=abcX,s=c2FsdA,i=2",
      "r=abcX,s=c2F sdA=,i=2",
      "r=abcX,s=c2FsdA==,i=",
      "r=abcX,s=c2FsdA==,i=0",
      "r=abcX,s=c2FsdA==,i=-1",
      "r=abcX,s=c2FsdA==,i=2x",
      "r=abcX,s=c2FsdA==,i= 2",
      "r=abcX,s=c2FsdA==,i=101",
      "r=abcX,s=c2FsdA==,i=4294967298",
      "r=abcX,s=c2FsdA==,i=99999999999999",
      "r=abcX,s=c2FsdA==,i=2,",
      "r=abcX,s=c2FsdA==,i=2,x",
      "m=1,r=abcX,s=c2FsdA==,i=2",
      "e=other-error",
      "r=abcX,s=" + salt_over + ",i=2",
      "r=abc" + nonce_over + ",s=c2FsdA==,i=2",
      "r=abcX,s=c2FsdA==,i=2,x=" + std::string(scram_message_size_max, 'x')};
  for (const std::string& message : messages) {
    Client client;
    const std::unique_ptr<char[]> exact(new char[message.size()]);
    std::copy(message.begin(), message.end(), exact.get());
    CHECK_MESSAGE(
        client.scram.on_server_first({exact.get(), message.size()}) == ScramStep::malformed,
        message);
    CHECK(client.scram.on_server_first("r=abcX,s=c2FsdA==,i=2") == ScramStep::malformed);
  }
}

TEST_CASE("The client takes what is just within its limits, and extensions") {
  for (const char* message :
       {"r=abcX,s=c2FsdA==,i=100", "r=abcX,s=c2FsdA==,i=1", "r=abcX,s=c2FsdA==,i=2,x=y"})
    CHECK_MESSAGE(Client().scram.on_server_first(message) == ScramStep::need_key, message);
  const std::string salt_max = base64_encode(as_bytes(std::string(scram_salt_size_max, 's')));
  CHECK(Client().scram.on_server_first("r=abcX,s=" + salt_max + ",i=2") == ScramStep::need_key);
  const std::string nonce_max(scram_nonce_size_max - 3, 'X');
  CHECK(Client().scram.on_server_first("r=abc" + nonce_max + ",s=c2FsdA==,i=2") ==
        ScramStep::need_key);
}

TEST_CASE("The client refuses a server that cannot prove that it knows the password") {
  const std::string other = base64_encode(sha256({}));
  const std::pair<std::string, ScramStep> messages[] = {{"", ScramStep::malformed},
                                                        {"v", ScramStep::malformed},
                                                        {"v=", ScramStep::malformed},
                                                        {"v=c2FsdA==", ScramStep::malformed},
                                                        {"v=" + other + ",", ScramStep::malformed},
                                                        {"x=" + other, ScramStep::malformed},
                                                        {"v=" + other, ScramStep::refused},
                                                        {"e=invalid-proof", ScramStep::refused}};
  for (const auto& entry : messages) {
    const std::string& message = entry.first;
    Client client;
    client.give_key("r=abcXYZ,s=c2FsdA==,i=2");
    CHECK_MESSAGE(client.scram.on_server_final(message) == entry.second, message);
    CHECK_FALSE(client.scram.is_done());
  }
}

TEST_CASE("The client takes each message once and in turn") {
  Client early;
  CHECK(early.scram.on_server_final("v=" + base64_encode(sha256({}))) == ScramStep::malformed);
  Client before_key;
  REQUIRE(before_key.scram.on_server_first("r=abcX,s=c2FsdA==,i=2") == ScramStep::need_key);
  CHECK(before_key.scram.on_server_final("v=" + base64_encode(Sha256Digest{})) ==
        ScramStep::malformed);  // Zeros: what the expected signature is before there is a key.
  Client twice;
  twice.give_key("r=abcX,s=c2FsdA==,i=2");
  CHECK(twice.scram.on_server_first("r=abcX,s=c2FsdA==,i=2") == ScramStep::malformed);
}

TEST_CASE("Bytes that were changed at random never crash either side and never log in") {
  SeededRandom random(5802);
  Server reference;
  const std::string right = right_final(reference);
  const std::string server_first = reference.output;
  for (int round = 0; round < 20'000; ++round) {
    std::array<uint8_t, 6> dice;
    random.fill(dice);
    std::string message = dice[0] % 3 == 0   ? "n,,n=,r=abc,x=y"
                          : dice[0] % 3 == 1 ? right
                                             : server_first;
    const size_t place = (dice[1] << 8 | dice[2]) % message.size();
    const char byte = dice[3] % 2 == 0 ? static_cast<char>(dice[4]) : ",=rcpnsiv\0"[dice[4] % 10];
    if (message[place] == byte) continue;
    message[place] = byte;
    if (dice[5] % 4 == 0) message.resize(place);
    const std::unique_ptr<char[]> exact(new char[message.size()]);
    std::copy(message.begin(), message.end(), exact.get());
    const std::string_view text{exact.get(), message.size()};
    Server server;
    std::string output;
    CHECK(server.scram.on_client_final(text, output) != ScramStep::done);
    (void)first_step(text);
    Client client;
    (void)client.scram.on_server_first(text);
    Client proving;
    proving.give_key("r=abcX,s=c2FsdA==,i=1");
    CHECK(proving.scram.on_server_final(text) != ScramStep::done);
  }
}

}  // namespace
}  // namespace helios
