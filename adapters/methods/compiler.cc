#include "adapters/methods/compiler.h"

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/methods/adapter_builder.h"
#include "adapters/methods/adapter_cut.h"
#include "adapters/methods/bottleneck.h"
#include "adapters/methods/context.h"
#include "adapters/methods/factored.h"
#include "adapters/methods/ia3.h"
#include "adapters/methods/lora.h"
#include "adapters/methods/shared_parts.h"

namespace tenon {
namespace {

// One overload a method.
struct BodyCompiler {
  AdapterBuilder& builder;

  absl::Status operator()(const LoraSpec& spec) const { return CompileLora(spec, builder); }
  absl::Status operator()(const VeraSpec& spec) const { return CompileVera(spec, builder); }
  absl::Status operator()(const LohaSpec& spec) const { return CompileLoha(spec, builder); }
  absl::Status operator()(const LokrSpec& spec) const { return CompileLokr(spec, builder); }
  absl::Status operator()(const Ia3Spec& spec) const { return CompileIa3(spec, builder); }
  absl::Status operator()(const PromptSpec& spec) const { return CompilePrompt(spec, builder); }
  absl::Status operator()(const PrefixSpec& spec) const { return CompilePrefix(spec, builder); }
  absl::Status operator()(const BottleneckSpec& spec) const {
    return CompileBottlenecks(spec, builder);
  }
  absl::Status operator()(const TokenRowsSpec&) const { return absl::OkStatus(); }
};

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CompileParts(const AdapterSpec& spec,
                                                                    const BaseShape& base,
                                                                    at::ScalarType dtype,
                                                                    CompileReport* report) {
  const c10::InferenceMode inference_mode;
  AdapterBuilder builder(base, dtype, report);
  TENON_RETURN_IF_ERROR(std::visit(BodyCompiler{builder}, spec.body));
  TENON_RETURN_IF_ERROR(CompileSharedParts(spec.shared, builder));
  TENON_ASSIGN_OR_RETURN(std::shared_ptr<const CompiledAdapter> adapter, builder.Finish());
  if (base.num_ranks > 1) {
    TENON_ASSIGN_OR_RETURN(adapter, CutAdapter(*adapter, base));
    report->resident_bytes = adapter->resident_bytes();
    return adapter;
  }
  return base.device.is_cpu() ? adapter : adapter->OnDevice(base.device);
}

absl::Status NoMemory() {
  return QuotaExceededError("OUT_OF_MEMORY", "host_memory", "no memory to compile the adapter");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Compile(const AdapterSpec& spec,
                                                               const BaseShape& base,
                                                               at::ScalarType dtype,
                                                               CompileReport* report) {
  CompileReport facts;
  facts.method = spec.method;
  facts.warnings = spec.warnings;
  for (const auto& [name, file] : spec.files) {
    facts.stored_bytes += static_cast<int64_t>(file.bytes.size());
  }
  try {
    TENON_ASSIGN_OR_RETURN(std::shared_ptr<const CompiledAdapter> adapter,
                           CompileParts(spec, base, dtype, &facts));
    if (report != nullptr) {
      *report = std::move(facts);
    }
    return adapter;
  } catch (const c10::OutOfMemoryError&) {
    return NoMemory();
  } catch (const std::bad_alloc&) {
    return NoMemory();
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("compiling the adapter: ", error.what()));
  }
}

}  // namespace tenon
