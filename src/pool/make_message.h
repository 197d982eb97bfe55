// A message between cores, without words.
#pragma once

#include "helios/pool/pool_messages.h"
#include "helios/runtime/mailbox.h"

namespace helios {

[[nodiscard]] inline Message make_message(MessageKind kind) noexcept {
  Message message;
  message.kind = static_cast<uint16_t>(kind);
  return message;
}

}  // namespace helios
