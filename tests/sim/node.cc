#include "tests/sim/node.h"

#include <algorithm>

namespace helios::sim {
namespace {

using namespace test;

constexpr uint16_t first_port = 6000;

NodeOptions options_of(const Settings& settings, size_t number) {
  NodeOptions options;
  options.name = "node" + std::to_string(number);
  options.label = "127.0.0.1";
  options.hosts = {"127.0.0.1"};
  options.port = static_cast<uint16_t>(first_port + number);
  options.max_connections = settings.first.node_max[number];
  options.cores_count = settings.cores;
  return options;
}

// Few rounds: here only the conversation counts.
ScramVerifier verifier_of(std::string_view password) {
  constexpr uint32_t rounds = 16;
  constexpr std::string_view salt = "salt of the node";
  return verifier_from(pbkdf2(as_bytes(password), as_bytes(salt), rounds), as_bytes(salt), rounds);
}

}  // namespace

SimNode::SimNode(SessionBench& bench, SimRandom& random, const Settings& settings, size_t number,
                 NodeEffects& effects)
    : node(options_of(settings, number), bench.resolver),
      server(bench.network, static_cast<uint16_t>(first_port + number)),
      bench_(bench),
      random_(random),
      effects_(effects),
      port_(static_cast<uint16_t>(first_port + number)),
      pace_{bench.clock,        random_,
            settings.login_max, settings.work_max,
            settings.close_max, settings.piece_max > 0 ? 30U : 0U,
            settings.piece_max} {
  server.pace = &pace_;
  server.obeys_cancels = true;
  if (settings.node_asks_scram[number]) server.verifier = verifier_of(password);
  server.tls_answer = number % 2 == 0 ? 'N' : 'S';
}

Nanoseconds SimNode::next_time() const {
  Nanoseconds next = std::min(server.next_due(), well_at_);
  for (const auto& [process_id, until] : slow_) next = std::min(next, until);
  return next;
}

void SimNode::act() {
  const Nanoseconds now = bench_.clock.now();
  if (well_at_ <= now) end_trouble();
  end_slowness(now);
  static_cast<void>(server.pump());
}

const char* SimNode::begin_fault() {
  if (trouble_ == Trouble::none && random_.percent(30)) return begin_trouble();
  return begin_session_fault();
}

ServerSession* SimNode::any_session() {
  const std::vector<ServerSession*> open = server.open_sessions();
  return open.empty() ? nullptr : open[random_.below(open.size())];
}

const char* SimNode::begin_session_fault() {
  ServerSession* session = any_session();
  if (session == nullptr) return "nothing befalls node";
  switch (random_.below(5)) {
    case 0:
      session->end();
      ++effects_.hangups;
      return "hang-up at node";
    case 1:
      say_farewell(*session);
      ++effects_.farewells;
      return "farewell at node";
    case 2:
      session->reset();
      return "reset at node";
    case 3:
      bench_.network.hold_back(session->fd());
      make_slow(*session);
      return "delay at node";
    default:
      session->is_deaf = true;
      make_slow(*session);
      return "deafness at node";
  }
}

void SimNode::make_slow(ServerSession& session) {
  slow_.emplace_back(session.process_id(), bench_.clock.now() + random_.up_to(slow_max));
}

void SimNode::say_farewell(ServerSession& session) {
  session.write(
      error_reply("FATAL", "57P01", "terminating connection due to administrator command"));
  session.end();
  ++farewells_count_;
}

const char* SimNode::begin_trouble() {
  constexpr int64_t lengths_ms[] = {5, 100, 1'500, 4'000};
  well_at_ = bench_.clock.now() + random_.up_to(milliseconds(lengths_ms[random_.below(4)]));
  switch (random_.below(5)) {
    case 0:
      trouble_ = Trouble::down;
      server.stop_listening();
      return "refusals at node";
    case 1:
      trouble_ = Trouble::silent;
      bench_.network.set_answering(port_, false);
      return "silence at node";
    case 2:
      trouble_ = Trouble::holding;
      server.holds_logins = true;
      return "held logins at node";
    case 3:
      trouble_ = Trouble::refusing;
      server.login_error = error_reply("FATAL", "53300", "sorry, too many clients already");
      return "refused logins at node";
    default:
      trouble_ = Trouble::down;
      restart();
      return "restart of node";
  }
}

// Its connections end at once, in one of the ways in which a server goes.
void SimNode::restart() {
  const bool by_reset = random_.percent(30);
  const bool with_farewell = random_.percent(60);
  effects_.restarts += server.open_sessions().empty() ? 0 : 1;
  for (const auto& session : server.sessions()) {
    if (!session->is_open()) continue;
    if (by_reset) {
      session->reset();
      continue;
    }
    if (with_farewell && session->kind() == ServerSession::Kind::session) {
      say_farewell(*session);
    } else {
      session->end();
    }
  }
  server.stop_listening();
}

void SimNode::end_trouble() {
  const bool was_down = trouble_ == Trouble::down;
  server.start_listening();
  bench_.network.set_answering(port_, true);
  if (trouble_ == Trouble::holding) count_held_logins();
  server.holds_logins = false;
  server.login_error.clear();
  trouble_ = Trouble::none;
  well_at_ = never;
  if (!was_down || !random_.percent(40)) return;
  // It listens before it is ready.
  trouble_ = Trouble::refusing;
  server.login_error = error_reply("FATAL", "57P03", "the database system is starting up");
  well_at_ = bench_.clock.now() + random_.up_to(milliseconds(50));
}

void SimNode::end_slowness(Nanoseconds now) {
  for (const auto& [process_id, until] : slow_) {
    if (until > now) continue;
    for (const auto& session : server.sessions())
      if (session->process_id() == process_id && session->is_open()) end_slowness_of(*session);
  }
  std::erase_if(slow_, [&](const auto& entry) { return entry.second <= now; });
}

void SimNode::end_slowness_of(ServerSession& session) {
  bench_.network.release(session.fd());
  if (!std::exchange(session.is_deaf, false)) return;
  const bool was_missed =
      !bench_.network.peek(session.fd()).empty() || bench_.network.is_ended(session.fd());
  effects_.deaf_times += was_missed ? 1 : 0;
}

void SimNode::count_held_logins() {
  for (const auto& session : server.sessions()) {
    if (!session->is_open() || session->kind() != ServerSession::Kind::fresh) continue;
    if (bench_.network.was_reset(session->fd())) continue;
    if (bench_.network.is_ended(session->fd())) {
      ++effects_.hung_logins;
    } else if (!bench_.network.peek(session->fd()).empty()) {
      ++effects_.held_logins;
    }
  }
}

void SimNode::recover() {
  for (int i = 0; i < 2 && trouble_ != Trouble::none; ++i) end_trouble();
  end_slowness(never);
}

}  // namespace helios::sim
