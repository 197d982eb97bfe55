#include "server/reload.h"

#include <string>
#include <string_view>
#include <utility>

#include "helios/base/log.h"

namespace helios {
namespace {

// Where the key stands; the section when it is not written (any more).
std::string place_of(const LoadResult& loaded, const std::string& key) {
  for (const std::string& name : {key, std::string()})
    if (const auto found = loaded.proxy_places.find(name); found != loaded.proxy_places.end())
      return found->second + ": ";
  return {};
}

}  // namespace

void Reload::run() {
  if (!context_.read) {
    LOG(warning, "SIGHUP: there is no file to read again");
    return;
  }
  const LoadResult loaded = context_.read();
  for (const std::string& warning : loaded.warnings) LOG(warning, "%s", warning.c_str());
  for (const std::string& error : loaded.errors) LOG(error, "%s", error.c_str());
  if (!loaded.config) {
    LOG(error, "SIGHUP: the configuration has errors; everything stays as it was");
    return;
  }
  Config next = *loaded.config;
  next.proxy = effective(loaded.config->proxy);
  if (const auto room = context_.make_room(next); !room.ok()) {
    LOG(error, "SIGHUP: %s; everything stays as it was", room.error().c_str());
    return;
  }
  tell_restarts(loaded);
  if (next == config_) {
    LOG(info, "SIGHUP: nothing has changed");
    return;
  }
  for (const KeyChange& change : proxy_changes(config_.proxy, next.proxy))
    LOG(info, "SIGHUP: [proxy]: %s", change.text.c_str());
  for (const std::string& line : entry_changes(config_, next))
    LOG(info, "SIGHUP: %s", line.c_str());
  apply(std::move(next));
}

// What can be had without a restart; the rest as it runs.
ProxyConfig Reload::effective(const ProxyConfig& wanted) const {
  ProxyConfig proxy = config_.proxy;
  proxy.log_level = wanted.log_level;
  proxy.client_login_timeout = wanted.client_login_timeout;
  proxy.drain_timeout = wanted.drain_timeout;
  proxy.max_statements_size = wanted.max_statements_size;
  // Sessions have their memory from the start: there may be fewer, not more.
  if (wanted.max_clients <= context_.shared.clients_room) proxy.max_clients = wanted.max_clients;
  return proxy;
}

void Reload::tell_restarts(const LoadResult& loaded) const {
  const ProxyConfig& wanted = loaded.config->proxy;
  for (const KeyChange& change : proxy_changes(effective(wanted), wanted))
    LOG(warning, "%sproxy.%s: %s needs a restart; the running value stays",
        place_of(loaded, change.key).c_str(), change.key.c_str(), change.text.c_str());
}

void Reload::apply(Config next) {
  config_ = std::move(next);
  set_log_level(config_.proxy.log_level);
  context_.shared.sessions.clients_max = config_.proxy.max_clients;
  context_.shared.sessions.login_timeout = config_.proxy.client_login_timeout;
  context_.shared.sessions.statements_size_max = config_.proxy.max_statements_size;
  auto directory = std::make_shared<ConfigDirectory>(config_, context_.catalog, ++epoch_);
  context_.catalog.await_addresses();
  const CoreId cores = context_.mailbox.cores_count();
  const auto left = std::make_shared<std::atomic<uint32_t>>(cores);
  for (CoreId core = 0; core < cores; ++core) {
    Message message = make_message(MessageKind::reload);
    message.words[0] = reinterpret_cast<uint64_t>(new ConfigNews{directory, left});
    context_.mailbox.send(core, message);
  }
  do context_.mailbox.flush();
  while (context_.mailbox.has_unsent());
  // No core is ever two configurations behind another: a turn is short.
  while (const uint32_t count = left->load()) left->wait(count);
  LOG(info, "SIGHUP: the new configuration is in effect on every core");
}

}  // namespace helios
