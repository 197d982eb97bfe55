#include "helios/session/client_login.h"

#include <utility>

#include "helios/base/assert.h"
#include "helios/wire/body_reader.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"
#include "helios/wire/saslprep.h"

namespace helios {

ClientLogin::ClientLogin(const Sha256Digest& login_secret, Random& random) noexcept
    : login_secret_(login_secret), random_(random) {}

ClientLoginStep ClientLogin::start(const StartupMessage& startup, UserSecret secret,
                                   MessageWriter& out) {
  ASSERT(state_ == State::start);
  user_ = startup.user;
  // Here and nowhere else: a client must hear it once.
  if (startup.needs_negotiation()) write_negotiation(out, startup);
  switch (secret.kind) {
    case UserSecret::Kind::unknown_user:
      return begin_mock(out);
    case UserSecret::Kind::trust:
      return accept(out);
    case UserSecret::Kind::plain_password:
      // PostgreSQL never accepts an empty password.
      return secret.text.empty() ? begin_mock(out) : begin_plain(secret.text.text());
    case UserSecret::Kind::scram_verifier:
      verifier_ = std::move(secret.verifier);
      return begin_scram(ScramUser::real, out);
    case UserSecret::Kind::md5_hash:
      md5_hash_ = std::move(secret.text);
      return begin_md5(out);
  }
  UNREACHABLE("user secret");
}

ClientLoginStep ClientLogin::on_input(ByteSpan& input, MessageWriter& out) {
  ASSERT(is_waiting_for_client());
  while (!input.empty()) {
    // Seen at the first byte: the length behind a wrong tag (a StartupMessage has none) means
    // nothing, and waiting for that many bytes would keep the client without an answer.
    if (assembler_.at_boundary() && input[0] != frontend_tag::password) {
      return refuse_tag(input[0], out);
    }
    const FrameStatus status = assembler_.feed(input);
    if (status == FrameStatus::need_more) break;
    if (status == FrameStatus::malformed) return refuse_protocol("invalid message length", {}, out);
    const ClientLoginStep step = on_message(assembler_.tag(), assembler_.body(), out);
    if (step != ClientLoginStep::more) return step;
  }
  return ClientLoginStep::more;
}

ClientLoginStep ClientLogin::on_message(uint8_t tag, ByteSpan body, MessageWriter& out) {
  if (tag != frontend_tag::password) return refuse_tag(tag, out);
  if (body.size() > message_size_max) return refuse_protocol("invalid message length", {}, out);
  switch (state_) {
    case State::key:
      return refuse_protocol("unexpected password message", {}, out);
    case State::initial:
      return on_initial_response(body, out);
    case State::final_response:
      return on_final_response(body, out);
    case State::md5:
      return on_md5_password(body, out);
    case State::start:
    case State::accepted:
    case State::refused:
      break;
  }
  UNREACHABLE("a message for a login that is not running");
}

ClientLoginStep ClientLogin::on_key(const Sha256Digest& salted_password, MessageWriter& out) {
  ASSERT(state_ == State::key);
  password_.clear();
  verifier_ = verifier_from(salted_password, as_bytes(verifier_.salt), verifier_.rounds);
  return begin_scram(ScramUser::real, out);
}

bool ClientLogin::is_waiting_for_client() const noexcept {
  return state_ == State::initial || state_ == State::final_response || state_ == State::md5;
}

bool ClientLogin::is_legal(State from, State to) noexcept {
  switch (to) {
    case State::start:
      return false;
    case State::key:
    case State::md5:
      return from == State::start;
    case State::initial:
      return from == State::start || from == State::key;
    case State::final_response:
      return from == State::initial;
    case State::accepted:
      return from == State::start || from == State::final_response || from == State::md5;
    case State::refused:
      return from != State::start && from != State::accepted && from != State::refused;
  }
  UNREACHABLE("login state");
}

void ClientLogin::set_state(State next) noexcept {
  ASSERT(is_legal(state_, next));
  state_ = next;
}

ClientLoginStep ClientLogin::begin_mock(MessageWriter& out) {
  verifier_ = mock_verifier(login_secret_, user_);
  return begin_scram(ScramUser::mock, out);
}

// The salt and rounds that an unknown user of this name would see.
ClientLoginStep ClientLogin::begin_plain(std::string_view password) {
  password_ = scram_password(password);
  verifier_ = mock_verifier(login_secret_, user_);
  set_state(State::key);
  return ClientLoginStep::need_key;
}

ClientLoginStep ClientLogin::begin_scram(ScramUser user, MessageWriter& out) {
  scram_user_ = user;
  scram_.emplace(verifier_, user);
  write_authentication_sasl(out);
  set_state(State::initial);
  return ClientLoginStep::more;
}

ClientLoginStep ClientLogin::begin_md5(MessageWriter& out) {
  ASSERT(is_md5_hash(md5_hash_.text()));
  random_.fill(md5_salt_);
  write_authentication_md5(out, md5_salt_);
  set_state(State::md5);
  return ClientLoginStep::more;
}

ClientLoginStep ClientLogin::on_initial_response(ByteSpan body, MessageWriter& out) {
  BodyReader reader(body);
  std::string_view mechanism;
  uint32_t size = 0;
  if (!reader.read_text(mechanism) || !reader.read_int32(size)) {
    return refuse_protocol("invalid message format", {}, out);
  }
  // SCRAM-SHA-256-PLUS too: it was not offered.
  if (mechanism != scram_mechanism) {
    return refuse_protocol("client selected an invalid SASL authentication mechanism", {}, out);
  }
  // A length of -1, no response at all, is legal in SASL; no client that speaks SCRAM does it.
  if (size != reader.left().size()) return refuse_protocol("invalid message format", {}, out);
  std::string output;
  const ScramStep step = scram_->on_client_first(as_text(reader.left()), random_, output);
  if (step != ScramStep::more) return refuse_scram(step, out);
  write_authentication_sasl_continue(out, output);
  set_state(State::final_response);
  return ClientLoginStep::more;
}

ClientLoginStep ClientLogin::on_final_response(ByteSpan body, MessageWriter& out) {
  std::string output;
  const ScramStep step = scram_->on_client_final(as_text(body), output);
  if (step != ScramStep::done) return refuse_scram(step, out);
  write_authentication_sasl_final(out, output);
  return accept(out);
}

ClientLoginStep ClientLogin::on_md5_password(ByteSpan body, MessageWriter& out) {
  BodyReader reader(body);
  std::string_view response;
  if (!reader.read_text(response) || !reader.at_end()) {
    return refuse_protocol("invalid password packet size", {}, out);
  }
  if (!md5_response_matches(md5_hash_.text(), md5_salt_, response)) {
    return refuse_password("wrong password", out);
  }
  return accept(out);
}

ClientLoginStep ClientLogin::accept(MessageWriter& out) {
  write_authentication_ok(out);
  set_state(State::accepted);
  return ClientLoginStep::accepted;
}

ClientLoginStep ClientLogin::refuse_scram(ScramStep step, MessageWriter& out) {
  if (step == ScramStep::malformed) {
    return refuse_protocol("malformed SCRAM message", scram_->error(), out);
  }
  ASSERT(step == ScramStep::refused);
  return refuse_password(scram_user_ == ScramUser::mock ? "no such user" : scram_->error(), out);
}

ClientLoginStep ClientLogin::refuse_password(std::string_view reason, MessageWriter& out) {
  reason_ = reason;
  write_error(out, Severity::fatal, sqlstate::invalid_password,
              "password authentication failed for user \"" + user_ + "\"");
  set_state(State::refused);
  return ClientLoginStep::refused;
}

ClientLoginStep ClientLogin::refuse_tag(uint8_t tag, MessageWriter& out) {
  const char* expected = state_ == State::md5 ? "password" : "SASL";
  return refuse_protocol(
      "expected " + std::string(expected) + " response, got message type " + std::to_string(tag),
      {}, out);
}

ClientLoginStep ClientLogin::refuse_protocol(std::string_view message, std::string_view detail,
                                             MessageWriter& out) {
  reason_ = message;
  if (!detail.empty()) reason_.append(": ").append(detail);
  write_error(out, Severity::fatal, sqlstate::protocol_violation, message, detail);
  set_state(State::refused);
  return ClientLoginStep::refused;
}

}  // namespace helios
