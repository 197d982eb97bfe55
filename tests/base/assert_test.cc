#include "helios/base/assert.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace helios {
namespace {

struct ChildEnd {
  int status = 0;
  std::string text;  // What the child wrote to stderr.
};

template <typename Run>
ChildEnd end_of_child(Run run) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);  // Not doctest's handler.
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    dup2(ends[1], STDERR_FILENO);
    run();
    _exit(0);
  }
  close(ends[1]);
  ChildEnd end;
  char buffer[4096];
  for (ssize_t size = 0; (size = read(ends[0], buffer, sizeof(buffer))) > 0;)
    end.text.append(buffer, static_cast<size_t>(size));
  close(ends[0]);
  REQUIRE(waitpid(child, &end.status, 0) == child);
  return end;
}

}  // namespace

TEST_CASE("an assertion that fails aborts and names expression, file, function and core") {
  const ChildEnd end = end_of_child([] {
    set_current_core(3);
    const int two = 2;
    ASSERT(two + two == 5);
  });
  REQUIRE(WIFSIGNALED(end.status));
  CHECK(WTERMSIG(end.status) == SIGABRT);
  CHECK(end.text.find("two + two == 5") != std::string::npos);
  CHECK(end.text.find("assert_test.cc") != std::string::npos);
  CHECK(end.text.find("core 3") != std::string::npos);
}

TEST_CASE("an assertion that holds does nothing") {
  const ChildEnd end = end_of_child([] { ASSERT(1 + 1 == 2); });
  REQUIRE(WIFEXITED(end.status));
  CHECK(end.text.empty());
}

TEST_CASE("code that cannot be reached aborts when it is") {
  const ChildEnd end = end_of_child([] { UNREACHABLE("the end of the world"); });
  REQUIRE(WIFSIGNALED(end.status));
  CHECK(end.text.find("the end of the world") != std::string::npos);
}

TEST_CASE("each thread has a core number of its own") {
  int seen_before = 0;
  int seen_after = 0;
  std::thread([&] {
    seen_before = current_core();
    set_current_core(7);
    seen_after = current_core();
  }).join();
  CHECK(seen_before == -1);
  CHECK(seen_after == 7);
  CHECK(current_core() == -1);
}

}  // namespace helios
