#!/usr/bin/env python3
"""The arithmetic of the comparison: its grid, its limits and its tables. Needs nothing but Python."""
import unittest

from cells import Cell, Outcome, grid
from limits import least_seconds, share_of_limit
from report import Comparison, Measured, to_markdown
from shapes import SHAPES, Shape

LIMITS = {"read_gb_s": 40.0, "copy_gb_s": 30.0, "gemm_gflop_s": {"bf16": {"1": 20.0, "256": 400.0}, "fp32": {"1": 10.0, "256": 100.0}}}
CELL = Cell("125m", "bf16", 0, 32, 64, 64)


class GridTest(unittest.TestCase):
    def test_leaves_out_more_adapters_than_requests(self):
        cells = grid(["125m"], ["bf16"], [0, 8, 32], [1, 8], [(64, 64)])
        self.assertEqual([(cell.concurrency, cell.adapters) for cell in cells], [(1, 0), (8, 0), (8, 8)])

    def test_deals_adapters_out_in_turn(self):
        requests = Cell("125m", "bf16", 3, 7, 4, 4).requests(100)
        self.assertEqual([request.adapter for request in requests], [0, 1, 2, 0, 1, 2, 0])

    def test_same_prompts_for_every_number_of_adapters(self):
        base, adapted = (Cell("125m", "bf16", k, 8, 16, 4).requests(1000) for k in (0, 8))
        self.assertEqual([request.prompt for request in base], [request.prompt for request in adapted])


class LimitsTest(unittest.TestCase):
    # One layer, all sizes 2: 2 * 2 * 4 attention weights, 3 * 4 MLP weights, a head of 2 * 2.
    TINY = Shape(2, 1, 1, 1, 2, 2, tie_word_embeddings=False)

    def test_one_token_is_prefill_alone(self):
        cell = Cell("tiny", "fp32", 0, 1, 1, 1)
        flop = 2 * (16 + 12) + 4 * 2 * 0.5 + 2 * 4
        self.assertAlmostEqual(least_seconds(cell, self.TINY, LIMITS), flop / 100e9)

    def test_a_lone_decode_is_bound_by_its_bytes(self):
        cells = [Cell("tiny", "fp32", 0, 1, 1, tokens) for tokens in (1, 2)]
        first, both = (least_seconds(cell, self.TINY, LIMITS) for cell in cells)
        weights, keys_and_values = 4 * (28 + 4), 2 * 4 * 2 * 2
        self.assertAlmostEqual(both - first, (weights + keys_and_values) / 40e9)

    def test_share_is_one_at_the_limit(self):
        rate = 32 * 64 / least_seconds(CELL, SHAPES["125m"], LIMITS)
        self.assertAlmostEqual(share_of_limit(CELL, SHAPES["125m"], LIMITS, rate), 1)

    def test_adapters_cost_something(self):
        mixed = Cell("125m", "bf16", 32, 32, 64, 64)
        self.assertGreater(least_seconds(mixed, SHAPES["125m"], LIMITS), least_seconds(CELL, SHAPES["125m"], LIMITS))


class ReportTest(unittest.TestCase):
    def setUp(self):
        mixed = Cell("125m", "bf16", 8, 32, 64, 64)
        self.comparison = Comparison(
            {"CPU": "a CPU"}, {"tenon": "1", "slow": "2", "fast": "3"}, {"tenon": "", "slow": "", "fast": ""}, LIMITS, {
                (CELL, "tenon"): Measured([400, 500, 450], [1.0]), (CELL, "slow"): Measured([100]), (CELL, "fast"): Measured([300]),
                (mixed, "tenon"): Measured([405]), (mixed, "fast"): Measured(reason="one adapter at a time")})
        self.mixed = mixed

    def test_ratio_is_to_the_fastest_peer(self):
        self.assertEqual(self.comparison.best_peer(CELL), ("fast", 300))
        self.assertIn("| 450 (1.00) | 100 | 300 | 1.50x fast |", to_markdown(self.comparison))

    def test_adapters_are_compared_with_own_base(self):
        self.assertAlmostEqual(self.comparison.of_own_base(self.mixed), 0.9)

    def test_a_cell_that_did_not_run_says_why(self):
        self.assertIn("fast, 125m bf16, 8 adapters, 32 at once, 64/64: one adapter at a time", to_markdown(self.comparison))

    def test_a_run_without_time_is_refused(self):
        with self.assertRaises(ValueError):
            Outcome(0.0)


if __name__ == "__main__":
    unittest.main()
