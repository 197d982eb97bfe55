// The way into wolfCrypt for the .cc files of this layer: which configuration its headers are read
// with.
//
// Our own build says it with WOLFSSL_USER_SETTINGS; an installed library with <wolfssl/options.h>.
// Reading the headers with the wrong one gives structs of the wrong size.
#pragma once

#ifndef WOLFSSL_USER_SETTINGS
#include <wolfssl/options.h>
#endif
#include <wolfssl/wolfcrypt/settings.h>

#include <cstdint>

namespace helios {

// For calls that fail only when memory or entropy is gone: nobody can go on after that.
void require_crypto(int result, const char* what) noexcept;

}  // namespace helios
