"""Hugging Face transformers + PEFT on the serving benchmark's workload: the peer of against_peft.py.

Two ways to serve many adapters with the reference library, each timed on its own:
  mixed     one generate() over all requests with `adapter_names`, one entry a row ("__base__" for the bare model)
  grouped   one generate() per adapter, over that adapter's requests
Greedy, end tokens ignored, the same prompts (token ids) as the other side.
"""
import time

import peft
import torch
import transformers


class PeftBaseline:
    """The model with all adapters loaded, ready to be timed."""

    def __init__(self, model_dir: str, adapters: dict, dtype: torch.dtype, threads: int):
        """adapters: name -> PEFT folder."""
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        base = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).eval()
        names = list(adapters)
        model = peft.PeftModel.from_pretrained(
            base, adapters[names[0]], adapter_name=names[0], autocast_adapter_dtype=False)
        for name in names[1:]:
            model.load_adapter(adapters[name], adapter_name=name, autocast_adapter_dtype=False)
        self._model = model.to(dtype).eval()

    @staticmethod
    def versions() -> str:
        return f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}"

    def _generate(self, prompts: list, adapter_names: list, output_tokens: int) -> list:
        """Greedy continuation of equally long prompts: [rows, output_tokens] ids."""
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=adapter_names, do_sample=False,
                min_new_tokens=output_tokens, max_new_tokens=output_tokens, pad_token_id=0)
        return out[:, ids.shape[1]:].tolist()

    def run(self, way: str, requests: list, output_tokens: int) -> tuple:
        """requests: [(prompt ids, adapter name or "")]. Returns (seconds, tokens of each request)."""
        tokens = [None] * len(requests)
        groups = {}
        for index, (_, adapter) in enumerate(requests):
            groups.setdefault("" if way == "mixed" else adapter, []).append(index)
        start = time.perf_counter()
        for indices in groups.values():
            names = [requests[i][1] or "__base__" for i in indices]
            outputs = self._generate([requests[i][0] for i in indices], names, output_tokens)
            for index, output in zip(indices, outputs):
                tokens[index] = output
        return time.perf_counter() - start, tokens
