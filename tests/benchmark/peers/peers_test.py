#!/usr/bin/env python3
"""The arithmetic of the comparison: its grid, its limits, its bars, its parsers and its tables. Needs nothing but Python."""
import dataclasses
import json
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import bars
import llama_cpp_peer
import probes
import vllm_peer
from bars import Results
from cells import Cell, Outcome, Request, grid, percentile
from history import History
from http_streams import parse_events
from limits import best, decode_tokens_per_s_limit, least_seconds, mean, share_of_limit, sustained
from probes import Probe, Setup, stall
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

    def test_another_salt_gives_other_prompts(self):
        first, again, other = (CELL.requests(1000, salt) for salt in ("a", "a", "b"))
        self.assertEqual(first, again)
        self.assertNotEqual(first[0].prompt, other[0].prompt)

    def test_zipf_asks_for_the_first_most_often(self):
        cell = Cell("125m", "bf16", 100, 1, 1, 1, num_requests=2000, popularity="zipf")
        counts = [0] * 100
        for request in cell.requests(10):
            counts[request.adapter] += 1
        self.assertGreater(counts[0], 2000 * 0.15)
        self.assertLess(counts[99], 2000 * 0.02)

    def test_text_has_a_character_a_token(self):
        self.assertEqual(len(Request(tuple(range(64)), None, 1).text()), 64)


class OutcomeTest(unittest.TestCase):
    OUTCOME = Outcome(3.0, [0.0, 1.0], [[1.0, 2.0], [2.0, 2.5, 3.0]])

    def test_counts_and_times(self):
        self.assertAlmostEqual(self.OUTCOME.tokens_per_s, 5 / 3)
        self.assertAlmostEqual(self.OUTCOME.mean_first_token_s, 1.0)
        self.assertAlmostEqual(self.OUTCOME.decode_tokens_per_s, 3 / 2)

    def test_a_short_answer_is_an_error(self):
        asked = [Request((1,), None, 2), Request((1,), None, 4)]
        with self.assertRaisesRegex(RuntimeError, "request 1: 3 tokens instead of 4"):
            self.OUTCOME.check(asked)
        self.OUTCOME.check([asked[0], Request((1,), None, 3)])

    def test_percentile_is_one_of_the_values(self):
        self.assertEqual([percentile(range(1, 101), fraction) for fraction in (0.5, 0.99, 1)], [50, 99, 100])
        self.assertEqual(percentile([7], 0.5), 7)

    def test_stall_compares_gaps_during_the_prefill_with_the_others(self):
        # One stream with a token a second, but for the prefill of the long prompt from 3.5 to 8.
        outcome = Outcome(10.0, [0.0, 3.5], [[1, 2, 3, 8, 9, 10], [8]])
        self.assertAlmostEqual(stall(outcome)["p99_over_p50"], 5)


def http_answer(chunks: list, status: str = "200 OK") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body + b"0\r\n\r\n"


class StreamTest(unittest.TestCase):
    def test_an_event_has_the_time_of_its_last_byte(self):
        raw = http_answer([b'data: {"a": 1}\n\n', b'data: {"a"', b': 2}\n\ndata: [DONE]\n\n'])
        cut = raw.index(b": 2}") - 8
        arrivals = [(1.0, raw[:cut]), (2.0, raw[cut:-3]), (3.0, raw[-3:])]
        self.assertEqual(parse_events(arrivals), [(1.0, {"a": 1}), (2.0, {"a": 2})])

    def test_an_error_is_raised(self):
        with self.assertRaisesRegex(RuntimeError, "503"):
            parse_events([(1.0, http_answer([b"busy"], "503 Service Unavailable"))])

    def test_llama_cpp_counts_tokens_without_an_event(self):
        events = [(1.0, {"tokens_predicted": 1}), (2.0, {"tokens_predicted": 3}), (3.0, {"tokens_predicted": 3, "stop": True})]
        self.assertEqual(llama_cpp_peer.token_times(events), [1.0, 2.0, 2.0])

    def test_vllm_counts_token_ids(self):
        events = [(1.0, {"choices": [{"token_ids": [5, 6]}]}), (2.0, {"choices": []})]
        self.assertEqual(vllm_peer.token_times(events), [1.0, 1.0])
        with self.assertRaises(RuntimeError):
            vllm_peer.token_times([(1.0, {"error": {"message": "no"}})])


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

    def test_decode_alone_is_the_run_without_its_prefill(self):
        cells = [Cell("tiny", "fp32", 0, 1, 1, tokens) for tokens in (1, 5)]
        first, both = (least_seconds(cell, self.TINY, LIMITS) for cell in cells)
        self.assertAlmostEqual(decode_tokens_per_s_limit(cells[1], self.TINY, LIMITS), 4 / (both - first))

    def test_a_run_is_held_against_the_mean_of_what_was_sustained_on_both_sides(self):
        before = {"read_gb_s": 50.0, "sustained_read_gb_s": 30.0, "gemm_gflop_s": {"bf16": {"1": 10.0}}, "threads": 2}
        after = {"read_gb_s": 40.0, "sustained_read_gb_s": 34.0, "gemm_gflop_s": {"bf16": {"1": 30.0}}, "threads": 2}
        now = sustained(mean(before, after))
        self.assertEqual(now["read_gb_s"], 32.0)
        self.assertEqual(now["gemm_gflop_s"], {"bf16": {"1": 20.0}})

    def test_the_higher_of_two_measured_limits_counts(self):
        other = {"read_gb_s": 50.0, "copy_gb_s": 1.0, "gemm_gflop_s": {"bf16": {"1": 5.0, "256": 500.0}, "fp32": {"1": 1.0, "256": 1.0}}}
        self.assertEqual(best(LIMITS, other)["read_gb_s"], 50.0)
        self.assertEqual(best(LIMITS, other)["gemm_gflop_s"]["bf16"], {"1": 20.0, "256": 500.0})


def probe(peer: str, adapters: int = 0, **cell) -> Probe:
    return Probe(Setup(peer, adapters=adapters), Cell("125m", "bf16", adapters, 32, **cell))


def results(rates: dict, reasons: dict | None = None) -> Results:
    values = {key.key: {"tokens_per_s": {1: rate}, "first_token_s": {1: 1 / rate}} for key, rate in rates.items()}
    return Results(values, {key.key: reason for key, reason in (reasons or {}).items()})


class BarsTest(unittest.TestCase):
    LINES = {line.name: line for line in bars.lines()}

    def judge(self, name: str, measured: Results) -> list:
        return [figure.judge(measured) for figure in self.LINES[name].figures]

    def test_names_and_keys_are_unique(self):
        self.assertEqual(len(self.LINES), len(bars.lines()))
        probes = {probe for line in bars.lines() for probe in line.probes}
        self.assertEqual(len({probe.key for probe in probes}), len(probes))

    def test_no_two_probes_of_a_server_have_the_same_prompts(self):
        for setup, wanted in bars.by_setup(bars.lines()):
            self.assertEqual(len({probe.salt for probe in wanted}), len(wanted), setup)

    def test_all_peers_get_the_same_prompts(self):
        self.assertEqual(len({probe(name).salt for name in bars.PEERS}), 1)

    def test_the_best_peer_decides(self):
        measured = results({probe("tenon"): 160, probe("vllm"): 100, probe("llama.cpp"): 80})
        self.assertEqual(self.judge("base-32", measured)[0], (1.6, "vllm", True))

    def test_only_rounds_that_have_both_are_compared(self):
        measured = results({probe("tenon"): 100, probe("vllm"): 50})
        measured.values[probe("tenon").key]["tokens_per_s"] |= {2: 300, 3: 120}
        measured.values[probe("vllm").key]["tokens_per_s"] |= {3: 40, 4: 1000}
        self.assertEqual(self.judge("base-32", measured)[0], (2.5, "vllm", True))

    def test_figures_of_different_rounds_are_not_compared(self):
        measured = results({probe("tenon"): 100})
        measured.values[probe("vllm").key] = {"tokens_per_s": {2: 50}}
        self.assertIsNone(self.judge("base-32", measured)[0][0])

    def test_a_missed_bar_is_not_met(self):
        self.assertFalse(self.judge("base-32", results({probe("tenon"): 159, probe("vllm"): 100}))[0][2])

    def test_least_time_to_first_token_decides(self):
        # 1 / rate is the time: the peer with 50 is the soonest.
        measured = results({probe("tenon", 8): 100, probe("vllm", 8): 50, probe("llama.cpp", 8): 10})
        self.assertEqual(self.judge("ttft", measured)[1], (0.5, "vllm", True))

    def test_own_lines_need_no_peer(self):
        for name in ("unused", "stall", "rpc", "int8", "neighbour", "rotation"):
            self.assertLessEqual({probe.setup.peer for probe in self.LINES[name].probes}, set(bars.OWN), name)

    def test_loss_is_what_is_missing_to_one(self):
        text, = self.LINES["rpc"].probes
        (loss, _, met), = self.judge("rpc", Results({text.key: {bars.RATE_RATIO: {1: 0.96}}}, {}))
        self.assertAlmostEqual(loss, 0.04)
        self.assertTrue(met)

    def test_what_did_not_run_says_why(self):
        int8, = self.LINES["int8"].probes
        measured = results({}, {int8: "this server has no flag --quantization"})
        self.assertEqual(self.judge("int8", measured), [(None, "tenon: this server has no flag --quantization", None)])
        self.assertIn("| not measured: tenon: this server has no flag --quantization |", bars.to_markdown([self.LINES["int8"]], measured))

    def test_a_slow_peer_is_looked_at_once(self):
        slow, fast = probe("mistral.rs"), probe("vllm")
        self.assertFalse(bars.is_hopeless(results({fast: 100}), slow))
        self.assertTrue(bars.is_hopeless(results({fast: 100, slow: 49}), slow))
        self.assertFalse(bars.is_hopeless(results({fast: 100, slow: 51}), slow))

    def test_a_server_is_started_once_for_all_lines(self):
        setups = [setup for setup, _ in bars.by_setup(bars.lines())]
        self.assertEqual(len(setups), len(set(setups)))
        order = [(setup.model, setup.dtype, setup.adapters) for setup in setups]
        self.assertEqual(len(set(order)), sum(a != b for a, b in zip(order, [None, *order])))

    def test_fewer_adapters_than_the_plot_has(self):
        self.assertEqual(sorted({k for k, _ in bars.rotation_probes(40)}), [1, 10, 32, 40])


class FixedPeer:
    """Has an answer for each time that it is asked."""

    def __init__(self, rates: list):
        self.rates, self.asked = rates, []


class SideBySideTest(unittest.TestCase):
    def setUp(self):
        def way(peer, cell, vocab_size, salt):
            peer.asked.append((cell.adapters, salt))
            return {"tokens_per_s": peer.rates[len(peer.asked) - 1], "only here": 1}

        ways = unittest.mock.patch.dict(probes.WAYS, {"serve": way, "engine": lambda *args: {"tokens_per_s": way(*args)["tokens_per_s"]}})
        ways.start()
        self.addCleanup(ways.stop)

    def test_medians_of_both_in_turn(self):
        own, other = FixedPeer([90, 80, 10]), FixedPeer([100, 50, 160])
        beside = dataclasses.replace(probe("tenon"), beside=Probe(Setup("engine"), CELL, "engine"))
        self.assertEqual(probes.side_by_side(own, beside, other, 100, "s"), {"tokens_per_s ratio": 0.8})
        self.assertEqual([salt for _, salt in own.asked], [salt for _, salt in other.asked])

    def test_one_peer_may_be_both(self):
        peer = FixedPeer([50, 100, 100, 50, 50, 100])
        beside = dataclasses.replace(probe("tenon", 8), beside=Probe(probe("tenon", 8).setup, CELL))
        self.assertEqual(probes.side_by_side(peer, beside, peer, 100, "")["tokens_per_s ratio"], 0.5)
        self.assertEqual([adapters for adapters, _ in peer.asked], [8, 0, 0, 8, 8, 0])

    def test_what_is_wrong_both_ways_is_gone(self):
        ratios = probes.balanced({"tokens_per_s ratio": 0.95 * 0.98}, {"tokens_per_s ratio": 0.95 / 0.98})
        self.assertAlmostEqual(ratios["tokens_per_s ratio"], 0.95)


class HistoryTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "bars.json"

    def test_rounds_of_several_calls_add_up(self):
        for number in (1.0, 3.0):
            history = History(self.path, {"CPU": "a"})
            history.data["rounds"] += 1
            history.add(probe("vllm"), "build", 0.1, {"tokens_per_s": number})
            history.write()
        self.assertEqual(history.results("build").median(probe("vllm"), "tokens_per_s"), 2.0)

    def test_own_figures_of_another_build_do_not_count(self):
        history = History(self.path, {"CPU": "a"})
        for peer in ("tenon", "vllm"):
            history.add(probe(peer), "old", 0.1, {"tokens_per_s": 1.0})
        self.assertIsNone(history.results("new").median(probe("tenon"), "tokens_per_s"))
        self.assertEqual(history.results("new").median(probe("vllm"), "tokens_per_s"), 1.0)

    def test_another_machine_is_refused(self):
        self.path.write_text(json.dumps({"machine": {"CPU": "b"}}))
        with self.assertRaisesRegex(ValueError, "another machine: b"):
            History(self.path, {"CPU": "a"})


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
