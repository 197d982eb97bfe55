#include "tests/sim/script.h"

#include <iterator>
#include <utility>

#include "helios/base/assert.h"

namespace helios::sim {
namespace {

using namespace test;
using Effect = Reply::Effect;

std::deque<WireMessage> messages_of(std::string bytes) {
  const std::vector<WireMessage> messages = take_messages(bytes);
  return {messages.begin(), messages.end()};
}

void append(Reply& reply, std::string_view bytes) {
  for (WireMessage& message : messages_of(std::string(bytes)))
    reply.expected.push_back(std::move(message));
}

// Execute does not describe its rows.
std::string rows_of(std::string_view text) {
  std::string rows;
  for (const WireMessage& message : messages_of(echo(text)))
    if (message.tag != 'T') rows += frame(message.tag, message.body);
  return rows;
}

Reply answer(std::string_view bytes, Effect effect = Effect::none, std::string name = {},
             std::string text = {}) {
  return {messages_of(std::string(bytes)), {}, effect, std::move(name), std::move(text)};
}

Reply error(std::string code) {
  Reply reply;
  reply.error = std::move(code);
  return reply;
}

// What keeps a backend, and what ends that.
struct Holding {
  const char* name;
  const char* begin;
  const char* end;
};
constexpr Holding holdings[] = {
    {"temporary", "CREATE TEMP TABLE x (a int)", "DROP TABLE x"},
    {"cursor", "DECLARE x CURSOR WITH HOLD FOR SELECT 1", "CLOSE x"},
    {"lock", "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"},
};

std::string any_channel(SimRandom& random) {
  return "news" + std::to_string(random.below(2));
}

std::string parse_complete() {
  return frame('1', {});
}
std::string bind_complete() {
  return frame('2', {});
}

}  // namespace

std::deque<Step> Scriptwriter::next(const SessionFacts& facts, bool is_certain) {
  if (licence_.listens && random_.percent(25)) {
    if (!is_certain || random_.percent(60)) return {notify()};
    return {facts.channels.empty() || random_.percent(50) ? listen() : unlisten(facts)};
  }
  if (is_certain && licence_.sets && random_.percent(35)) return {own(facts)};
  if (is_certain && random_.percent(45)) {
    switch (random_.below(6)) {
      case 0:
        return {rename()};
      case 1:
      case 2:
        return {who(facts)};
      default:
        return {named(facts)};
    }
  }
  switch (random_.below(14)) {
    case 13:
      return {twins()};
    case 12:
      return bind_later();
    case 0:
    case 1:
    case 2:
      return {query(next_text())};
    case 3:
      return {failure()};
    case 4:
      return open_batch();
    case 5:
      return copy_in();
    case 6:
      return {copy_out()};
    case 7:
    case 8:
      return {batch()};
    default:
      return transaction();
  }
}

// Most are short; some take many buffers. Where sessions are followed, most are SQL: behind what is
// none the pooler cleans everything.
std::string Scriptwriter::next_text() {
  std::string text = mark_ + std::to_string(++texts_count_) + "-";
  const uint64_t kind = random_.below(20);
  text.append(kind == 0 ? random_.below(40'000) : kind < 4 ? random_.below(3'000) : 5, 'x');
  return licence_.sets && random_.percent(80) ? "SELECT '" + text + "'" : text;
}

Step Scriptwriter::query(const std::string& text) {
  return {query_message(text), {answer(echo(text))}, false};
}

Step Scriptwriter::command(const std::string& text, Effect effect) {
  const std::string tag = text.substr(0, text.find(' '));
  return {query_message(text), {answer(complete(tag), effect)}, false};
}

Step Scriptwriter::failure() {
  if (random_.percent(50)) return {query_message("FAIL"), {error("22012")}, false};
  // Nothing behind the error is looked at until Sync.
  std::string bytes = parse_message("", "BADPARSE") + bind_message("", "") + execute_message();
  return {bytes + sync_message(), {error("22012")}, false};
}

Step Scriptwriter::batch() {
  Step step;
  Reply reply;
  for (uint64_t i = 1 + random_.below(3); i > 0; --i) {
    const std::string text = next_text();
    step.bytes += parse_message("", text) + bind_message("", "");
    append(reply, parse_complete() + bind_complete());
    if (random_.percent(30)) {
      step.bytes += frame('D', std::string("P\0", 2));
      append(reply, frame('n', {}));
    }
    step.bytes += execute_message();
    append(reply, rows_of(text));
    if (random_.percent(20)) step.bytes += flush_message();
  }
  step.bytes += sync_message();
  step.replies.push_back(std::move(reply));
  return step;
}

// The client thinks between its Flush and its Sync.
std::deque<Step> Scriptwriter::open_batch() {
  Step step = batch();
  step.bytes.erase(step.bytes.size() - sync_message().size());
  step.bytes += flush_message();
  return {step, {sync_message(), {}, true}};
}

std::deque<Step> Scriptwriter::transaction() {
  std::deque<Step> steps = {command("BEGIN", Effect::begin)};
  has_transaction_ = true;
  for (uint64_t i = random_.below(4); i > 0; --i) {
    const uint64_t kind = random_.below(10);
    if (kind == 0) {
      steps.push_back(failure());
    } else if (kind < 4) {
      steps.push_back(batch());
    } else if (kind == 5 && licence_.sets) {
      steps.push_back(set());
    } else if (kind == 6) {
      steps.push_back(twins());
    } else if (kind == 7 && licence_.listens) {
      steps.push_back(random_.percent(50) ? listen() : notify());
    } else if (kind == 4) {
      for (Step& step : copy_in()) steps.push_back(std::move(step));
    } else {
      steps.push_back(query(next_text()));
    }
  }
  const std::string end = random_.percent(70) ? "COMMIT" : "ROLLBACK";
  steps.push_back(command(end, Effect::end));
  steps.back().replies[0].text = end;
  return steps;
}

std::deque<Step> Scriptwriter::copy_in() {
  const bool is_extended = random_.percent(30);
  Step begin;
  Reply reply;
  if (is_extended) {
    begin.bytes = parse_message("", "COPYIN") + bind_message("", "") + execute_message();
    append(reply, parse_complete() + bind_complete());
  } else {
    begin.bytes = query_message("COPYIN");
  }
  append(reply, frame('G', std::string(3, '\0')));
  const uint64_t rows_count = random_.below(5);
  Step data{{}, {}, true};
  for (uint64_t i = 0; i < rows_count; ++i)
    data.bytes += frame('d', std::string(random_.below(2'000), 'd'));
  if (random_.percent(70)) {
    data.bytes += frame('c', {});
    append(reply, complete("COPY " + std::to_string(rows_count)));
  } else {
    data.bytes += frame('f', std::string(1, '\0'));
    reply.error = "57014";
  }
  if (is_extended) data.bytes += sync_message();
  begin.replies.push_back(std::move(reply));
  return {begin, data};
}

Step Scriptwriter::copy_out() {
  const uint64_t rows_count = random_.below(20);
  const std::string text = "COPYOUT " + std::to_string(rows_count) + " " + next_text();
  Reply reply;
  append(reply, frame('H', std::string(3, '\0')));
  for (uint64_t i = 0; i < rows_count; ++i) append(reply, frame('d', text));
  append(reply, frame('c', {}) + complete("COPY " + std::to_string(rows_count)));
  return {query_message(text), {std::move(reply)}, false};
}

Step Scriptwriter::rename() {
  const std::string name = mark_ + "name" + std::to_string(++texts_count_);
  Step step = command("SET application_name='" + name + "'", Effect::rename);
  step.replies[0].text = name;
  return step;
}

// A query in either protocol that is answered with this row.
Step Scriptwriter::row(const std::string& text, const std::string& row) {
  Step step{query_message(text), {answer(echo(row))}, false};
  if (random_.percent(50)) {
    step.bytes =
        parse_message("", text) + bind_message("", "") + execute_message() + sync_message();
    step.replies = {answer(parse_complete() + bind_complete() + rows_of(row))};
  }
  step.replies[0].tells_own = true;
  return step;
}

Step Scriptwriter::who(const SessionFacts& facts) {
  const std::string text = "WHO " + mark_ + std::to_string(++texts_count_);
  return row(text, text + " is " + facts.application_name);
}

// A statement that this client has not made: whoever had the backend before must have left none.
Step Scriptwriter::ghost(const std::string& name) {
  const std::string first =
      random_.percent(50) ? bind_message("", name) + execute_message() : describe_message(name);
  return {first + sync_message(), {error("26000")}, false};
}

// Statements whose names all clients use: makes one, uses it or closes it.
Step Scriptwriter::named(const SessionFacts& facts) {
  const std::string name = random_.percent(70) ? "s" : "t";
  const auto found = facts.statements.find(name);
  if (found != facts.statements.end()) return use(name, found->second);
  return random_.percent(35) ? ghost(name) : prepare(name);
}

Step Scriptwriter::prepare(const std::string& name) {
  if (random_.percent(30)) {
    Step step = command("PREPARE " + name + " AS " + mark_, Effect::prepare);
    has_prepared_ = true;
    step.replies[0].name = name;
    step.replies[0].text = "PREPARE";
    return step;
  }
  has_parsed_ = true;
  // Some are the same for all clients.
  const std::string text =
      random_.percent(50) ? next_text() : "shared" + std::to_string(random_.below(4));
  if (random_.percent(20)) {
    // Skipped behind an error: it is not there afterwards.
    const std::string bytes = parse_message("", "BADPARSE") + parse_message(name, text);
    return {bytes + sync_message(), {error("22012")}, false};
  }
  return {parse_message(name, text) + sync_message(),
          {answer(parse_complete(), Effect::prepare, name, text)},
          false};
}

Step Scriptwriter::use(const std::string& name, const PreparedText& statement) {
  if (statement.is_by_query || random_.percent(15)) {
    Step step = command("DEALLOCATE " + name, Effect::deallocate);
    step.replies[0].name = name;
    return step;
  }
  if (random_.percent(40))
    return {close_message(name) + sync_message(),
            {answer(frame('3', {}), Effect::deallocate, name)},
            false};
  if (random_.percent(10))
    return {parse_message(name, "taken") + sync_message(), {error("42P05")}, false};
  std::string bytes;
  std::string reply;
  if (random_.percent(30)) {
    bytes = describe_message(name);
    reply = frame('t', std::string(2, '\0')) + frame('n', {});
  }
  bytes += bind_message("", name) + execute_message() + sync_message();
  Step step{bytes, {answer(reply + bind_complete() + rows_of(statement.text))}, false};
  step.replies[0].tells_own = true;
  return step;
}

// The unnamed statement, bound by the batches behind the one that makes it.
std::deque<Step> Scriptwriter::bind_later() {
  has_split_unnamed_ = has_split_unnamed_ || !licence_.rebinds;
  const std::string text = next_text();
  Step first{parse_message("", text) + sync_message(), {answer(parse_complete())}, false};
  Step second{bind_message("", "") + execute_message() + sync_message(),
              {answer(bind_complete() + rows_of(text))},
              false};
  second.replies[0].error_if_interrupted = "26000";
  std::deque<Step> steps{std::move(first), second};
  if (licence_.rebinds) steps.push_back(std::move(second));
  return steps;
}

// Several statements in several batches that are sent together, some of them of one text. Each name
// is used once, so whatever becomes of one batch, the next means the same.
Step Scriptwriter::twins() {
  has_parsed_ = true;
  Step step;
  Reply reply;
  std::map<std::string, std::string> made;
  std::string text = next_text();
  bool is_skipped = false;
  const auto end_batch = [&] {
    step.bytes += sync_message();
    if (!step.replies.empty()) reply.error_if_interrupted = "26000";
    step.replies.push_back(std::exchange(reply, {}));
    is_skipped = false;
  };
  const auto add = [&](const std::string& request, const std::string& answers) {
    step.bytes += request;
    if (!is_skipped) append(reply, answers);
  };
  for (uint64_t i = 3 + random_.below(9); i > 0; --i) {
    const uint64_t kind = random_.below(10);
    if (made.empty() || kind < 4) {
      const std::string name = "n" + std::to_string(++texts_count_);
      if (random_.percent(30))
        text = random_.percent(50) ? next_text() : "shared" + std::to_string(random_.below(4));
      add(parse_message(name, text), parse_complete());
      if (!is_skipped) made[name] = text;
    } else if (kind < 8) {
      auto one = made.begin();
      std::advance(one, random_.below(made.size()));
      if (kind == 7) {
        add(close_message(one->first), frame('3', {}));
        if (!is_skipped) made.erase(one);
      } else {
        if (kind == 6)
          add(describe_message(one->first), frame('t', std::string(2, '\0')) + frame('n', {}));
        add(bind_message("", one->first) + execute_message(),
            bind_complete() + rows_of(one->second));
        reply.tells_own = reply.tells_own || !is_skipped;
      }
    } else if (kind == 8) {
      end_batch();
    } else if (random_.percent(50)) {
      step.bytes += flush_message();
    } else if (!is_skipped) {
      step.bytes += parse_message("", "BADPARSE");
      reply.error = "22012";
      is_skipped = true;
    }
  }
  end_batch();
  return step;
}

// Payloads are never the same.
Step Scriptwriter::notify() {
  const std::string text = mark_ + std::to_string(++texts_count_);
  return in_any_protocol("NOTIFY " + any_channel(random_) + ",'" + text + "'", Effect::none);
}

Step Scriptwriter::listen() {
  const std::string channel = any_channel(random_);
  Step step = in_any_protocol("LISTEN " + channel, Effect::listen);
  step.replies[0].name = channel;
  return step;
}

Step Scriptwriter::unlisten(const SessionFacts& facts) {
  auto channel = facts.channels.begin();
  std::advance(channel, random_.below(facts.channels.size()));
  const std::string name = random_.percent(70) ? *channel : std::string();
  Step step = in_any_protocol("UNLISTEN " + (name.empty() ? "*" : name), Effect::unlisten);
  step.replies[0].name = name;
  return step;
}

// A command in either protocol.
Step Scriptwriter::in_any_protocol(const std::string& text, Effect effect) {
  Step step = command(text, effect);
  if (random_.percent(60)) return step;
  step.bytes = parse_message("", text) + bind_message("", "") + execute_message() + sync_message();
  std::deque<WireMessage>& expected = step.replies[0].expected;
  for (const std::string& first : {bind_complete(), parse_complete()})
    expected.push_front(messages_of(first).front());
  return step;
}

// What only the client's own session must show.
Step Scriptwriter::own(const SessionFacts& facts) {
  const uint64_t kind = random_.below(20);
  if (kind == 0 && licence_.discards) {
    const std::string text = "DISCARD ALL";
    return {query_message(text), {answer(complete(text), Effect::discard)}, false};
  }
  if (kind < 5) return set();
  if (kind < 7 && !facts.settings.empty()) return reset(facts);
  if (kind < 10) return hold_or_release(facts);
  return state(facts);
}

Step Scriptwriter::set() {
  const std::string value = mark_ + std::to_string(++texts_count_);
  const char* name = random_.percent(40) ? "work_mem" : random_.percent(50) ? "app.own" : "role";
  const bool is_role = name[0] == 'r';
  Step step =
      command(is_role ? "SET ROLE " + value : "SET " + (name + ("='" + value + "'")), Effect::set);
  step.replies[0].name = name;
  step.replies[0].text = value;
  return step;
}

Step Scriptwriter::reset(const SessionFacts& facts) {
  auto setting = facts.settings.begin();
  std::advance(setting, random_.below(facts.settings.size()));
  Step step =
      command("RESET " + (setting->first == "role" ? "ROLE" : setting->first), Effect::reset);
  step.replies[0].name = setting->first;
  return step;
}

Step Scriptwriter::state(const SessionFacts& facts) {
  const std::string text = "STATE " + mark_ + std::to_string(++texts_count_);
  return row(text, text + " is" + ScriptedState::describe(facts.settings, facts.held));
}

Step Scriptwriter::hold_or_release(const SessionFacts& facts) {
  const Holding& holding = holdings[random_.below(std::size(holdings))];
  const bool is_held = facts.held.contains(holding.name);
  Step step =
      command(is_held ? holding.end : holding.begin, is_held ? Effect::release : Effect::hold);
  step.replies[0].name = holding.name;
  return step;
}

}  // namespace helios::sim
