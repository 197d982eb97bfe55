#include "helios/net/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace helios {

Result<uint64_t> raise_descriptor_limit(uint64_t needed) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return Error{std::string("cannot read RLIMIT_NOFILE: ") + std::strerror(errno)};
  if (limit.rlim_cur >= needed) return static_cast<uint64_t>(limit.rlim_cur);

  rlimit raised = limit;
  raised.rlim_cur = std::min<rlim_t>(needed, limit.rlim_max);
  if (raised.rlim_cur != limit.rlim_cur && setrlimit(RLIMIT_NOFILE, &raised) != 0)
    return Error{std::string("cannot raise RLIMIT_NOFILE: ") + std::strerror(errno)};
  // A privileged process could go beyond the hard limit; whoever set the limit did not mean that.
  if (raised.rlim_cur < needed)
    return Error{"the configuration needs " + std::to_string(needed) +
                 " open descriptors, the limit is " + std::to_string(raised.rlim_cur) +
                 ": raise it (LimitNOFILE=" + std::to_string(needed) +
                 " in the systemd service, or ulimit -Hn before the start), or lower max_clients"};
  return static_cast<uint64_t>(raised.rlim_cur);
}

}  // namespace helios
