// The way into adapters/formats: files of any known dialect -> AdapterSpec.
#ifndef TENON_ADAPTERS_FORMATS_PARSE_ADAPTER_H_
#define TENON_ADAPTERS_FORMATS_PARSE_ADAPTER_H_

#include "absl/status/statusor.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/formats/file_set.h"

namespace tenon {

/// Reads and checks an uploaded folder. The dialect is told by content: `peft_type` in
/// adapter_config.json means Hugging Face PEFT. Everything is checked that can be without the base
/// model; the compiler in adapters/methods does the rest. INVALID_ARGUMENT, naming the file, field
/// or tensor, its value and the limit, otherwise. Safe on any bytes; thread-safe.
absl::StatusOr<AdapterSpec> ParseAdapter(FileSet files, const AdapterLimits& limits);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PARSE_ADAPTER_H_
