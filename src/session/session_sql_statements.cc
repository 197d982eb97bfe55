// Commands in SQL that name a prepared statement of the protocol: EXECUTE (in EXPLAIN and CREATE
// TABLE AS, too), DEALLOCATE and PREPARE, in a simple query or in a statement that is parsed.
//
// The server knows these statements by other names (session_statements.cc), so ahead of such a text
// it gets one under the client's own name, a stand-in: with the statement's own text where that is
// to be executed, else an empty one, which can be deallocated, or makes a PREPARE fail as it
// should. Stand-ins are closed before the next batch, or client. What DEALLOCATE has taken the
// client has not any more: of a query its tags say so, of extended messages the answer to the
// Execute.
#include <algorithm>
#include <set>
#include <utility>

#include "helios/base/assert.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/message.h"
#include "helios/wire/statement_messages.h"
#include "helios/wire/writer.h"
#include "session/session_statements.h"

namespace helios {
namespace {

// An empty statement: its text, and no types.
constexpr uint8_t empty_content[3] = {};

// Of a simple query, or its beginning, or of a whole Parse of the unnamed statement. (None where
// that lacks something.)
NamedCommands commands_in(uint8_t tag, ByteSpan body) {
  const std::string_view text = as_text(body).substr(0, command_text_max);
  if (tag == frontend_tag::query) return find_named_commands(text);
  return text.find('\0', 1) == std::string_view::npos ? NamedCommands()
                                                      : find_named_commands(text.substr(1));
}

bool deallocate(const NamedCommands& commands) noexcept {
  return std::any_of(commands.begin(), commands.end(), [](const NamedCommand& command) {
    return command.kind == NamedCommand::Kind::deallocate ||
           command.kind == NamedCommand::Kind::deallocate_all;
  });
}

}  // namespace

// --- Taking messages in ---

// Only with names of its own, or what is left of them, a client's texts are looked at.
bool Session::may_be_command(FrameHeader header, ByteSpan seen) const noexcept {
  if (header.tag == frontend_tag::query) return true;
  return header.tag == frontend_tag::parse && header.body_size <= command_text_max &&
         statements_ != nullptr && !statements_->names.empty() && (seen.empty() || seen[0] == 0);
}

Session::Look Session::look_at_command(ByteSpan& rest, ByteSpan seen, bool is_whole) noexcept {
  const FrameHeader header = reader_.header();
  const bool is_long = header.body_size > command_text_max;
  if (!is_whole && !(is_long && seen.size() >= query_text_max)) {
    if (!has_collected()) collect(rest);
    return Look::need_more;
  }
  const NamedCommands commands = commands_in(header.tag, seen);
  const auto is_known = [&](const NamedCommand& command) {
    return statements_->names.find(command.name) != nullptr ||
           (backend_ != nullptr && backend_->statements().has_stray(command.name));
  };
  const bool has_known = std::any_of(commands.begin(), commands.end(), is_known);
  return has_known ? Look::named : Look::plain;
}

// --- Beginning messages ---

Session::Begun Session::begin_commands(ByteSpan body) noexcept {
  const bool is_query = reader_.header().tag == frontend_tag::query;
  NamedCommands commands = commands_in(reader_.header().tag, body);
  if (must_settle(commands)) return Begun::held;
  SessionStatements& own = *statements_;
  if (!is_query && commands.size() > 1) commands.clear();  // The server refuses them.
  const bool deallocates = deallocate(commands);
  // So that the next tags of DEALLOCATE are those of this query.
  if (is_query && deallocates && backend_->ledger().ready_due_count() > 0) return Begun::held;
  deallocated_name_ = 0;
  stand_in(commands);
  if (!is_query) {
    own.unnamed_commands = std::move(commands);
    own.commands_batch = backend_->ledger().batch();
  } else if (deallocates) {
    own.deallocated.clear();
    for (NamedCommand& command : commands)
      if (command.kind == NamedCommand::Kind::deallocate)
        own.deallocated.push_back(std::move(command.name));
    own.forgetting = Forgetting::by_query;
  }
  return Begun::as_it_is;
}

// A stand-in that is alone has a Sync of its own, so what follows it is of the next batch.
bool Session::must_settle(const NamedCommands& commands) noexcept {
  if (commands.empty()) return false;
  const uint64_t batch = backend_->ledger().batch() + (backend_->is_between_batches() ? 1 : 0);
  const ClientStatements& names = own_statements().names;
  const auto is_unsettled = [&](const NamedCommand& command) {
    return names.is_unsettled_before(command.name, batch);
  };
  return awaits_forgetting() || std::any_of(commands.begin(), commands.end(), is_unsettled);
}

// The statement of this name does this from now on.
void Session::note_commands(std::string_view name, NamedCommands commands) noexcept {
  auto& noted = own_statements().named_commands;
  const auto found = noted.find(name);
  if (found != noted.end()) noted.erase(found);
  if (commands.empty()) return;
  // As a rule those are meant that have ended otherwise.
  if (noted.size() == SessionStatements::named_commands_max)
    std::erase_if(noted, [this](const auto& one) { return !may_be_own_name(one.first); });
  if (noted.size() == SessionStatements::named_commands_max) noted.clear();
  noted.emplace(name, std::move(commands));
}

// A Parse of a statement with a name that executes others. It pins: what EXECUTE returns is fixed
// when it is parsed, and depends on what the client's names mean then.
Session::Begun Session::begin_executing(std::string_view name, NamedCommands commands) noexcept {
  if (must_settle(commands)) return Begun::held;
  stand_in(commands);
  note_commands(name, std::move(commands));
  return begin_pinned(name);
}

// Bind or Describe of a statement that pins, or may do so.
Session::Begun Session::begin_own(const StatementHead& head, std::string_view name) noexcept {
  static const NamedCommands none;
  const auto found = statements_->named_commands.find(name);
  const NamedCommands& commands = found == statements_->named_commands.end() ? none : found->second;
  if (must_settle(commands)) return Begun::held;
  use_commands(commands, head.portal);
  return Begun::as_it_is;
}

// Of the client's statement with this name.
[[gnu::hot]] NamedCommands Session::commands_of(std::string_view name,
                                                const Statement& statement) noexcept {
  if (!statements_->named_commands.contains(name)) [[likely]]
    return {};
  return find_named_commands(statement.text());
}

// A Bind (to `portal`) or Describe of a statement with these is about to be sent. Requires:
// must_settle(commands) is false.
void Session::use_commands(const NamedCommands& commands, std::string_view portal) noexcept {
  stand_in(commands);
  if (reader_.header().tag == frontend_tag::bind) note_portal(commands, portal);
}

// A Bind or Describe of the unnamed statement, or a Bind to a portal, may mean more than it says.
bool Session::has_unnamed_commands() const noexcept {
  return statements_ != nullptr &&
         (!statements_->unnamed_commands.empty() || !statements_->deallocating.empty());
}

// A message that may use the unnamed statement is about to be sent. `seen`: what has come of its
// body. False: it has to wait.
bool Session::use_unnamed_commands(uint8_t tag, ByteSpan seen) noexcept {
  if (tag != frontend_tag::bind && tag != frontend_tag::describe) return true;
  SessionStatements& own = *statements_;
  const Ledger& ledger = backend_->ledger();
  const StatementHead head = read_statement_head(tag, seen);
  const bool is_of_portal = tag == frontend_tag::describe && !seen.empty() && seen.front() == 'P';
  if (is_of_portal || ledger.is_skipping_to_sync()) return true;
  if (must_settle(own.unnamed_commands)) return false;
  if (own.commands_batch != ledger.batch()) stand_in(own.unnamed_commands);
  own.commands_batch = ledger.batch();
  if (tag == frontend_tag::bind) note_portal(own.unnamed_commands, head.portal);
  return true;
}

// This portal is bound, and executes these: does the client lose a statement by it?
void Session::note_portal(const NamedCommands& commands, std::string_view portal) noexcept {
  SessionStatements& own = *statements_;
  if (own.deallocating_portal == portal) own.deallocating.clear();
  if (!deallocate(commands) || find_statement(commands.front().name) == nullptr) return;
  own.deallocating = commands.front().name;
  own.deallocating_portal = portal;
  own.deallocating_batch = backend_->ledger().batch();
}

// An Execute with this body, as far as it is here, is about to be sent: does the client lose a
// statement by it?
bool Session::is_deallocating(ByteSpan execute) const noexcept {
  if (statements_ == nullptr || statements_->deallocating.empty()) [[likely]]
    return false;
  const size_t end = as_text(execute).find('\0');
  // (What is not whole yet is taken for it.)
  const bool is_it = end == std::string_view::npos ||
                     as_text(execute).substr(0, end) == statements_->deallocating_portal;
  return is_it && statements_->deallocating_batch == backend_->ledger().batch() &&
         !backend_->ledger().is_skipping_to_sync();
}

void Session::announce_deallocate() noexcept {
  SessionStatements& own = *statements_;
  own.names.remove(std::exchange(own.deallocating, {}), own.deallocating_batch);
  backend_->on_request({{}, frontend_tag::execute, LedgerAction::forward, ledger_mark::renames});
}

// A DEALLOCATE has been executed.
void Session::on_deallocated() noexcept {
  if (statements_->deallocated.empty()) return;
  const std::string name = std::move(statements_->deallocated.front());
  statements_->deallocated.erase(statements_->deallocated.begin());
  statements_->names.forget_settled(name);
  std::erase(backend_->statements().strays(), name);
}

// --- Stand-ins ---

void Session::stand_in(const NamedCommands& commands) noexcept {
  if (commands.empty()) return;
  make_room(0);  // Earlier ones go.
  std::set<std::string_view> executed;
  for (const NamedCommand& command : commands)
    if (command.kind == NamedCommand::Kind::execute) executed.insert(command.name);
  std::set<std::string_view> done;
  bool has_dropped_all = false;
  for (const NamedCommand& command : commands) {
    has_dropped_all = has_dropped_all || command.kind == NamedCommand::Kind::deallocate_all;
    if (!done.insert(command.name).second) continue;
    const Statement* statement = has_dropped_all ? nullptr : find_statement(command.name);
    if (statement != nullptr) {
      const bool needs_text = executed.contains(command.name);
      send_stand_in(command.name, needs_text ? statement->content() : ByteSpan(empty_content));
    } else if (command.kind == NamedCommand::Kind::prepare) {
      forget_stray(command.name);
    }
  }
}

// Where the server does not take the text any more, what comes next finds no such statement.
void Session::send_stand_in(std::string_view name, ByteSpan content) noexcept {
  // If it fails, what comes next must not be skipped.
  const bool is_alone = backend_->is_between_batches();
  // (A query behind a batch without an end would lose its answer.)
  if (!is_alone && content.size() > sizeof(empty_content) &&
      reader_.header().tag == frontend_tag::query)
    return;
  start_stray(name);
  MessageWriter& writer = sessions_.pools().writer();
  write_parse_head(writer, name, content.size());
  if (is_alone) {
    backend_->on_request({{}, frontend_tag::parse, LedgerAction::skip, ledger_mark::prepares});
  } else {
    backend_->on_request({{}, frontend_tag::parse, LedgerAction::inject, 0});
  }
  backend_->send(writer.bytes());
  backend_->send(content);
  if (is_alone) backend_->start_sync();
}

// The server is to say that the name is taken, or what else is wrong with this Parse.
void Session::send_duplicate(std::string_view name, ByteSpan body) noexcept {
  make_room(0);
  send_stand_in(name, empty_content);
  backend_->on_request({{}, frontend_tag::parse, LedgerAction::forward, ledger_mark::taken});
  backend_->send(reader_.raw_header());
  backend_->send(body);
}

// There was a PREPARE of which it is not known what it has made: where that has the name of the
// Parse that is about to be sent, the server says so.
void Session::make_sure_free(std::string_view name, const Statement& statement) noexcept {
  if (looks_like_ours(name) || backend_->statements().has_stray(name)) return;
  MessageWriter& writer = sessions_.pools().writer();
  write_parse_head(writer, name, statement.content().size());
  backend_->on_request({{}, frontend_tag::parse, LedgerAction::inject, 0});
  backend_->send(writer.bytes());
  backend_->send(statement.content());
  send_close(name);
}

// Names of no use must be free for what the client prepares in SQL.
[[gnu::hot]] void Session::close_strays() noexcept {
  std::vector<std::string>& strays = backend_->statements().strays();
  if (strays.empty()) [[likely]]
    return;
  for (const std::string& stray : std::exchange(strays, {})) send_close(stray);
}

// What comes next finds the client's own name free, for a statement that is closed before the next
// batch.
void Session::start_stray(std::string_view name) noexcept {
  // Something may have prepared it unseen.
  send_close(name);
  BackendStatements& there = backend_->statements();
  if (!there.has_stray(name)) there.strays().emplace_back(name);
}

// The client prepares a statement of its own under this name.
void Session::forget_stray(std::string_view name) noexcept {
  if (backend_->statements().start_leaving(name)) send_close(name, ledger_mark::leaves);
}

// --- What the server forgets ---

// `text`: of a query that is being sent, or its beginning.
[[gnu::hot]] void Session::foresee(std::string_view text) noexcept {
  if (!follows_statements_ || text.empty() || !may_be_dropping(static_cast<uint8_t>(text.front())))
    return;
  const bool is_query = reader_.header().tag == frontend_tag::query;
  const Dropping dropping = read_dropping(text);
  if (dropping == Dropping::none || (dropping == Dropping::one && !is_query)) return;
  SessionStatements& own = own_statements();
  own.forgetting = is_query ? Forgetting::by_query : Forgetting::in_batch;
  own.forgetting_batch = backend_->ledger().batch();
}

// The command stands before the message that is being begun, in the same batch: the server will
// have forgotten everything by then.
bool Session::is_forgetting_here() const noexcept {
  return statements_->forgetting == Forgetting::in_batch &&
         statements_->forgetting_batch == backend_->ledger().batch();
}

// It stands in a batch before, and its end is not known.
bool Session::awaits_forgetting() noexcept {
  if (statements_->forgetting == Forgetting::no || is_forgetting_here()) return false;
  if (backend_->ledger().ready_due_count() > 0) return true;
  statements_->forgetting = Forgetting::no;
  return false;
}

}  // namespace helios
