#include "helios/pool/notification_hub.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/hex.h"
#include "helios/base/log.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"

namespace helios {
namespace {

// Who waits for the connection for longer is told, and so is the log.
constexpr Nanoseconds patience = seconds(1);
// After a failure.
constexpr Nanoseconds rest_time = seconds(1);
// How long a marker may be under way: whoever waits for it forwards nothing meanwhile.
constexpr Nanoseconds marker_timeout = seconds(30);

// It is idle for most of its life. (Servers before 14 have no such limit.)
constexpr const char* never_idle =
    "SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings WHERE name "
    "OPERATOR(pg_catalog.=) 'idle_session_timeout';";

void append_command(std::string& out, std::string_view command, std::string_view channel) {
  if (!out.empty()) out += ';';
  out += command;
  append_quoted_name(out, channel);
}

bool contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace

HubListener::~HubListener() {
  if (hub_ != nullptr) hub_->leave(*this);
}

NotificationHub::NotificationHub(Pools& pools, PoolSpecRef pool) noexcept
    : pools_(pools), pool_(std::move(pool)), timer_(&NotificationHub::on_timeout, this) {
  uint8_t secret[16];
  pools_.context().random.fill(secret);
  marker_channel_ = "heliosproxy_";
  append_hex(marker_channel_, as_text(ByteSpan(secret)));
}

NotificationHub::~NotificationHub() {
  ASSERT(listeners_.empty());
  ASSERT(state_ == State::closed);
  ASSERT(backend_ == nullptr);
}

// NOTIFY reaches whoever listens in the same database.
bool NotificationHub::serves(const PoolSpec& pool) const noexcept {
  return pool.node == pool_->node && pool.login.database == pool_->login.database;
}

void NotificationHub::set_pool(PoolSpecRef pool) noexcept {
  ASSERT(serves(*pool));
  pool_ = std::move(pool);
  is_outdated_ = true;
}

// --- Listeners ---

bool NotificationHub::listen(HubListener& listener, const std::vector<std::string>& channels,
                             std::string_view encoding) noexcept {
  ASSERT(listener.hub_ == nullptr || listener.hub_ == this);
  ASSERT(!channels.empty());
  const bool is_alone = listeners_.empty() || (listener.hub_ == this && listeners_.size() == 1);
  if (encoding_ != encoding && !is_alone) return false;
  if (encoding_ != encoding) {
    // The connection that there may be has another one.
    if (listener.hub_ != nullptr) leave(listener);
    if (state_ != State::closed) return false;  // Being walked: it closes behind this call.
    encoding_ = encoding;
  }
  if (listener.hub_ == nullptr) {
    listener.hub_ = this;
    listeners_.push_back(&listener);
  }
  for (const std::string& channel : listener.channels_)
    if (!contains(channels, channel)) remove(listener, channel);
  for (const std::string& channel : channels)
    if (!contains(listener.channels_, channel)) add(listener, channel);
  listener.channels_ = channels;
  listener.is_waiting_ = !is_ready_for(listener);
  go_on();
  return true;
}

void NotificationHub::leave(HubListener& listener) noexcept {
  ASSERT(listener.hub_ == this);
  for (const std::string& channel : listener.channels_) remove(listener, channel);
  listener.channels_.clear();
  listener.is_waiting_ = false;
  listener.hub_ = nullptr;
  std::erase_if(markers_, [&](const Marker& marker) { return marker.listener == &listener; });
  erase(listeners_, listener);
  go_on();
}

void NotificationHub::erase(std::vector<HubListener*>& list, HubListener& listener) noexcept {
  const auto found = std::find(list.begin(), list.end(), &listener);
  ASSERT(found != list.end());
  if (walks_count_ == 0) {
    list.erase(found);
  } else {
    *found = nullptr;
    has_left_ = true;
  }
}

void NotificationHub::add(HubListener& listener, const std::string& channel) noexcept {
  Channel& own = channels_[channel];
  own.listeners.push_back(&listener);
  own.is_used = has_changed_ = true;
}

void NotificationHub::remove(HubListener& listener, const std::string& channel) noexcept {
  const auto own = channels_.find(channel);
  ASSERT(own != channels_.end());
  std::vector<HubListener*>& list = own->second.listeners;
  erase(list, listener);
  has_changed_ = true;
  own->second.is_used = std::any_of(list.begin(), list.end(), [](auto* one) { return one; });
}

bool NotificationHub::is_ready_for(const HubListener& listener) const noexcept {
  if (state_ != State::open || !hears_markers_ || listener.hub_ != this) return false;
  return std::all_of(
      listener.channels_.begin(), listener.channels_.end(),
      [this](const std::string& channel) { return channels_.at(channel).hearing == Hearing::yes; });
}

// Calls visit for each that is in the list now and does not leave it before its turn.
template <typename Visit>
void NotificationHub::walk(std::vector<HubListener*>& list, Visit visit) noexcept {
  ++walks_count_;
  const size_t count = list.size();
  for (size_t i = 0; i < count; ++i)
    if (list[i] != nullptr) visit(*list[i]);
  if (--walks_count_ > 0 || !std::exchange(has_left_, false)) return;
  const auto drop_left = [](std::vector<HubListener*>& all) { std::erase(all, nullptr); };
  drop_left(listeners_);
  for (auto& [name, channel] : channels_) drop_left(channel.listeners);
}

// --- The connection ---

// What follows from who listens to what; behind each change. Not while listeners are being called:
// whoever calls them goes on afterwards.
void NotificationHub::go_on() noexcept {
  if (walks_count_ > 0) return;
  if (listeners_.empty()) return close();
  if (state_ == State::closed) return open();
  if (state_ == State::open && answers_due_ == 0 && has_changed_) ask();
}

void NotificationHub::open() noexcept {
  ASSERT(backend_ == nullptr);
  if (pools_.is_draining()) return rest();
  state_ = State::waiting;
  schedule(pools_.now() + patience);
  if (own_pool_.is_null() || std::exchange(is_outdated_, false))
    own_pool_ =
        make_hub_spec(*pool_, pools_.context().postbox.cores_count(), pools_.random_number());
  (void)pools_.acquire(pools_.pool_of(own_pool_).slice, *this);
}

void NotificationHub::close() noexcept {
  if (state_ == State::closed) return;
  if (static_cast<ListNode<WaiterTag>&>(*this).is_linked())
    pools_.pool_of(own_pool_).slice.remove(*this);
  state_ = State::closed;
  pools_.context().timers.cancel(timer_);
  channels_.clear();
  markers_.clear();
  answers_due_ = 0;
  hears_markers_ = false;
  if (Backend* backend = std::exchange(backend_, nullptr))
    backend->close("nobody listens any more", CloseReason::single_use);
}

void NotificationHub::on_leased(Backend& backend) noexcept {
  ASSERT(state_ == State::waiting);
  ASSERT(!listeners_.empty());
  backend_ = &backend;
  state_ = State::open;
  pools_.context().timers.cancel(timer_);
  ask();
}

// One statement at a time: what is asked for meanwhile goes into the next.
void NotificationHub::ask() noexcept {
  ASSERT(answers_due_ == 0);
  has_changed_ = false;
  std::string text;
  if (!hears_markers_) {
    // By itself: the encoding holds from the next message on.
    std::string settings = never_idle;
    settings += "SET client_encoding=";
    append_literal(settings, encoding_);
    start_statement(settings);
    append_command(text, "LISTEN ", marker_channel_);
  }
  for (auto& [name, channel] : channels_) {
    if (channel.is_used && channel.hearing == Hearing::no) {
      append_command(text, "LISTEN ", name);
      channel.hearing = Hearing::asked;
    } else if (!channel.is_used && channel.hearing == Hearing::yes) {
      append_command(text, "UNLISTEN ", name);
      channel.hearing = Hearing::no;
    }
  }
  std::erase_if(channels_, [](const auto& channel) {
    return !channel.second.is_used && channel.second.hearing == Hearing::no;
  });
  if (!text.empty()) start_statement(text);
}

void NotificationHub::start_statement(const std::string& text) noexcept {
  ++answers_due_;
  backend_->start_statement(text);
}

void NotificationHub::on_ready(uint8_t, bool) noexcept {
  ASSERT(answers_due_ > 0);
  if (--answers_due_ > 0) return;
  hears_markers_ = true;
  for (auto& [name, channel] : channels_)
    if (channel.hearing == Hearing::asked) channel.hearing = Hearing::yes;
  tell_ready();
  go_on();
}

void NotificationHub::tell_ready() noexcept {
  walk(listeners_, [this](HubListener& listener) {
    if (!listener.is_waiting_ || !is_ready_for(listener)) return;
    listener.is_waiting_ = false;
    listener.on_hub_ready();
  });
}

void NotificationHub::on_skipped_error(const ErrorFields& fields) noexcept {
  LOG_LIMITED(warning, "the server does not let the hub of %s@%s listen: %.*s", pool_->user.c_str(),
              pool_->database.c_str(), static_cast<int>(fields.message.size()),
              fields.message.data());
  lose("it cannot listen");
}

void NotificationHub::on_backend_lost(const PoolError&, Loss) noexcept {
  backend_ = nullptr;
  LOG_LIMITED(warning, "the hub of %s@%s has lost its server connection", pool_->user.c_str(),
              pool_->database.c_str());
  lose("lost");
}

// The connection is of no use any more. Those who listen are told; who then still does gets another
// one.
void NotificationHub::lose(const char* why) noexcept {
  if (Backend* backend = std::exchange(backend_, nullptr)) backend->close(why);
  markers_.clear();
  answers_due_ = 0;
  hears_markers_ = false;
  has_changed_ = true;
  for (auto& [name, channel] : channels_) channel.hearing = Hearing::no;
  rest();
  walk(listeners_, [](HubListener& listener) {
    listener.is_waiting_ = true;
    listener.on_hub_lost();
  });
  go_on();
}

void NotificationHub::give_up() noexcept {
  if (state_ != State::open) return;
  LOG_LIMITED(warning, "the hub of %s@%s makes room: a limit has become smaller",
              pool_->user.c_str(), pool_->database.c_str());
  lose("it makes room");
}

void NotificationHub::on_wait_failed(const PoolError&) noexcept {
  ASSERT(state_ == State::waiting);
  rest();
}

// The pool of a hub has one generation only.
void NotificationHub::on_pool_changed(PoolEntry&) noexcept {
  UNREACHABLE("another generation of a hub's pool");
}

void NotificationHub::rest() noexcept {
  state_ = State::resting;
  schedule(pools_.now() + rest_time);
}

void NotificationHub::schedule(Nanoseconds deadline) noexcept {
  pools_.context().timers.schedule(timer_, deadline);
}

void NotificationHub::on_timeout(void* self) noexcept {
  NotificationHub& hub = *static_cast<NotificationHub*>(self);
  switch (hub.state_) {
    case State::waiting:
      LOG_LIMITED(warning,
                  "there is no room for the hub of %s@%s: clients that LISTEN keep their server "
                  "connections",
                  hub.pool_->user.c_str(), hub.pool_->database.c_str());
      hub.walk(hub.listeners_, [](HubListener& listener) {
        if (listener.is_waiting_) listener.on_hub_late();
      });
      return hub.go_on();
    case State::open:
      if (hub.markers_.empty()) return;
      if (hub.markers_.front().since + marker_timeout > hub.pools_.now())
        return hub.schedule(hub.markers_.front().since + marker_timeout);
      LOG_LIMITED(warning, "the hub of %s@%s does not hear what others do", hub.pool_->user.c_str(),
                  hub.pool_->database.c_str());
      return hub.lose("a marker has not come");
    case State::resting:
      hub.state_ = State::closed;
      return hub.go_on();
    case State::closed:
      UNREACHABLE("timer of a hub that is closed");
  }
}

// --- What it hears ---

void NotificationHub::on_notification(const Notification& notification) noexcept {
  if (notification.channel == marker_channel_) return on_marker(notification);
  const auto found = channels_.find(notification.channel);
  if (found == channels_.end()) return;
  walk(found->second.listeners,
       [&](HubListener& listener) { listener.on_hub_notification(notification); });
  go_on();
}

uint64_t NotificationHub::expect_marker(HubListener& listener, uint32_t process_id) noexcept {
  ASSERT(is_ready_for(listener));
  markers_.push_back({++last_id_, &listener, process_id, pools_.now()});
  if (!timer_.is_scheduled()) schedule(pools_.now() + marker_timeout);
  return last_id_;
}

// The commit need not wait for the disk: it says nothing that would have to last. The client's
// limits are not meant for it; it waits for commits of others that notify.
std::string NotificationHub::marker_statement(const std::vector<std::string>& channels,
                                              uint64_t id) const {
  std::string text =
      "SET LOCAL synchronous_commit=off;SET LOCAL statement_timeout=0;SET LOCAL lock_timeout=0";
  for (const std::string& channel : channels) append_command(text, "LISTEN ", channel);
  append_command(text, "LISTEN ", marker_channel_);
  append_command(text, "NOTIFY ", marker_channel_);
  return text + ",'" + std::to_string(id) + "'";
}

uint64_t NotificationHub::marker_id(const Notification& marker) noexcept {
  uint64_t id = 0;
  const char* const end = marker.payload.data() + marker.payload.size();
  const auto [stop, error] = std::from_chars(marker.payload.data(), end, id);
  return error == std::errc() && stop == end ? id : 0;
}

void NotificationHub::on_marker(const Notification& notification) noexcept {
  const uint64_t id = marker_id(notification);
  const auto found = std::find_if(markers_.begin(), markers_.end(), [&](const Marker& marker) {
    return marker.id == id && marker.process_id == notification.process_id;
  });
  if (found == markers_.end()) return;  // Whoever waited for it has gone.
  HubListener& listener = *found->listener;
  markers_.erase(found);
  listener.on_hub_marker(id);
}

}  // namespace helios
