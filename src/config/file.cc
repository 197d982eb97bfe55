#include "config/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace helios {
namespace {

constexpr size_t file_size_max = 4 * 1024 * 1024;

Error error_from_errno(int code) {
  return Error{"cannot be read: " + std::generic_category().message(code)};
}

// Requires: `fd` is open for reading.
Result<ConfigFile> read_open_file(int fd) {
  struct stat status = {};
  if (fstat(fd, &status) != 0) return error_from_errno(errno);
  ConfigFile file;
  file.is_world_readable = S_ISREG(status.st_mode) && (status.st_mode & S_IROTH) != 0;
  std::array<char, 16 * 1024> chunk;
  while (file.text.size() <= file_size_max) {
    const ssize_t size = read(fd, chunk.data(), chunk.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return error_from_errno(errno);
    if (size == 0) return file;
    file.text.append(chunk.data(), static_cast<size_t>(size));
  }
  return Error{"is larger than 4 MiB: this cannot be a configuration file"};
}

}  // namespace

Result<ConfigFile> read_config_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return error_from_errno(errno);
  Result<ConfigFile> file = read_open_file(fd);
  close(fd);
  return file;
}

}  // namespace helios
