// Which of the peers are installed: where their programs are and what versions they have.
#pragma once

#include <string>

#include "load/compare_peer.h"

namespace helios::bench {

// Fills in program and version. `program`: where the user says it is; empty: looked for. Returns
// why the peer cannot be used, or nothing.
[[nodiscard]] std::string find_peer(Peer& peer, const std::string& program);
// The directory of this program, with links resolved.
[[nodiscard]] std::string own_directory();
// The first line of a text that has letters in it.
[[nodiscard]] std::string first_line(std::string_view text);

}  // namespace helios::bench
