#include "adapters/kernels/panel_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace tenon {
namespace {

using panel_product::CutPanels;
using panel_product::PanelRun;
using panel_product::PanelRuns;

int64_t Size(const PanelRun& run) { return run.last - run.first; }

TEST(CutPanelsTest, CoversAllPanelsInOrder) {
  for (const int64_t threads : {1, 2, 3, 8, 64}) {
    for (int64_t panels = 1; panels <= 300; ++panels) {
      const PanelRuns runs = CutPanels(panels, 2, 8, threads);
      int64_t next = 0, short_runs = 0;
      for (const PanelRun& run : runs) {
        EXPECT_EQ(run.first, next);
        EXPECT_GE(Size(run), 1);
        short_runs += Size(run) < 2;
        EXPECT_LE(Size(run), 8);
        next = run.last;
      }
      EXPECT_EQ(next, panels) << threads << " threads";
      EXPECT_LE(short_runs, 1);
    }
  }
}

TEST(CutPanelsTest, RunsAreLongAtTheEndsAndShortWhereThreadsMeet) {
  for (const int64_t threads : {2, 4, 16}) {
    const PanelRuns runs = CutPanels(1000, 1, 8, threads);
    const auto shorter = [](const PanelRun& a, const PanelRun& b) { return Size(a) < Size(b); };
    const auto meeting = std::min_element(runs.begin(), runs.end(), shorter);
    EXPECT_EQ(Size(*meeting), 1);
    EXPECT_EQ(Size(runs.front()), 8);
    EXPECT_EQ(Size(runs.back()), 8);
    EXPECT_TRUE(std::is_sorted(std::make_reverse_iterator(meeting), runs.rend(), shorter));
    EXPECT_TRUE(std::is_sorted(meeting, runs.end(), shorter));
    // The one thread at the front gets there when the others, from the back, do.
    EXPECT_NEAR(static_cast<double>(meeting->first), 1000.0 / static_cast<double>(threads), 16.0);
  }
}

}  // namespace
}  // namespace tenon
