#include "adapters/methods/compiler.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/methods/lora.h"

namespace tenon {
namespace {

absl::Status CompileBody(const AdapterSpec& spec, const BaseShape& base, at::ScalarType dtype,
                         CompiledAdapter* adapter, CompileReport* report) {
  try {
    if (const auto* lora = std::get_if<LoraSpec>(&spec.body)) {
      return CompileLora(*lora, base, dtype, adapter, report);
    }
    return absl::UnimplementedError(absl::StrCat("method ", spec.method));
  } catch (const c10::OutOfMemoryError&) {
    return QuotaExceededError("OUT_OF_MEMORY", "host_memory", "no memory to compile the adapter");
  } catch (const std::bad_alloc&) {
    return QuotaExceededError("OUT_OF_MEMORY", "host_memory", "no memory to compile the adapter");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("compiling the adapter: ", error.what()));
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Compile(const AdapterSpec& spec,
                                                               const BaseShape& base,
                                                               at::ScalarType dtype,
                                                               CompileReport* report) {
  auto adapter = std::make_shared<CompiledAdapter>(base.num_layers);
  CompileReport facts;
  facts.method = spec.method;
  facts.warnings = spec.warnings;
  TENON_RETURN_IF_ERROR(CompileBody(spec, base, dtype, adapter.get(), &facts));
  if (facts.num_sites == 0) {
    return PreconditionError("NO_SITES", "adapter", "the adapter changes no module of the base");
  }
  if (facts.delta_norm_bound == 0) {
    facts.warnings.push_back("all deltas are zero: the adapter changes nothing");
  }
  facts.resident_bytes = adapter->resident_bytes();
  if (report != nullptr) {
    *report = std::move(facts);
  }
  return std::shared_ptr<const CompiledAdapter>(std::move(adapter));
}

}  // namespace tenon
