// The process: configuration to options, cores, signals, and the end.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "helios/base/result.h"
#include "helios/config/config.h"
#include "helios/config/loader.h"

namespace helios {

// Runs the proxy until a signal stops it. Called once, by the main thread, with signals blocked and
// the log started. SIGTERM and SIGINT finish running transactions first; a second one stops at
// once. SIGHUP reads the configuration again, by `read`; empty: there is nothing to read. The error
// is a sentence for a person; nothing is left running then.
[[nodiscard]] Result<bool> run_server(const Config& config,
                                      const std::vector<std::string>& io_features_off,
                                      const std::function<LoadResult()>& read);

}  // namespace helios
