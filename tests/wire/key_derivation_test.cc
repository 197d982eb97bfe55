#include "helios/wire/key_derivation.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

namespace helios {
namespace {

std::string hex(ByteSpan bytes) {
  std::string text;
  for (uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::string derive(std::string_view password, std::string_view salt, uint32_t rounds) {
  return hex(pbkdf2(as_bytes(password), as_bytes(salt), rounds));
}

class Client final : public KeyClient {
 public:
  void on_key(const Sha256Digest& salted_password) noexcept override {
    key = salted_password;
    ++keys_count;
    if (then) then();
  }
  Sha256Digest key{};
  int keys_count = 0;
  std::function<void()> then;
};

struct Core {
  explicit Core(size_t cache_entries_max = 1024) : derivation(random, cache_entries_max) {}

  void request(Client& client, std::string_view password, uint32_t rounds = 10) {
    derivation.request(as_bytes(password), as_bytes("salt"), rounds, client);
  }
  // Runs until there is nothing to do. The number of turns.
  int run_all(uint32_t budget = 1000) {
    int turns = 0;
    while (derivation.has_work()) {
      REQUIRE(++turns < 1000);
      derivation.run(budget);
    }
    return turns;
  }

  SeededRandom random{1};
  KeyDerivation derivation;
};

Sha256Digest key_of(std::string_view password, uint32_t rounds = 10) {
  return pbkdf2(as_bytes(password), as_bytes("salt"), rounds);
}

// The expected keys of the first two tests come from Python (hashlib.pbkdf2_hmac).
TEST_CASE("PBKDF2 gives the keys of RFC 6070 with SHA-256") {
  CHECK(derive("password", "salt", 1) ==
        "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b");
  CHECK(derive("password", "salt", 2) ==
        "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43");
  CHECK(derive("password", "salt", 4096) ==
        "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a");
  CHECK(derive("passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096) ==
        "348c89dbcbd32b2f32d814b8116e84cf2b17347ebc1800181c4e2a1fb8dd53e1");
}

TEST_CASE("PBKDF2 takes empty, block-sized and longer passwords and salts") {
  CHECK(derive(std::string(65, 'x'), "", 3) ==
        "5d1935c6ce2fe0fbe0c27a8bc516005b6165114d74a9f2cab516a49fde73d508");
  CHECK(derive("", "salt", 5) ==
        "ab1d7cb38e07467cb81c86dfe16d7a657f01f3430e8b25e7d8c1798d51bb6459");
  CHECK(derive(std::string(64, 'x'), std::string(200, 's'), 7) ==
        "1f13c3cec686c245509b6428020ee0a3a1ba7b4ee1d5b0878b5b2ec0b0fd07e6");
}

TEST_CASE("The slices of a derivation do not change its key") {
  const Sha256Digest whole = key_of("password", 100);
  for (uint32_t slice : {1U, 2U, 7U, 33U, 98U, 99U, 100U, 101U, UINT32_MAX}) {
    Pbkdf2 derivation;
    derivation.start(as_bytes("password"), as_bytes("salt"), 100);
    uint32_t steps = 0;
    while (!derivation.is_done()) {
      REQUIRE(++steps <= 100);
      derivation.step(slice);
    }
    CHECK(derivation.result() == whole);
    CHECK(steps == (99 + uint64_t{slice} - 1) / slice);  // The first round is computed by start().
  }
}

TEST_CASE("A derivation of one round is done at its start, and one may be used again") {
  Pbkdf2 derivation;
  CHECK_FALSE(derivation.is_done());
  derivation.start(as_bytes("password"), as_bytes("salt"), 1);
  CHECK(derivation.is_done());
  CHECK(derivation.result() == key_of("password", 1));
  derivation.start(as_bytes("other"), as_bytes("salt"), 3);
  CHECK_FALSE(derivation.step(0));
  CHECK(derivation.step(2));
  Pbkdf2 moved = std::move(derivation);
  CHECK(moved.result() == key_of("other", 3));
}

TEST_CASE("A key comes from run, after the budgeted number of turns") {
  Core core;
  Client client;
  CHECK_FALSE(core.derivation.has_work());
  core.request(client, "a", 101);
  CHECK(client.keys_count == 0);
  CHECK(client.is_waiting_for_key());
  CHECK(core.run_all(10) == 10);
  CHECK(client.keys_count == 1);
  CHECK_FALSE(client.is_waiting_for_key());
  CHECK(client.key == key_of("a", 101));
  CHECK(core.derivation.rounds_total() == 100);
}

TEST_CASE("One turn never computes more rounds than its budget") {
  Core core;
  std::vector<Client> clients(5);
  for (size_t i = 0; i < clients.size(); ++i)
    core.request(clients[i], std::string(i + 1, 'p'), static_cast<uint32_t>(10 + i * 7));
  while (core.derivation.has_work()) {
    const uint64_t before = core.derivation.rounds_total();
    core.derivation.run(13);
    CHECK(core.derivation.rounds_total() - before <= 13);
  }
  for (size_t i = 0; i < clients.size(); ++i)
    CHECK(clients[i].key == key_of(std::string(i + 1, 'p'), static_cast<uint32_t>(10 + i * 7)));
}

TEST_CASE("Who asks first is answered first") {
  Core core;
  Client first;
  Client second;
  core.request(first, "a", 100);
  core.request(second, "b", 2);
  core.derivation.run(50);
  CHECK(second.keys_count == 0);
  core.derivation.run(50);
  CHECK(first.keys_count == 1);
  CHECK(second.keys_count == 1);
}

TEST_CASE("Clients that ask for the same key share one derivation") {
  Core core;
  Client first;
  Client second;
  Client third;
  core.request(first, "a", 100);
  core.derivation.run(50);
  core.request(second, "a", 100);
  core.request(third, "a", 99);  // Other rounds: another key.
  CHECK(core.derivation.jobs_count() == 2);
  core.run_all();
  CHECK(first.key == key_of("a", 100));
  CHECK(second.key == first.key);
  CHECK(third.key == key_of("a", 99));
  CHECK(core.derivation.rounds_total() == 99 + 98);
}

TEST_CASE("A byte that moves from the password to the salt makes another key") {
  Core core;
  Client first;
  Client second;
  core.derivation.request(as_bytes("ab"), as_bytes("c"), 5, first);
  core.derivation.request(as_bytes("a"), as_bytes("bc"), 5, second);
  core.run_all();
  CHECK(first.key == pbkdf2(as_bytes("ab"), as_bytes("c"), 5));
  CHECK(second.key == pbkdf2(as_bytes("a"), as_bytes("bc"), 5));
}

TEST_CASE("A key that is in the cache costs no rounds and still comes from run") {
  Core core;
  Client client;
  core.request(client, "a");
  core.run_all();
  const uint64_t rounds = core.derivation.rounds_total();
  core.request(client, "a");
  CHECK(client.keys_count == 1);
  CHECK(core.derivation.has_work());
  core.derivation.run(0);
  CHECK(client.keys_count == 2);
  CHECK(client.key == key_of("a"));
  CHECK(core.derivation.rounds_total() == rounds);
  CHECK(core.derivation.cached_count() == 1);
}

TEST_CASE("The cache is bounded and forgets the key that was used longest ago") {
  Core core(2);
  Client client;
  for (const char* password : {"a", "b", "a", "c"}) {  // "b" was used longest ago.
    core.request(client, password);
    core.run_all();
    CHECK(core.derivation.cached_count() <= 2);
  }
  uint64_t rounds = core.derivation.rounds_total();
  core.request(client, "a");
  core.run_all();
  core.request(client, "c");
  core.run_all();
  CHECK(core.derivation.rounds_total() == rounds);
  core.request(client, "b");
  core.run_all();
  CHECK(core.derivation.rounds_total() == rounds + 9);
  CHECK(client.key == key_of("b"));
}

TEST_CASE("Without a cache each key is computed anew") {
  Core core(0);
  Client first;
  Client second;
  core.request(first, "a");
  core.request(second, "a");
  core.run_all();
  CHECK(core.derivation.cached_count() == 0);
  CHECK(second.key == key_of("a"));
  core.request(first, "a");
  core.run_all();
  CHECK(first.keys_count == 2);
  CHECK(core.derivation.rounds_total() == 18);
}

TEST_CASE("A derivation whose only client is cancelled in the middle is dropped") {
  Core core;
  Client client;
  Client other;
  core.request(client, "a", 100);
  core.request(other, "b", 10);
  core.derivation.run(50);
  core.derivation.cancel(client);
  CHECK_FALSE(client.is_waiting_for_key());
  CHECK(core.derivation.jobs_count() == 1);
  core.run_all();
  CHECK(client.keys_count == 0);
  CHECK(other.keys_count == 1);
  CHECK(core.derivation.rounds_total() == 50 + 9);
  core.derivation.cancel(client);  // Again, and after it was answered: nothing.
  core.derivation.cancel(other);
}

TEST_CASE("A shared derivation goes on when one of its clients is cancelled") {
  Core core;
  Client first;
  Client second;
  core.request(first, "a", 100);
  core.request(second, "a", 100);
  core.derivation.run(50);
  core.derivation.cancel(first);
  core.run_all();
  CHECK(first.keys_count == 0);
  CHECK(second.key == key_of("a", 100));
  CHECK(core.derivation.rounds_total() == 99);
}

TEST_CASE("A client that waits for a cached key can be cancelled") {
  Core core;
  Client client;
  core.request(client, "a");
  core.run_all();
  core.request(client, "a");
  core.derivation.cancel(client);
  CHECK_FALSE(core.derivation.has_work());
  CHECK(core.derivation.cached_count() == 1);
  CHECK(client.keys_count == 1);
}

TEST_CASE("A client may cancel others that are about to be told in the same turn") {
  Core core;
  Client first;
  Client second;
  Client third;
  core.request(first, "a");
  core.request(second, "a");
  core.request(third, "b");
  first.then = [&] {
    core.derivation.cancel(second);
    core.derivation.cancel(third);
  };
  core.run_all();
  CHECK(first.keys_count == 1);
  CHECK(second.keys_count == 0);
  CHECK(third.keys_count == 0);
}

TEST_CASE("A client that asks again when it is told is answered in the next turn") {
  Core core;
  Client client;
  core.request(client, "a");
  client.then = [&] {
    if (client.keys_count < 5) core.request(client, "a");
  };
  core.derivation.run(1000);
  CHECK(client.keys_count == 1);
  CHECK(core.run_all() == 4);
  CHECK(client.keys_count == 5);
}

TEST_CASE("A client may be gone by the time its answer returns") {
  Core core;
  auto client = std::make_unique<Client>();
  core.request(*client, "a");
  // The lambda destroys the object that holds it, so it must not touch anything afterwards.
  static std::unique_ptr<Client>* doomed;
  doomed = &client;
  client->then = [] { std::unique_ptr<Client> gone = std::move(*doomed); };
  Client other;
  core.request(other, "a");
  core.run_all();
  CHECK(client == nullptr);
  CHECK(other.keys_count == 1);
}

TEST_CASE("Random requests and cancellations end with the right key for everybody who stayed") {
  Core core(4);
  SeededRandom random(99);
  const auto pick = [&random](uint32_t count) {
    std::array<uint8_t, 4> bytes;
    random.fill(bytes);
    return load_be32(bytes.data()) % count;
  };
  std::vector<Client> clients(20);
  std::vector<std::string> asked(clients.size());
  std::vector<int> expected(clients.size(), 0);
  for (int step = 0; step < 3000; ++step) {
    const uint32_t i = pick(20);
    Client& client = clients[i];
    if (client.keys_count == expected[i] + 1) {
      CHECK(client.key == key_of(asked[i], 20));
      ++expected[i];
    }
    REQUIRE(client.keys_count == expected[i]);
    if (client.is_waiting_for_key()) {
      if (pick(3) == 0) core.derivation.cancel(client);
    } else {
      asked[i] = std::string(1, static_cast<char>('a' + pick(9)));
      core.request(client, asked[i], 20);
    }
    core.derivation.run(pick(15));
    CHECK(core.derivation.cached_count() <= 4);
  }
  core.run_all();
  for (const Client& client : clients) CHECK_FALSE(client.is_waiting_for_key());
}

}  // namespace
}  // namespace helios
