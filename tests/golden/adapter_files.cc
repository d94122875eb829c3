#include "tests/golden/adapter_files.h"

#include "adapters/base/status_macros.h"
#include "server/model/mapped_file.h"

namespace tenon {

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CompileAdapterFolder(
    const std::string& folder, const BaseShape& base, at::ScalarType dtype) {
  (void)folder;
  (void)dtype;
  return std::make_shared<const CompiledAdapter>(base.num_layers);
}

}  // namespace tenon
