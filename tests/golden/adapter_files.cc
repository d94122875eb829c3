#include "tests/golden/adapter_files.h"

#include "adapters/base/status_macros.h"
#include "adapters/formats/parse_adapter.h"
#include "adapters/methods/compiler.h"
#include "server/model/mapped_file.h"

namespace tenon {

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CompileAdapterFolder(
    const std::string& folder, const BaseShape& base, at::ScalarType dtype) {
  FileSet files;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    TENON_ASSIGN_OR_RETURN(files[name], MapFile(folder + "/" + name));
  }
  TENON_ASSIGN_OR_RETURN(const AdapterSpec spec, ParseAdapter(std::move(files), {}));
  return Compile(spec, base, dtype, /*report=*/nullptr);
}

}  // namespace tenon
