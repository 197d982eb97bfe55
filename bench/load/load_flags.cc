#include "load/load_flags.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "helios/config/nearest.h"
#include "helios/runtime/cpu_set.h"

namespace helios::bench {
namespace {

constexpr std::array<std::string_view, 6> ssl_modes = {"disable", "allow",     "prefer",
                                                       "require", "verify-ca", "verify-full"};

std::string read_ssl_mode(std::string_view text) {
  if (text == "disable" || text == "allow" || text == "prefer") return {};
  for (const std::string_view mode : ssl_modes) {
    if (text == mode)
      return "\"" + std::string(text) +
             "\" needs TLS, which helios-bench does not speak yet: use disable";
  }
  return "\"" + std::string(text) + "\" is no sslmode" + suggestion(text, ssl_modes);
}

std::string read_cpu(std::string_view text, std::vector<int>& cpus) {
  int cpu = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpu);
  const std::vector<int> usable = usable_cpus();
  const bool is_usable = error == std::errc() && end == text.data() + text.size() &&
                         std::find(usable.begin(), usable.end(), cpu) != usable.end();
  if (!is_usable)
    return "\"" + std::string(text) + "\" is no CPU that this process may use (taskset -cp $$)";
  cpus.push_back(cpu);
  return {};
}

std::string read_pid(std::string_view text, std::vector<pid_t>& watched) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc() || end != text.data() + text.size() || pid <= 0)
    return "\"" + std::string(text) + "\" is no process id";
  watched.push_back(pid);
  return {};
}

}  // namespace

void add_connection_flags(CommandLine& line, LoadOptions& options) {
  line.texts("target", "ADDRESS",
             "where to connect: host:port, [IPv6]:port or unix:/directory:port; repeated: clients "
             "are dealt over all of them",
             options.targets);
  line.text("user", "NAME", "as whom to log in; %d in it is a number from 1 to --users",
            options.user);
  line.number("users", "N", "how many users the clients are dealt over", 1, 100'000,
              options.users_count);
  const char* password = std::getenv("PGPASSWORD");
  if (password != nullptr) options.password = password;
  line.custom("password", "TEXT",
              "for cleartext, md5 and SCRAM-SHA-256 logins; other people on the machine can see "
              "it, unless it is in PGPASSWORD [$PGPASSWORD]",
              [&options](std::string_view text) -> std::string {
                options.password = text;
                return {};
              });
  line.text("database", "NAME", "%d in it is a number from 1 to --databases", options.database);
  line.number("databases", "N", "how many databases the clients are dealt over", 1, 100'000,
              options.databases_count);
  line.custom("sslmode", "MODE",
              "disable, allow or prefer: without TLS, which helios-bench does not speak yet "
              "[disable]",
              read_ssl_mode);
  line.number("clients", "N", "clients, each with one connection", 1, 50'000, options.clients);
  line.number("cores", "N", "threads of the load itself", 1, 64, options.cores);
  line.custom("cpu", "N",
              "pin the threads of the load to this CPU; repeated: to one of these each, in turn",
              [&options](std::string_view text) { return read_cpu(text, options.cpus); });
  line.flag("batch", "run these threads under SCHED_BATCH, so that they preempt nobody",
            options.batch_policy);
  line.duration("connect-timeout",
                "for all clients together, before the load begins; not given: 3 s when not one of "
                "them can connect",
                milliseconds(10), seconds(3600), options.connect_timeout,
                &options.has_connect_timeout);
  line.duration("answer-timeout", "a transaction (or a login) that takes longer has failed",
                milliseconds(10), seconds(3600), options.answer_timeout);
  line.custom("watch", "PID",
              "a process (with its children) whose CPU time, context switches and memory are "
              "reported; may be repeated",
              [&options](std::string_view text) { return read_pid(text, options.watched); });
}

std::string read_script_choice(std::string_view text, std::vector<ScriptChoice>& scripts) {
  ScriptChoice choice;
  const size_t equals = text.rfind('=');
  choice.name = text.substr(0, equals);
  if (equals != std::string_view::npos) {
    const std::string_view weight = text.substr(equals + 1);
    const char* end = weight.data() + weight.size();
    const auto result = std::from_chars(weight.data(), end, choice.weight);
    if (result.ec != std::errc() || result.ptr != end || choice.weight > 1'000'000)
      return "\"" + std::string(weight) + "\" is no weight: a whole number from 0 to 1000000";
  }
  if (choice.name.empty()) return "a name is needed: a built-in script or a file";
  scripts.push_back(std::move(choice));
  return {};
}

}  // namespace helios::bench
