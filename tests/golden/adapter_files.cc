#include "tests/golden/adapter_files.h"

#include <filesystem>

#include "adapters/base/status_macros.h"
#include "adapters/formats/parse_adapter.h"
#include "adapters/methods/compiler.h"
#include "server/model/mapped_file.h"

namespace tenon {

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CompileAdapterFolder(
    const std::string& folder, const BaseShape& base, at::ScalarType dtype) {
  FileSet files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    TENON_ASSIGN_OR_RETURN(files[entry.path().filename().string()], MapFile(entry.path().string()));
  }
  TENON_ASSIGN_OR_RETURN(const AdapterSpec spec, ParseAdapter(std::move(files), {}));
  return Compile(spec, base, dtype, /*report=*/nullptr);
}

}  // namespace tenon
