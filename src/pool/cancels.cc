#include "helios/pool/cancels.h"

#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"

namespace helios {

Cancels::~Cancels() {
  on_turn_end();
  ASSERT(all_.empty());
}

void Cancels::start(Backend& backend, CancelAim aim, CancelAsker asker) noexcept {
  for (const auto& one : all_)
    if (one->is_for(backend)) return one->add(asker);
  const Node* node = backend.slice().spec().node;
  const bool starts = has_room(node);
  if (!starts && waiting_.size() == waiting_max) {
    ++backend.slice().counters.cancels_dropped;
    LOG_LIMITED(warning, "too many cancel requests at once; one for process %u on %s is dropped",
                backend.process_id(), backend.address().text().c_str());
    return asker.tell();
  }
  Canceller& made = *all_.emplace_back(std::make_unique<Canceller>(pools_, *this, backend, aim));
  made.add(asker);
  if (starts) return made.start();
  waiting_.push_back(&made);
}

bool Cancels::has_room(const Node* node) const noexcept {
  const auto is_connection = [&](const auto& one) {
    return one->is_started() && one->node() == node;
  };
  return std::count_if(all_.begin(), all_.end(), is_connection) <
         static_cast<ptrdiff_t>(connections_max);
}

// From the last: one that has not started leaves the list.
void Cancels::on_request_ended(Backend& backend) noexcept {
  for (size_t i = all_.size(); i > 0; --i) all_[i - 1]->on_request_ended(backend);
}

void Cancels::withdraw(Backend& backend) noexcept {
  for (size_t i = all_.size(); i > 0; --i) all_[i - 1]->withdraw(backend);
}

void Cancels::stop() noexcept {
  for (size_t i = all_.size(); i > 0; --i) all_[i - 1]->stop();
}

void Cancels::on_ended(Canceller& canceller) noexcept {
  const auto is_it = [&](const auto& one) { return one.get() == &canceller; };
  const auto found = std::find_if(all_.begin(), all_.end(), is_it);
  ASSERT(found != all_.end());
  ended_.push_back(std::move(*found));
  all_.erase(found);
  std::erase(waiting_, &canceller);
}

// The places of those that have ended go to the next of the same nodes.
void Cancels::on_turn_end() noexcept {
  if (ended_.empty()) return;
  ended_.clear();
  if (!waiting_.empty()) start_waiting();
}

void Cancels::start_waiting() noexcept {
  std::erase_if(waiting_, [this](Canceller* one) {
    if (!has_room(one->node())) return false;
    one->start();
    return true;
  });
}

}  // namespace helios
