#include "helios/pool/statistics_collector.h"

#include <utility>

#include "helios/base/assert.h"
#include "helios/pool/pool_messages.h"

namespace helios {

void StatisticsCollector::collect(Done done, void* context) noexcept {
  const uint32_t others_count = postbox_.cores_count() - 1U;
  auto job = std::make_unique<Job>(Job{done, context, pools_.statistics(), others_count});
  Message question = make_message(MessageKind::statistics_wanted);
  question.words[0] = reinterpret_cast<uint64_t>(job.get());
  postbox_.send_to_others(question);
  jobs_.push_back(std::move(job));
  finish_if_complete(jobs_.size() - 1);
}

bool StatisticsCollector::on_message(const Message& message) noexcept {
  const auto kind = static_cast<MessageKind>(message.kind);
  if (kind == MessageKind::statistics_wanted) {
    answer(message);
  } else if (kind == MessageKind::statistics) {
    on_answer(message);
  } else {
    return false;
  }
  return true;
}

void StatisticsCollector::answer(const Message& question) noexcept {
  Message message = make_message(MessageKind::statistics);
  message.words[0] = question.words[0];
  message.words[1] = reinterpret_cast<uint64_t>(new Statistics(pools_.statistics()));
  postbox_.send(question.from, message);
}

void StatisticsCollector::on_answer(const Message& message) noexcept {
  const std::unique_ptr<Statistics> part(reinterpret_cast<Statistics*>(message.words[1]));
  size_t index = 0;
  while (reinterpret_cast<uint64_t>(jobs_[index].get()) != message.words[0]) {
    ++index;
    ASSERT(index < jobs_.size());
  }
  ASSERT(jobs_[index]->answers_due > 0);
  --jobs_[index]->answers_due;
  jobs_[index]->sum.merge(*part);
  finish_if_complete(index);
}

void StatisticsCollector::finish_if_complete(size_t index) noexcept {
  if (jobs_[index]->answers_due > 0) return;
  const std::unique_ptr<Job> job = std::move(jobs_[index]);
  jobs_.erase(jobs_.begin() + static_cast<ptrdiff_t>(index));
  job->done(job->context, job->sum);
}

}  // namespace helios
