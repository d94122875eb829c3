#include "adapters/registry/adapter_owner.h"

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {

absl::StatusOr<std::string> ConsumeOwner(absl::string_view field, absl::string_view* text) {
  const size_t slash = text->find('/');
  if (slash == absl::string_view::npos) {
    return std::string();
  }
  std::string owner(text->substr(0, slash));
  TENON_RETURN_IF_ERROR(ValidateName(field, owner));
  text->remove_prefix(slash + 1);
  return owner;
}

std::string NameFor(absl::string_view reader, const AdapterId& id) {
  return reader == id.tenant ? id.name : absl::StrCat(id.tenant, "/", id.name);
}

absl::Status AdapterNotFoundError(absl::string_view ref) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref,
                               absl::StrCat("adapter ", Quoted(ref), " is not live"));
}

}  // namespace tenon
