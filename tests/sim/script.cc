#include "tests/sim/script.h"

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

std::string parse_complete() {
  return frame('1', {});
}
std::string bind_complete() {
  return frame('2', {});
}

}  // namespace

std::deque<Step> Scriptwriter::next(const SessionFacts& facts, bool is_certain) {
  if (is_certain && random_.percent(45)) {
    switch (random_.below(5)) {
      case 0:
        return {rename()};
      case 1:
      case 2:
        return {who(facts)};
      case 3:
        if (facts.statement.empty()) return {ghost()};
        [[fallthrough]];
      default:
        return {named(facts)};
    }
  }
  switch (random_.below(12)) {
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

// Most are short; some take many buffers.
std::string Scriptwriter::next_text() {
  std::string text = mark_ + std::to_string(++texts_count_) + "-";
  const uint64_t kind = random_.below(20);
  text.append(kind == 0 ? random_.below(40'000) : kind < 4 ? random_.below(3'000) : 5, 'x');
  return text;
}

Step Scriptwriter::query(const std::string& text) {
  return {query_message(text), {{messages_of(echo(text)), {}, Effect::none, {}}}, false};
}

Step Scriptwriter::command(const std::string& text, Effect effect) {
  const std::string tag = text.substr(0, text.find(' '));
  return {query_message(text), {{messages_of(complete(tag)), {}, effect, {}}}, false};
}

Step Scriptwriter::failure() {
  if (random_.percent(50)) return {query_message("FAIL"), {{{}, "22012", Effect::none, {}}}, false};
  // Nothing behind the error is looked at until Sync.
  std::string bytes = parse_message("", "BADPARSE") + bind_message("", "") + execute_message();
  return {bytes + sync_message(), {{{}, "22012", Effect::none, {}}}, false};
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
    } else if (kind == 4) {
      for (Step& step : copy_in()) steps.push_back(std::move(step));
    } else {
      steps.push_back(query(next_text()));
    }
  }
  steps.push_back(command(random_.percent(70) ? "COMMIT" : "ROLLBACK", Effect::end));
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

Step Scriptwriter::who(const SessionFacts& facts) {
  const std::string text = "WHO " + mark_ + std::to_string(++texts_count_);
  const std::string row = text + " is " + facts.application_name;
  if (random_.percent(50))
    return {query_message(text), {{messages_of(echo(row)), {}, Effect::none, {}}}, false};
  const std::string bytes = parse_message("", text) + bind_message("", "") + execute_message();
  const std::string answer = parse_complete() + bind_complete() + rows_of(row);
  return {bytes + sync_message(), {{messages_of(answer), {}, Effect::none, {}}}, false};
}

// A statement that this client has not made: whoever had the backend before must have left none.
Step Scriptwriter::ghost() {
  const std::string bytes = bind_message("", "s") + execute_message() + sync_message();
  return {bytes, {{{}, "26000", Effect::none, {}}}, false};
}

// Makes the statement "s", uses it or closes it.
Step Scriptwriter::named(const SessionFacts& facts) {
  if (facts.statement.empty() && random_.percent(30)) {
    Step step = command("PREPARE s AS " + mark_, Effect::prepare);
    step.replies[0].text = "PREPARE";
    return step;
  }
  if (facts.statement.empty()) {
    // Some are the same for all clients.
    const std::string text =
        random_.percent(50) ? next_text() : "shared" + std::to_string(random_.below(4));
    if (random_.percent(20)) {
      // Skipped behind an error: it is not there afterwards.
      const std::string bytes = parse_message("", "BADPARSE") + parse_message("s", text);
      return {bytes + sync_message(), {{{}, "22012", Effect::none, {}}}, false};
    }
    return {parse_message("s", text) + sync_message(),
            {{messages_of(parse_complete()), {}, Effect::prepare, text}},
            false};
  }
  if (facts.is_by_query || random_.percent(15)) return command("DEALLOCATE s", Effect::deallocate);
  if (random_.percent(50))
    return {close_message("s") + sync_message(),
            {{messages_of(frame('3', {})), {}, Effect::deallocate, {}}},
            false};
  const std::string bytes = bind_message("", "s") + execute_message() + sync_message();
  const std::string answer = bind_complete() + rows_of(facts.statement);
  return {bytes, {{messages_of(answer), {}, Effect::none, {}}}, false};
}

}  // namespace helios::sim
