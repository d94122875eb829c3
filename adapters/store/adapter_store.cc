#include "adapters/store/adapter_store.h"

#include "adapters/base/status_macros.h"

namespace tenon {

absl::StatusOr<std::vector<AdapterInfo>> AdapterStore::List() {
  TENON_ASSIGN_OR_RETURN(const std::vector<AdapterName> names, Names());
  std::vector<AdapterInfo> infos;
  for (const AdapterName& name : names) {
    for (const auto& [version, info] : name.versions) {
      infos.push_back(*info);
    }
  }
  return infos;
}

}  // namespace tenon
