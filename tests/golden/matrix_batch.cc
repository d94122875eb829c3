#include "tests/golden/matrix_batch.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/status_macros.h"
#include "tests/device/test_device.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/golden_run.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

// Room for every case of an architecture at once: over 250 of at most 37 + 32 tokens.
constexpr int64_t kNumBlocks = 4096;
constexpr int64_t kMaxRows = 1024;
constexpr int64_t kMaxTokens = int64_t{1} << 15;

constexpr std::pair<const char*, const char*> kLibraries[] = {
    {"peft", "peft"}, {"adapterhub", "adapterhub"}, {"composition", "peft-composition"}};

DriverRequest MakeRequest(const GoldenCase& golden, const std::string& library,
                          int64_t vocab_size) {
  DriverRequest request = GreedyRequest(golden, vocab_size);
  if (!request.adapter.empty()) {
    request.adapter = absl::StrCat(library, "/", request.adapter);
  }
  for (auto& [adapter, weight] : request.selection) {
    adapter = absl::StrCat(library, "/", adapter);
  }
  return request;
}

}  // namespace

absl::StatusOr<MatrixBatch> MatrixBatch::Load(const std::string& architecture, at::ScalarType dtype,
                                              int64_t num_ranks) {
  const std::string folder =
      SourcePath(absl::StrCat("tests/golden/data/matrix/", architecture, "/"));
  MatrixBatch batch;
  ModelOptions options;
  options.dtype = dtype;
  options.device = SelectedTestDevice().device;
  options.kernels = SelectedTestDevice().fast;
  options.num_ranks = num_ranks;
  TENON_ASSIGN_OR_RETURN(batch.model_, LoadModel(folder + "model", options));
  for (const auto& [name, library] : kLibraries) {
    if (std::filesystem::exists(folder + name)) {
      TENON_RETURN_IF_ERROR(batch.AddLibrary(folder + name, library));
    }
  }
  batch.driver_.num_blocks = kNumBlocks;
  batch.driver_.max_sequences = kMaxRows;
  batch.driver_.max_batch_tokens = kMaxTokens;
  batch.driver_.max_context_tokens = batch.model_.config.max_position_embeddings;
  TENON_ASSIGN_OR_RETURN(
      batch.runner_,
      TensorParallelRunner::Create(batch.model_.decoder, kNumBlocks, batch.driver_.block_size,
                                   batch.driver_.max_context_tokens));
  batch.runner_->set_poison_freed_blocks(true);
  return batch;
}

absl::Status MatrixBatch::AddLibrary(const std::string& folder, const std::string& library) {
  TENON_ASSIGN_OR_RETURN(Goldens goldens, LoadGoldens(folder, SourcePath("")));
  for (const auto& [name, path] : goldens.adapters) {
    const auto adapter = CompileAdapterFolder(path, model_.base, model_.dtype);
    if (!adapter.ok()) {
      return absl::Status(adapter.status().code(),
                          absl::StrCat(path, ": ", adapter.status().message()));
    }
    adapters_[absl::StrCat(library, "/", name)] = *adapter;
  }
  for (GoldenCase& golden : goldens.cases) {
    MatrixCase added;
    added.library = library;
    added.method = golden.name.substr(0, golden.name.rfind('/'));
    added.request = MakeRequest(golden, library, model_.config.vocab_size);
    added.golden = std::move(golden);
    cases_.push_back(std::move(added));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DriverResult>> MatrixBatch::RunTogether() {
  std::vector<DriverRequest> requests;
  size_t num_steps = 0;
  for (const MatrixCase& one : cases_) {
    requests.push_back(one.request);
    num_steps = std::max(num_steps, one.golden.tokens.size());
  }
  std::vector<size_t> rows;
  DriverOptions options = driver_;
  options.observe = [&rows](const Batch& batch) { rows.push_back(batch.rows.size()); };
  TENON_ASSIGN_OR_RETURN(auto results, tenon::RunTogether(*runner_, adapters_, requests, options));
  // A prompt that was cut or had to wait would have taken more steps.
  if (rows != std::vector<size_t>(num_steps, requests.size())) {
    return absl::InternalError(absl::StrCat("not ", num_steps, " steps of ", requests.size(),
                                            " rows each, but rows ", absl::StrJoin(rows, " ")));
  }
  return results;
}

absl::StatusOr<DriverResult> MatrixBatch::RunAlone(const MatrixCase& one) {
  TENON_ASSIGN_OR_RETURN(auto results,
                         tenon::RunTogether(*runner_, adapters_, {one.request}, driver_));
  return std::move(results.front());
}

}  // namespace tenon
