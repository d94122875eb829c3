#!/usr/bin/env python3
"""What report.py makes of the logs of a run."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report  # noqa: E402


def benchmark(tokens_per_s: float, step_ms: float) -> str:
    return "a table\n" + json.dumps({"output_tokens_per_s": tokens_per_s, "decode_step_ms": {"p50": step_ms},
                                     "steps": 70, "replayed_steps": 61}) + "\n"


class ReportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "parts.tsv").write_text("golden\t0\t12\nmerge_golden\t1\t3\ndecode_1\tskipped\t0\n")

    def test_decode_is_held_to_the_bytes_of_the_weights(self):
        (self.folder / "limits.log").write_text(
            json.dumps({"device": "H", "weight_bytes_per_step": 1e10, "copy_bytes_per_s": 2e12}) + "\n")
        (self.folder / "decode_1.log").write_text(benchmark(100, 10.0))
        self.assertEqual(report.make_report(self.folder, "abc\n")["of_weight_limit"], {"decode_1": 0.5})

    def test_adapters_are_held_to_the_base(self):
        (self.folder / "decode_32.log").write_text(benchmark(1000, 10.0))
        (self.folder / "decode_32_adapters_32.log").write_text(benchmark(870, 11.0))
        made = report.make_report(self.folder, "abc\n")
        self.assertEqual(made["of_base_tokens_per_s"], {"decode_32_adapters_32": 0.87})
        self.assertIn("| 87.0% | 61 of 70 |", report.markdown(made))

    def test_parts_that_failed_or_were_skipped_are_named(self):
        text = report.markdown(report.make_report(self.folder, "abc\n"))
        self.assertIn("| golden | ok | 12 |", text)
        self.assertIn("| merge_golden | 1 | 3 |", text)
        self.assertIn("| decode_1 | skipped | 0 |", text)

    def test_log_without_a_result_is_left_out(self):
        (self.folder / "decode_1.log").write_text("error: no GPU\n")
        self.assertEqual(report.make_report(self.folder, "abc\n")["benchmarks"], {})


if __name__ == "__main__":
    unittest.main()
