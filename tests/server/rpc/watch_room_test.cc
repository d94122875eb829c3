#include "server/rpc/watch_room.h"

#include <gtest/gtest.h>

#include <vector>

#include "adapters/base/errors.h"

namespace tenon {
namespace {

TEST(WatchRoomTest, TenantsAreBoundedApart) {
  WatchRoom room;
  std::vector<uint64_t> tickets(kMaxWatchesPerTenant);
  for (uint64_t& ticket : tickets) {
    ASSERT_TRUE(room.Enter("acme", [] {}, &ticket).ok());
  }
  uint64_t ticket = 0;
  const absl::Status over = room.Enter("acme", [] {}, &ticket);
  EXPECT_TRUE(absl::IsResourceExhausted(over)) << over;
  EXPECT_EQ(GetErrorDetail(over)->reason, "TOO_MANY_WATCHES");
  EXPECT_EQ(ticket, 0u);
  EXPECT_TRUE(room.Enter("other", [] {}, &ticket).ok());
  room.Leave(tickets[0]);
  EXPECT_TRUE(room.Enter("acme", [] {}, &ticket).ok());
}

TEST(WatchRoomTest, DrainEndsThoseWhoAreThereAndRefusesOthers) {
  WatchRoom room;
  int ended = 0;
  uint64_t first = 0, second = 0;
  ASSERT_TRUE(room.Enter("acme", [&] { ++ended; }, &first).ok());
  ASSERT_TRUE(room.Enter("acme", [&] { ended += 10; }, &second).ok());
  room.Leave(first);
  room.Leave(0);  // who never entered
  room.Drain();
  EXPECT_EQ(ended, 10);
  EXPECT_TRUE(absl::IsUnavailable(room.Enter("acme", [] {}, &first)));
}

TEST(WatchRoomTest, EndMayLeave) {
  WatchRoom room;
  uint64_t ticket = 0;
  ASSERT_TRUE(room.Enter("acme", [&] { room.Leave(ticket); }, &ticket).ok());
  room.Drain();
}

}  // namespace
}  // namespace tenon
