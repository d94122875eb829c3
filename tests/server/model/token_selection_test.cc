#include "server/model/token_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <tuple>
#include <vector>

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::array<int32_t, 2> kBlocks = {7, 3};

AttentionRow Row(int64_t token_begin, int64_t num_tokens, int64_t first_position) {
  AttentionRow row;
  row.token_begin = token_begin;
  row.num_tokens = num_tokens;
  row.first_position = first_position;
  row.blocks = kBlocks;
  row.first_key = 2;
  return row;
}

std::vector<std::tuple<int64_t, int64_t, int64_t>> Summary(const std::vector<AttentionRow>& rows) {
  std::vector<std::tuple<int64_t, int64_t, int64_t>> summary;
  for (const AttentionRow& row : rows) {
    EXPECT_EQ(row.blocks.data(), kBlocks.data());
    EXPECT_EQ(row.first_key, 2);
    summary.emplace_back(row.token_begin, row.num_tokens, row.first_position);
  }
  return summary;
}

std::vector<std::tuple<int64_t, int64_t>> Summary(const std::vector<AdapterSegment>& segments) {
  std::vector<std::tuple<int64_t, int64_t>> summary;
  for (const AdapterSegment& segment : segments) {
    summary.emplace_back(segment.token_begin, segment.token_end);
  }
  return summary;
}

TEST(TokenSelectionTest, KeepsTheLastTokenOfEachRowAtItsPosition) {
  const std::vector<AttentionRow> rows = {Row(0, 4, 10), Row(4, 1, 20), Row(5, 3, 2)};
  const std::vector<AdapterSegment> segments = {{0, 4, {}, nullptr}, {4, 8, {}, nullptr}};
  const TokenSelection selection(std::vector<int64_t>{3, 4, 7}, rows, segments);
  EXPECT_THAT(Summary(selection.rows),
              ElementsAre(std::tuple(0, 1, 13), std::tuple(1, 1, 20), std::tuple(2, 1, 4)));
  EXPECT_THAT(Summary(selection.segments), ElementsAre(std::tuple(0, 1), std::tuple(1, 3)));
}

TEST(TokenSelectionTest, NeighboursOfARowStayTogetherAndGapsPartThem) {
  const std::vector<AttentionRow> rows = {Row(0, 6, 0), Row(6, 2, 5)};
  const TokenSelection selection(std::vector<int64_t>{0, 1, 4, 5, 6}, rows, {});
  EXPECT_THAT(Summary(selection.rows),
              ElementsAre(std::tuple(0, 2, 0), std::tuple(2, 2, 4), std::tuple(4, 1, 5)));
}

TEST(TokenSelectionTest, DropsRowsAndSegmentsOfWhichNothingIsLeft) {
  const std::vector<AttentionRow> rows = {Row(0, 4, 0), Row(4, 4, 9)};
  const std::vector<AdapterSegment> segments = {{0, 4, {}, nullptr}, {4, 8, {}, nullptr}};
  const TokenSelection selection(std::vector<int64_t>{7}, rows, segments);
  EXPECT_THAT(Summary(selection.rows), ElementsAre(std::tuple(0, 1, 12)));
  EXPECT_THAT(Summary(selection.segments), ElementsAre(std::tuple(0, 1)));
  const TokenSelection none({}, rows, segments);
  EXPECT_THAT(none.rows, IsEmpty());
  EXPECT_THAT(none.segments, IsEmpty());
}

}  // namespace
}  // namespace tenon
