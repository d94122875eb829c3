#include "adapters/residency/adapter_room.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using Verdict = AdapterRoom::Verdict;
using Wants = std::vector<AdapterRoom::Want>;

Wants Adapters(const std::vector<std::string>& names, int64_t nbytes = 30) {
  Wants wants;
  for (const std::string& name : names) {
    wants.push_back({name, nbytes});
  }
  return wants;
}

class AdapterRoomTest : public testing::Test {
 protected:
  AdapterRoom room_{100};
};

TEST_F(AdapterRoomTest, ClaimsFitTheBudgetTogether) {
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_EQ(room_.Claim(Adapters({name}), true), Verdict::kTaken);
  }
  EXPECT_EQ(room_.held_bytes(), 90);
  EXPECT_EQ(room_.Claim(Adapters({"d"}), true), Verdict::kWait);
  EXPECT_FALSE(room_.is_held("d"));
  room_.Release("a");
  EXPECT_EQ(room_.Claim(Adapters({"d"}), true), Verdict::kTaken);
}

TEST_F(AdapterRoomTest, SecondClaimOnAnAdapterTakesNoRoom) {
  EXPECT_EQ(room_.Claim(Adapters({"a"}, 90), true), Verdict::kTaken);
  EXPECT_EQ(room_.Claim(Adapters({"a"}, 90), true), Verdict::kTaken);
  EXPECT_EQ(room_.held_bytes(), 90);
  room_.Release("a");
  EXPECT_TRUE(room_.is_held("a"));
  room_.Release("a");
  EXPECT_EQ(room_.held_bytes(), 0);
}

TEST_F(AdapterRoomTest, ClaimIsAllOrNothing) {
  EXPECT_EQ(room_.Claim(Adapters({"a", "b"}), true), Verdict::kTaken);
  EXPECT_EQ(room_.Claim(Adapters({"c", "d"}), true), Verdict::kWait);
  EXPECT_FALSE(room_.is_held("c"));
  EXPECT_EQ(room_.held_bytes(), 60);
}

TEST_F(AdapterRoomTest, AdapterNamedTwiceCountsOnce) {
  EXPECT_EQ(room_.Claim(Adapters({"a", "a"}, 60), true), Verdict::kTaken);
  EXPECT_EQ(room_.held_bytes(), 60);
  EXPECT_EQ(room_.num_claims("a"), 2);
}

TEST_F(AdapterRoomTest, WhatNeverFitsIsSaidAtOnce) {
  EXPECT_EQ(room_.Claim(Adapters({"a", "b", "c", "d"}), true), Verdict::kNever);
  ASSERT_TRUE(room_.Pin({"p", 40}));
  EXPECT_EQ(room_.Claim(Adapters({"a"}, 70), true), Verdict::kNever);
  EXPECT_EQ(room_.Claim(Adapters({"p", "a"}, 60), true), Verdict::kTaken);
}

TEST_F(AdapterRoomTest, WhoIsNotFirstInLineTakesNoRoomButJoins) {
  EXPECT_EQ(room_.Claim(Adapters({"hot"}), true), Verdict::kTaken);
  EXPECT_EQ(room_.Claim(Adapters({"cold"}), false), Verdict::kWait);
  EXPECT_EQ(room_.Claim(Adapters({"hot"}), false), Verdict::kTaken);
  EXPECT_EQ(room_.Claim(Adapters({"hot", "cold"}), false), Verdict::kWait);
}

TEST_F(AdapterRoomTest, DrainClosesTheAdapterWithTheFewestClaims) {
  room_.Claim(Adapters({"busy"}), true);
  room_.Claim(Adapters({"busy"}), true);
  room_.Claim(Adapters({"quiet"}), true);
  room_.Claim(Adapters({"third"}), true);
  room_.Claim(Adapters({"third"}), true);
  ASSERT_EQ(room_.Claim(Adapters({"cold"}), true), Verdict::kWait);
  room_.Drain(Adapters({"cold"}));
  EXPECT_TRUE(room_.is_draining("quiet"));
  EXPECT_FALSE(room_.is_draining("busy"));
  EXPECT_EQ(room_.Claim(Adapters({"quiet"}), false), Verdict::kWait);
  EXPECT_EQ(room_.Claim(Adapters({"busy"}), false), Verdict::kTaken);
  room_.Release("quiet");
  EXPECT_EQ(room_.Claim(Adapters({"cold"}), true), Verdict::kTaken);
  EXPECT_FALSE(room_.is_draining("quiet"));
}

TEST_F(AdapterRoomTest, DrainGoesOnWithWhatItHasBegun) {
  room_.Claim(Adapters({"a"}), true);
  room_.Claim(Adapters({"b"}), true);
  room_.Claim(Adapters({"b"}), true);
  room_.Claim(Adapters({"c"}), true);
  room_.Claim(Adapters({"c"}), true);
  room_.Drain(Adapters({"d"}));
  room_.Release("b");
  room_.Release("c");  // now all have one claim
  room_.Drain(Adapters({"d"}));
  EXPECT_TRUE(room_.is_draining("a"));
  EXPECT_FALSE(room_.is_draining("b"));
  EXPECT_FALSE(room_.is_draining("c"));
  room_.EndDrain();
  EXPECT_EQ(room_.Claim(Adapters({"a"}), false), Verdict::kTaken);
}

TEST_F(AdapterRoomTest, DrainSparesPinnedAndWantedAdapters) {
  room_.Pin({"pinned", 30});
  room_.Claim(Adapters({"wanted"}), true);
  room_.Claim(Adapters({"other"}), true);
  room_.Drain(Adapters({"wanted", "cold"}));
  EXPECT_FALSE(room_.is_draining("pinned"));
  EXPECT_FALSE(room_.is_draining("wanted"));
  EXPECT_TRUE(room_.is_draining("other"));
}

TEST_F(AdapterRoomTest, PinsTakeHalfOfTheBudgetAtMost) {
  EXPECT_TRUE(room_.Pin({"a", 30}));
  EXPECT_TRUE(room_.Pin({"a", 30}));
  EXPECT_FALSE(room_.Pin({"b", 30}));
  EXPECT_EQ(room_.pinned_bytes(), 30);
  EXPECT_TRUE(room_.Unpin("a"));
  EXPECT_FALSE(room_.Unpin("a"));
  EXPECT_FALSE(room_.is_held("a"));
  EXPECT_TRUE(room_.Pin({"b", 30}));
}

TEST_F(AdapterRoomTest, UnpinnedAdapterStaysHeldByItsClaims) {
  room_.Pin({"a", 30});
  room_.Claim(Adapters({"a"}), true);
  room_.Unpin("a");
  EXPECT_TRUE(room_.is_held("a"));
  EXPECT_EQ(room_.pinned_bytes(), 0);
  room_.Release("a");
  EXPECT_EQ(room_.held_bytes(), 0);
}

// Requests in a queue that behaves as the engine's: every one is served, whatever comes behind it.
TEST_F(AdapterRoomTest, NobodyStarvesWhileHotAdaptersGoOn) {
  std::mt19937 random(3);
  struct Request {
    int id;
    Wants wants;
    int64_t begun = 0;
  };
  std::deque<Request> waiting;
  std::vector<Request> running;
  int next_id = 0, num_served = 0;
  for (int64_t step = 0; step < 20'000; ++step) {
    while (waiting.size() < 30) {  // nine of ten for two hot adapters, some for two at once
      std::vector<std::string> names = {random() % 10 < 9 ? absl::StrCat("hot", random() % 2)
                                                          : absl::StrCat("cold", random() % 40)};
      if (random() % 8 == 0) {
        names.push_back(absl::StrCat("cold", random() % 40));
      }
      waiting.push_back({next_id++, Adapters(names, 25)});
    }
    bool first = true;
    for (auto request = waiting.begin(); request != waiting.end();) {
      const Verdict verdict = room_.Claim(request->wants, first);
      ASSERT_NE(verdict, Verdict::kNever);
      ASSERT_LE(room_.held_bytes(), 100);
      if (verdict == Verdict::kTaken) {
        if (first) {
          room_.EndDrain();
        }
        running.push_back(*request);
        running.back().begun = step;
        request = waiting.erase(request);
        continue;
      }
      if (first && next_id - request->id > 100) {
        room_.Drain(request->wants);
      }
      ASSERT_LT(next_id - request->id, 2'000) << "request " << request->id << " starves";
      first = false;
      ++request;
    }
    for (auto request = running.begin(); request != running.end();) {
      if (step - request->begun < 3) {
        ++request;
        continue;
      }
      for (const AdapterRoom::Want& want : request->wants) {
        room_.Release(want.digest);
      }
      ++num_served;
      request = running.erase(request);
    }
  }
  EXPECT_GT(num_served, 10'000);
}

}  // namespace
}  // namespace tenon
