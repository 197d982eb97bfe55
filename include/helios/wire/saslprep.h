// SASLprep (RFC 4013): the normal form of a password before SCRAM hashes it, with the tables of
// Unicode 3.2.
//
// As in PostgreSQL, a password that is not valid UTF-8, holds a prohibited or unassigned character,
// breaks the rules for right-to-left text or becomes empty is used as it is. Also as in PostgreSQL,
// these rules look at the text before it is normalised, where the RFC looks at it afterwards: what
// counts is that both ends hash the same bytes. Pure functions; any thread.
#pragma once

#include <string_view>

#include "helios/wire/crypto.h"

namespace helios {

enum class SaslprepResult : uint8_t { prepared, invalid_utf8, prohibited };

// Writes the prepared form to `to`; leaves it empty unless the result is `prepared`.
[[nodiscard]] SaslprepResult saslprep(std::string_view text, SecretBytes& to);

// The prepared form, or the bytes themselves when there is none. What SCRAM takes as the password.
[[nodiscard]] SecretBytes scram_password(std::string_view password);

}  // namespace helios
