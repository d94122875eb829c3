#include "server/scheduler/waiting_queue.h"

#include <gtest/gtest.h>

#include "server/scheduler/block_pool.h"
#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

bool Any(const Sequence&) { return true; }

TEST(WaitingQueueTest, EmptyQueueHasNoNext) {
  const FairShare fair;
  const WaitingQueue queue(&fair);
  EXPECT_EQ(queue.Next(Any), nullptr);
  EXPECT_EQ(queue.size(), 0);
}

TEST(WaitingQueueTest, NextPassesOverWhatMayNotRun) {
  // Tickets are given by a scheduler, so the queue is watched through one.
  BlockPool pool(8, 4);
  Scheduler scheduler({.max_batch_tokens = 8,
                       .max_sequences = 1,
                       .max_context_tokens = 16,
                       .cache_salt = "",
                       .prefix_cache = true},
                      &pool);
  for (SequenceId id : {7, 5, 6}) {
    scheduler.Add(std::make_unique<Sequence>(SequenceOptions(id, {1}, 1)));
  }
  std::vector<SequenceId> order;
  for (const Sequence* sequence : scheduler.sequences()) {
    order.push_back(sequence->id());
  }
  EXPECT_EQ(order, (std::vector<SequenceId>{7, 5, 6}));
  scheduler.Find(7)->set_waiting_for_adapter(true);
  const Batch batch = scheduler.Schedule(absl::UnixEpoch());
  ASSERT_EQ(batch.rows.size(), 1u);
  EXPECT_EQ(batch.rows[0].sequence->id(), 5u);
}

TEST(WaitingQueueTest, RemoveTakesOutOneSequence) {
  const FairShare fair;
  WaitingQueue queue(&fair);
  queue.Add(std::make_unique<Sequence>(SequenceOptions(3, {1}, 1)));
  const Sequence* first = queue.Next(Any);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(queue.Remove(*first)->id(), 3u);
  EXPECT_EQ(queue.size(), 0);
}

}  // namespace
}  // namespace tenon
