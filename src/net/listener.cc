#include "helios/net/listener.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/net/listen_sockets.h"

namespace helios {

namespace {

// Errors that belong to the one connection that was to be accepted (accept(2)): the next one may be
// fine.
bool is_of_one_client(int error) noexcept {
  switch (error) {
    case ECONNABORTED:
    case EINTR:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

const char* advice(int error) noexcept {
  switch (error) {
    case EMFILE:
      return ": raise RLIMIT_NOFILE (LimitNOFILE= of the service, ulimit -n) or lower max_clients";
    case ENFILE:
      return ": the whole system is out of descriptors, raise fs.file-max";
    case ENOBUFS:
    case ENOMEM:
      return ": the kernel is out of memory for sockets";
    default:
      return "";
  }
}

}  // namespace

int accept_now(int fd) noexcept {
  int accepted = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  return accepted >= 0 ? accepted : -errno;
}

Listener::Listener(Io& io, TimerWheel& timers, Clock& clock, ListenerOwner& owner) noexcept
    : io_(io),
      timers_(timers),
      clock_(clock),
      owner_(owner),
      timer_([](void* context) noexcept { static_cast<Listener*>(context)->arm(); }, this) {}

Listener::~Listener() {
  ASSERT(state_ == State::closed);
}

void Listener::start(int fd, int family) noexcept {
  ASSERT(state_ == State::closed);
  ASSERT(fd >= 0);
  fd_ = fd;
  family_ = family;
  target_ = io_.attach(this);
  arm();
}

void Listener::arm() noexcept {
  state_ = State::accepting;
  io_.start_accept(target_, fd_);
  in_flight_ = true;
}

void Listener::stop(AcceptNow accept) noexcept {
  switch (state_) {
    case State::closed:
    case State::stopping:
      return;
    case State::accepting:
      accept_ = accept;
      state_ = State::stopping;
      // Not in flight: called from on_accepted of the op's last event, whose handler finishes.
      if (in_flight_) io_.start_cancel(target_, OpKind::accept);
      return;
    case State::waiting:
      accept_ = accept;
      timers_.cancel(timer_);
      state_ = State::stopping;
      return finish();
  }
}

void Listener::on_io(const IoEvent& event) noexcept {
  ASSERT(event.kind == OpKind::accept);
  ASSERT(in_flight_);
  ASSERT(state_ == State::accepting || state_ == State::stopping);
  in_flight_ = event.more;
  if (event.res >= 0) {
    ++accepted_count_;
    owner_.on_accepted(*this, event.res, family_);
  }
  if (event.more) return;
  if (state_ == State::stopping) return finish();
  if (event.res >= 0 || event.res == -ECANCELED || is_of_one_client(-event.res)) return arm();
  wait(-event.res);
}

// Never armed again at once: the next try would fail at once, too.
void Listener::wait(int error) noexcept {
  state_ = State::waiting;
  ++shortages_count_;
  Nanoseconds now = clock_.now();
  timers_.schedule(timer_, now + shortage_delay);
  if (shortages_count_ > 1 && now - warned_at_ < warning_interval) return;
  warned_at_ = now;
  LOG(warning, "cannot accept clients for the moment: %s%s (so far %llu times)",
      std::strerror(error), advice(error), static_cast<unsigned long long>(shortages_count_));
}

// The rest of the kernel's queue, then the end. Nothing may touch the listener after on_stopped.
void Listener::finish() noexcept {
  for (int i = 0; i < listen_backlog; ++i) {
    int fd = accept_(fd_);
    if (fd < 0) break;
    ++accepted_count_;
    owner_.on_accepted(*this, fd, family_);
  }
  io_.detach(target_);
  io_.close_fd(fd_);
  fd_ = -1;
  state_ = State::closed;
  owner_.on_stopped(*this);
}

}  // namespace helios
