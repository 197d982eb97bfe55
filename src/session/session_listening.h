// What a session that listens through a hub (notification_hub.h) knows of its notifications.
//
// At any time one connection's notifications count. While the session has a backend they are the
// backend's: what the server brings, and when, is what a client of its own would see. While it has
// none they are the hub's. The change from one to the other is a marker in both:
//
// Source       | the backend's are  | the hub's are
// backend      | delivered          | dropped
// handing_over | delivered          | dropped; behind the marker kept
// hub          | (there is none)    | delivered, once its marker is seen
// taking_over  | dropped; behind    | delivered (behind the marker before, if that is still due) up
//              | the marker kept    | to the marker
//
// What is kept is delivered when the other side has come to its marker, too. While a backend
// changes over the client's own messages are held: it does not matter to them which it is.
//
// Belongs to one session, on its core.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "helios/pool/notification_hub.h"

namespace helios {

class Session;

class SessionListening final : public HubListener {
 public:
  enum class Source : uint8_t { backend, handing_over, hub, taking_over };

  explicit SessionListening(Session& session) noexcept : session_(session) {}

  [[nodiscard]] Source source() const noexcept { return source_; }
  // The marker has not come from the backend.
  [[nodiscard]] bool awaits_backend() const noexcept { return own_marker_ != 0; }

  // Of the session's backend, at the end of its last transaction; as the server has told.
  std::vector<std::string> wanted;
  // `wanted` is what the backend listens to.
  bool is_known = true;
  // Something of the client has gone to the backend since it took over.
  bool has_worked = true;
  // It was noted that the backend stays with the client, for want of a hub.
  bool is_late = false;

  // The backend is about to send this marker: its notifications are the hub's from then on, or
  // end those of the hub. Requires: source() is backend, or hub.
  void start_handing_over(uint64_t marker) noexcept;
  void start_taking_over(uint64_t marker) noexcept;
  // A marker of the hub's channel has come from the backend; it may be another session's. Note: may
  // end the session, and with it this object; so may all of the following.
  void on_own_marker(uint64_t id) noexcept;
  // Another notification has come from it. True: it is to be delivered now.
  [[nodiscard]] bool takes_own(const Notification& notification) noexcept;

  // --- HubListener ---
  void on_hub_ready() noexcept override;
  void on_hub_late() noexcept override;
  void on_hub_notification(const Notification& notification) noexcept override;
  void on_hub_marker(uint64_t id) noexcept override;
  void on_hub_lost() noexcept override;

 private:
  void keep(const Notification& notification) noexcept;
  void deliver_kept() noexcept;
  void end_taking_over() noexcept;

  Session& session_;
  Source source_ = Source::backend;
  bool is_hub_open_ = false;  // The hub's are delivered, or kept.
  uint64_t own_marker_ = 0;   // Due from the backend; 0: none is.
  // Due from the hub, in the order of their sending: a session may take the next backend while the
  // marker of the last one is under way.
  std::deque<uint64_t> hub_markers_;
  std::vector<uint8_t> kept_;  // Messages for the client.
};

}  // namespace helios
