// What a session needs until its client is welcome.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "helios/pool/lessee.h"
#include "helios/pool/parameters.h"
#include "helios/pool/pool_spec.h"
#include "helios/runtime/mailbox.h"
#include "helios/session/client_login.h"
#include "helios/wire/startup.h"

namespace helios {

struct SessionLogin {
  SessionLogin(const Sha256Digest& secret, Random& random) noexcept : dialogue(secret, random) {}

  StartupAssembler assembler;
  ClientLogin dialogue;
  Nanoseconds deadline = never;  // Of the login.
  bool has_started = false;      // The start-up message came; the dialogue goes on.
  bool waits_for_key = false;
  bool is_cancelling = false;  // This connection brought a cancel request.
  bool ssl_refused = false;
  bool gss_refused = false;
  uint16_t minor = 0;
  std::string user;
  std::string database;
  std::optional<PoolError> refusal;  // The server does not take a start-up parameter.
  ParameterList
      wanted;  // Start-up parameters that are set after the login, as the client spells them.
  ParameterList settings;  // Those that belong to the pool's key.
  // While it moves: its pool, and the core that has counted it already.
  PoolSpecRef pool;
  CoreId moving_to = 0;
};

}  // namespace helios
