#include "tests/source_dir.h"

#include "absl/strings/str_cat.h"

namespace tenon {

std::string SourcePath(absl::string_view relative) {
  return absl::StrCat(TENON_SOURCE_DIR, "/", relative);
}

}  // namespace tenon
