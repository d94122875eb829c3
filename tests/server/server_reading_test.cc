#include "server/server_reading.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tenon {
namespace {

using ::testing::ElementsAre;

TEST(ServerReadingTest, AdaptersAreNamedAsClientsDoAndOnceEach) {
  EngineStats engine;
  engine.running_adapters = {"default/sql@1", "default/fr@3", "default/fr@2"};
  engine.waiting_adapters = {"globex/a/b@1"};
  ServerReading reading;
  ReadEngine(engine, reading);
  EXPECT_THAT(reading.running_adapters, ElementsAre("fr", "sql"));
  EXPECT_THAT(reading.waiting_adapters, ElementsAre("a/b"));
}

TEST(ServerReadingTest, EachTierKeepsItsOwnNumbers) {
  MergeTierStats merged;
  merged.budget_bytes = 1;
  AdapterCacheStats device;
  device.budget_bytes = 2;
  device.hits = 4;
  HostTierStats host;
  host.budget_bytes = 3;
  host.hits = 5;
  ServerReading reading;
  ReadTiers(merged, device, host, reading);
  EXPECT_EQ(reading.merged_budget_bytes, 1);
  EXPECT_EQ(reading.adapter_budget_bytes, 2);
  EXPECT_EQ(reading.host_adapter_budget_bytes, 3);
  EXPECT_EQ(reading.total_adapter_hits, 4);
  EXPECT_EQ(reading.total_host_hits, 5);
}

}  // namespace
}  // namespace tenon
