// SIGHUP: the configuration is read again, and the cores take it over.
//
// Used by the main thread, which serves no client: reading, checking and looking up names stall no
// core. A file with an error changes nothing. A good one becomes a directory of its own, which each
// core takes over in one turn (CoreServer); until all have, there is no next one.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "helios/base/result.h"
#include "helios/config/changes.h"
#include "helios/config/loader.h"
#include "helios/runtime/mailbox.h"
#include "server/config_catalog.h"
#include "server/config_directory.h"
#include "server/core_server.h"

namespace helios {

class Reload {
 public:
  struct Context {
    ConfigCatalog& catalog;
    ServerShared& shared;
    Mailbox& mailbox;  // Of the main thread.
    // Reads the file again. Empty: there is none.
    std::function<LoadResult()> read;
    // Room for what the configuration allows: descriptors.
    std::function<Result<uint64_t>(const Config&)> make_room;
  };
  // `config`: that of the start.
  Reload(Context context, const Config& config) : context_(std::move(context)), config_(config) {}

  // Everything that SIGHUP does.
  void run();
  // The configuration that holds now.
  [[nodiscard]] const Config& config() const noexcept { return config_; }

 private:
  [[nodiscard]] ProxyConfig effective(const ProxyConfig& wanted) const;
  void tell_restarts(const LoadResult& loaded) const;
  void apply(Config next);

  Context context_;
  Config config_;
  uint64_t epoch_ = 0;
};

}  // namespace helios
