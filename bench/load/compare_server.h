// The server behind the poolers: our canned one, a private PostgreSQL, or the user's.
//
// A started server ends with its object. Main thread only.
#pragma once

#include <optional>
#include <string>

#include "helios/base/result.h"
#include "load/compare_peer.h"
#include "load/compare_placement.h"
#include "load/compare_process.h"

namespace helios::bench {

struct ServerSettings {
  std::string directory;  // Of the comparison; the server makes its own in there.
  std::optional<Account> account;
  Placement placement;
  uint32_t scale = 10;  // Of pgbench's tables.
};

class BenchServer {
 public:
  BenchServer() = default;

  [[nodiscard]] static Result<BenchServer> start_canned(const ServerSettings& settings);
  // A new cluster with pgbench's tables.
  [[nodiscard]] static Result<BenchServer> start_postgres(const ServerSettings& settings);
  // Nothing is started. `address` is "host:port" or "unix:/dir:port".
  [[nodiscard]] static Result<BenchServer> existing(const std::string& address);

  [[nodiscard]] bool is_there() const noexcept { return !description_.empty(); }
  [[nodiscard]] const std::string& description() const noexcept { return description_; }
  // Nothing when it has no unix socket that we know of.
  [[nodiscard]] std::optional<ServerPlace> place(bool unix_sockets) const;
  // Not the canned one.
  [[nodiscard]] bool is_real() const noexcept { return is_real_; }

 private:
  std::optional<ServerPlace> tcp_;
  std::optional<ServerPlace> unix_;
  std::string description_;
  bool is_real_ = true;
  ChildProcess process_;
};

// As the load's targets are written.
[[nodiscard]] std::string target_of(const ServerPlace& place);
// The directory of initdb, postgres and pgbench; empty when PostgreSQL is not installed.
[[nodiscard]] std::string postgres_binaries();
// A port of 127.0.0.1 on which nobody listens; 0 when there is none.
[[nodiscard]] uint16_t free_port();
// A directory or file of its own for `account`.
[[nodiscard]] Result<bool> make_directory(const std::string& path,
                                          const std::optional<Account>& account);
[[nodiscard]] Result<bool> write_private_file(const std::string& path, const std::string& text,
                                              const std::optional<Account>& account);

}  // namespace helios::bench
