#include "adapters/formats/file_set.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

// What PEFT's and AdapterHub's save_pretrained and the Hugging Face Trainer leave in an adapter
// folder. Only the first three are read; the rest is accepted so that a folder uploads as it is.
constexpr absl::string_view kAdapterFileNames[] = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter.safetensors",
    "adapter_interface.json",
    "model_head.safetensors",
    ".gitattributes",
    "LICENSE",
    "README.md",
    "added_tokens.json",
    "all_results.json",
    "chat_template.jinja",
    "config.json",
    "eval_results.json",
    "generation_config.json",
    "head_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "train_results.json",
    "trainer_state.json",
    "training_args.json",
    "vocab.json",
};

// Extensions under which torch.save and pickle write.
constexpr absl::string_view kPickleSuffixes[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"};

}  // namespace

bool IsAdapterFileName(absl::string_view name) {
  return std::find(std::begin(kAdapterFileNames), std::end(kAdapterFileNames), name) !=
         std::end(kAdapterFileNames);
}

absl::Status CheckAdapterFileName(absl::string_view name) {
  if (IsAdapterFileName(name)) {
    return absl::OkStatus();
  }
  for (absl::string_view suffix : kPickleSuffixes) {
    if (absl::EndsWith(name, suffix)) {
      return InvalidAdapterError(
          "UNSAFE_FILE", name,
          absl::StrCat("file ", Quoted(name),
                       " is a pickle, which is never loaded because it can run code; save the "
                       "adapter as safetensors (PEFT: save_pretrained(dir, "
                       "safe_serialization=True)) and upload adapter_model.safetensors"));
    }
  }
  return InvalidAdapterError(
      "UNKNOWN_FILE", name,
      absl::StrCat("file ", Quoted(name),
                   " is not part of an adapter; expected adapter_config.json and "
                   "adapter_model.safetensors"));
}

}  // namespace tenon
