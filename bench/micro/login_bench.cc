// SCRAM-SHA-256: what a login costs on either side, and the derivation of its key.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/micro/meter.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/scram.h"

namespace helios::bench {
namespace {

constexpr std::string_view password = "correct horse battery staple";
constexpr std::string_view salt = "0123456789abcdef";
constexpr uint32_t rounds = scram_rounds_default;

Sha256Digest salted_password() {
  static const Sha256Digest key = pbkdf2(as_bytes(password), as_bytes(salt), rounds);
  return key;
}

ScramVerifier verifier() {
  return verifier_from(salted_password(), as_bytes(salt), rounds);
}

struct Nonces {
  static constexpr std::string_view client = "rOprNGfwEbeRWgbNEkqO";
  static constexpr std::string_view server = "hvYDpWUa2RaTCAfuxFIlj";
};

// The texts of one exchange with fixed nonces, made by both sides.
struct Exchange {
  Exchange() {
    SeededRandom random(1);
    ScramClient client;
    ScramServer server(verifier(), ScramUser::real);
    client.set_nonce(Nonces::client);
    server.set_nonce(Nonces::server);
    is_good = client.start(random, client_first) == ScramStep::more &&
              server.on_client_first(client_first, random, server_first) == ScramStep::more &&
              client.on_server_first(server_first) == ScramStep::need_key &&
              client.on_key(salted_password(), client_final) == ScramStep::more;
  }
  bool is_good = false;
  std::string client_first;
  std::string server_first;
  std::string client_final;
};

// A client from its first message to its proof; the key is known.
void scram_client_proof(benchmark::State& state) {
  const Exchange exchange;
  const Sha256Digest key = salted_password();
  SeededRandom random(1);
  std::string output;
  {
    Meter meter(state);
    for (auto _ : state) {
      ScramClient client;
      client.set_nonce(Nonces::client);
      benchmark::DoNotOptimize(client.start(random, output));
      benchmark::DoNotOptimize(client.on_server_first(exchange.server_first));
      benchmark::DoNotOptimize(client.on_key(key, output));
    }
  }
  if (!exchange.is_good || output != exchange.client_final) fail(state, "the proof is wrong");
}
BENCHMARK(scram_client_proof);

// A server from a client's first message to the verdict on its proof.
void scram_server_verify(benchmark::State& state) {
  const Exchange exchange;
  const ScramVerifier stored = verifier();
  SeededRandom random(1);
  std::string output;
  ScramStep step = ScramStep::malformed;
  {
    Meter meter(state);
    for (auto _ : state) {
      ScramServer server(stored, ScramUser::real);
      server.set_nonce(Nonces::server);
      benchmark::DoNotOptimize(server.on_client_first(exchange.client_first, random, output));
      step = server.on_client_final(exchange.client_final, output);
    }
  }
  if (step != ScramStep::done) fail(state, "the proof was refused");
}
BENCHMARK(scram_server_verify);

void pbkdf2_4096_rounds(benchmark::State& state) {
  Sha256Digest key{};
  {
    Meter meter(state);
    for (auto _ : state) key = pbkdf2(as_bytes(password), as_bytes(salt), rounds);
  }
  if (key != salted_password()) fail(state, "the key is wrong");
}
BENCHMARK(pbkdf2_4096_rounds)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace helios::bench
