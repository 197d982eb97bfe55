#include "load/text_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace helios::bench {

Result<std::string> read_text_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Error{std::strerror(errno)};
  std::string text;
  std::array<char, 4096> part;
  ssize_t size = 0;
  while ((size = read(fd, part.data(), part.size())) > 0)
    text.append(part.data(), static_cast<size_t>(size));
  const int error = errno;
  close(fd);
  if (size < 0) return Error{std::strerror(error)};
  return text;
}

}  // namespace helios::bench
