// The options of every TCP socket: no delay of small messages, and a dead peer is noticed after two
// minutes of silence.
//
// Set on listening sockets, from which accepted ones inherit them (tcp(7); every Linux), so that a
// client costs no call, and on sockets that connect. Any thread.
#pragma once

namespace helios {

// Nothing on a unix socket. A socket that is gone already refuses them; its receive will tell.
void set_socket_options(int fd, int family) noexcept;

}  // namespace helios
