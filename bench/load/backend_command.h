// helios-bench backend: reads its command line and runs the canned server.
#pragma once

namespace helios::bench {

// `argv[0]` is the word "backend". The exit code: 0 after a signal, 1 when it could not
// begin, 2 for a wrong command line.
int backend_command(int argc, char** argv);

}  // namespace helios::bench
